"""A start from a checkpoint gives the state that reading all rows gives, whatever came before (I1, I3)."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from journal.records import Delete, PatchPayload, ReplacePayload
from tests.shard.checkpoint.life import FIELDS, Life, contents, encoded

UUIDS = [f"b7a9c2c0-0000-0000-0000-00000000000{number}" for number in range(3)]
VALUES: dict[str, st.SearchStrategy[object]] = {
    "keyword": st.sampled_from(["red", "green", "blue"]),
    "integer": st.integers(-3, 3) | st.just(2**60 + 1),
    "float": st.floats(-2, 2) | st.integers(-2, 2),
    "bool": st.booleans(),
    "datetime": st.sampled_from(["2024-01-01", "2024-05-05T10:00:00Z", "1969-07-20"]),
    "uuid": st.sampled_from(UUIDS),
    "text": st.sampled_from(["one two", "two three", "three"]),
    "geo": st.fixed_dictionaries({"lon": st.integers(-20, 20), "lat": st.integers(-20, 20)}),
}
PAYLOADS = st.fixed_dictionaries(
    {}, optional={name: values | st.none() | st.lists(values, max_size=3) for name, values in VALUES.items()}
)
IDS = st.lists(
    st.sampled_from([*range(6), "a name that is longer than a row of the table has room for"]), min_size=1, unique=True
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("upsert"), IDS, PAYLOADS),
        st.tuples(st.just("patch"), IDS, PAYLOADS),
        st.tuples(st.just("replace"), IDS, PAYLOADS),
        st.tuples(st.just("delete"), IDS),
        st.tuples(st.just("take")),
        st.tuples(st.just("take while"), IDS, PAYLOADS),
        st.tuples(st.just("reopen")),
        st.tuples(st.just("kill")),
        st.tuples(st.just("fields"), st.sets(st.sampled_from(sorted(FIELDS)))),
    ),
    max_size=25,
)


@given(STEPS)
@settings(max_examples=60, deadline=None)
def test_a_start_from_a_checkpoint_gives_what_all_rows_give(steps: list[tuple]) -> None:  # type: ignore[type-arg]
    folder = Path(tempfile.mkdtemp())
    life = Life(folder)
    try:
        for step in steps:
            perform(life, step)
        expected = contents(life.shard)
        life.kill()
        assert contents(life.shard) == expected, "after a kill"
        life.reopen()
        assert contents(life.shard) == expected, "after a stop"
        life.reread()
        assert contents(life.shard) == expected, "after reading all rows"
    finally:
        life.shard.release()
        shutil.rmtree(folder)


def perform(life: Life, step: tuple) -> None:  # type: ignore[type-arg]
    match step:
        case ("upsert", ids, payload):
            life.upsert(ids, payload)
        case ("patch", ids, payload):
            life.apply(PatchPayload(encoded(ids), orjson.dumps(payload), ["keyword"]))
        case ("replace", ids, payload):
            life.apply(ReplacePayload(encoded(ids), orjson.dumps(payload)))
        case ("delete", ids):
            life.apply(Delete(encoded(ids)))
        case ("take",):
            life.shard.checkpoint.take()
        case ("take while", ids, payload):
            life.take_while(ids, payload)
        case ("reopen",):
            life.reopen()
        case ("kill",):
            life.kill()
        case ("fields", names):
            life.configure({name: FIELDS[name] for name in names})
