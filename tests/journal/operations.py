"""Hypothesis strategies for what may stand in the journal."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from hypothesis import strategies as st

from journal.ids import encode_id
from journal.records import (
    POINT_OPERATIONS,
    SPARSE,
    AliasAction,
    Barrier,
    ChangeAliases,
    ControlIngest,
    CreateCollection,
    CreatePayloadIndex,
    CreateVector,
    Delete,
    DeleteCollection,
    DeleteIngestSource,
    DeletePayloadIndex,
    DeleteSubscription,
    DeleteVector,
    Ingested,
    IngestPosition,
    MoveIngest,
    MoveSubscription,
    ParkedEvent,
    ParkEvents,
    PatchPayload,
    PatchVectors,
    PutIngestSource,
    PutSubscription,
    Record,
    ReplacePayload,
    RequestResult,
    UnparkEvents,
    UnsetVectors,
    UpdateCollection,
    Upsert,
    VectorColumn,
)

INT, LONG = st.integers(-(2**31), 2**31 - 1), st.integers(-(2**63), 2**63 - 1)
TEXT, BYTES = st.text(max_size=12), st.binary(max_size=12)

point_ids = st.builds(encode_id, st.integers(0, 2**64 - 1) | st.text(min_size=1, max_size=40))


@st.composite
def columns(draw: st.DrawFn, points: int, sizes: Sequence[int]) -> list[VectorColumn]:
    """Named vectors of so many points; a column holds one of each point, or of some in any order."""
    found = []
    for name in draw(st.lists(TEXT, unique=True, max_size=3)):
        some = draw(st.none() | st.lists(st.integers(0, points - 1), unique=True, max_size=points))
        count = points if some is None else len(some)
        size = draw(st.sampled_from(sizes))
        lengths = draw(
            st.none() | st.lists(st.integers(0, min(4, 60_000 // size)), min_size=max(1, count), max_size=max(1, count))
        )
        if lengths is not None and count:
            kind = draw(st.sampled_from([np.dtype((np.float32, (size,))), SPARSE]))
            found.append(VectorColumn.of_each(name, [np.ones(length, kind) for length in lengths], some))
            continue
        vectors = np.random.default_rng(draw(st.integers(0, 9))).standard_normal((count, size), np.float32)
        found.append(VectorColumn.of(name, vectors, some))
    return found


@st.composite
def point_operations(
    draw: st.DrawFn,
    kinds: Sequence[type] = POINT_OPERATIONS,
    min_points: int = 1,
    sizes: Sequence[int] = range(1, 5),
    payload_bytes: Sequence[int] = range(12),
) -> Any:
    """Operations of these kinds, with vectors and payloads of these sizes. Ids may repeat."""
    ids = draw(st.lists(point_ids, min_size=min_points, max_size=30))
    payload = st.builds(bytes, st.sampled_from(payload_bytes))
    match draw(st.sampled_from(kinds)):
        case kind if kind is Upsert:
            payloads = draw(st.lists(payload, min_size=len(ids), max_size=len(ids)))
            return Upsert(ids, draw(columns(len(ids), sizes)), payloads)
        case kind if kind is PatchVectors:
            return PatchVectors(ids, draw(columns(len(ids), sizes)))
        case kind if kind is PatchPayload:
            return PatchPayload(ids, draw(payload), draw(st.lists(TEXT, max_size=3)))
        case kind if kind is ReplacePayload:
            return ReplacePayload(ids, draw(payload))
        case kind if kind is UnsetVectors:
            return UnsetVectors(ids, draw(st.lists(TEXT, max_size=3)))
    return Delete(ids)


catalog_operations = st.one_of(
    st.builds(CreateCollection, TEXT, BYTES, st.lists(st.lists(INT, max_size=4), max_size=3)),
    st.builds(UpdateCollection, TEXT, BYTES),
    st.builds(DeleteCollection, TEXT),
    st.builds(ChangeAliases, st.lists(st.builds(AliasAction, TEXT, st.none() | TEXT, st.none() | TEXT), max_size=3)),
    st.builds(CreatePayloadIndex, TEXT, TEXT, BYTES),
    st.builds(DeletePayloadIndex, TEXT, TEXT),
    st.builds(CreateVector, TEXT, TEXT, BYTES),
    st.builds(DeleteVector, TEXT, TEXT),
    st.builds(PutIngestSource, TEXT, BYTES),
    st.builds(DeleteIngestSource, TEXT),
    st.builds(ControlIngest, TEXT, TEXT, st.lists(INT, max_size=3)),
    st.builds(MoveIngest, TEXT, TEXT, st.lists(st.builds(IngestPosition, INT, LONG), max_size=3)),
    st.builds(PutSubscription, TEXT, BYTES),
    st.builds(DeleteSubscription, TEXT),
    st.builds(MoveSubscription, TEXT, LONG, LONG),
    st.builds(ParkEvents, TEXT, LONG, st.lists(st.builds(ParkedEvent, LONG, BYTES, INT), max_size=3)),
    st.builds(UnparkEvents, TEXT, LONG, st.lists(st.builds(ParkedEvent, LONG, BYTES, INT), max_size=3)),
)

records = st.builds(
    Record,
    hlc=LONG,
    operation=point_operations() | catalog_operations | st.builds(Barrier) | st.builds(RequestResult, BYTES),
    collection=LONG,
    catalog_position=LONG,
    shard=INT,
    tenant=TEXT,
    request_id=TEXT,
    idempotency_key=TEXT,
    origin=TEXT,
    expected=st.none() | st.lists(LONG, max_size=3),
    attempt=LONG,
    ingested=st.none() | st.builds(Ingested, TEXT, st.lists(LONG, max_size=3), st.lists(TEXT, max_size=3), LONG),
)
