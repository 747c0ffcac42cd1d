"""The contract of a journal (I12): suites that the test file of every implementation subclasses.

After the eventsourcing library, whose backends all pass one abstract suite. A subclass gives the fixtures that raise
NotImplementedError here; what only one implementation promises stands in that implementation's own test file.
"""

import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from itertools import chain
from typing import Any, TypeVar

import pytest

from journal.log import Appended, Definite, Entry, Headers, Journal, JournalError, Member, Reader, TopicPartition, TopicSpec

T = TypeVar("T")

PARTITIONS = 3
WAIT_S = 20
"""The bound of every wait. Only a broken journal makes a test wait that long."""
FOREVER_S = 100 * WAIT_S


def write(journal: Journal, partition: TopicPartition, *values: bytes, headers: Headers = ()) -> list[Appended]:
    """Appends the values without waiting in between, then waits until all are durable."""
    futures = [journal.append(partition, value, headers=headers) for value in values]
    return [future.result(WAIT_S) for future in futures]


def read(journal: Journal, start: Mapping[TopicPartition, int], **bounds: int) -> list[Entry]:
    """Everything from `start` to the end offsets of now, by a reader of its own."""
    ends = journal.end_offsets(list(start))
    reader = journal.reader()
    reader.assign(start)
    try:
        return [entry for batch in batches(reader, start, ends, **bounds) for entry in batch]
    finally:
        reader.close()


def batches(
    reader: Reader, start: Mapping[TopicPartition, int], ends: Mapping[TopicPartition, int], **bounds: int
) -> Iterator[list[Entry]]:
    """Polls until the positions have reached `ends`; gives the batches that were not empty."""
    deadline = time.monotonic() + WAIT_S
    positions = start
    while any(positions[partition] < end for partition, end in ends.items()):
        assert time.monotonic() < deadline, f"the reader stands at {positions}, the ends are {ends}"
        entries, positions = reader.poll(0.2, **bounds)
        if entries:
            yield entries


def values(entries: Iterable[Entry]) -> list[bytes]:
    return [entry.value for entry in entries]


def outcomes(futures: Sequence[Future[Appended]]) -> list[Appended | JournalError]:
    """What became of each append. Any other error is a failure of the journal to keep its word."""
    done, undecided = wait(futures, WAIT_S)
    assert not undecided, f"{len(undecided)} of {len(done) + len(undecided)} appends were never decided"
    found: list[Appended | JournalError] = []
    for future in futures:
        try:
            found.append(future.result(0))
        except JournalError as error:
            found.append(error)
    return found


def until_it_works(call: Callable[[], T]) -> T:
    """Calls again while the log turns the calls away, as one does that has just started or lost its leader."""
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            return call()
        except JournalError:
            if time.monotonic() > deadline:
                raise


def until_equal(ask: Callable[[], T], expected: T) -> None:
    """Asks again until the answer is the expected one: for what a log does in its own time."""
    deadline = time.monotonic() + WAIT_S
    while (found := ask()) != expected:
        assert time.monotonic() < deadline, f"{found} is still not {expected}"


def received(member: Member, count: int) -> list[Entry]:
    """Polls until so many entries have come."""
    deadline = time.monotonic() + WAIT_S
    entries: list[Entry] = []
    while len(entries) < count:
        assert time.monotonic() < deadline, f"{len(entries)} of {count} entries came"
        batch = member.poll(0.2)
        assert batch.positions.keys() >= {entry.partition for entry in batch.entries}
        entries += batch.entries
    return entries


