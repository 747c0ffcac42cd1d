"""`python -m bench kafka`: the cost of the journal on Kafka, compared with a plain producer and with REST in the same run.

Measures the latency that the gateway adds to a produce; latency and throughput of the ingest topic until points are readable; and
the replay by an empty node, with a profile. No graphs are built, because they would dominate the figures.
"""

from __future__ import annotations

import argparse
import io
import re
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from importlib.metadata import version
from math import inf
from pathlib import Path
from typing import Any, NamedTuple, Self
from unittest.mock import patch

import fastavro
import orjson
from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient
from confluent_kafka.cimpl import NewTopic

import schemas
from bench.client import Address, HttpError, HttpSession, http_request, repeat
from bench.data import Data
from bench.machine import OtherProcesses, description
from bench.measure import percentiles_ms
from bench.progress import say
from bench.report import DOWN, NONE, UP, number, ratio, table
from bench.server import ServerProcess
from bench.target import BATCH
from bench.vecraft_server import upsert_bodies
from journal import codec
from journal.hlc import Clock
from journal.kafka import KafkaJournal, KafkaReader
from journal.topic_check import config_of
from journal.topics import Topics
from replayer import verdicts
from replayer.loop import COMMIT_EVERY_S
from replayer.projections.dead_letters import DeadLetters
from replayer.projections.shards import ShardsProjection
from replayer.replayer import Replayer
from shard.batch import Limits, WriteBatch
from shard.shard import Shard
from shard.shards import Shards
from shard.store import Store
from tests.conftest import until
from tests.kafka_server import KAFKA_VERSION, KafkaCluster, KafkaServer, why_not_java
from vecraft.roles import wall_clock_ms

WRITE_P99_MS = 25.0
"""The latency that V15 promises for tier 0."""

WARM_UP = 50
ROUNDS = 4
"""Gateway and raw producer alternate this many times, so that load on the machine affects both equally."""

VISIBLE_TIMEOUT_S = 30.0

Lines = list[str]
_PRODUCER = {"acks": "all", "enable.idempotence": True, "delivery.timeout.ms": 30_000, "log_level": 2}
_LISTENS = re.compile(r"listens on http://([\d.]+):(\d+)")
_SCHEMA = schemas.load(schemas.INGEST_SCHEMAS[-1])
_PARSED = fastavro.parse_schema(_SCHEMA)
_CANONICAL = fastavro.schema.to_parsing_canonical_form(_SCHEMA)
_FRAME = codec.MAGIC + bytes.fromhex(fastavro.schema.fingerprint(_CANONICAL, "CRC-64-AVRO"))


def main(arguments: Sequence[str], load_data: Callable[[Path | None, int | None], Data]) -> int:
    """Measures and prints the tables. `load_data` loads a folder, at most that many vectors. Returns the exit status."""
    options = _parser().parse_args(arguments)
    if reason := why_not_java():
        say(f"Kafka: not measured, {reason}")
        return 1
    data, others = load_data(options.data, options.vectors), OtherProcesses()
    with tempfile.TemporaryDirectory(prefix="vecraft-bench-") as name:
        folder = Path(name)
        with KafkaServer(folder / "broker") as broker:
            one = measure_writes(broker.bootstrap, "dev", folder, data, options)
            ingest = measure_ingest(broker.bootstrap, folder, data, options)
            replay = measure_replay(broker.bootstrap, folder, data)
        with KafkaCluster(folder / "cluster") as cluster:
            three = measure_writes(cluster.bootstrap, "high-durability", folder, data, options)
    head = ["one upsert at a time, tier 0", "", "gateway", "raw producer", "gateway / raw", f"<= {WRITE_P99_MS:g} ms (V15)"]
    print("\n".join([*_notes(data, others.share()), "", *table(head, one + three), "", *ingest, "", *replay]))
    return 0


