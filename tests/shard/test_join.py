"""I5: any order and any repetition of the writes to a point gives the state of applying them in the order of their versions."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from journal.stamps import Version, version_of
from shard.join import PointState

KEYS = ("a", "b", "c")
NAMES = ("", "v")
payloads = st.dictionaries(st.sampled_from(KEYS), st.integers(0, 9))
vectors = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 9).map(lambda n: np.array([n], np.float32)))
writes = st.one_of(
    st.tuples(st.just("upsert"), vectors, payloads),
    st.tuples(st.just("delete")),
    st.tuples(st.just("replace"), payloads),
    st.tuples(st.just("patch"), payloads, st.lists(st.sampled_from(KEYS), max_size=2)),
    st.tuples(
        st.just("vectors"),
        st.dictionaries(st.sampled_from(NAMES), st.none() | st.integers(0, 9).map(lambda n: np.array([n], np.float32))),
    ),
)


def join(point: PointState, version: Version, write: tuple[Any, ...]) -> None:
    match write:
        case ("upsert", given_vectors, payload):
            point.upsert(version, given_vectors, orjson.dumps(payload) if payload else b"")
        case ("delete",):
            point.delete(version)
        case ("replace", payload):
            point.replace_payload(version, orjson.dumps(payload) if payload else b"")
        case ("patch", changes, unset):
            point.patch_payload(version, changes, unset)
        case ("vectors", changed):
            point.patch_vectors(version, changed)


def sequential(history: list[tuple[Any, ...]]) -> tuple[dict[str, int], dict[str, float]] | None:
    """Payload and vectors after the writes one after the other; None when the point does not exist."""
    state: tuple[dict[str, int], dict[str, float]] | None = None
    for write in history:
        match write:
            case ("upsert", given_vectors, payload):
                state = (dict(payload), {name: float(vector[0]) for name, vector in given_vectors.items()})
            case ("delete",):
                state = None
            case ("replace", payload) if state:
                state = (dict(payload), state[1])
            case ("patch", changes, unset) if state:
                state = ({key: value for key, value in state[0].items() if key not in unset} | changes, state[1])
            case ("vectors", changed) if state:
                kept = {name: value for name, value in state[1].items() if name not in changed}
                state = (state[0], kept | {name: float(v[0]) for name, v in changed.items() if v is not None})
    return state


def visible(point: PointState) -> tuple[dict[str, int], dict[str, float]] | None:
    if not point.alive:
        return None
    payload = orjson.loads(point.payload) if point.payload else {}
    return payload, {name: float(vector[0]) for name, vector in point.vectors.items()}


@given(st.lists(writes, max_size=7), st.data())
@settings(max_examples=400, deadline=None)
def test_any_order_any_repetition(history: list[tuple[Any, ...]], data: st.DataObject) -> None:
    versions = [version_of(10 + n // 2, n % 2) for n in range(len(history))]  # pairs of equal stamps, told apart by tier
    order = data.draw(st.permutations(range(len(history))))
    repeated = data.draw(st.lists(st.sampled_from(order), max_size=4)) if order else []
    point = PointState()
    for n in [*order, *repeated]:
        join(point, versions[n], copy.deepcopy(history[n]))
    assert visible(point) == sequential(history)


def test_a_patch_survives_a_full_write_below_it_that_arrives_later() -> None:
    point = PointState()
    assert point.patch_payload(version_of(2, 0), {"a": 2}, [])
    assert point.upsert(version_of(1, 1), {}, b'{"a":1,"b":1}')
    assert orjson.loads(point.payload) == {"a": 2, "b": 1}
    assert not point.delete(version_of(0, 0))
    assert point.alive
