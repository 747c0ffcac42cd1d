"""The contract of a journal (I12): suites that the test file of every implementation subclasses.
Its parts by subject stand in `tests/journal/promises/`.

After the eventsourcing library, whose backends all pass one abstract suite. A subclass gives the fixtures that raise
NotImplementedError here; what only one implementation promises stands in that implementation's own test file.
"""

import re
from collections.abc import Callable

import pytest

from journal.log import Committed, Journal, TopicPartition, TopicSpec
from tests.journal.entries import read, values, write
from tests.journal.promises import PARTITIONS
from tests.journal.promises.appending import Appending
from tests.journal.promises.closing import Closing
from tests.journal.promises.groups import Groups
from tests.journal.promises.reading import Reading
from tests.journal.promises.topics import Topics
from tests.journal.promises.trimming import Trimming
from tests.journal.waits import WAIT_S, until_equal


class JournalContract(Appending, Topics, Reading, Trimming, Groups, Closing):
    """What every journal promises."""

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
        closable.commit(f"{topic}-epochs", {one: 2}, {one: 2**63 - 1})
        until_equal(lambda: closable.committed(topic, partitions), {one: 2})
        before = {p: read(closable, {p: 0}) for p in partitions}
        again = reopen(closable)
        again.ensure_topics({topic: TopicSpec(PARTITIONS)})
        assert again.end_offsets(partitions) == {one: 301, other: 1, empty: 0}
        assert {p: read(again, {p: 0}) for p in partitions} == before
        assert again.committed(topic, partitions) == {one: 2}
        assert again.commits(f"{topic}-epochs", partitions) == {one: Committed(2, 2**63 - 1)}
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
