"""One module per subcommand of `vecraft`. Each declares its arguments, and runs with the settings and the parsed arguments.

Owns the help, the output and the error texts of commands. Must not implement what a node does: see `vecraft/node.py`. Slow
imports are inside functions, so that `--help` is fast.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from journal.log import JournalError
    from vecraft.settings import Settings


class CommandError(Exception):
    """The command failed; the text is for the user."""


def journal_failure(error: JournalError, settings: Settings) -> CommandError:
    """The failure of a command because of the journal. When no broker answers where nobody has said that they are, it says what
    names them."""
    from journal.log import Indefinite

    unnamed = isinstance(error, Indefinite) and "bootstrap_servers" not in settings.model_fields_set
    return CommandError(f"{error}: --bootstrap-servers names the brokers" if unnamed else str(error))


def node_url(settings: Settings, url: str | None) -> str:
    """The address of the node that a command asks: `url`, by default that of the settings' host and port."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return url or f"http://{host}:{settings.port}"


def print_table(rows: Sequence[Sequence[str]]) -> None:
    """Prints rows of equal length, the titles first, with aligned columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip())


class Command(Protocol):
    """The interface of each module in this package."""

    def add_arguments(self, parser: argparse.ArgumentParser) -> None:
        """Declares the command's arguments, its description and its examples."""

    def run(self, settings: Settings, options: argparse.Namespace) -> int:
        """Runs the command. Returns the exit status. Raises CommandError."""
