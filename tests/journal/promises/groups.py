"""What a journal promises of groups (U2, U4, I11)."""

import time
from collections.abc import Mapping

import pytest

from journal.log import Committed, Definite, Journal, TopicPartition
from tests.journal.entries import received, values, write
from tests.journal.promises import PARTITIONS
from tests.journal.waits import FOREVER_S, WAIT_S, in_thread, until_equal


class Groups:
    """What members share, and what a group committed."""

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

    def test_a_member_begins_where_it_is_told_and_reads_nothing_else(
        self, journal: Journal, topic: str, partitions: list[TopicPartition]
    ) -> None:
        """U2: it is told what its group has committed, with the epoch; also of partitions that it is not to read."""
        for partition in partitions:
            write(journal, partition, *[b"%d-%d" % (partition.partition, n) for n in range(4)])
        first, second, third = partitions
        member = journal.join(topic, topic, "member")
        received(member, 4 * PARTITIONS)
        member.commit({first: 4, second: 3}, {first: 17})
        member.close()
        told: dict[TopicPartition, Committed | None] = {}

        def begin(found: Mapping[TopicPartition, Committed | None]) -> Mapping[TopicPartition, int]:
            told.update(found)
            return {partition: 2 for partition in found if partition != third}

        again = journal.join(topic, topic, "member", begin)
        assert sorted(values(received(again, 4))) == [b"0-2", b"0-3", b"1-2", b"1-3"]
        assert told == {first: Committed(4, 17), second: Committed(3), third: None}
        write(journal, third, b"unread")
        write(journal, first, b"read")
        assert values(received(again, 1)) == [b"read"]
        again.close()
        assert journal.commits(topic, partitions) == {first: Committed(4, 17), second: Committed(3)}

    def test_a_begin_that_fails_ends_the_poll(self, journal: Journal, topic: str, partitions: list[TopicPartition]) -> None:
        """U2: rather than a guess where to begin."""

        def begin(_: Mapping[TopicPartition, Committed | None]) -> Mapping[TopicPartition, int]:
            raise Definite("not now")

        write(journal, partitions[0], b"x")
        member = journal.join(topic, topic, "member", begin)
        with pytest.raises(Definite, match="not now"):
            received(member, 1)
        member.close()

    def test_who_has_which_partition(self, journal: Journal, topic: str, partitions: list[TopicPartition]) -> None:
        assert journal.members(topic) == {}
        write(journal, partitions[0], b"x")
        member = journal.join(topic, topic, "left")
        received(member, 1)
        until_equal(lambda: journal.members(topic), dict.fromkeys(partitions, "left"))
        member.close()

    def test_the_partitions_of_a_topic(self, journal: Journal, topic: str, partitions: list[TopicPartition]) -> None:
        assert journal.partitions(topic) == partitions
        assert journal.partitions(f"{topic}-none") == []

    def test_offsets_by_time(self, journal: Journal, partitions: list[TopicPartition]) -> None:
        """The first record that is not older; the end, when all are."""
        one, other, _ = partitions
        appended = []
        for value in (b"a", b"b", b"c"):
            if appended:
                until_equal(lambda: time.time_ns() // 1_000_000 > appended[-1].time_ms, True)
            (written,) = write(journal, one, value)
            appended.append(written)
        assert [journal.offsets_at(each.time_ms, [one])[one] for each in appended] == [0, 1, 2]
        assert journal.offsets_at(0, [one, other]) == {one: 0, other: 0}
        assert journal.offsets_at(appended[-1].time_ms + 1, [one, other]) == {one: 3, other: 0}