def _notes(data: Data, others: float) -> Lines:
    return [
        f"data: {data.source}; Apache Kafka {KAFKA_VERSION}, confluent-kafka {version('confluent-kafka')}",
        description(),
        "all collections: hnsw m=0, so no graph is built and the way through the journal is what is measured",
        "raw producer: acks=all, idempotent, linger 0, the gateway's own record over and over, one at a time: produce, then poll",
        "in the same thread until the delivery report; one broker: preset dev; three brokers: preset high-durability",
        f"others took {others:.0%} of the machine meanwhile",
    ]


# One write at a time.


def measure_writes(bootstrap: str, preset: str, folder: Path, data: Data, options: argparse.Namespace) -> list[Lines]:
    """Alternates between a gateway client and a raw producer, each with one write in flight. Returns rows of the table."""
    say(f"single writes, {preset}")
    topics, warm_up = Topics(f"writes-{preset}", preset), options.warm_up
    with node(folder / topics.prefix, bootstrap, topics) as server, closing(server.session()) as session:
        server.create("bench", data)
        upserts = [_upsert(data, at, "false").replace(b"\r\n", b"\r\nX-Vecraft-Tier: 0\r\n", 1) for at in range(options.writes)]
        repeat(session, upserts, inf, warm_up)
        record, raw = _latest_record(bootstrap, topics), RawProducer(bootstrap, _create_raw_topic(bootstrap, topics))
        repeat(raw, [record], inf, warm_up)
        ours_s, raw_s = [], []
        for turn in range(ROUNDS):
            mine = upserts[turn::ROUNDS]
            ours_s += repeat(session, mine, inf, len(mine))
            raw_s += repeat(raw, [record], inf, len(mine))
    brokers = len(bootstrap.split(","))
    return write_rows(f"{brokers} broker{'s'[: brokers - 1]}, {len(record['value']):,} bytes", ours_s, raw_s)


def write_rows(name: str, gateway_s: Sequence[float], raw_s: Sequence[float]) -> list[Lines]:
    """Rows for p50 and p99; the latter says whether it meets V15."""
    p50, p99 = _latency_rows(name, gateway_s, raw_s)
    return [[*p50, NONE], [*p99, "yes" if percentiles_ms(gateway_s, 99)[0] <= WRITE_P99_MS else "NO"]]


def _latency_rows(name: str, ours_s: Sequence[float], peer_s: Sequence[float]) -> list[Lines]:
    pairs = [(percent, *(percentiles_ms(seconds, percent)[0] for seconds in (ours_s, peer_s))) for percent in (50, 99)]
    return [[f"{name}, p{percent}", f"ms {DOWN}", *_beside(ours, peer)] for percent, ours, peer in pairs]