def in_thread(call: Callable[..., Any], *args: Any) -> Future[Any]:
    """Runs a call that may never return; unlike an executor's, this thread holds nobody up."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(call(*args))
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return future


class JournalContract:
    """What every journal promises."""

    RACES = 30
    """How often threads race for a topic; fewer where it is slow to create one."""

    @pytest.fixture
    def journal(self) -> Journal:
        """An open journal."""
        raise NotImplementedError

    @pytest.fixture
    def closable(self, journal: Journal) -> Journal:
        """A journal on the same log that no other test uses."""
        return journal

    @pytest.fixture
    def topic(self, journal: Journal, request: pytest.FixtureRequest) -> str:
        """A topic of this test's own, with three partitions."""
        name = re.sub(r"\W+", "-", request.node.name)
        journal.ensure_topics({name: TopicSpec(PARTITIONS)})
        return name

    @pytest.fixture
    def partitions(self, topic: str) -> list[TopicPartition]:
        return [TopicPartition(topic, index) for index in range(PARTITIONS)]

    @pytest.fixture
    def partition(self, partitions: list[TopicPartition]) -> TopicPartition:
        return partitions[1]

    # Appending

    def test_entries_come_back_in_the_order_of_their_appends_with_offsets_from_zero(
        self, journal: Journal, partition: TopicPartition
    ) -> None:
        """I12"""
        sent = [b"%d" % n for n in range(20)]
        appended = write(journal, partition, *sent)
        entries = read(journal, {partition: 0})
        assert values(entries) == sent
        assert [entry.offset for entry in entries] == list(range(20))
        assert [(a.partition, a.offset) for a in appended] == [(e.partition, e.offset) for e in entries]

    def test_each_partition_counts_for_itself(self, journal: Journal, partitions: list[TopicPartition]) -> None:
        """I12"""
        for round_ in range(3):
            for partition in partitions:
                (appended,) = write(journal, partition, b"%d in %d" % (round_, partition.partition))
                assert (appended.partition, appended.offset) == (partition, round_)
        entries = read(journal, dict.fromkeys(partitions, 0))
        for p in partitions:
            assert values([e for e in entries if e.partition == p]) == [b"%d in %d" % (n, p.partition) for n in range(3)]

    @pytest.mark.parametrize("key", [None, b"", b"key \x00\xff"])
    @pytest.mark.parametrize("value", [b"", b"\x00", bytes(range(256))])
    @pytest.mark.parametrize("headers", [(), (("a", b"1"), ("ä", b""), ("a", b"\x00\xff"))])
    def test_key_value_and_headers_come_back(
        self, journal: Journal, partition: TopicPartition, key: bytes | None, value: bytes, headers: Headers
    ) -> None:
        """I12"""
        appended = journal.append(partition, value, key, headers).result(WAIT_S)
        (entry,) = read(journal, {partition: 0})
        assert (entry.key, entry.value, tuple(entry.headers)) == (key, value, headers)
        assert (entry.partition, entry.offset) == (partition, appended.offset)

    def test_a_record_of_900_kb_comes_back(self, journal: Journal, partition: TopicPartition) -> None:
        """I12: the cut of `journal.split` fits every log, with its envelope."""
        value = bytes(range(250)) * 3600 + bytes(5000)
        write(journal, partition, value)
        assert values(read(journal, {partition: 0})) == [value]

    def test_the_time_is_the_same_for_writer_and_reader_and_never_decreases(
        self, journal: Journal, partition: TopicPartition
    ) -> None:
        """I4: stamps are computed from append times, so they must be facts of the log."""
        appended = [write(journal, partition, b"%d" % n)[0] for n in range(10)]
        entries = read(journal, {partition: 0})
        assert [entry.time_ms for entry in entries] == [a.time_ms for a in appended]
        assert [a.time_ms for a in appended] == sorted(a.time_ms for a in appended)
        assert appended[0].time_ms > 0

    def test_threads_lose_nothing_and_keep_their_own_order(self, journal: Journal, partitions: list[TopicPartition]) -> None:
        """I2, I4"""

        def write_all(thread: int) -> list[tuple[bytes, Appended]]:
            sent = [b"%d/%d" % (thread, n) for n in range(60)]
            futures = [journal.append(partitions[n % PARTITIONS], value) for n, value in enumerate(sent)]
            return [(value, future.result(WAIT_S)) for value, future in zip(sent, futures, strict=True)]

        with ThreadPoolExecutor(6) as threads:
            written = [list(each) for each in threads.map(write_all, range(6))]
        found = {(e.partition, e.offset): e.value for e in read(journal, dict.fromkeys(partitions, 0))}
        assert found == {(a.partition, a.offset): value for each in written for value, a in each}
        assert len(found) == 6 * 60
        for each in written:
            for partition in partitions:
                offsets = [a.offset for _, a in each if a.partition == partition]
                assert offsets == sorted(offsets)

    def test_a_caller_that_gives_up_on_its_append_harms_nobody(self, closable: Journal, partition: TopicPartition) -> None:
        """I2: asyncio cancels the future of a request that timed out."""
        closable.ensure_topics({partition.topic: TopicSpec(PARTITIONS)})
        for n in range(50):
            closable.append(partition, b"%d" % n).cancel()
        assert write(closable, partition, b"after")[0].offset == 50

    @pytest.mark.parametrize("unknown", [TopicPartition("{topic}", 99), TopicPartition("no-{topic}", 0)])
    def test_an_unknown_partition_is_refused_at_once(self, journal: Journal, topic: str, unknown: TopicPartition) -> None:
        """I12"""
        unknown = unknown._replace(topic=unknown.topic.format(topic=topic))
        with pytest.raises(Definite):
            journal.append(unknown, b"value")
        with pytest.raises(JournalError):
            journal.end_offsets([unknown])

    # Topics

    def test_topics_are_ensured_once_and_keep_their_entries(self, journal: Journal, topic: str) -> None:
        """V1"""
        last = TopicPartition(topic, PARTITIONS - 1)
        write(journal, last, b"kept")
        for count in (PARTITIONS, 1):
            journal.ensure_topics({topic: TopicSpec(count)})
        write(journal, last, b"next")
        assert values(read(journal, {last: 0})) == [b"kept", b"next"]

    def test_a_topic_with_too_few_partitions_is_refused(self, journal: Journal, topic: str) -> None:
        """V1"""
        with pytest.raises(Definite):
            journal.ensure_topics({topic: TopicSpec(5)})

    @pytest.mark.usefixtures("hasty_threads")
    def test_threads_may_ensure_the_same_topics(self, journal: Journal, topic: str) -> None:
        """I2: workers that start together must not open a topic over each other's entries."""
        together = threading.Barrier(16)
        partitions = [TopicPartition(f"{topic}-{n}", 0) for n in range(self.RACES)]

        def ensure_and_write(_: int) -> None:
            for partition in partitions:
                together.wait(WAIT_S)
                journal.ensure_topics({partition.topic: TopicSpec(PARTITIONS)})
                write(journal, partition, b"x")

        with ThreadPoolExecutor(16) as threads:
            list(threads.map(ensure_and_write, range(16)))
        assert journal.end_offsets(partitions) == dict.fromkeys(partitions, 16)

    def test_a_record_may_bring_its_own_time(self, journal: Journal, topic: str) -> None:
        """A3: where the topic is made for it; the log's own clock goes on undisturbed."""
        own = TopicPartition(f"{topic}-own", 0)
        journal.ensure_topics({own.topic: TopicSpec(1, log_times=False)})
        assert journal.append(own, b"old", time_ms=1_000).result(WAIT_S).offset == 0
        assert [entry.time_ms for entry in read(journal, {own: 0})] == [1_000]
        assert write(journal, TopicPartition(topic, 0), b"x")[0].time_ms > 1_000

    # Positions

    def test_end_offsets_lie_above_every_acknowledged_append(self, journal: Journal, partitions: list[TopicPartition]) -> None:
        """I9: a strong read waits for these."""
        assert journal.end_offsets(partitions) == dict.fromkeys(partitions, 0)
        for n in range(1, 6):
            write(journal, partitions[1], b"%d" % n)
            assert journal.end_offsets(partitions) == {partitions[0]: 0, partitions[1]: n, partitions[2]: 0}

    def test_a_group_finds_what_it_committed(self, journal: Journal, partitions: list[TopicPartition]) -> None:
        """U4"""
        one, other, never = partitions
        write(journal, one, *[b"x"] * 9)
        group = one.topic
        assert journal.committed(group, partitions) == {}
        journal.commit(group, {one: 4, other: 0})
        journal.commit(f"{group}-2", {one: 9})
        until_equal(lambda: journal.committed(group, partitions), {one: 4, other: 0})
        journal.commit(group, {one: 2})
        until_equal(lambda: journal.committed(group, [one, never]), {one: 2})
        until_equal(lambda: journal.committed(f"{group}-2", partitions), {one: 9})

    # Reading

    @pytest.mark.parametrize("start", [0, 3, 5])
    def test_a_reader_starts_where_it_is_told(self, journal: Journal, partition: TopicPartition, start: int) -> None:
        """I1"""
        write(journal, partition, *[b"%d" % n for n in range(5)])
        assert [entry.offset for entry in read(journal, {partition: start})] == list(range(start, 5))

    def test_assign_replaces_what_was_assigned(self, journal: Journal, partitions: list[TopicPartition]) -> None:
        """I12"""
        one, other, _ = partitions
        write(journal, one, b"one", b"two")
        write(journal, other, b"other")
        reader = journal.reader()
        reader.assign({one: 0})
        assert list(batches(reader, {one: 0}, {one: 2}))
        reader.assign({other: 0})
        write(journal, one, b"three")
        found = [entry for batch in batches(reader, {other: 0}, {other: 1}) for entry in batch]
        assert values(found) == [b"other"]
        assert reader.poll(0.01) == ([], {other: 1})
        reader.close()

    def test_readers_do_not_disturb_each_other(self, journal: Journal, partition: TopicPartition) -> None:
        """I1: each node replays everything for itself."""
        write(journal, partition, b"0", b"1", b"2")
        first, second = journal.reader(), journal.reader()
        for reader in (first, second):
            reader.assign({partition: 0})
        for reader in (first, second):
            assert values(chain.from_iterable(batches(reader, {partition: 0}, {partition: 3}))) == [b"0", b"1", b"2"]
            reader.close()

    @pytest.mark.parametrize("bounds", [{"max_records": 1}, {"max_records": 4}, {"max_bytes": 1}, {"max_bytes": 250}])
    def test_a_poll_keeps_its_bounds_and_brings_at_least_one_entry(
        self, journal: Journal, partitions: list[TopicPartition], bounds: dict[str, int]
    ) -> None:
        """I11"""
        for partition in partitions:
            write(journal, partition, *[bytes(100)] * 4, bytes(400))
        start, ends = dict.fromkeys(partitions, 0), dict.fromkeys(partitions, 5)
        reader = journal.reader()
        reader.assign(start)
        found = list(batches(reader, start, ends, **bounds))
        reader.close()
        assert sum(len(batch) for batch in found) == 3 * 5
        for batch in found:
            assert len(batch) <= bounds.get("max_records", 1000)
            assert sum(len(value) for value in values(batch)[:-1]) <= bounds.get("max_bytes", 8 << 20)

    def test_the_positions_of_each_batch_say_where_to_read_on(self, journal: Journal, partitions: list[TopicPartition]) -> None:
        """I3: they are what a shard stores with its rows."""
        for partition in partitions:
            write(journal, partition, *[b"%d" % n for n in range(4)])
        positions = dict.fromkeys(partitions, 0)
        found: list[Entry] = []
        while any(position < 4 for position in positions.values()):
            reader = journal.reader()
            reader.assign(positions)
            entries, after = reader.poll(WAIT_S, max_records=3)
            reader.close()
            assert entries
            for entry in entries:
                assert entry.offset == positions[entry.partition]
                positions[entry.partition] += 1
            assert after == positions
            found += entries
        assert len(found) == 12

    @pytest.mark.parametrize("max_records", [1, 3])
    def test_no_partition_starves_another(self, journal: Journal, partitions: list[TopicPartition], max_records: int) -> None:
        """N5, I11: a busy tier must not hold up the others."""
        busy, _, quiet = partitions
        write(journal, busy, *[b"busy"] * 10)
        write(journal, quiet, b"quiet")
        reader = journal.reader()
        reader.assign(dict.fromkeys(partitions, 0))
        for _ in range(60):
            if b"quiet" in values(reader.poll(WAIT_S, max_records=max_records).entries):
                break
            write(journal, busy, *[b"busy"] * 3)
        else:
            pytest.fail("60 polls brought nothing of the quiet partition")
        reader.close()

    @pytest.mark.parametrize("timeout_s", [0, 0.01])
    def test_a_poll_with_nothing_to_read_ends_empty(self, journal: Journal, partition: TopicPartition, timeout_s: float) -> None:
        """I11"""
        write(journal, partition, b"read before")
        reader = journal.reader()
        reader.assign({partition: 1})
        assert in_thread(reader.poll, timeout_s).result(WAIT_S) == ([], {partition: 1})
        reader.close()

    def test_a_waiting_poll_gets_what_is_appended_meanwhile(self, journal: Journal, partition: TopicPartition) -> None:
        """I12"""
        reader = journal.reader()
        reader.assign({partition: 0})
        poll = in_thread(reader.poll, FOREVER_S)
        write(journal, partition, b"late")
        assert values(poll.result(WAIT_S).entries) == [b"late"]
        reader.close()

    @pytest.mark.parametrize("when", ["before", "during"])
    def test_wake_ends_one_poll(self, journal: Journal, partition: TopicPartition, when: str) -> None:
        """I11"""
        reader = journal.reader()
        reader.assign({partition: 0})
        if when == "before":
            reader.wake()
        poll = in_thread(reader.poll, FOREVER_S)
        if when == "during":
            reader.wake()
        assert poll.result(WAIT_S) == ([], {partition: 0})
        poll = in_thread(reader.poll, FOREVER_S)
        write(journal, partition, b"late")
        assert values(poll.result(WAIT_S).entries) == [b"late"]
        reader.close()

    def test_a_reader_may_be_closed_twice(self, journal: Journal, partition: TopicPartition) -> None:
        """I11"""
        reader = journal.reader()
        reader.assign({partition: 0})
        reader.close()
        reader.close()

    # Trimming

    def test_what_is_trimmed_is_gone_and_nothing_else(
        self, journal: Journal, topic: str, partitions: list[TopicPartition]
    ) -> None:
        """A3, I11: offsets stay what they were, and the log goes on after its end, also when nothing is left of it."""
        trimmed, whole, _ = partitions
        write(journal, trimmed, *[b"%d" % n for n in range(10)])
        write(journal, whole, b"whole")
        assert journal.start_offsets([trimmed, whole]) == {trimmed: 0, whole: 0}
        journal.trim({trimmed: 7})
        journal.trim({trimmed: 4})
        until_equal(lambda: journal.start_offsets([trimmed, whole]), {trimmed: 7, whole: 0})
        assert [(entry.offset, entry.value) for entry in read(journal, {trimmed: 7})] == [(7, b"7"), (8, b"8"), (9, b"9")]
        assert values(read(journal, {whole: 0})) == [b"whole"]
        journal.trim({trimmed: 10})
        assert write(journal, trimmed, b"next")[0].offset == 10
        with pytest.raises(Definite):
            journal.trim({whole: 5})

    # Groups

    def test_members_share_a_topic_and_go_on_where_the_group_committed(
        self, journal: Journal, topic: str, partitions: list[TopicPartition]
    ) -> None:
        """U2: every record comes to one member; what was not committed comes again after a member left."""
        written = [write(journal, p, *[b"%d-%d" % (p.partition, n) for n in range(4)]) for p in partitions]
        assert len(written) == PARTITIONS
        first = journal.join(topic, topic, "first")
        got = received(first, 4 * PARTITIONS)
        assert len(set(values(got))) == len(got) == 4 * PARTITIONS
        first.commit({partitions[0]: 4, partitions[1]: 3})
        first.close()
        second = journal.join(topic, topic, "second")
        assert sorted(values(received(second, 5))) == [b"1-3", b"2-0", b"2-1", b"2-2", b"2-3"]
        second.commit(dict.fromkeys(partitions, 4))
        third = journal.join(topic, topic, "third")
        write(journal, partitions[0], b"new")
        deadline = time.monotonic() + WAIT_S
        again: list[bytes] = []
        while not again:
            assert time.monotonic() < deadline
            again = [value for member in (second, third) for value in values(member.poll(0.2).entries)]
        assert again == [b"new"]
        second.close()
        third.close()

    def test_a_member_can_be_woken(self, journal: Journal, topic: str) -> None:
        """I11: a stop does not wait for a record."""
        member = journal.join(topic, topic, "member")
        polling = in_thread(member.poll, FOREVER_S)
        member.wake()
        assert polling.result(WAIT_S).entries == []
        member.close()

    # Closing

    def test_close_leaves_no_append_undecided(self, closable: Journal, topic: str) -> None:
        """I2: and is idempotent."""
        partition = TopicPartition(topic, 0)
        closable.ensure_topics({topic: TopicSpec(PARTITIONS)})
        futures = [closable.append(partition, bytes(1000)) for _ in range(300)]
        closable.close()
        closable.close()
        assert all(future.done() for future in futures)
        outcomes(futures)

    def test_a_closed_journal_takes_no_appends(self, closable: Journal, topic: str) -> None:
        """I12"""
        closable.ensure_topics({topic: TopicSpec(PARTITIONS)})
        closable.close()
        with pytest.raises(Definite):
            closable.append(TopicPartition(topic, 0), b"late")


