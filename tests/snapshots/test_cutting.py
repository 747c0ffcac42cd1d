"""The rule by which the log is cut: whatever the facts, nobody loses what is still needed (I1, I2)."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from journal.chain import EVERY
from journal.log import Positions, TopicPartition
from snapshots.cutting import Facts, Held, Saved, ShardKey, cuts

ONE, OTHER = PARTITIONS = TopicPartition("tier0", 0), TopicPartition("tier1", 3)
NODES = ("left", "right")

offsets = st.integers(0, 5 * EVERY)
positions = st.fixed_dictionaries({}, optional=dict.fromkeys(PARTITIONS, offsets))
keys = st.builds(ShardKey, st.integers(0, 9), st.integers(0, 1))


@st.composite
def facts(draw: st.DrawFn) -> Facts:
    return Facts(
        starts={partition: draw(st.integers(0, 2 * EVERY)) for partition in PARTITIONS},
        ends=draw(positions),
        saved=Saved("s", draw(positions), draw(st.integers(0, 10)), draw(st.frozensets(keys, max_size=3))),
        shards=draw(st.dictionaries(keys, st.builds(Held, st.just("shard"), positions, st.booleans()), max_size=3)),
        applied=draw(positions),
        audited=draw(positions),
        settled=draw(positions),
        old=draw(st.none() | positions),
        nodes=draw(st.dictionaries(st.sampled_from(NODES), positions)),
        beyond=draw(st.frozensets(st.sampled_from(NODES))),
    )


def whole(to: int = 3 * EVERY) -> Facts:
    """Facts under which everything below `to` may go, and one shard is at home in ONE."""
    everywhere = dict.fromkeys(PARTITIONS, to)
    key = ShardKey(3, 0)
    shards = {key: Held("shard 0 of collection 'songs'", {ONE: to})}
    saved = Saved("s", everywhere, 10, {key})
    starts = dict.fromkeys(PARTITIONS, 0)
    return Facts(starts, everywhere, saved, shards, everywhere, everywhere, everywhere, everywhere, {})


def needed(facts: Facts, partition: TopicPartition) -> int:
    """The lowest offset that somebody needs, as the requirement says it."""
    lowest: list[Positions] = [facts.ends, facts.saved.needed, facts.applied, facts.audited, facts.settled, facts.old or {}]
    lowest += [applied for node, applied in facts.nodes.items() if node not in facts.beyond]
    for key, held in facts.shards.items():
        is_missing = key.collection < facts.saved.catalog and key not in facts.saved.shards
        if partition in held.homes:
            lowest.append({} if is_missing or not held.is_served else held.homes)
    return min(each.get(partition, 0) for each in lowest)


@given(facts())
def test_nothing_goes_that_is_needed_and_all_that_is_not(facts: Facts) -> None:
    found = cuts(facts)
    assert found.keys() == facts.starts.keys(), "the catalog's topic is not among them"
    for partition, (start, to, reason) in found.items():
        least = needed(facts, partition)
        assert start == facts.starts[partition] <= to
        assert to == start or (to <= least and to % EVERY == 0), "checkpoints stay verifiable"
        assert to + EVERY > least, "as far as possible"
        assert reason


@given(facts())
def test_a_node_that_does_not_count_never_makes_less_go(facts: Facts) -> None:
    less, more = cuts(facts._replace(beyond=frozenset())), cuts(facts._replace(beyond=frozenset(NODES)))
    assert all(less[partition].to <= more[partition].to for partition in PARTITIONS)


def test_each_bound_holds_the_cut_back_and_says_so() -> None:
    free = whole()
    assert {partition: cut.to for partition, cut in cuts(free).items()} == dict.fromkeys(PARTITIONS, 3 * EVERY)
    low = {ONE: 1_999, OTHER: 3 * EVERY}
    key, held = next(iter(free.shards.items()))
    held_back = {
        "kept for ever": free._replace(old=None),
        "younger than the retention": free._replace(old=low),
        "snapshot s needs": free._replace(saved=free.saved._replace(needed=low)),
        "does not hold shard 0 of collection 'songs'": free._replace(saved=free.saved._replace(shards=frozenset())),
        "shard 0 of collection 'songs' is not served": free._replace(shards={key: held._replace(is_served=False)}),
        "shard 0 of collection 'songs' of this node": free._replace(shards={key: held._replace(homes={ONE: 1_999})}),
        "this node has not applied": free._replace(applied=low),
        "node right has not applied": free._replace(nodes={"left": free.ends, "right": low}),
        "above the closed stamp": free._replace(settled=low),
        "audit of this node": free._replace(audited=low),
        "ends there": free._replace(ends=low),
    }
    for reason, facts in held_back.items():
        found = cuts(facts)
        assert reason in found[ONE].reason
        assert found[ONE].to in (0, EVERY)
        assert found[OTHER].to == (0 if facts.old is None else 3 * EVERY), "partitions do not depend on each other"
    lagging = free._replace(nodes={"right": low}, beyond=frozenset({"right"}))
    assert cuts(lagging)[ONE].to == 3 * EVERY


def test_a_collection_that_is_later_than_the_snapshot_needs_nothing_below_it() -> None:
    free = whole()
    later = {ShardKey(10, 0): Held("shard 0 of collection 'new'", {ONE: 3 * EVERY})}
    assert cuts(free._replace(shards=later))[ONE].to == 3 * EVERY


def test_what_was_cut_before_stays_cut() -> None:
    found = cuts(whole()._replace(starts={ONE: 4 * EVERY, OTHER: EVERY + 7}))
    assert (found[ONE].start, found[ONE].to) == (4 * EVERY, 4 * EVERY)
    assert (found[OTHER].start, found[OTHER].to) == (EVERY + 7, 3 * EVERY)
