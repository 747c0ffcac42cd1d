"""I5: however the tiers interleave, a shard's points and outcomes are those of all writes applied in version order."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from catalog.collection import Collection, CollectionConfig, Distance, VectorParams
from journal.hlc import stamp_at
from journal.ids import encode_id
from journal.log import Entry, TopicPartition
from journal.records import (
    Delete,
    PatchPayload,
    PatchVectors,
    PointOperation,
    Record,
    ReplacePayload,
    UnsetVectors,
    Upsert,
    VectorColumn,
)
from journal.stamps import NEVER, Version, version_of
from journal.topics import TIERS, Topics
from shard.batch import Limits
from shard.history import Condition, Write, decode_write, fold
from shard.join import PointState
from shard.shard import Shard

TOPICS = Topics()
NAMES = ("", "v")
COLLECTION = Collection("c", 0, CollectionConfig({name: VectorParams(1, Distance.DOT) for name in NAMES}), [[0 for _ in TIERS]])
POINT = encode_id(1)

payloads = st.dictionaries(st.sampled_from("abc"), st.integers(0, 9)).map(lambda fields: orjson.dumps(fields) if fields else b"")
vectors = st.dictionaries(st.sampled_from(NAMES), st.integers(1, 9).map(lambda number: np.array([number], np.float32)))
writes = st.one_of(
    st.builds(Write, st.just("upsert"), vectors, payloads),
    st.just(Write("delete")),
    st.builds(Write, st.just("replace_payload"), st.just({}), payloads),
    st.builds(
        lambda payload, unset: Write("patch_payload", payload=payload or b"{}", unset=unset),
        payloads,
        st.lists(st.sampled_from("abc"), max_size=2),
    ),
    st.builds(lambda found: Write("patch_vectors", found), vectors),
    st.builds(
        lambda names: Write("patch_vectors", dict.fromkeys(names)), st.lists(st.sampled_from(NAMES), max_size=2, unique=True)
    ),
)


@st.composite
def histories(draw: st.DrawFn) -> list[tuple[Version, Write]]:
    """Writes in version order, some with a condition: one of the versions before it, or that there is no point."""
    history: list[tuple[Version, Write]] = []
    for number, write in enumerate(draw(st.lists(writes, max_size=7))):
        if draw(st.booleans()):
            known = [NEVER, *(version for version, _ in history)]
            write = Write(write.kind, write.vectors, write.payload, write.unset, Condition(draw(st.sampled_from(known)), number))
        history.append((version_of(stamp_at(1000 + number), draw(st.sampled_from(TIERS))), write))
    return history


def visible(point: PointState) -> tuple[Any, ...]:
    """What readers see of a point, and the version that a condition names."""
    if not point.alive:
        return (None, NEVER)
    payload = orjson.loads(point.payload) if point.payload else {}
    return payload, {name: vector.tolist() for name, vector in point.vectors.items()}, point.version()


def plain(write: Write) -> tuple[Any, ...]:
    found = {name: None if vector is None else vector.tolist() for name, vector in write.vectors.items()}
    return write.kind, found, write.payload, write.unset, write.condition


def operation(write: Write) -> PointOperation:
    columns = [VectorColumn.of(name, vector.reshape(1, -1)) for name, vector in write.vectors.items() if vector is not None]
    match write.kind:
        case "upsert":
            return Upsert([POINT], columns, [write.payload])
        case "delete":
            return Delete([POINT])
        case "replace_payload":
            return ReplacePayload([POINT], write.payload)
        case "patch_payload":
            return PatchPayload([POINT], write.payload, write.unset)
    if None in write.vectors.values():
        return UnsetVectors([POINT], list(write.vectors))
    return PatchVectors([POINT], columns)


@given(histories(), st.randoms(use_true_random=False))
@settings(max_examples=60, deadline=None)
def test_any_interleaving_of_the_tiers_is_the_fold(history: list[tuple[Version, Write]], choose: Any) -> None:
    expected, outcomes = fold(history)
    waiting = {tier: [item for item in history if item[0] % len(TIERS) == tier] for tier in TIERS}
    with tempfile.TemporaryDirectory() as folder:
        shard = Shard(Path(folder), COLLECTION, 0, TOPICS, Limits(), lambda task: None)
        placed: dict[Version, tuple[int, int]] = {}
        while tiers := [tier for tier in TIERS if waiting[tier]]:
            tier = choose.choice(tiers)
            version, write = waiting[tier].pop(0)
            home = TopicPartition(TOPICS.tier(tier), 0)
            placed[version] = tier, shard.progress(home).offset
            names = None if write.condition is None else [write.condition.expected]
            record = Record(version // len(TIERS), operation(write), 0, expected=names)
            shard.apply([(Entry(home, placed[version][1], 1010, None, b"", ()), record)])
        found, _ = shard.store.point(POINT)
        assert visible(found) == visible(expected)
        for version, held in outcomes.items():
            decision = shard.store.decision(*placed[version])
            assert decision is not None
            assert (POINT not in decision.failed) is held
        shard.close()


@given(st.lists(st.tuples(writes, st.sampled_from(TIERS)), max_size=7), st.randoms(use_true_random=False))
@settings(max_examples=300, deadline=None)
def test_without_conditions_the_join_is_the_fold(given_writes: list[tuple[Write, int]], choose: Any) -> None:
    history = [(version_of(100 + number, tier), write) for number, (write, tier) in enumerate(given_writes)]
    expected, outcomes = fold(history)
    point = PointState()
    for version, write in choose.sample(history, len(history)):
        write.join(point, version)
    assert visible(point) == visible(expected)
    assert not outcomes


@given(histories())
def test_a_write_comes_back_from_its_stored_form(history: list[tuple[Version, Write]]) -> None:
    for _, write in history:
        again = decode_write(write.encoded(), lambda name, data: np.frombuffer(data, "<f4"))
        assert (again.kind, again.payload, again.unset, again.condition) == (
            write.kind,
            write.payload,
            write.unset,
            write.condition,
        )
        assert {name: None if vector is None else vector.tolist() for name, vector in again.vectors.items()} == {
            name: None if vector is None else vector.tolist() for name, vector in write.vectors.items()
        }
