"""A distance matrix: how close the points of a random sample are to each other."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from query.pinned import Pinned
from query.points import retrieve
from query.search import search
from query.stages import Stage
from shard.filters.conditions import Condition
from shard.filters.where import where
from shard.ranking.rankings import Nearest, Sample, SearchParams

EXACT = SearchParams(exact=True)


class Matrix(NamedTuple):
    """The ids of the sample in order, and for each its nearest neighbours in the sample: indexes in `ids`, and scores."""

    ids: list[bytes]
    nearest: list[list[tuple[int, np.float32]]]


async def matrix(pinned: Pinned, name: str, condition: Condition | None, sample: int, limit: int, seed: int) -> Matrix:
    """Samples points that pass the condition and have the vector, and finds the `limit` nearest neighbours of each within the
    sample."""
    having = Condition(has_vector=name)
    wanted = where(having if condition is None else Condition(must=[condition, having]))
    ids = sorted((await search(pinned, Stage(Sample(seed), sample, wanted))).ids)
    if len(ids) < 2:
        return Matrix([], [])
    at = {id_: number for number, id_ in enumerate(ids)}
    nearest = []
    for point in await retrieve(pinned, ids, vectors=[name]):
        stage = Stage(Nearest(name, point.vectors[name]), limit, params=EXACT)
        ranked = await search(pinned, stage, among=[id_ for id_ in ids if id_ != point.id])
        nearest.append([(at[id_], score) for id_, score in zip(ranked.ids, ranked.scores, strict=True)])
    return Matrix(ids, nearest)
