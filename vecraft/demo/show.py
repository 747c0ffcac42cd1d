"""The steps of `vecraft demo`: load real data, search, change a point, print its record, and rewind, all over HTTP.

The node runs in the main thread, because it handles signals; the steps run in another thread and use only its URL. A second run
on the same data folder writes the same points again.
"""

from __future__ import annotations

import logging
import os
import platform
import shlex
import shutil
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tqdm import tqdm

from journal.hlc import COUNTER_BITS, millis_of
from vecraft import __version__
from vecraft.demo.corpus import DIMENSIONS, Docstring, LatentSemantics, standard_library
from vecraft.http_client import Client, RequestFailed, Unreachable
from vecraft.node import Node
from vecraft.roles import journal_folder
from vecraft.settings import Settings

COLLECTION = f"python-{platform.python_version()}"
"""One collection per Python version, because each version has other texts and so other embeddings."""
QUESTIONS = (
    ("cache the results of a function", ""),
    ("extract the members of an archive", ""),
    ("extract the members of an archive", "zipfile"),
)
"""Search text, and the module to search in ("" for all)."""
FORK = f"{COLLECTION}-before"
HITS = 5
BATCH_POINTS = 256
BULK_TIER = "2"
SUMMARY_CHARS = 64

READY_TIMEOUT_S = 60.0
ANSWER_TIMEOUT_S = 60
JOIN_S = 2.0


class DemoError(Exception):
    """A step of the demo failed; the text gives the reason."""


def run_demo(settings: Settings, once: bool) -> int:
    """Starts a node and runs the demo. Then stops if `once`, or else serves until a signal. Returns the exit status."""
    if problem := _port_problem(settings):
        return _failed(problem)
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.WARNING)  # keeps the output readable; the level is restored after the demo
    show = Show(Node(settings), once, before_serving=lambda: root.setLevel(level))
    thread = threading.Thread(target=show.run, name="show", daemon=True)
    thread.start()
    try:
        show.node.run()
    except (Exception, SystemExit) as error:
        return _failed(_node_problem(error, settings))
    except KeyboardInterrupt:  # before the node has installed its signal handlers
        return _failed("stopped before the node had started")
    thread.join(JOIN_S)
    if not show.over:
        return _failed(show.problem or "stopped before the end of the show")
    say("The node has stopped; what it has written is in the journal.")
    return 0


def say(text: str = "") -> None:
    print(text, flush=True)


def _failed(problem: str) -> int:
    print(f"vecraft demo: {problem}", file=sys.stderr, flush=True)
    return 1


def _port_problem(settings: Settings) -> str:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        with socket.create_server((settings.host, settings.port), family=family):
            return ""
    except OSError as error:
        place = f"{settings.host} port {settings.port}"
        reason = str(error.strerror).partition(" (")[0]
        return f"cannot listen on {place}: {reason}; name another port with --port, 0 for any that is free"


def _node_problem(error: BaseException, settings: Settings) -> str:
    if "lock file" in str(error):  # RocksDB has no error class for this
        return f"data folder {settings.data_dir} is in use by another process; name another with --data-dir"
    return f"the node failed: {type(error).__name__}: {error}"


class Show:
    """Runs the demo against `node`, in its own thread. `over` is true after success; `problem` is the reason of a failure."""

    def __init__(self, node: Node, once: bool, before_serving: Callable[[], None]) -> None:
        self.node = node
        self.over = False
        self.problem = ""
        self._once = once
        self._before_serving = before_serving

    def run(self) -> None:
        """Runs all steps. Then stops the node, after a failure or if `once`."""
        try:
            self._play()
            self.over = True
        except Unreachable:
            self.problem = "the node stopped before the end of the show"
        except (DemoError, RequestFailed) as error:
            self.problem = str(error)
        finally:
            if self._once or not self.over:
                self.node.stop()
            else:
                self._before_serving()

    def _play(self) -> None:
        if not self.node.started.wait(READY_TIMEOUT_S):
            raise DemoError(f"the node did not start within {READY_TIMEOUT_S:.0f} s")
        with Client(self.node.url, ANSWER_TIMEOUT_S) as client:
            client.wait_until_ready(READY_TIMEOUT_S)
            say(f"Vecraft DB {__version__} serves {self.node.url}; {_journal_place(self.node.settings)}")
            corpus, space = _read_input()
            create_collection(client)
            load(client, corpus, space)
            best = [search(client, space, words, module) for words, module in QUESTIONS]
            update(client, best[0], _journal_flags(self.node.settings))
            rewind(client, space, best[0])
        say(f"\nAPI docs: {self.node.url}/docs")
        if not self._once:
            say("The node serves on; Ctrl-C stops it.")


