"""N12, V3: the log on a real Kafka is verified, also by the checkpoints of two nodes, and whatever was done to it is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

from journal.kafka import KafkaJournal
from journal.log import Entry, TopicPartition
from journal.topic_check import config_of
from journal.topics import Topics
from replayer.audit.auditor import Auditor
from tests.conftest import result, until
from tests.journal.entries import read, write
from tests.kafka_server import KafkaServer
from tests.server import Server, on_kafka
from vecraft.cli import main

pytestmark = pytest.mark.kafka
WAIT_S = 60
COUNT = 2_300


@pytest.fixture(scope="module")
def journal(kafka: KafkaServer) -> Iterator[KafkaJournal]:
    journal = KafkaJournal(kafka.bootstrap, append_timeout_s=10)
    yield journal
    journal.close()


@pytest.fixture
def topics(journal: KafkaJournal) -> Topics:
    """Topics of this test's own, with COUNT records in one partition and some in another."""
    topics = Topics(f"t{uuid4().hex[:8]}")
    journal.ensure_topics(topics.all())
    write(journal, home(topics), *[b"%d" % number for number in range(COUNT)], headers=[("name", b"value")])
    write(journal, topics.system_partition, b"command")
    return topics


def home(topics: Topics) -> TopicPartition:
    return TopicPartition(topics.tier(1), 2)


def audited(journal: KafkaJournal, topics: Topics, path: Path) -> Path:
    Auditor(journal, topics, path, lambda: True, lambda: 1_700_000_000_000).look()
    return path


def verify(capsys: pytest.CaptureFixture[str], kafka: KafkaServer, prefix: str, *files: Path) -> tuple[int, list[str]]:
    named = [flag for path in files for flag in ("--checkpoints", str(path))]
    status = main(["audit", "verify", *on_kafka(kafka.bootstrap, prefix), *named])
    out, error = capsys.readouterr()
    assert all(line.startswith("verifying: ") for line in error.splitlines())
    return status, out.splitlines()


def make_anew(kafka: KafkaServer, topic: str, partition: int, entries: Sequence[Entry]) -> None:
    """Deletes a topic, and makes it anew with these records and their times: as one who wants to hide something."""
    admin = AdminClient({"bootstrap.servers": kafka.bootstrap})
    admin.delete_topics([topic], operation_timeout=WAIT_S)[topic].result()
    until(lambda: topic not in admin.list_topics(timeout=WAIT_S).topics, WAIT_S)
    spec = Topics().all()[Topics().tier(1)]._replace(log_times=False)

    def made() -> bool:
        try:
            admin.create_topics([NewTopic(topic, 4, 1, config=config_of(spec))])[topic].result()
        except Exception:  # the deletion is not over
            return False
        return True

    until(made, WAIT_S)
    until(lambda: len(admin.list_topics(topic, timeout=WAIT_S).topics[topic].partitions) == 4, WAIT_S)
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "enable.idempotence": True})
    for entry in entries:
        producer.produce(topic, entry.value, entry.key, partition, timestamp=entry.time_ms, headers=list(entry.headers))
        producer.poll(0)
    assert producer.flush(WAIT_S) == 0