class RawProducer:
    """A plain producer with linger 0 that waits for each delivery report."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self._producer = Producer(_PRODUCER | {"bootstrap.servers": bootstrap, "linger.ms": 0})
        self._topic = topic

    def send(self, request: Mapping[str, Any]) -> None:
        """Produces a record, given as arguments of `produce`. Raises KafkaException when it is not delivered."""
        reports: list[KafkaError | None] = []
        self._producer.produce(self._topic, on_delivery=lambda error, _: reports.append(error), **request)
        while not reports:
            self._producer.poll(1.0)
        if reports[0] is not None:
            raise KafkaException(reports[0])


def _create_raw_topic(bootstrap: str, topics: Topics) -> str:
    """Creates a topic with one partition, otherwise configured like tier 0. Returns its name."""
    name, spec = f"{topics.prefix}.raw", topics.all()[topics.tier(0)]
    admin = AdminClient({"bootstrap.servers": bootstrap})  # the variable keeps the client alive while the future is pending
    admin.create_topics([NewTopic(name, 1, spec.replication, config=config_of(spec))])[name].result()
    return name


def _latest_record(bootstrap: str, topics: Topics) -> dict[str, Any]:
    """The latest record of tier 0, as arguments of `produce`."""
    with closing(KafkaJournal(bootstrap)) as journal, closing(journal.reader()) as reader:
        ends = journal.end_offsets([partition for partition in topics.data_partitions() if partition.topic == topics.tier(0)])
        reader.assign({partition: end - 1 for partition, end in ends.items() if end})
        entry = reader.poll(VISIBLE_TIMEOUT_S).entries[0]
    return {"value": entry.value, "key": entry.key, "headers": list(entry.headers)}


# From the ingest topic to a reader.


def measure_ingest(bootstrap: str, folder: Path, data: Data, options: argparse.Namespace) -> Lines:
    """Time until one record is readable, and throughput of many, for the ingest topic and for REST. Returns the table."""
    topics, count = Topics("ingest"), min(options.ingest_vectors, len(data.vectors))
    with node(folder / topics.prefix, bootstrap, topics) as server, closing(server.session()) as session:
        for name in ("bench", "avro", "json", "rest"):
            server.create(name, data)
        say(f"{options.latencies} records through the ingest topic, one by one")
        raw, timed = RawProducer(bootstrap, topics.ingest), WARM_UP + options.latencies
        ours_s = _latencies(raw, session, data, timed)[WARM_UP:]
        rest_s = repeat(session, [_upsert(data, at, "true") for at in range(timed)], inf, timed)[WARM_UP:]
        body = _latency_rows("one JSON record until visible", ours_s, rest_s)
        rest_rate = count / _rest_s(server, "rest", data, count)
        for name, encode in (("avro", avro), ("json", json)):
            values = [encode(name, row, data) for row in range(count)]
            label = f"{count:,} points until visible, {name}, {sum(map(len, values)) / count:,.0f} bytes each"
            rate = count / _produced_s(server, name, bootstrap, topics, values)
            body.append([label, f"vectors/s {UP}", *_beside(rate, rest_rate)])
    head = ["1 broker, one node", "", "ingest topic", f"REST, 1 client, {BATCH} a request or 1", "ingest topic / REST"]
    return table(head, body)


def avro(collection: str, row: int, data: Data) -> bytes:
    """An ingest record in Avro with single-object framing; the vector as bytes."""
    body = io.BytesIO()
    payload = orjson.dumps(data.payloads[row]).decode()
    change = {"collection": collection, "id": row, "vector": data.vectors[row].tobytes(), "payload": payload}
    fastavro.schemaless_writer(body, _PARSED, change)
    return _FRAME + body.getvalue()


def json(collection: str, row: int, data: Data) -> bytes:
    """An ingest record in JSON; the vector as numbers."""
    return _dump({"collection": collection, "id": row, "vector": data.vectors[row], "payload": data.payloads[row]})


def _latencies(raw: RawProducer, session: HttpSession, data: Data, count: int) -> list[float]:
    """Seconds from produce until a retrieve returns the point, for each record. Retrieves are repeated without delay."""
    taken = []
    for point in range(count):
        record = {"key": str(point), "value": json("bench", point % len(data.vectors), data)}
        ask = http_request("POST", "/collections/bench/points?consistency=eventual", _dump({"ids": [point]}))
        begun_s = time.perf_counter()
        raw.send(record)
        until(partial(_finds, session, ask), VISIBLE_TIMEOUT_S)
        taken.append(time.perf_counter() - begun_s)
    return taken


def _finds(session: HttpSession, request: bytes) -> bool:
    return bool(orjson.loads(session.send(request))["result"])


def _produced_s(server: Node, name: str, bootstrap: str, topics: Topics, values: Sequence[bytes]) -> float:
    """Seconds from the first produce until all records are visible."""
    say(f"{len(values):,} points through the ingest topic, {name}")
    producer = Producer(_PRODUCER | {"bootstrap.servers": bootstrap, "linger.ms": 5})
    producer.list_topics(topics.ingest)  # connects before the timing starts, as for REST
    begun_s = time.perf_counter()
    for key, value in enumerate(values):
        producer.produce(topics.ingest, value, str(key))
    producer.flush()
    server.wait_visible(name, len(values))
    return time.perf_counter() - begun_s


def _rest_s(server: Node, name: str, data: Data, count: int) -> float:
    """Seconds from the first request until all points are visible."""
    say(f"{count:,} points over REST")
    requests = [http_request("PUT", f"/collections/{name}/points?wait=false", body) for body in upsert_bodies(data, count)]
    with closing(server.session()) as session:
        begun_s = time.perf_counter()
        repeat(session, requests, inf, len(requests))
        server.wait_visible(name, count)
        return time.perf_counter() - begun_s


# Replay.


def measure_replay(bootstrap: str, folder: Path, data: Data) -> Lines:
    """Fills a log over REST; replays it with an empty node, a Replayer alone, and a profiled Replayer. Returns tables."""
    topics, count = Topics("replay"), len(data.vectors)
    with node(folder / topics.prefix, bootstrap, topics) as server:
        server.create("bench", data)
        seconds = {"written over REST until visible": _rest_s(server, "bench", data, count)}
    say("replay by a fresh node, then twice in this process")
    begun_s = time.perf_counter()
    with node(folder / "fresh", bootstrap, topics, "fresh"):
        seconds["a fresh node, from the start of its process to /readyz"] = time.perf_counter() - begun_s
    seconds["the Replayer alone, in this process"] = _replay_s(bootstrap, topics, folder / "alone")
    with Profile() as profile:
        timed_s = seconds["the same with timed functions"] = _replay_s(bootstrap, topics, folder / "timed")
    rest_s = seconds["written over REST until visible"]
    body = [[name, number(s), number(count / s), ratio(rest_s, s)] for name, s in seconds.items()]
    head = [f"replay of {count:,} vectors, 1 broker", f"s {DOWN}", f"vectors/s {UP}", "replay / REST"]
    shares = share_rows(profile.seconds, timed_s, count)
    return [*table(head, body), "", *table(["where the time goes, timed functions", "s", "share", "us/vector"], shares)]


def share_rows(seconds: Mapping[str, float], total_s: float, count: int) -> list[Lines]:
    """A row per part, a row for the time outside all parts, and the total."""
    parts = {**seconds, "the rest": total_s - sum(seconds.values()), "= all": total_s}
    return [[name, number(s), f"{s / total_s:.1%}", number(1e6 * s / count)] for name, s in parts.items()]


class Profile:
    """A profiler as a context manager: own time (without nested parts) of each part of a replay, in seconds. For one thread."""

    PARTS: Sequence[tuple[str, Any, str]] = (
        ("open: topics, catalog, positions", Replayer, "open"),
        ("poll: fetch, and wait for it", KafkaReader, "poll"),
        ("judge: decode Avro", codec, "decode"),
        ("judge: the contract", verdicts, "contract_error"),
        ("judge: drift, catalog position, home", ShardsProjection, "judge"),
        ("apply: stage and join", WriteBatch, "join"),
        ("apply: look the points up (RocksDB read)", Store, "point"),
        ("apply: encode what changes", WriteBatch, "changes"),
        ("apply: write to RocksDB", Store, "write"),
        ("apply: in-memory indexes", WriteBatch, "publish"),
        ("apply: publish views", Shard, "_publish"),
        ("commit for the dashboards", Replayer, "_commit_when_due"),
    )

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds = {label: 0.0 for label, _, _ in self.PARTS}
        self._clock = clock
        self._inner_s = 0.0
        self._patches = ExitStack()

    def __enter__(self) -> Self:
        for label, owner, name in self.PARTS:
            self._patches.enter_context(patch.object(owner, name, self.timed(label, getattr(owner, name))))
        return self

    def __exit__(self, *_: object) -> None:
        self._patches.close()

    def timed(self, label: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Wraps a function so that its own time is added to the label."""

        def run(*args: Any, **keywords: Any) -> Any:
            outer_s, self._inner_s = self._inner_s, 0.0
            begun_s = self._clock()
            try:
                return function(*args, **keywords)
            finally:
                took_s = self._clock() - begun_s
                self.seconds[label] = self.seconds.get(label, 0.0) + took_s - self._inner_s
                self._inner_s = outer_s + took_s

        return run