def _read_input() -> tuple[list[Docstring], LatentSemantics]:
    started_s = time.monotonic()
    corpus = standard_library()
    if not corpus:
        raise DemoError("this Python comes without the sources of its library, which are the demo's input")
    read_s = time.monotonic()
    space = LatentSemantics(corpus)
    say(f"Read {len(corpus):,} docstrings of Python's own library in {read_s - started_s:.1f} s,")
    say(f"embedded them by latent semantic analysis, {DIMENSIONS} dimensions, in {time.monotonic() - read_s:.1f} s.")
    return corpus, space


def create_collection(client: Client) -> None:
    """Creates the collection, unless it exists from an earlier run, and a payload index on `module`."""
    path = f"/collections/{COLLECTION}"
    if client.call("GET", f"{path}/exists")["exists"]:
        say(f"Collection {COLLECTION} is there from an earlier run: the same points are written again.")
    else:
        client.call("PUT", path, {"vectors": {"size": DIMENSIONS, "distance": "Cosine"}})
        say(f"Created collection {COLLECTION}, with a keyword index on module.")
    client.call("PUT", f"{path}/index", {"field_name": "module", "field_schema": "keyword"})  # idempotent


def load(client: Client, corpus: list[Docstring], space: LatentSemantics) -> None:
    """Upserts all docstrings in the bulk tier. Returns when they are searchable."""
    started_s = time.monotonic()
    points = [
        {"id": docstring.name, "vector": vector, "payload": docstring.payload()}
        for docstring, vector in zip(corpus, space.vectors, strict=True)
    ]
    path = f"/collections/{COLLECTION}/points"
    with tqdm(total=len(points), desc="Upsert", unit=" points", file=sys.stdout) as bar:
        for start in range(0, len(points), BATCH_POINTS):
            batch = points[start : start + BATCH_POINTS]
            client.call("PUT", path, {"points": batch}, {"X-Vecraft-Tier": BULK_TIER})
            bar.update(len(batch))
    count = client.call("POST", f"{path}/count?consistency=strong&timeout={ANSWER_TIMEOUT_S}")["count"]
    if count < len(points):
        raise DemoError(f"{len(points)} points were written and {count} are there")
    say(f"{count:,} points are in the journal and can be searched after {time.monotonic() - started_s:.1f} s.")


def search(client: Client, space: LatentSemantics, words: str, module: str) -> str:
    """Prints the nearest docstrings to `words`. Returns the id of the best hit."""
    body: dict[str, object] = {"vector": space.vector(words), "limit": HITS, "with_payload": ["name", "module", "summary"]}
    if module:
        body["filter"] = {"must": [{"key": "module", "match": {"value": module}}]}
    started_s = time.perf_counter()
    hits = client.call("POST", f"/collections/{COLLECTION}/points/search", body)
    took_ms = (time.perf_counter() - started_s) * 1000
    say(f"\nSearch: {words}{f', only in module {module}' if module else ''}  ({took_ms:.1f} ms)")
    if not hits:
        raise DemoError("the search found nothing")
    width = max(len(hit["payload"]["name"]) for hit in hits)
    for hit in hits:
        say(f"  {hit['score']:.3f}  {hit['payload']['name']:<{width}}  {hit['payload']['summary'][:SUMMARY_CHARS].rstrip()}")
    return str(hits[0]["id"])


