"""`vecraft restore`: puts the state of a stopped node back from a snapshot."""

from __future__ import annotations

import argparse

from vecraft.commands import CommandError
from vecraft.flags import add_settings
from vecraft.settings import Settings

DESCRIPTION = """\
Puts the state of a stopped node back from the latest usable snapshot of its log, or from a given one. What is in the state folder
is put aside, and the log is not touched: the next start replays what it has after the snapshot."""
EXAMPLES = """\
examples:
  vecraft restore --from file:///backup --data-dir data
  vecraft restore --from s3://bucket/vecraft --snapshot 20261126T120000Z-0a1b2c --data-dir data
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.add_argument("--from", dest="place", metavar="URL", required=True, help="file:///folder or s3://bucket/prefix")
    parser.add_argument("--snapshot", metavar="ID", default="", help="id of the snapshot (default: the latest)")
    add_settings(parser, ("data_dir", "journal", "bootstrap_servers", "kafka_config", "topic_prefix", "preset"))


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Restores. Raises CommandError when there is nothing usable, or the node runs."""
    from journal.log import JournalError
    from vecraft.restoring import restore
    from vecraft.roles import StartError

    try:
        restore(settings, options.place, options.snapshot)
    except (JournalError, StartError, OSError) as error:
        raise CommandError(str(error)) from error
    return 0