def _replay_s(bootstrap: str, topics: Topics, folder: Path) -> float:
    """Seconds that a Replayer without state needs to reach the end of the log."""
    limits = Limits()
    shards = Shards(folder, topics, limits, lambda task: None)
    group = f"{topics.prefix}.{folder.name}"
    with closing(KafkaJournal(bootstrap)) as journal:
        replaying = Replayer(journal, topics, Clock(wall_clock_ms), shards, group, limits, DeadLetters())
        with closing(replaying):
            begun_s = time.perf_counter()
            replaying.open()
            while not replaying.caught_up():
                replaying.step(COMMIT_EVERY_S)
            return time.perf_counter() - begun_s


# The node, requests, and the command line.


class Node(NamedTuple):
    """A node on Kafka, in its own process."""

    process: ServerProcess
    address: Address

    def session(self) -> HttpSession:
        return HttpSession(self.address)

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """Sends one request and returns its result."""
        with closing(self.session()) as session:
            return orjson.loads(session.send(http_request(method, path, _dump(body))))["result"]

    def create(self, name: str, data: Data) -> None:
        vectors = {"size": data.vectors.shape[1], "distance": "Cosine"}
        self.ask("PUT", f"/collections/{name}", {"vectors": vectors, "hnsw_config": {"m": 0}})

    def wait_visible(self, name: str, count: int) -> None:
        """Waits until `count` points are readable."""
        path = f"/collections/{name}/points/count?consistency=eventual"
        self.process.wait_for(lambda: self.ask("POST", path, {})["count"] == count)

    def says_ready(self) -> bool:
        try:
            with closing(self.session()) as session:
                return bool(session.send(http_request("GET", "/readyz")))
        except (OSError, HttpError):
            return False