def test_a_log_as_it_was_is_verified_also_after_a_cut(
    kafka: KafkaServer, journal: KafkaJournal, topics: Topics, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = audited(journal, topics, tmp_path / "checkpoints.jsonl")
    status, lines = verify(capsys, kafka, topics.prefix, path)
    assert (status, len(lines)) == (0, 1)
    assert lines[0].startswith(f"verified: {COUNT + 1} of {COUNT + 1} records are those that were noted, ")
    write(journal, home(topics), b"later")
    journal.trim({home(topics): 1000})
    audited(journal, topics, path)
    status, lines = verify(capsys, kafka, topics.prefix, path)
    assert (status, lines[0]) == (0, f"{home(topics)}: the log was cut in front, it begins at 1000")
    assert lines[-1].startswith(f"verified: {COUNT - 1000 + 2} of {COUNT - 1000 + 2} records ")


Change = Callable[[list[Entry]], list[Entry]]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (lambda entries: entries, []),
        (lambda entries: [*entries[:1500], entries[1500]._replace(value=b"forged"), *entries[1501:]], ["1000 to 1999"]),
        (lambda entries: [*entries[:1500], *entries[1501:]], ["1000 to 1999", f"ends at {COUNT - 1}"]),
        (lambda entries: [*entries[:1500], entries[1], *entries[1500:]], ["1000 to 1999", f"2000 to {COUNT - 1}"]),
        (lambda entries: entries[:1700], [f"ends at 1700: the records 1700 to {COUNT - 1} "]),
    ],
    ids=["the same", "changed", "removed", "put in", "end removed"],
)
def test_a_topic_that_was_made_anew_shows_what_was_done(
    kafka: KafkaServer,
    journal: KafkaJournal,
    topics: Topics,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    change: Change,
    named: list[str],
) -> None:
    path = audited(journal, topics, tmp_path / "checkpoints.jsonl")
    partition = home(topics)
    entries = read(journal, {partition: 0})
    assert len(entries) == COUNT
    make_anew(kafka, *partition, change(entries))
    status, lines = verify(capsys, kafka, topics.prefix, path)
    assert f"topic {partition.topic} is not the one that {path} is about: it was made anew, or is a copy" in lines
    differing = [line for line in lines if line.startswith("DIFFERS")]
    assert (status, bool(differing)) == ((1, True) if named else (0, False))
    assert all(line.startswith(f"DIFFERS  {partition}: ") for line in differing)
    assert all(any(text in line for line in differing) for text in named)
    assert not named or named[0] in differing[0]


def listed(url: str, **params: object) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = result(httpx.get(f"{url}/v1/operations", params=params, timeout=WAIT_S))["operations"]
    return rows


def test_two_nodes_list_and_cover_one_log_alike(
    kafka: KafkaServer, journal: KafkaJournal, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prefix = f"t{uuid4().hex[:8]}"
    flags = on_kafka(kafka.bootstrap, prefix)
    left, right = (Server(tmp_path / name, *flags, "--node", name).start() for name in ("left", "right"))
    result(httpx.put(f"{left.url}/collections/c", json={"vectors": {"size": 2, "distance": "Dot"}}, timeout=WAIT_S))
    for number in range(8):
        url, headers = (left, right)[number % 2].url, {"X-Vecraft-Tier": str(number % 4), "X-Request-Id": f"r{number}"}
        body = {"points": [{"id": number, "vector": [1, 2]}]}
        until(lambda url=url: httpx.get(f"{url}/collections/c", timeout=WAIT_S).status_code == 200, WAIT_S)
        result(httpx.put(f"{url}/collections/c/points?wait=true", json=body, headers=headers, timeout=WAIT_S))
    result(httpx.post(f"{left.url}/collections/c/points/count?consistency=strong", json={}, timeout=WAIT_S))
    rows = [row for row in listed(left.url, collection="c") if row["operation"] != "Barrier"]
    assert [row["request_id"] for row in rows[:-1]] == [f"r{number}" for number in range(7, -1, -1)]
    assert [row["position"] for row in listed(right.url)] == [row["position"] for row in listed(left.url)]
    since = [row for row in listed(right.url, since=rows[3]["time"]) if row["operation"] != "Barrier"]
    assert [row["request_id"] for row in since][:4] == ["r7", "r6", "r5", "r4"]
    assert (left.terminate(), right.terminate()) == (0, 0)
    files = [tmp_path / name / "audit" / "checkpoints.jsonl" for name in ("left", "right")]
    assert verify(capsys, kafka, prefix, *files)[0] == 0
    for file in files:  # what a slow machine left out at the stop
        audited(journal, Topics(prefix), file)
    status, lines = verify(capsys, kafka, prefix, *files)
    assert (status, len(lines)) == (0, 1), lines