class DurableContract(JournalContract):
    """What a journal promises that outlives its process."""

    @pytest.fixture
    def reopen(self) -> Callable[[Journal], Journal]:
        """Closes a journal and opens it again."""
        raise NotImplementedError

    def test_reopening_keeps_everything(
        self, closable: Journal, reopen: Callable[[Journal], Journal], topic: str, partitions: list[TopicPartition]
    ) -> None:
        """I2"""
        closable.ensure_topics({topic: TopicSpec(PARTITIONS)})
        one, other, empty = partitions
        closable.append(one, b"value", b"key", [("name", b"\x00")]).result(WAIT_S)
        write(closable, one, *[b"%d" % n for n in range(300)])
        write(closable, other, b"other")
        closable.commit(topic, {one: 2})
        until_equal(lambda: closable.committed(topic, partitions), {one: 2})
        before = {p: read(closable, {p: 0}) for p in partitions}
        again = reopen(closable)
        again.ensure_topics({topic: TopicSpec(PARTITIONS)})
        assert again.end_offsets(partitions) == {one: 301, other: 1, empty: 0}
        assert {p: read(again, {p: 0}) for p in partitions} == before
        assert again.committed(topic, partitions) == {one: 2}
        (appended,) = write(again, one, b"next")
        assert appended.offset == 301
        assert values(read(again, {one: 301})) == [b"next"]


class OwnClockContract:
    """What a journal promises that is given a clock, instead of a broker's."""

    @pytest.fixture
    def open_at(self) -> Callable[[Callable[[], int]], Journal]:
        """Opens a journal whose log tells the time by the given clock."""
        raise NotImplementedError

    def test_times_follow_the_clock_but_never_step_back(self, open_at: Callable[[Callable[[], int]], Journal]) -> None:
        """I4, V14"""
        now_ms = [0]
        journal = open_at(lambda: now_ms[0])
        journal.ensure_topics({"t": TopicSpec(1)})
        times = []
        for now_ms[0] in (100, 50, 70, 130):
            times.append(write(journal, TopicPartition("t", 0), b"x")[0].time_ms)
        assert times == [100, 100, 100, 130]
        assert [entry.time_ms for entry in read(journal, {TopicPartition("t", 0): 0})] == times
