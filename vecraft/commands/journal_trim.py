"""`vecraft journal trim`: cuts off the old part of the log of a running node, over its REST API; says before what goes."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence
from typing import Any

from vecraft.commands import CommandError, node_url, print_table
from vecraft.flags import add_settings
from vecraft.settings import Settings

TEXT = "say what may go of the old part of the log of a running node, or cut it off"
PATH = "/v1/admin/journal/trim"
COLUMNS = ("partition", "from", "to", "records", "bytes", "oldest", "newest", "reason")
TITLES = {"bytes": "bytes (about)", "reason": "what keeps the rest"}
TIMEOUT_S = 24 * 3600.0
"""The snapshot on which the cut rests is read again before, and the space is given back after it."""

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_AGE = re.compile("([0-9]{1,9})([smhd])")


def add_trim(actions: Any) -> None:
    """Adds the action to the parser of `vecraft journal`."""
    parser = actions.add_parser("trim", help=TEXT, description=f"{TEXT.capitalize()} (docs/operations.md, Cutting the log).")
    does = parser.add_mutually_exclusive_group(required=True)
    does.add_argument("--dry-run", action="store_true", help="say what would go and what nobody can read then; change nothing")
    does.add_argument("--yes", action="store_true", help="cut it off")
    text = "age from which records go, such as 30d, 12h, 90m or 0s (default: --journal-retention-s of the node)"
    parser.add_argument("--retention", type=_age_s, metavar="AGE", help=text)
    text = "a node that is behind, and whose position shall not count: it will start from a snapshot; may be repeated"
    parser.add_argument("--beyond", action="append", default=[], metavar="NODE", help=text)
    parser.add_argument("--url", metavar="URL", help="address of the node (default: that of --host and --port)")
    add_settings(parser, ("host", "port"))


def trim(settings: Settings, options: argparse.Namespace) -> int:
    """Prints what goes, or has gone. Raises CommandError when the node refuses."""
    from vecraft.http_client import Client, RequestFailed

    body = {"dry_run": options.dry_run, "retention_s": options.retention, "beyond": options.beyond}
    try:
        with Client(node_url(settings, options.url), TIMEOUT_S) as client:
            found = client.call("POST", PATH, body)
    except RequestFailed as error:
        raise CommandError(str(error)) from error
    _print(found["partitions"])
    records = sum(part["records"] for part in found["partitions"])
    if not records:
        print("nothing can be cut off now")
    elif options.dry_run:
        print(f"{records} records would go. What nobody could read any more:", *found["unreadable"], sep="\n  ")
        print("nothing is cut off yet: say --yes in the place of --dry-run")
    else:
        print(f"{records} records are cut off. What nobody can read any more:", *found["unreadable"], sep="\n  ")
    return 0


def _age_s(text: str) -> int:
    if (match := _AGE.fullmatch(text)) is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no age, must be a number and one of s, m, h, d, such as 30d")
    return int(match[1]) * _UNITS_S[match[2]]


def _print(parts: Sequence[Mapping[str, Any]]) -> None:
    rows = [
        tuple(TITLES.get(name, name) for name in COLUMNS),
        *(tuple(str(part.get(name, "-")) for name in COLUMNS) for part in parts),
    ]
    print_table(rows)
