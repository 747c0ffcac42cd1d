"""Snapshots of a running node, in a folder and on a real S3: what is restored is what was saved (I1, I3)."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from gateway.services import NodeState
from journal.log import Positions, TopicPartition
from replayer.loop import LogBounds
from replayer.projections.shards import ShardsProjection
from shard.shard import Shard
from shard.store import stored_progress
from snapshots.create import SnapshotFailed
from snapshots.manifest import Manifest, State, all_of
from snapshots.node import SCRATCH, NodeSnapshots
from snapshots.place import Item, Place, PlaceError
from snapshots.prune import UNFINISHED_MS, Policy
from snapshots.verify import faults
from tests.conftest import result, start_node, until
from tests.s3_server import S3Server, s3_or_skip
from tests.vecraft.test_recovery import everything, written
from vecraft.cli import main
from vecraft.node import Node

WAIT_S = 60


class Running:
    """A node in this process with a place for snapshots; stopped and started again by the tests."""

    def __init__(self, data_dir: Path, url: str, **settings: object) -> None:
        self.data_dir = data_dir
        self.url = url
        self.settings = settings
        self.start()

    def start(self, is_ready: bool = True) -> None:
        """Starts it. It may be that it does not become ready."""
        self.node, self._thread = start_node(self.data_dir, is_ready=is_ready, snapshot_url=self.url, **self.settings)

    def stop(self) -> None:
        self.node.stop()
        self._thread.join(15)
        assert not self._thread.is_alive()

    @property
    def snapshots(self) -> NodeSnapshots:
        snapshots = state_of(self.node).snapshots
        assert snapshots is not None
        return snapshots

    def saved(self) -> Manifest:
        return self.snapshots.create().result(WAIT_S)

    def restore(self, *arguments: str) -> int:
        return main(["restore", "--from", self.url, "--data-dir", str(self.data_dir), *arguments])

    def upsert(self, ids: Iterable[int]) -> None:
        points = [{"id": id_, "vector": [id_, 1, 1, 1, 1, 1, 1, 1]} for id_ in ids]
        result(httpx.put(f"{self.node.url}/collections/plain/points?wait=true", json={"points": points}))


def state_of(node: Node) -> NodeState:
    assert node._services is not None
    return node._services.node


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Running]:
    running = Running(tmp_path / "data", (tmp_path / "place").as_uri())
    written(running.node.url)
    yield running
    running.stop()


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    server = s3_or_skip(tmp_path_factory.mktemp("s3") / "data")
    yield server
    server.stop()


@pytest.mark.parametrize("where", ["folder", pytest.param("s3", marks=pytest.mark.slow)])
def test_what_is_restored_is_what_was_saved(
    where: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    url = (tmp_path / "place").as_uri()
    if where == "s3":
        for name, value in request.getfixturevalue("s3").environment().items():
            monkeypatch.setenv(name, value)
        url = f"s3://{S3Server.bucket}/some/prefix"
    running = Running(tmp_path / "data", url)
    written(running.node.url)
    manifest = running.saved()
    assert manifest.points == 585
    closed = [shard.closed for part in manifest.collections for shard in part.shards]
    assert min(closed) == manifest.stamp > manifest.created_ms << 16
    running.upsert(range(1000, 1010))  # what comes after it is replayed
    result(httpx.delete(f"{running.node.url}/collections/rich"))
    result(httpx.put(f"{running.node.url}/collections/rich", json={"vectors": {"a": {"size": 2, "distance": "Dot"}}}))
    before = everything(running.node.url)
    running.stop()
    assert running.restore() == 0
    _check_positions(running.data_dir / "state", manifest)
    assert len(list(running.data_dir.glob("state.before-*"))) == 1
    begins: list[Positions] = []
    opening = ShardsProjection.open

    def opened(self: ShardsProjection, bounds: LogBounds, committed: Positions) -> Positions:
        begins.append(opening(self, bounds, committed))
        return begins[-1]

    with monkeypatch.context() as patch:
        patch.setattr(ShardsProjection, "open", opened)
        running.start()
    lowest = {str(partition): offset for partition, offset in begins[0].items()}
    assert manifest.positions().items() <= lowest.items(), "only the rest is replayed, also for a later collection"
    assert f"restored from snapshot {manifest.id}" in caplog.text
    assert everything(running.node.url) == before
    running.stop()
    shutil.rmtree(running.data_dir / "state")
    running.url = ""  # with a place it would begin with a snapshot
    running.start()
    assert everything(running.node.url) == before, "as a full replay"
    running.stop()


def _check_positions(state: Path, manifest: Manifest) -> None:
    """Progress in RocksDB and the positions in the manifest agree (I3)."""
    for part in manifest.collections:
        for shard in part.shards:
            partitions = [TopicPartition(topic, int(n)) for topic, _, n in (name.rpartition("/") for name in shard.positions)]
            progress, points = stored_progress(state / str(part.collection.id) / str(shard.number) / "rows", partitions)
            assert {str(partition): of.offset for partition, of in progress.items()} == shard.positions
            assert points == shard.points


@pytest.mark.slow
def test_a_snapshot_holds_no_more_than_it_says_while_writes_go_on(running: Running, tmp_path: Path) -> None:
    done = threading.Event()

    def write() -> None:
        n = 10_000
        while not done.is_set():
            running.upsert(range(n, n + 20))
            n += 20

    writer = threading.Thread(target=write)
    writer.start()
    try:
        manifests = [running.saved() for _ in range(3)]
    finally:
        done.set()
        writer.join(WAIT_S)
    for manifest in manifests:
        assert list(faults(Place(running.url), manifest)) == []
    running.stop()
    for manifest in manifests:
        assert running.restore("--snapshot", manifest.id) == 0
        _check_positions(running.data_dir / "state", manifest)
    running.start()
    count = result(httpx.post(f"{running.node.url}/collections/plain/points/count", json={}))["count"]  # type: ignore[index]
    assert count == len(everything_of(running.node.url, "plain"))


def everything_of(url: str, name: str) -> list[Any]:
    body = {"limit": 100_000, "with_vector": True}
    return result(httpx.post(f"{url}/collections/{name}/points/scroll", json=body, timeout=60))["points"]  # type: ignore[index,no-any-return]


class Crash(PlaceError):
    pass


class CrashingPlace(Place):
    """A place at which the n-th step fails, after a part of its work, as a process that ends there."""

    def __init__(self, url: str, step: int) -> None:
        super().__init__(url)
        self._left = step

    def _step(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise Crash("crash")

    def items(self, folder: str) -> Iterator[Item]:
        self._step()
        yield from super().items(folder)

    def write(self, path: str, data: bytes) -> None:
        self._step()
        super().write(path, data)

    def send(self, path: str, chunks: Iterable[bytes]) -> None:
        def some() -> Iterator[bytes]:
            yield from chunks
            self._step()

        super().send(path, some())


@pytest.mark.slow
def test_a_crash_in_any_step_leaves_the_snapshots_before(running: Running) -> None:
    place = Place(running.url)
    earlier = running.saved()
    running.upsert(range(2000, 2100))
    steps = 0
    while True:
        running.snapshots._place = CrashingPlace(running.url, steps)
        try:
            made = running.saved()
        except Crash:
            assert list(faults(place, earlier)) == []
            pending = [each for each in all_of(place) if each.state is State.PENDING]
            assert all(list(faults(place, each)) == ["it was never committed"] for each in pending)
            assert not (running.data_dir / SCRATCH).exists()
            steps += 1
        else:
            break
    assert steps > 5
    assert list(faults(place, made)) == []
    running.snapshots._place = place
    found = result(httpx.get(f"{running.node.url}/admin/snapshots"))["snapshots"]  # type: ignore[index]
    assert sum(each["state"] == "PENDING" for each in found) == steps - 1  # the first step is the writing of the manifest
    running.stop()
    assert running.restore() == 0
    _check_positions(running.data_dir / "state", made)
    running.start()


@pytest.mark.slow
def test_a_shard_that_cannot_be_captured_fails_the_snapshot(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    earlier = running.saved()

    def fails(shard: Shard, target: Path) -> None:
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Shard, "capture", fails)
        with pytest.raises(SnapshotFailed, match="no space left"):
            running.saved()
    page = result(httpx.get(f"{running.node.url}/admin/snapshots"))
    assert page["last_failure"] == "no space left on device"  # type: ignore[index]
    assert running.snapshots.counts.failures == 1
    running.stop()
    (running.data_dir / SCRATCH / "left").mkdir(parents=True)  # as a kill leaves it
    assert running.restore() == 0
    running.start()
    assert not (running.data_dir / SCRATCH).exists()
    assert running.saved().id != earlier.id


@pytest.mark.slow
def test_the_next_snapshot_sends_only_what_is_new(running: Running) -> None:
    first = running.saved()
    sent = running.snapshots.counts.sent_bytes
    assert sent == sum(first.contents().values())
    running.upsert([1])
    second = running.saved()
    files = {item.path: item.size for item in Place(running.url).items("node1/files")}
    assert len(files) == len({*first.contents(), *second.contents()})
    new = second.contents().keys() - first.contents().keys()
    assert running.snapshots.counts.sent_bytes == sum(second.contents()[digest] for digest in new) < sent
    made = [first, second]

    def shares_rows() -> bool:
        """RocksDB writes a new file anew once, soon after it was made."""
        made.append(running.saved())
        known = made[-2].contents()
        return any(file.digest in known for file in made[-1].files if file.path.endswith(".sst"))

    until(shares_rows, WAIT_S)


@pytest.mark.slow
def test_a_flipped_byte_is_found_and_the_snapshot_before_is_used(running: Running, tmp_path: Path) -> None:
    first = running.saved()
    running.upsert(range(3000, 3100))
    second = running.saved()
    digest = next(digest for digest in second.contents() if digest not in first.contents())
    path = tmp_path / "place" / "node1" / "files" / digest
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    verified = result(httpx.post(f"{running.node.url}/admin/snapshots/{second.id}/verify"))
    assert verified["sound"] is False  # type: ignore[index]
    assert "another content" in verified["faults"][0]  # type: ignore[index]
    assert main(["snapshots", "verify", second.id, "--place", running.url]) == 1
    assert main(["snapshots", "verify", first.id, "--place", running.url]) == 0
    before = everything(running.node.url)
    running.stop()
    assert running.restore() == 0
    _check_positions(running.data_dir / "state", first)
    path.unlink()
    assert any("cannot be read" in fault for fault in faults(Place(running.url), second))
    assert running.restore() == 0
    _check_positions(running.data_dir / "state", first)
    running.start()
    assert everything(running.node.url) == before


@pytest.mark.slow
def test_what_is_removed_frees_what_no_other_needs(running: Running) -> None:
    made = []
    for n in range(3):
        running.upsert([n + 5000])
        made.append(running.saved())
    place = Place(running.url)
    url = f"{running.node.url}/admin/snapshots"
    assert result(httpx.post(f"{url}/prune", json={"keep": 2}))["snapshots"] == [made[0].id]  # type: ignore[index]
    left = {item.path.rpartition("/")[2] for item in place.items("node1/files")}
    assert left == {*made[1].contents(), *made[2].contents()}
    result(httpx.delete(f"{url}/{made[2].id}"))
    assert {item.path.rpartition("/")[2] for item in place.items("node1/files")} == {*made[1].contents()}
    assert list(faults(place, made[1])) == []
    assert httpx.delete(f"{url}/{made[2].id}").status_code == 404
    assert httpx.post(f"{url}/nothing/verify").status_code == 404
    assert httpx.post(f"{url}/prune", json={"keep": 0}).status_code == 422


@pytest.mark.slow
def test_what_an_interrupted_snapshot_has_sent_stays_for_a_while(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = running.saved()
    place = Place(running.url)
    place.write(f"node1/files/{'0' * 64}", b"sent")
    snapshots = running.snapshots
    assert snapshots.prune(Policy(5)).result(WAIT_S).files == 0
    later_ms = state_of(running.node).clock.physical_ms() + UNFINISHED_MS + 60_000
    monkeypatch.setattr(snapshots, "_now_ms", lambda: later_ms)
    assert snapshots.prune(Policy(5)).result(WAIT_S).files == 1
    assert list(faults(place, kept)) == []


@pytest.mark.slow
def test_a_manifest_that_cannot_be_read_stops_pruning(running: Running) -> None:
    manifest = running.saved()
    Place(running.url).write("node1/other/manifest.json", b"{")
    with pytest.raises(PlaceError, match="is no manifest"):
        running.snapshots.prune(Policy(1)).result(WAIT_S)
    assert [each["id"] for each in running.snapshots.listed()] == [manifest.id]


@pytest.mark.slow
@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "a/../../b", ""])
def test_a_manifest_cannot_name_files_outside(running: Running, path: str, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = running.saved()
    place, name = Place(running.url), f"node1/{manifest.id}/manifest.json"
    place.write(name, place.read(name).replace(manifest.files[0].path.encode(), path.encode()))
    running.stop()
    assert running.restore() == 1
    assert "there is no snapshot" in capsys.readouterr().err
    running.start()


@pytest.mark.slow
def test_a_node_makes_snapshots_by_its_schedule(tmp_path: Path) -> None:
    place = Place((tmp_path / "place").as_uri())
    node, thread = start_node(
        tmp_path / "data", snapshot_url=place.url, snapshot_every_s=0.05, snapshot_keep=2, snapshot_keep_days=0
    )
    written(node.url)
    state = state_of(node)
    assert state.snapshots is not None
    counts = lambda: state.snapshots.counts  # noqa: E731
    until(lambda: httpx.get(f"{node.url}/livez").is_success and counts().successes >= 3, WAIT_S)
    node.stop()
    thread.join(15)
    committed = [each for each in all_of(place) if each.state is State.COMMITTED]
    assert 2 <= len(committed) <= 3  # one may have been made after the last pruning
    assert all(list(faults(place, each)) == [] for each in committed)


@pytest.mark.slow
def test_restore_refuses_what_does_not_fit(running: Running, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = running.saved()
    assert running.restore() == 1
    assert "the node must be stopped" in capsys.readouterr().err
    running.stop()
    before = sorted(path.name for path in running.data_dir.iterdir())
    assert running.restore("--snapshot", "another") == 1
    assert "there is no snapshot another" in capsys.readouterr().err
    other = Running(tmp_path / "other", running.url)
    other.stop()
    assert other.restore() == 1
    assert f"snapshot {manifest.id} is of another log" in capsys.readouterr().err
    assert main(["restore", "--from", "ftp://x", "--data-dir", str(running.data_dir)]) == 1
    assert "must be file:///folder or s3://bucket/prefix" in capsys.readouterr().err
    shutil.rmtree(running.data_dir / "journal")
    assert running.restore() == 1
    assert "there is no journal in" in capsys.readouterr().err
    assert sorted(path.name for path in running.data_dir.iterdir()) == [name for name in before if name != "journal"]


def test_the_command_tells_and_controls(running: Running, capsys: pytest.CaptureFixture[str]) -> None:
    url = ["--url", running.node.url]
    assert main(["snapshots", "create", *url]) == 0
    assert main(["snapshots", "list", *url]) == 0
    out = capsys.readouterr().out
    (made,) = all_of(Place(running.url))
    assert out.count(made.id) == 2
    assert f"{datetime.fromtimestamp(made.created_ms / 1000, UTC):%Y-%m-%dT%H:%M:%SZ}" in out
    assert main(["snapshots", "list", "--place", running.url]) == 0
    assert main(["snapshots", "verify", made.id, *url]) == 0
    assert main(["snapshots", "prune", "--keep", "1", *url]) == 0
    assert main(["snapshots", "delete", made.id, *url]) == 0
    assert f"snapshot {made.id} is removed" in capsys.readouterr().out
    assert main(["snapshots", "delete", made.id, *url]) == 1
    assert f"there is no snapshot {made.id}" in capsys.readouterr().err


def test_without_a_place_there_are_none(node_url: str) -> None:
    answer = httpx.post(f"{node_url}/admin/snapshots")
    assert answer.status_code == 400
    assert "--snapshot-url" in answer.text
