"""The dialect's snapshots: what is downloaded can be recovered, and equals the original; what is broken changes nothing (V12)."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import pytest
from qdrant_client import QdrantClient, models

from gateway.handlers import archives
from snapshots import folder
from tests.conftest import refusal, result, start_node, until
from tests.gateway.dialect.walk.document import check

COUNT = 700
VECTORS = {
    "a": {"size": 6, "distance": "Cosine"},
    "half": {"size": 6, "distance": "Euclid", "datatype": "float16"},
    "byte": {"size": 6, "distance": "Cosine", "datatype": "uint8"},
    "m": {"size": 3, "distance": "Dot", "multivector_config": {"comparator": "max_sim"}},
}
CONFIG = {"vectors": VECTORS, "sparse_vectors": {"s": {"modifier": "idf"}}, "shard_number": 2}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("node")


@pytest.fixture(scope="module")
def url(data_dir: Path) -> Iterator[str]:
    node, thread = start_node(data_dir, snapshot_hosts="127.0.0.1")
    yield node.url
    node.stop()
    thread.join(15)


@pytest.fixture(scope="module")
def http(url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def original(http: httpx.Client) -> str:
    """A collection with everything."""
    random = np.random.default_rng(5)
    result(http.put("/collections/original", json=CONFIG))
    for field, schema in (("n", "integer"), ("word", "keyword")):
        result(http.put("/collections/original/index?wait=true", json={"field_name": field, "field_schema": schema}))
    points = []
    for n in range(COUNT):
        named: dict[str, Any] = {
            "a": random.normal(size=6).tolist(),
            "half": random.normal(size=6).tolist(),
            "byte": random.integers(0, 255, 6).tolist(),
            "m": random.normal(size=(1 + n % 3, 3)).tolist(),
            "s": {"indices": [n, n + 7], "values": [1.5, -2.25]},
        }
        if n % 3 == 0:
            del named["a"], named["s"]
        payload = {"n": n, "word": f"w{n % 7}", "deep": {"k": [n, None, "é"]}} if n % 5 else {}
        points.append({"id": n if n % 2 else f"free {n}", "vector": named if n % 11 else {}, "payload": payload})
    result(http.put("/collections/original/points?wait=true", json={"points": points}))
    result(http.post("/collections/original/points/delete?wait=true", json={"points": [1, 3]}))
    return "original"


@pytest.fixture
def name(http: httpx.Client) -> Iterator[str]:
    name = f"c{uuid4().hex[:8]}"
    yield name
    result(http.delete(f"/collections/{name}"))


def scrolled(http: httpx.Client, name: str) -> list[Any]:
    body = {"limit": 10_000, "with_payload": True, "with_vector": True}
    return result(http.post(f"/collections/{name}/points/scroll", json=body))["points"]  # type: ignore[index,no-any-return]


def searched(http: httpx.Client, name: str) -> list[Any]:
    queries: list[Any] = [{"query": [1, -1, 0.5, 0, 0.25, 2], "using": vector, "limit": 30} for vector in ("a", "half", "byte")]
    queries += [
        {"query": [[1, 0, -1], [0, 1, 0]], "using": "m", "limit": 30},
        {"query": {"indices": [8, 14], "values": [1, 0.5]}, "using": "s", "limit": 30},
        {"query": [1] * 6, "using": "a", "filter": {"must": [{"key": "word", "match": {"value": "w3"}}]}, "with_payload": True},
    ]
    found = result(http.post(f"/collections/{name}/points/query/batch", json={"searches": queries}))
    return [[{key: hit[key] for key in hit if key != "version"} for hit in one["points"]] for one in found]  # type: ignore[attr-defined]


def made(http: httpx.Client, path: str) -> tuple[str, bytes]:
    """A new snapshot: its name and content."""
    described = result(http.post(f"{path}/snapshots"))
    assert isinstance(described, dict)
    content = http.get(f"{path}/snapshots/{described['name']}").content
    assert (len(content), hashlib.sha256(content).hexdigest()) == (described["size"], described["checksum"])
    return described["name"], content


def sent(http: httpx.Client, name: str, content: bytes, query: str = "") -> httpx.Response:
    return http.post(f"/collections/{name}/snapshots/upload?{query}", files={"snapshot": ("file", content)})


def test_what_is_recovered_equals_the_original(http: httpx.Client, original: str, name: str) -> None:
    _, content = made(http, f"/collections/{original}")
    assert result(sent(http, name, content, f"checksum={hashlib.sha256(content).hexdigest()}")) is True
    assert scrolled(http, name) == scrolled(http, original)
    assert searched(http, name) == searched(http, original)
    theirs, ours = (result(http.get(f"/collections/{one}")) for one in (original, name))
    assert theirs["config"] == ours["config"]  # type: ignore[index]
    assert theirs["payload_schema"] == ours["payload_schema"]  # type: ignore[index]


@pytest.mark.slow
def test_codes_of_four_bits_are_made_anew(http: httpx.Client, name: str) -> None:
    """Of what they stand for: the only datatype that does not come back bit by bit."""
    random, source = np.random.default_rng(1), f"s{uuid4().hex[:8]}"
    config = {"vectors": {"size": 64, "distance": "Cosine", "datatype": "turbo4"}}
    result(http.put(f"/collections/{source}", json=config))
    points = [{"id": n, "vector": random.normal(size=64).tolist()} for n in range(100)]
    result(http.put(f"/collections/{source}/points?wait=true", json={"points": points}))
    result(sent(http, name, made(http, f"/collections/{source}")[1]))
    before, after = (np.array([point["vector"] for point in scrolled(http, one)]) for one in (source, name))
    assert np.abs(before - after).max() < 0.02
    assert (np.abs(before - after).max(axis=1) < 1e-5).mean() > 0.8
    result(http.delete(f"/collections/{source}"))


def test_the_clients_own_calls_work(url: str, data_dir: Path, http: httpx.Client, original: str, name: str) -> None:
    client = QdrantClient(url=url, timeout=60)
    described = client.create_snapshot(original)
    assert described is not None
    assert described.name in [one.name for one in client.list_snapshots(original)]
    location = (data_dir / "snapshots" / original / described.name).as_uri()
    assert client.recover_snapshot(name, location, priority=models.SnapshotPriority.SNAPSHOT, checksum=described.checksum)
    assert scrolled(http, name) == scrolled(http, original)
    assert client.delete_snapshot(original, described.name)
    assert described.name not in [one.name for one in client.list_snapshots(original)]
    full = client.create_full_snapshot()
    assert full is not None
    assert full.name in [one.name for one in client.list_full_snapshots()]
    assert client.delete_full_snapshot(full.name)
    shard = client.create_shard_snapshot(original, 1)
    assert shard is not None
    assert [one.name for one in client.list_shard_snapshots(original, 1)] == [shard.name]
    assert client.list_shard_snapshots(original, 0) == []
    location = (data_dir / "snapshots" / original / "shards" / "1" / shard.name).as_uri()
    assert client.recover_shard_snapshot(original, 1, location)
    assert client.delete_shard_snapshot(original, 1, shard.name)
    client.close()


def test_a_collection_is_recovered_from_the_whole_storage(http: httpx.Client, original: str, name: str) -> None:
    alias = {"create_alias": {"collection_name": original, "alias_name": "x"}}
    result(http.post("/collections/aliases", json={"actions": [alias]}))
    result(http.put("/collections/second", json={"vectors": {"size": 4, "distance": "Dot"}}))
    _, content = made(http, "")
    assert "none is named" in refusal(sent(http, name, content))
    before = scrolled(http, original)
    result(http.post(f"/collections/{original}/points/delete?wait=true", json={"filter": {}}))
    assert scrolled(http, original) == []
    assert result(sent(http, "x", content)) is True  # by its alias
    assert scrolled(http, original) == before
    result(http.delete("/collections/second"))


POINTS = [{"id": id_, "vector": [id_, 1]} for id_ in range(1, 5)]


@pytest.fixture
def changed(http: httpx.Client, name: str) -> tuple[str, bytes]:
    """A collection that has changed since its snapshot: 1 is deleted, 2 is another one, 9 is new."""
    result(http.put(f"/collections/{name}", json={"vectors": {"size": 2, "distance": "Dot"}, "shard_number": 2}))
    result(http.put(f"/collections/{name}/points?wait=true", json={"points": POINTS}))
    _, content = made(http, f"/collections/{name}")
    result(http.post(f"/collections/{name}/points/delete?wait=true", json={"points": [1]}))
    later = [{"id": 2, "vector": [7, 7]}, {"id": 9, "vector": [9, 9]}]
    result(http.put(f"/collections/{name}/points?wait=true", json={"points": later}))
    return name, content


@pytest.mark.parametrize(
    ("priority", "expected"),
    [
        ("", {1: [1, 1], 2: [2, 1], 3: [3, 1], 4: [4, 1]}),
        ("snapshot", {1: [1, 1], 2: [2, 1], 3: [3, 1], 4: [4, 1]}),
        ("no_sync", {1: [1, 1], 2: [2, 1], 3: [3, 1], 4: [4, 1], 9: [9, 9]}),
        ("replica", {1: [1, 1], 2: [7, 7], 3: [3, 1], 4: [4, 1], 9: [9, 9]}),
    ],
)
def test_the_priority_says_what_holds(
    http: httpx.Client, changed: tuple[str, bytes], priority: str, expected: dict[int, list[float]]
) -> None:
    name, content = changed
    result(sent(http, name, content, f"priority={priority}" if priority else ""))
    assert {point["id"]: point["vector"] for point in scrolled(http, name)} == expected


def test_a_shard_is_recovered_alone(http: httpx.Client, name: str) -> None:
    result(http.put(f"/collections/{name}", json={"vectors": {"size": 2, "distance": "Dot"}, "shard_number": 2}))
    many = [{"id": id_, "vector": [id_, 1]} for id_ in range(40)]
    result(http.put(f"/collections/{name}/points?wait=true", json={"points": many}))
    content = http.get(f"/collections/{name}/shards/1/snapshot").content
    _, other = made(http, f"/collections/{name}/shards/0")
    result(http.post(f"/collections/{name}/points/delete?wait=true", json={"filter": {}}))
    others = [{"id": 1000 + n, "vector": [0, 0]} for n in range(9)]
    result(http.put(f"/collections/{name}/points?wait=true", json={"points": others}))
    new = {point["id"] for point in scrolled(http, name)}
    path = f"/collections/{name}/shards/1/snapshots/upload"
    assert result(http.post(path, files={"snapshot": ("file", content)})) is True
    found = {point["id"] for point in scrolled(http, name)}
    assert 0 < len(found & set(range(40))) < 40
    assert 0 < len(found & new) < len(new)
    assert "and shard 1 of 2 is to be recovered" in refusal(http.post(path, files={"snapshot": ("file", other)}))
    assert "it lacks the shards [0]" in refusal(sent(http, name, content))
    result(http.post(f"/collections/{name}/shards/0/snapshots/upload", files={"snapshot": ("file", other)}))
    assert {point["id"] for point in scrolled(http, name)} == set(range(40))
    assert http.post(path.replace("/1/", "/7/"), files={"snapshot": ("file", content)}).status_code == 404
    assert http.get(f"/collections/{name}/shards/7/snapshots").status_code == 404


def test_a_broken_upload_changes_nothing(http: httpx.Client, data_dir: Path, original: str, name: str) -> None:
    _, content = made(http, f"/collections/{original}")
    position = http.get(f"/collections/{original}").headers["x-vecraft-position"]
    damaged = bytearray(content)
    damaged[len(content) // 2] ^= 1
    for bad, query, reason in (
        (content, f"checksum={'0' * 64}", "SHA-256"),
        (bytes(damaged), "", "damaged|is no record|"),
        (content[: len(content) // 2], "", "incomplete|no archive"),
        (b"", "", "no archive"),
        (b"\x1f\x8b\x08 some gzip", "", "no archive"),
    ):
        for target in (original, name):
            answer = sent(http, target, bad, query)
            assert answer.status_code == 400, answer.text
            assert any(part in answer.text for part in reason.split("|"))
    assert http.get(f"/collections/{original}").headers["x-vecraft-position"] == position, "nothing is written"
    assert result(http.get(f"/collections/{name}/exists")) == {"exists": False}
    assert not list((data_dir / "snapshots").glob("*.unfinished"))


def test_bad_forms_are_refused(http: httpx.Client, name: str, data_dir: Path) -> None:
    path = f"/collections/{name}/snapshots/upload"
    assert "multipart/form-data" in refusal(http.post(path, content=b"x"))
    assert "boundary" in refusal(http.post(path, content=b"x", headers={"content-type": "multipart/form-data"}))
    head = {"content-type": "multipart/form-data; boundary=b"}
    assert "no such file" in refusal(http.post(path, files={"other": ("file", b"x")}))
    half = b'--b\r\ncontent-disposition: form-data; name="snapshot"\r\n\r\nx'
    assert "incomplete" in refusal(http.post(path, content=half, headers=head))
    twice = [("snapshot", ("file", b"x")), ("snapshot", ("file", b"y"))]
    assert "has two of them" in refusal(http.post(path, files=twice))
    assert "cannot be read" in refusal(http.post(path, content=b"no form", headers=head))
    assert "checksum" in refusal(http.post(f"{path}?checksum=abc", files={"snapshot": ("file", b"x")}))
    assert "priority" in refusal(http.post(f"{path}?priority=mine", files={"snapshot": ("file", b"x")}))
    assert not list((data_dir / "snapshots").glob("*.unfinished"))


def test_other_vectors_are_refused(http: httpx.Client, original: str, name: str) -> None:
    _, content = made(http, f"/collections/{original}")
    result(http.put(f"/collections/{name}", json={**CONFIG, "vectors": {**VECTORS, "a": {"size": 7, "distance": "Cosine"}}}))
    assert "other vectors than the snapshot: 'a' differ" in refusal(sent(http, name, content))
    assert scrolled(http, name) == []


@pytest.mark.slow
def test_what_does_not_fit_on_the_disk_is_refused(
    http: httpx.Client, original: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name_, content = made(http, f"/collections/{original}")
    monkeypatch.setattr(folder.ArchiveFolder, "room", lambda self: 1000)
    assert sent(http, name, content).status_code == 507
    monkeypatch.setattr(folder.ArchiveFolder, "room", lambda self: 0)
    assert http.post(f"/collections/{original}/snapshots").status_code == 507
    assert result(http.delete(f"/collections/{original}/snapshots/{name_}")) is True


@pytest.mark.slow
def test_large_uploads_have_no_bound_but_the_disk(http: httpx.Client, name: str) -> None:
    """More than twice of what other bodies may have."""
    answer = sent(http, name, bytes(70 << 20))
    assert answer.status_code == 400
    assert "the archive is incomplete" in answer.text


def test_work_that_is_not_waited_for_goes_on(http: httpx.Client, data_dir: Path, original: str, name: str) -> None:
    path = f"/collections/{original}/snapshots"
    before = len(result(http.get(path)))  # type: ignore[arg-type]
    answer = http.post(f"{path}?wait=false")
    assert (answer.status_code, answer.json()["status"]) == (202, "accepted")
    until(lambda: len(result(http.get(path))) == before + 1, 30)  # type: ignore[arg-type]
    newest = result(http.get(path))[-1]["name"]  # type: ignore[index]
    location = (data_dir / "snapshots" / original / newest).as_uri()
    assert http.put(f"/collections/{name}/snapshots/recover?wait=false", json={"location": location}).status_code == 202
    expected = len(scrolled(http, original))
    until(lambda: _count(http, name) == expected, 30)
    content = http.get(f"{path}/{newest}").content
    assert sent(http, name, content, "wait=false").status_code == 202
    assert http.delete(f"{path}/{newest}?wait=false").status_code == 202
    until(lambda: http.get(f"{path}/{newest}").status_code == 404, 30)
    until(lambda: not list((data_dir / "snapshots").glob("*.unfinished")), 30)


def _count(http: httpx.Client, name: str) -> int:
    answer = http.post(f"/collections/{name}/points/count", json={})
    return answer.json()["result"]["count"] if answer.status_code == 200 else 0  # type: ignore[no-any-return]


def test_there_is_a_bound_of_jobs(http: httpx.Client, original: str, monkeypatch: pytest.MonkeyPatch) -> None:
    go_on = threading.Event()
    monkeypatch.setattr(archives.Paced, "__call__", lambda self: go_on.wait(30) and None)
    path = f"/collections/{original}/snapshots"
    answers = [http.post(f"{path}?wait=false") for _ in range(5)]
    go_on.set()
    assert [answer.status_code for answer in answers] == [202] * 4 + [429]
    assert "retry-after" in answers[-1].headers
    until(lambda: http.post(path).status_code == 200, 30)


class _Remote(BaseHTTPRequestHandler):
    content = b""
    asked: list[str | None] = []  # noqa: RUF012

    def do_GET(self) -> None:
        self.asked.append(self.headers.get("api-key"))
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("location", "/snapshot")
            self.end_headers()
            return
        self.send_response(200)
        self.send_header("content-length", str(len(self.content) + (100 if self.path == "/short" else 0)))
        self.end_headers()
        self.wfile.write(self.content)

    def log_message(self, *arguments: Any) -> None:
        pass


@pytest.fixture
def remote() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Remote)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_urls_only_of_hosts_that_are_allowed(http: httpx.Client, data_dir: Path, original: str, name: str, remote: str) -> None:
    _, _Remote.content = made(http, f"/collections/{original}")
    path = f"/collections/{name}/snapshots/recover"
    for location, reason in (
        (remote.replace("127.0.0.1", "localhost") + "/snapshot", "is not among those"),
        ("http://127.0.0.1.example.com/x", "is not among those"),
        ("http://user@127.0.0.1/x", "must be file"),
        ("ftp://127.0.0.1/x", "must be file"),
        ("gopher:x", "must be file"),
        (f"{remote}/moved", "redirects are not followed"),
        (f"{remote}/short", "cannot be read"),
        ("http://127.0.0.1:1/x", "cannot be read"),
    ):
        assert reason in refusal(http.put(path, json={"location": location})), location
    assert result(http.get(f"/collections/{name}/exists")) == {"exists": False}
    recovered = http.put(path, json={"location": f"{remote}/snapshot", "api_key": "secret"})
    check(("PUT", "/collections/{collection_name}/snapshots/recover"), recovered, 200)
    assert _Remote.asked[-1] == "secret"
    assert scrolled(http, name) == scrolled(http, original)
    for outside in ("file:///etc/passwd", (data_dir / "journal" / "CURRENT").as_uri()):
        assert http.put(path, json={"location": outside}).status_code == 404
    assert not list((data_dir / "snapshots").glob("*.unfinished"))


def test_names_do_not_lead_out(http: httpx.Client, original: str) -> None:
    for outside in ("..%2F..%2Fjournal%2FCURRENT", "%2Fetc%2Fpasswd", "none.snapshot", "%00"):
        for path in ("/snapshots", f"/collections/{original}/snapshots"):
            assert http.get(f"{path}/{outside}").status_code == 404
            assert http.delete(f"{path}/{outside}").status_code in (404, 405)
