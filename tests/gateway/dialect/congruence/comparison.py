"""Asking two clients the same, and telling where their answers differ by more than rounding."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from qdrant_client import QdrantClient

Answer = Any
Ask = Callable[[QdrantClient], Answer]


def plain(answer: Answer) -> Answer:
    """An answer without what only one side knows, and without nulls."""
    if hasattr(answer, "model_dump"):
        return plain(answer.model_dump())
    if isinstance(answer, dict):
        return {key: plain(value) for key, value in answer.items() if key not in ("version", "shard_key") and value is not None}
    return [plain(item) for item in answer] if isinstance(answer, list | tuple) else answer


def same(ours: Answer, theirs: Answer, place: str = "answer") -> None:
    """Raises where two answers differ by more than rounding; hits of one score may stand in any order."""
    if isinstance(theirs, list) and theirs and isinstance(theirs[0], dict) and "score" in theirs[0]:
        assert [hit["score"] for hit in ours] == pytest.approx([hit["score"] for hit in theirs], rel=1e-4, abs=1e-4), place
        ours, theirs = tied_by_id(ours, theirs), tied_by_id(theirs, theirs)
    if isinstance(theirs, dict):
        assert isinstance(ours, dict), place
        assert ours.keys() == theirs.keys(), place
        for key, value in theirs.items():
            same(ours[key], value, f"{place}.{key}")
    elif isinstance(theirs, list):
        assert isinstance(ours, list), place
        assert len(ours) == len(theirs), place
        for at, value in enumerate(theirs):
            same(ours[at], value, f"{place}[{at}]")
    elif isinstance(theirs, float):
        assert ours == pytest.approx(theirs, rel=1e-4, abs=1e-4), place
    else:
        assert ours == theirs, place


def tied_by_id(hits: list[Answer], by: list[Answer]) -> list[Answer]:
    """The hits, those of nearly equal scores (as `by` has them) in the order of their ids."""
    runs, run = [], 0
    for at, hit in enumerate(by):
        run += at > 0 and abs(hit["score"] - by[at - 1]["score"]) > 1e-4 * max(1, abs(hit["score"]))
        runs.append(run)
    order = sorted(range(len(hits)), key=lambda at: (runs[at], str(hits[at]["id"])))
    return [hits[at] for at in order]


def compare(clients: list[QdrantClient], ask: Ask) -> Answer:
    """Asks both and raises where they differ; gives the answer."""
    ours, theirs = (plain(ask(client)) for client in clients)
    same(ours, theirs)
    return ours
