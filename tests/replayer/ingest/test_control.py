"""U2: operators pause, resume, restart and move the ingest; what they say holds for every member, late ones included."""

from __future__ import annotations

import random
from pathlib import Path

from catalog.ingest import DEFAULT_SOURCE
from journal.hlc import Clock
from journal.ids import encode_id
from journal.log import Batch, Headers, Indefinite, TopicPartition
from journal.records import ControlIngest, Delete, Ingested
from journal.topics import shard_of
from replayer.ingest.member import Ingest
from replayer.ingest.status import State, status_of
from shard.batch import Limits
from shard.shards import Shards
from tests.replayer.ingest.ingest_rig import SHARDS, IngestRig, upsert
from tests.replayer.ingest.test_groups import Late
from tests.replayer.rig import TOPICS, replayer_on

FIRST = TopicPartition(TOPICS.ingest, 0)


def control(rig: IngestRig, action: str, *partitions: int) -> None:
    rig.command(ControlIngest(DEFAULT_SOURCE, action, list(partitions)))


def points(*numbers: int) -> dict[bytes, object]:
    return {encode_id(number): {"n": number} for number in numbers}


def holding(rig: IngestRig) -> Batch:
    """What the member has in hand when it is thrown out of the group; another one takes its place."""
    late = rig.ingest
    assert late._member is not None
    batch = late._member.poll(0)
    late.close()
    late._member = Late(batch)  # type: ignore[assignment]
    return batch


def test_a_paused_partition_is_not_read_and_the_others_are(rig: IngestRig) -> None:
    control(rig, "pause", 0, 3)
    for number in range(6):
        rig.produce(upsert(number, number), partition=number)
    rig.settle()
    assert rig.payloads() == points(1, 2, 4, 5)
    control(rig, "resume", 3)
    rig.settle()
    assert rig.payloads() == points(1, 2, 3, 4, 5)
    control(rig, "resume")
    rig.settle()
    assert rig.payloads() == points(0, 1, 2, 3, 4, 5)


def test_a_pause_holds_for_a_member_that_comes_later(rig: IngestRig) -> None:
    """Also when it gets partitions in a rebalance, and after a restart of the replay, which reads it in the log."""
    control(rig, "pause")
    control(rig, "resume", 1)
    rig.replayer.close()
    rig.replayer.open()
    other = rig.member()
    for number in range(6):
        rig.produce(upsert(number, number), partition=number)
    rig.settle()
    other.step(0)
    rig.ingest.close()
    other.step(0)
    rig.ingest = other
    rig.settle()
    assert rig.payloads() == points(1)


def test_what_is_read_after_a_move_back_is_written_again(rig: IngestRig) -> None:
    """As users of Kafka Connect know it: also what was applied before, and what has an idempotency key."""
    event: Headers = [("ce_id", b"17")]
    rig.produce(upsert(1, 1), headers=event)
    rig.produce(upsert(2, 2))
    rig.settle()
    rig.append(rig.record(Delete([encode_id(1)]), collection=1, catalog_position=2, shard=shard_of(encode_id(1), 2)), home(1))
    rig.append(rig.record(Delete([encode_id(2)]), collection=1, catalog_position=2, shard=shard_of(encode_id(2), 2)), home(2))
    assert rig.payloads() == {}
    rig.move(0)
    rig.settle()
    assert rig.payloads() == points(1, 2)
    rig.produce(upsert(1, 7), headers=event)
    rig.settle()
    assert rig.payloads() == points(1, 2), "within an epoch, the key holds"
    assert rig.journal.commits(rig.ingest.group, [FIRST])[FIRST] == (3, rig.source().epoch(0))


def test_what_lies_between_is_skipped_by_a_move_forwards(rig: IngestRig) -> None:
    for number in range(3):
        rig.produce(upsert(number, number))
    rig.move(2)
    rig.settle()
    assert rig.payloads() == points(2)
    rig.produce(upsert(3, 3), partition=1)
    rig.settle()
    assert rig.payloads() == points(2, 3), "the other partitions go on"


