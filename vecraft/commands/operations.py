"""`vecraft operations`: lists the records of the log of a running node, newest first, over its REST API."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from vecraft.commands import CommandError, node_url
from vecraft.flags import add_settings
from vecraft.settings import Settings

if TYPE_CHECKING:
    from vecraft.http_client import Client

DESCRIPTION = """\
The log of a running node, newest first: who wrote what, when, and what became of it. `vecraft journal` reads the log without a
node."""
EXAMPLES = """\
examples:
  vecraft operations --collection songs --limit 20
  vecraft operations --since 2026-01-31T12:00:00Z --until 2026-01-31T13:00:00Z --json
  vecraft operations --request-id my-request --url http://127.0.0.1:6333
"""
FILTERS = {
    "collection": ("NAME", "only of this collection: a name, an alias, or the id of a deleted one"),
    "since": ("TIME", "only from then on: a time such as 2026-01-31T12:00:00Z, or a stamp (HLC)"),
    "until": ("TIME", "only up to then"),
    "principal": ("NAME", "only what this principal wrote, or what came from this topic/partition of the ingest"),
    "request_id": ("ID", "only of this request"),
    "before": ("TOKEN", "only below this position: of an answer, or of an earlier list"),
}
MAX_PAGE = 1000
WORK_S, TIMEOUT_S = 30, 60.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.add_argument("--url", metavar="URL", help="address of the node (default: that of --host and --port)")
    for name, (metavar, text) in FILTERS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", metavar=metavar, help=text)
    parser.add_argument("--limit", type=_count, default=50, metavar="N", help="how many (default: 50)")
    parser.add_argument("--json", action="store_true", help="an object for each record, as the API has it (default: a line)")
    add_settings(parser, ("host", "port"))


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Prints the records. Raises CommandError when the node refuses."""
    from vecraft.http_client import Client, RequestFailed

    try:
        with Client(node_url(settings, options.url), TIMEOUT_S) as client:
            for row in _rows(client, options):
                print(_as_json(row) if options.json else _line(row), flush=True)
    except RequestFailed as error:
        raise CommandError(str(error)) from error
    return 0


def _rows(client: Client, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """The records, page by page, until there are enough or no more. Says in the end how to go on."""
    params = {name: value for name in FILTERS if (value := getattr(options, name)) is not None}
    missing = options.limit
    while missing:
        query = urlencode({**params, "limit": min(missing, MAX_PAGE), "timeout": WORK_S})
        answer = client.call("GET", f"/v1/operations?{query}")
        yield from answer["operations"]
        missing -= len(answer["operations"])
        if "next" not in answer:
            return
        params["before"] = answer["next"]
    print(f"more: --before {params['before']}", file=sys.stderr)


def _line(row: dict[str, Any]) -> str:
    collection = f" in {row['collection_name']}" if "collection_name" in row else ""
    what = f"{row['summary']}{collection}" if "summary" in row else row["fault"]
    who = row.get("principal") or row.get("request_id") or "-"
    return "  ".join((row.get("time", "-"), row["position"], row.get("outcome", "-"), who, what))


def _as_json(row: dict[str, Any]) -> str:
    import orjson

    return orjson.dumps(row).decode()


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < len(text) <= 9 and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of records, must be 1 to 999999999")
    return int(text)
