"""`vecraft ingest status|pause|resume|restart|move`: tells and controls the ingest of a running node, over its REST API."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from vecraft.commands import CommandError, node_url, print_table
from vecraft.flags import add_settings
from vecraft.settings import Settings

if TYPE_CHECKING:
    from vecraft.http_client import Client

DESCRIPTION = """\
The ingest of a running node: what becomes of each partition of its sources, and how to pause, resume, restart and move them.
What is changed holds on all nodes of the log, also after they are started again."""
EXAMPLES = """\
examples:
  vecraft ingest status --url http://127.0.0.1:6333
  vecraft ingest pause --source shop --partitions 0,3
  vecraft ingest move --source shop --to earliest               read all of its topic again
  vecraft ingest move --to 2026-01-31T12:00:00Z --partitions 2  go on with the first record at that time, or after it
"""
ACTIONS = {
    "status": "print the state of each partition, its position, its end and its lag",
    "pause": "stop reading, until it is resumed",
    "resume": "go on reading",
    "restart": "begin anew on all nodes; one that has failed is tried again at once",
    "move": "go on at another offset; what is read again is written again",
}
ALL_PARTITIONS = ("status", "restart")
COLUMNS = ("source", "topic", "partition", "state", "position", "end", "lag", "node", "since")
TIMEOUT_S = 60.0
DEFAULT_SOURCE = "default"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    for action, text in ACTIONS.items():
        parser = actions.add_parser(action, help=text, description=f"Ingest: {text}.")
        parser.add_argument("--url", metavar="URL", help="address of the node (default: that of --host and --port)")
        default = "all" if action == "status" else DEFAULT_SOURCE
        parser.add_argument("--source", metavar="NAME", help=f"name of the source (default: {default})")
        if action not in ALL_PARTITIONS:
            parser.add_argument("--partitions", type=_numbers, metavar="N,N", help="numbers of partitions (default: all)")
        if action == "move":
            text = "an offset, `earliest`, `latest`, or a time such as 2026-01-31T12:00:00Z"
            parser.add_argument("--to", type=_target, metavar="WHERE", required=True, help=text)
        add_settings(parser, ("host", "port"))


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Prints the status, after a change that of the changed source. Raises CommandError when the node refuses."""
    from vecraft.http_client import Client, RequestFailed, Unreachable

    try:
        with Client(node_url(settings, options.url), TIMEOUT_S) as client:
            if options.action != "status":
                _change(client, options)
            _print_status(client, options.source or (None if options.action == "status" else DEFAULT_SOURCE))
    except Unreachable as error:
        raise CommandError(f"{error}: start one with `vecraft serve`, or name another address with --url") from error
    except RequestFailed as error:
        raise CommandError(str(error)) from error
    return 0


def _change(client: Client, options: argparse.Namespace) -> None:
    body = {name: value for name in ("partitions", "to") if (value := getattr(options, name, None)) is not None}
    client.call("POST", f"{_path(options.source or DEFAULT_SOURCE)}/{options.action}", body)


def _print_status(client: Client, source: str | None) -> None:
    sources = client.call("GET", "/v1/ingest/sources")["sources"] if source is None else [client.call("GET", _path(source))]
    rows = [COLUMNS, *(row for each in sources for row in _rows(each))]
    print_table(rows)
    for each in sources:
        if (failure := each.get("last_failure")) is not None:
            print(f"\nlast failure of {each['name']} on this node, {_time(failure['at_ms'])}: {failure['text']}")


def _rows(source: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    if not source["partitions"]:
        yield (source["name"], source["topic"], "-", source["state"], *["-"] * (len(COLUMNS) - 4))
    for each in source["partitions"]:
        numbers = (str(each[name]) for name in ("position", "end", "lag"))
        since = _time(each["since_ms"]) if "since_ms" in each else "-"
        yield (source["name"], source["topic"], str(each["partition"]), each["state"], *numbers, each.get("node", "-"), since)


def _path(source: str) -> str:
    return f"/v1/ingest/sources/{quote(source, safe='')}"


def _time(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _numbers(text: str) -> list[int]:
    numbers = text.split(",")
    if not all(number.isascii() and number.isdecimal() and len(number) <= 9 for number in numbers):
        raise argparse.ArgumentTypeError(f"{text!r} must be numbers of partitions, with commas between them")
    return [int(number) for number in numbers]


def _target(text: str) -> int | str:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 18 else text
