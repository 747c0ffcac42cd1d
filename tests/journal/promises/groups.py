"""What a journal promises of groups (U2, U4, I11)."""

import time

from journal.log import Journal, TopicPartition
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