def update(client: Client, point_id: str, journal_flags: str) -> None:
    """Changes a point with wait=false, reads it with the answer's position token, and prints the journal's record."""
    request_id = f"demo-{uuid.uuid4().hex[:12]}"
    note = f"best hit of the demo at {datetime.now(UTC):%Y-%m-%d %H:%M:%S}"
    path = f"/collections/{COLLECTION}/points"
    body = {"points": [point_id], "payload": {"note": note}}
    written = client.answer("POST", f"{path}/payload?wait=false", body, {"X-Request-Id": request_id})
    position = written.headers["X-Vecraft-Position"]
    say(f"\nUpdate: a note on {point_id}, wait=false, request {request_id}")
    say(f"  answer      {written.json()['result']['status']}, position token {position}")
    read = client.answer("GET", f"{path}/{point_id}", headers={"X-Vecraft-Position": position})
    seen = read.json()["result"]["payload"].get("note")
    if seen != note:
        raise DemoError(f"a read with the write's position token saw the note {seen!r} instead of {note!r}")
    say(f"  read        by that token, {read.headers['X-Vecraft-Sync']}")
    say(f"  seen        {seen}")
    say("The journal's record of it:")
    for record in client.call("GET", f"/v1/operations/{request_id}")["records"]:
        show_record(record, request_id, journal_flags)


def rewind(client: Client, space: LatentSemantics, point_id: str) -> None:
    """Deletes the best hit, searches as of the instant before, shows the point's history, forks that instant, and restores."""
    path, words = f"/collections/{COLLECTION}/points", QUESTIONS[0][0]
    before = client.answer("POST", f"{path}/count?as_of=-0s", {}).headers["X-Vecraft-As-Of"]
    client.call("POST", f"{path}/delete?wait=true", {"points": [point_id]})
    say(f"\nRewind: {point_id} is deleted; the instant before is {before}")
    body = {"vector": space.vector(words), "limit": 1}
    now, then = (client.call("POST", f"{path}/search{suffix}", body) for suffix in ("", f"?as_of={before}"))
    if then[0]["id"] != point_id or now[0]["id"] == point_id:
        raise DemoError(f"{point_id} is the best hit now, or was not before it was deleted")
    say(f"  now         {now[0]['score']:.3f}  {now[0]['id']}")
    say(f"  as of       {then[0]['score']:.3f}  {then[0]['id']}")
    say("Its history:")
    for change in client.call("GET", f"{path}/{quote(point_id, safe='')}/history"):
        say(f"  {change['time']}  {change.get('operation', ''):<14}{change.get('request_id', '')}")
    if client.call("GET", f"/collections/{FORK}/exists")["exists"]:
        client.call("DELETE", f"/collections/{FORK}")
    started_s = time.monotonic()
    fork = client.call("POST", f"/collections/{FORK}/fork?timeout={ANSWER_TIMEOUT_S}", {"from": COLLECTION, "as_of": before})
    say(f"Fork {FORK} has the {fork['points']:,} points of that instant after {time.monotonic() - started_s:.1f} s.")
    done = client.call("POST", f"/collections/{COLLECTION}/restore?wait=true", {"to": before})
    say(f"Restored {COLLECTION} to it: {done['upserted']} point written, {done['deleted']} deleted.")


def show_record(record: dict[str, Any], request_id: str, journal_flags: str) -> None:
    """Prints the position and the content of a record."""
    position = f"{record['topic']}/{record['partition']}/{record['offset']}"
    moment = datetime.fromtimestamp(millis_of(record["hlc"]) / 1000, UTC).isoformat(" ", "milliseconds")
    counter = record["hlc"] & (1 << COUNTER_BITS) - 1
    say(f"  position    {position}")
    say(f"  HLC         {record['hlc']} ({moment}, counter {counter})")
    say(f"  request id  {request_id}")
    say(f"  operation   {record['operation']}, {record['verdict']}")
    say(f"See it with:  {_command()} journal show {position} {journal_flags}")


def _journal_place(settings: Settings) -> str:
    if settings.journal == "kafka":
        return f"its journal is Kafka at {settings.bootstrap_servers}"
    return f"its journal lies in {journal_folder(settings)}"


def _journal_flags(settings: Settings) -> str:
    """The flags with which another command opens the same journal."""
    names = ["data_dir"] if settings.journal == "embedded" else ["journal", "bootstrap_servers", "topic_prefix"]
    return shlex.join(part for name in names for part in (f"--{name.replace('_', '-')}", str(getattr(settings, name))))


def _command() -> str:
    """The command `vecraft`, as the user can type it in this shell."""
    return "vecraft" if shutil.which("vecraft") else os.path.relpath(Path(sys.executable).with_name("vecraft"))
