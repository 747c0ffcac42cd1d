"""`vecraft changes COLLECTION`: prints the changes of a collection of a running node, and follows them, over its REST API."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from vecraft.commands import CommandError, node_url
from vecraft.flags import add_settings
from vecraft.settings import Settings

if TYPE_CHECKING:
    from vecraft.http_client import Client

DESCRIPTION = """\
The changes of a collection in the order of their versions, one a line. In the end, also when it is interrupted, it says with
which --from to go on. What was printed last may then be printed again."""
EXAMPLES = """\
examples:
  vecraft changes songs --from -5m                what has changed in the last five minutes
  vecraft changes songs --from now --follow       what changes from now on
  vecraft changes songs --snapshot --follow --json --with-vector    all points, then their changes, as objects
"""
PAGE = 1000
WAIT_MS, TIMEOUT_S = 30_000, 90.0
RETRY_S = 1.0
"""With --follow: the pause before a node that does not answer is asked again."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description, parser.epilog = DESCRIPTION, EXAMPLES
    parser.add_argument("collection", metavar="COLLECTION", help="name or alias of the collection")
    parser.add_argument("--url", metavar="URL", help="address of the node (default: that of --host and --port)")
    begin = parser.add_mutually_exclusive_group()
    text = (
        "`earliest`, `now`, a time such as 2026-01-31T12:00:00Z, a time ago such as -5m, tag:NAME, or a token (default: earliest)"
    )
    begin.add_argument("--from", dest="start", metavar="WHERE", help=text)
    begin.add_argument("--snapshot", action="store_true", help="begin with all points as they are now")
    parser.add_argument("--follow", action="store_true", help="wait for more, and go on when the node is back after a failure")
    parser.add_argument("--json", action="store_true", help="an object for each change, as the API has it (default: a line)")
    parser.add_argument("--with-vector", action="store_true", help="with the vectors, which only --json shows")
    parser.add_argument("--with-before", action="store_true", help="with the state before each change, which only --json shows")
    add_settings(parser, ("host", "port"))


def run(settings: Settings, options: argparse.Namespace) -> int:
    """Prints the changes. Raises CommandError when the node refuses."""
    from vecraft.http_client import Client, RequestFailed

    flags = {"with_payload": options.json, "with_vector": options.with_vector, "with_before": options.with_before}
    params = {name: "true" if flag else "false" for name, flag in flags.items()} | {"limit": str(PAGE)}
    params |= {"snapshot": "initial"} if options.snapshot else {"from": options.start} if options.start else {}
    try:
        with Client(node_url(settings, options.url), TIMEOUT_S) as client:
            for change in _changes(client, options.collection, params, options.follow):
                print(_as_json(change) if options.json else _line(change), flush=True)
    except RequestFailed as error:
        raise CommandError(str(error)) from error
    finally:
        if "snapshot" not in params and params.get("from", "").startswith("f."):
            print(f"go on with: --from {params['from']}", file=sys.stderr)
    return 0


def _changes(client: Client, collection: str, params: dict[str, str], follow: bool) -> Iterator[dict[str, Any]]:
    """The changes page by page, until the past is over, or for ever. `params` names the place to go on in the end."""
    from vecraft.http_client import Unreachable

    while True:
        try:
            page = client.call("GET", f"/v1/collections/{quote(collection, safe='')}/changes?{urlencode(params)}")
        except Unreachable:
            if not follow or not params.get("from", "").startswith("f."):
                raise
            time.sleep(RETRY_S)
            continue
        yield from page["changes"]
        params.pop("snapshot", None)
        params["from"] = page["next"]
        if page["caught_up"] and not follow:
            return
        params["wait_ms"] = str(WAIT_MS if follow else 0)


def _line(change: dict[str, Any]) -> str:
    changed = change.get("changed", {"payload": [], "vectors": []})
    vectors = [f"vector {name}".rstrip() for name in changed["vectors"]]
    return "  ".join(
        (change["time"], change["op"].ljust(8), str(change["id"]), ", ".join([*vectors, *changed["payload"]]))
    ).rstrip()


def _as_json(change: dict[str, Any]) -> str:
    import orjson

    return orjson.dumps(change).decode()