def test_a_move_that_was_made_is_not_made_again(rig: IngestRig) -> None:
    """By a member that comes later: its commit says under which epoch it was made."""
    rig.produce(upsert(1, 1))
    rig.settle()
    rig.move(0)
    rig.settle()
    written = len(rig.records())
    rig.ingest.close()
    rig.ingest = rig.member()
    rig.settle()
    assert len(rig.records()) == written == 2


def test_a_late_member_changes_nothing_after_a_move(rig: IngestRig) -> None:
    """It was thrown out with records in hand, and writes them when others have read on, before it hears of the move."""
    for n in range(4):
        rig.produce(upsert(1, n))
    late = rig.ingest
    holding(rig)
    source = late.source
    rig.ingest = rig.member()
    rig.move(1)
    rig.produce(upsert(1, 4))
    rig.settle()
    assert rig.payloads() == {encode_id(1): {"n": 4}}
    late._current = lambda: source  # type: ignore[method-assign]
    late.step(0)
    rig.replayer.step(0)
    assert rig.records()[-1][0] == Ingested(f"{TOPICS.ingest}/0", [0, 1, 2, 3]), "it has written"
    assert rig.payloads() == {encode_id(1): {"n": 4}}


def test_a_commit_of_an_earlier_epoch_does_not_undo_a_move(rig: IngestRig) -> None:
    """The broker takes it from a member that has lost only some of its partitions. The move is made again, and is dropped."""
    for n in range(4):
        rig.produce(upsert(n, n))
    rig.move(2)
    rig.settle()
    rig.journal.commit(rig.ingest.group, {FIRST: 1})
    rig.ingest.close()
    rig.ingest = rig.member()
    rig.settle()
    assert rig.payloads() == points(2, 3)
    assert rig.journal.commits(rig.ingest.group, [FIRST])[FIRST] == (4, rig.source().epoch(0))


def test_a_move_is_of_one_topic(rig: IngestRig) -> None:
    """A topic made anew is read from its start, whatever was said of the former one."""
    rig.move(3, log="another")
    rig.produce(upsert(1, 1))
    rig.settle()
    assert rig.payloads() == points(1)


def test_what_is_refused_again_after_a_move_is_a_letter_again(rig: IngestRig) -> None:
    """A3: the first one may have been cleared."""
    rig.produce(b"poison")
    rig.settle()
    rig.move(0)
    rig.settle()
    assert [letter.offset for letter in rig.replayer.letters.list()] == [0, 0]


def test_an_epoch_that_no_move_made_is_refused(rig: IngestRig) -> None:
    """I6: with it, the records that come next would vanish."""
    rig.produce(upsert(1, 1))
    rig.settle()
    rig.move(0)
    epoch = rig.source().epoch(0)
    forgeries = (epoch - 1, epoch + 1, -1)
    for forged in forgeries:
        ingested = Ingested(f"{TOPICS.ingest}/0", [0], epoch=forged)
        shard = shard_of(encode_id(1), len(SHARDS))
        record = rig.record(
            Delete([encode_id(1)]), collection=1, catalog_position=epoch, shard=shard, ingested=ingested, request_id="forged"
        )
        rig.append(record, home(1))
    rig.settle()
    reasons = [letter.reason for letter in rig.replayer.letters.list()]
    expected = [f"no source was moved at catalog position {forged}, which is given as its epoch" for forged in forgeries]
    assert reasons == expected
    assert rig.payloads() == points(1)


def test_a_restart_lets_the_member_begin_anew(rig: IngestRig) -> None:
    member = rig.ingest._member
    control(rig, "restart")
    rig.ingest.step(0)
    assert rig.ingest._member is not member