@contextmanager
def node(folder: Path, bootstrap: str, topics: Topics, name: str = "bench") -> Iterator[Node]:
    """Runs a node and waits until it is ready. Its state and its output are in `folder`."""
    folder.mkdir()
    command = [sys.executable, "-m", "vecraft", "serve", "--port", "0", "--data-dir", str(folder / "data"), "--node", name]
    command += ["--journal", "kafka", "--bootstrap-servers", bootstrap]
    command += ["--topic-prefix", topics.prefix, "--preset", topics.preset]
    process = ServerProcess(command, folder / "log", {})
    try:
        process.wait_for(lambda: _LISTENS.search(process.output()) is not None)
        host, port = _LISTENS.findall(process.output())[0]
        running = Node(process, (host, int(port)))
        process.wait_for(running.says_ready)
        yield running
    finally:
        process.stop()


def _upsert(data: Data, at: int, wait: str) -> bytes:
    """A request that upserts one point. It has no payload, so that all requests have one size; its id is not used elsewhere."""
    body = {"points": [{"id": (1 << 40) + at, "vector": data.vectors[at % len(data.vectors)]}]}
    return http_request("PUT", f"/collections/bench/points?wait={wait}", _dump(body))


def _dump(body: object) -> bytes:
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


def _beside(ours: float, peer: float) -> Lines:
    return [number(ours), number(peer), ratio(ours, peer)]


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m bench kafka", description="The journal on Kafka, as ratios.")
    parser.add_argument("--data", type=Path, help="as of `python -m bench`")
    parser.add_argument("--vectors", type=int, help="how many at most; so many are replayed (default: all real ones)")
    parser.add_argument("--writes", type=int, default=2_000, help="single writes (default: %(default)s)")
    parser.add_argument("--warm-up", type=int, default=200, help="single writes before them (default: %(default)s)")
    parser.add_argument("--latencies", type=int, default=300, help="single records to the ingest topic (default: %(default)s)")
    parser.add_argument("--ingest-vectors", type=int, default=30_000, help="points to the ingest topic (default: %(default)s)")
    return parser
