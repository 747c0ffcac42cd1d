"""`vecraft snapshots create|list|verify|prune|delete`: the snapshots of a running node, over its REST API; list and verify also
work on the place itself."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from vecraft.commands import CommandError, node_url, print_table
from vecraft.flags import add_settings
from vecraft.settings import Settings

DESCRIPTION = """\
Snapshots of a node's state in a folder or on S3, from which a node can start without replaying the whole log. The node must run
with --snapshot-url; `list` and `verify` need no node when the place is given."""
EXAMPLES = """\
examples:
  vecraft snapshots create --url http://127.0.0.1:6333
  vecraft snapshots list --place s3://bucket/vecraft
  vecraft snapshots verify 20261126T120000Z-0a1b2c --place file:///backup
  vecraft snapshots prune --keep 7 --keep-days 30
"""
ACTIONS = {
    "create": "make a snapshot, and return when it is committed",
    "list": "print all snapshots",
    "verify": "read a snapshot again, and compare it with its manifest",
    "prune": "remove the snapshots of the node that are not to be kept, and files that none needs",
    "delete": "remove one snapshot of the node",
}
COLUMNS = ("id", "node", "state", "points", "files", "bytes", "collections")
PATH = "/v1/admin/snapshots"
TIMEOUT_S = 24 * 3600.0
"""A snapshot of much data, or to a slow place, takes long."""

WITH_PLACE, WITH_ID = ("list", "verify"), ("verify", "delete")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    for action, text in ACTIONS.items():
        parser = actions.add_parser(action, help=text, description=f"Snapshots: {text}.")
        parser.add_argument("--url", metavar="URL", help="address of the node (default: that of --host and --port)")
        if action in WITH_ID:
            parser.add_argument("id", metavar="ID", help="id of the snapshot")
        if action in WITH_PLACE:
            parser.add_argument("--place", metavar="URL", help="file:///folder or s3://bucket/prefix, instead of a node")
        if action == "prune":
            parser.add_argument("--keep", type=int, metavar="N", required=True, help="latest snapshots that stay")
            parser.add_argument("--keep-days", type=int, metavar="N", default=0, help="days of which the last one stays, too")
        add_settings(parser, ("host", "port"))


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Prints the result; 1 if a verified snapshot is not sound. Raises CommandError."""
    if getattr(options, "place", None):
        return _at_place(options)
    from vecraft.http_client import Client, RequestFailed

    try:
        with Client(node_url(settings, options.url), TIMEOUT_S) as client:
            return _at_node(client, options)
    except RequestFailed as error:
        raise CommandError(str(error)) from error


def _at_node(client: Any, options: argparse.Namespace) -> int:
    match options.action:
        case "create":
            _print([client.call("POST", PATH)])
        case "list":
            _print(client.call("GET", PATH)["snapshots"])
        case "verify":
            return _verified(client.call("POST", f"{PATH}/{options.id}/verify")["faults"])
        case "prune":
            _removed(client.call("POST", f"{PATH}/prune", {"keep": options.keep, "keep_days": options.keep_days}))
        case "delete":
            _removed(client.call("DELETE", f"{PATH}/{options.id}"))
    return 0


def _at_place(options: argparse.Namespace) -> int:
    from snapshots.manifest import all_of, summary
    from snapshots.place import Place, PlaceError
    from snapshots.verify import faults

    try:
        place = Place(options.place)
        found = all_of(place)
        if options.action == "list":
            _print([summary(manifest) for manifest in found])
            return 0
        for manifest in found:
            if manifest.id == options.id:
                return _verified(list(faults(place, manifest)))
    except PlaceError as error:
        raise CommandError(str(error)) from error
    raise CommandError(f"there is no snapshot {options.id} at {options.place}")


def _print(snapshots: Sequence[Mapping[str, Any]]) -> None:
    rows = [("made", *COLUMNS), *((_time(each["created_ms"]), *(_text(each, name) for name in COLUMNS)) for each in snapshots)]
    print_table(rows)


def _text(snapshot: Mapping[str, Any], name: str) -> str:
    value = snapshot[name]
    if isinstance(value, list):
        return ",".join(value) or "-"
    return f"{snapshot[f'done_{name}']}/{value}" if f"done_{name}" in snapshot else str(value)


def _verified(faults: Sequence[str]) -> int:
    for fault in faults:
        print(fault)
    if not faults:
        print("the snapshot is sound")
    return 1 if faults else 0


def _removed(pruned: Mapping[str, Any]) -> None:
    for snapshot_id in pruned["snapshots"]:
        print(f"snapshot {snapshot_id} is removed")
    print(f"{pruned['files']} files with {pruned['bytes']} bytes are removed")


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
