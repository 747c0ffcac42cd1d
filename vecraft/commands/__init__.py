"""One file for each subcommand of `vecraft`. Each declares its arguments and runs with the settings and what was given.

Owns what a command says to people: its help, its output, its errors. Must not hold what a node does: that is wired in
`vecraft/node.py`. Imports what takes long only where it runs, so that help comes at once.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from vecraft.settings import Settings


class CommandError(Exception):
    """The command cannot go on; the text says why, for whoever typed it."""


class Command(Protocol):
    """What each of the files has."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the command's arguments, its description and its examples."""

    def run(self, settings: Settings, options: argparse.Namespace) -> int:
        """Runs it. Returns the exit status. Raises CommandError."""
