"""`vecraft audit verify`: compares the log with the checkpoints of its hash chains, and says what is not as it was noted."""

from __future__ import annotations

import argparse
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from vecraft.commands import CommandError
from vecraft.flags import add_settings
from vecraft.settings import Settings

if TYPE_CHECKING:
    from replayer.audit.checkpoints import Checkpoints

DESCRIPTION = """\
Verifies the log with the checkpoints that each node notes. Reads all of the log: of a folder, also while a node serves it, or of
Kafka. Exit status 1 when anything was changed, removed or put in. docs/audit.md says what that proves."""
EXAMPLES = """\
examples:
  vecraft audit verify --data-dir data
  vecraft audit verify --journal kafka --bootstrap-servers broker1:9092 --checkpoints left.jsonl --checkpoints right.jsonl
"""
SHOWN = ("data_dir", "journal", "bootstrap_servers", "kafka_config", "topic_prefix")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    text = "read the log again, and name each range of records that is not the one that was noted"
    verify = actions.add_parser("verify", help=text, description=f"{text.capitalize()}.")
    verify.add_argument(
        "--checkpoints",
        action="append",
        type=Path,
        metavar="FILE",
        help="file of checkpoints, or an answer of GET /v1/audit/checkpoints or /v1/audit/proof that was kept; several, as of "
        "all nodes, are compared with each other, too (default: audit/checkpoints.jsonl in --data-dir)",
    )
    add_settings(verify, SHOWN)


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Prints what differs; returns 1 if anything does. Raises CommandError when the log or a file cannot be read."""
    from journal.log import JournalError
    from replayer.audit.verification import differences, verify
    from vecraft.commands.journal import open_to_read, partitions_of
    from vecraft.recovery import ProgressLines
    from vecraft.roles import checkpoints_path

    files = {str(path): _read(path) for path in options.checkpoints or [checkpoints_path(settings)]}
    try:
        with ExitStack() as stack:
            journal = open_to_read(settings, stack)
            found = verify(journal, partitions_of(settings), files, ProgressLines("verifying"))
    except JournalError as error:
        raise CommandError(str(error)) from error
    disagreements, remarks = differences(files)
    for text in dict.fromkeys([*remarks, *found.remarks]):
        print(text)
    for fault in [*disagreements, *found.faults]:
        print(f"DIFFERS  {fault}")
    if disagreements or found.faults:
        print("the log is not the one that the checkpoints were noted of")
        return 1
    print(f"verified: {found.covered} of {found.records} records are those that were noted, {_times(files)}")
    return 0


def _read(path: Path) -> Checkpoints:
    from replayer.audit.checkpoints import CheckpointsDamaged, read_kept

    try:
        return read_kept(path)
    except FileNotFoundError as error:
        raise CommandError(f"there are no checkpoints in {path}: each node notes them in its --data-dir") from error
    except (OSError, CheckpointsDamaged) as error:
        raise CommandError(f"the checkpoints cannot be used: {error}") from error


def _times(files: dict[str, Checkpoints]) -> str:
    """When the last line of each file was noted."""
    return ", ".join(f"{name} until {known.at or 'never'}" for name, known in files.items())
