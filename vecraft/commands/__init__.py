"""One module per subcommand of `vecraft`. Each declares its arguments, and runs with the settings and the parsed arguments.

Owns the help, the output and the error texts of commands. Must not implement what a node does: see `vecraft/node.py`. Slow
imports are inside functions, so that `--help` is fast.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from vecraft.settings import Settings


class CommandError(Exception):
    """The command failed; the text is for the user."""


class Command(Protocol):
    """The interface of each module in this package."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the command's arguments, its description and its examples."""

    def run(self, settings: Settings, options: argparse.Namespace) -> int:
        """Runs the command. Returns the exit status. Raises CommandError."""
