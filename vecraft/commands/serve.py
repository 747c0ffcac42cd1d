"""`vecraft serve`: runs a node until SIGINT or SIGTERM."""

from __future__ import annotations

import argparse
import gc

from vecraft.commands import CommandError
from vecraft.flags import add_settings
from vecraft.settings import Settings

DESCRIPTION = """\
Runs a node until SIGINT or SIGTERM. Without further settings its journal is embedded: one process and one folder, no Kafka.
Each setting is a flag, a variable VECRAFT_…, and a key of the TOML file; the first of these that says something wins."""
EXAMPLES = """\
examples:
  vecraft serve --data-dir data
  vecraft serve --config vecraft.toml --port 0
  vecraft serve --journal kafka --bootstrap-servers broker1:9092,broker2:9092 --preset prod --node left --data-dir left
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    add_settings(parser)


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Returns after a clean stop."""
    from journal.log import JournalError
    from vecraft.logs import log_uncaught
    from vecraft.node import Node
    from vecraft.roles import StartError

    log_uncaught()
    gc.freeze()  # imported modules live as long as the process: scanning them took an eighth of a replay's time
    try:
        Node(settings).run()
    except (StartError, JournalError) as error:
        raise CommandError(str(error)) from error
    return 0
