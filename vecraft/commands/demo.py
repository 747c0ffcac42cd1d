"""`vecraft demo`: runs a node with real data and uses it over HTTP, like any client."""

from __future__ import annotations

import argparse

from vecraft.commands import CommandError
from vecraft.flags import add_settings
from vecraft.settings import Settings

DESCRIPTION = """\
Runs a node, fills it with the docstrings of Python's own library, searches them, changes one, and shows the journal's record of
that; then keeps serving. Takes the settings of `vecraft serve`; a second run on the same folder writes the same points again."""
EXAMPLES = """\
examples:
  vecraft demo
  vecraft demo --once --port 0 --data-dir scratch
"""
SHOWN = ("data_dir", "host", "port", "journal", "bootstrap_servers", "kafka_config")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.add_argument("--once", action="store_true", help="end after the show (default: keep serving)")
    add_settings(parser, SHOWN)


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Returns once the node has stopped."""
    try:
        from vecraft.demo.show import run_demo
    except ModuleNotFoundError as error:
        raise CommandError(f"the demo needs {error.name}, which comes with: pip install 'vecraft[demo]'") from None
    return run_demo(settings, options.once)