def test_moves_among_joins_and_leaves(rig: IngestRig, tmp_path: Path) -> None:
    """Members come and go, late ones write what they held, and partitions are moved back all the while: in the end each point is
    as its last record says, on this replica and on one that replays everything.
    """
    choose = random.Random(5)
    members, late = [rig.ingest], list[Ingest]()
    produced = moved_late = 0
    for _ in range(300):
        for _ in range(choose.randint(0, 3)):
            rig.produce(upsert(produced % 7, produced), partition=produced % 7 % 6)
            produced += 1
        if choose.random() < 0.2:
            partition = TopicPartition(TOPICS.ingest, choose.randrange(6))
            committed = rig.journal.committed(rig.ingest.group, [partition]).get(partition, 0)
            rig.move(choose.randint(0, committed), partition.partition)
        if len(members) < 2 or (len(members) < 4 and choose.random() < 0.5):
            members.append(rig.member())
        else:
            leaving = members.pop(choose.randrange(len(members)))
            rig.ingest = leaving
            holding(rig)
            leaving._current = lambda source=leaving.source: source  # type: ignore[method-assign, misc]
            late.append(leaving)
        for member in choose.sample(members, len(members)):
            member.step(0)
        if late and choose.random() < 0.4:
            slow = late.pop(choose.randrange(len(late)))
            moved_late += slow.source != rig.source() and slow.step(0) > 0
        rig.replayer.step(0)
    for member in members:
        member.close()
    rig.ingest = rig.member()
    rig.settle()
    for member in late:
        member.step(0)
    rig.settle()
    assert moved_late > 10, "records of an earlier epoch came late"
    last = {encode_id(point): {"n": max(range(point, produced, 7))} for point in range(7)}
    assert rig.payloads() == last
    assert rig.replayer.letters.list() == []
    shards = Shards(tmp_path / "other", TOPICS, Limits(), lambda task: None)
    replayer = replayer_on(rig.journal, Clock(lambda: rig.now_ms), shards, lambda: rig.now_ms, "other")
    replayer.open()
    while replayer.step(0):
        pass
    rig.shards = shards
    assert rig.payloads() == last
    replayer.close()


# Status.


def states(rig: IngestRig, node: str = "member") -> list[State]:
    return [each.state for each in status_of(rig.journal, TOPICS, rig.source(), rig.ingest, node).partitions]


def test_the_status_of_each_partition(rig: IngestRig) -> None:
    rig.produce(upsert(1, 1))
    rig.settle()
    rig.produce(upsert(2, 2))
    control(rig, "pause", 5)
    rig.ingest.step(0)
    rig.produce(upsert(3, 3))
    rig.move(0)
    status = status_of(rig.journal, TOPICS, rig.source(), rig.ingest, "member")
    assert (status.state, status.topic, status.group) == (State.RUNNING, TOPICS.ingest, "v.ingest")
    first, *_, last = status.partitions
    assert (first.state, first.node, first.since_ms) == (State.RUNNING, "member", rig.now_ms)
    assert first.standing == (0, 3), "as moved, although this is not committed yet"
    assert first.standing.lag == 3
    assert (last.state, last.since_ms, last.standing.lag) == (State.PAUSED, rig.now_ms, 0)
    assert first.epoch == rig.source().epoch(0) > last.epoch == 0


def test_the_state_of_partitions_by_who_has_them(rig: IngestRig) -> None:
    assert states(rig) == [State.RUNNING] * 6
    assert status_of(rig.journal, TOPICS, rig.source(), rig.ingest, "asked").partitions[0].since_ms is None, "of another node"
    rig.ingest.close()
    assert states(rig) == [State.UNASSIGNED] * 6
    rig.ingest._note(Indefinite("no answer"))
    status = status_of(rig.journal, TOPICS, rig.source(), rig.ingest, "member")
    assert status.state is State.FAILED
    assert {(each.state, each.since_ms) for each in status.partitions} == {(State.FAILED, rig.now_ms)}
    assert status.last_failure == ("no answer", rig.now_ms)
    control(rig, "pause")
    assert status_of(rig.journal, TOPICS, rig.source(), rig.ingest, "member").state is State.PAUSED


def home(number: int) -> TopicPartition:
    """The home of a point's shard in tier 2."""
    return TopicPartition(TOPICS.tier(2), SHARDS[shard_of(encode_id(number), len(SHARDS))][2])
