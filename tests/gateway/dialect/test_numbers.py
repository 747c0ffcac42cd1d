"""Scores and vectors in an answer are the shortest texts that are the same float32 (N6)."""

from __future__ import annotations

import re

import httpx
import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from gateway.dialect.answers import dumps, hit_answers
from query.points import Point
from shard.replica import RankedPoints
from tests.conftest import result

FLOATS = st.floats(width=32, allow_nan=False, allow_infinity=False)


@given(arrays(np.float32, 8, elements=FLOATS))
def test_a_number_is_the_shortest_text_of_its_float32(numbers: np.ndarray) -> None:
    ranked = RankedPoints([b"\x00" + bytes(8)] * 8, numbers, [0] * 8)
    points = [Point(id_, 0, b"{}", {"": numbers}) for id_ in ranked.ids]
    written = dumps(hit_answers(ranked, points, False, True)).decode()
    scores = re.findall(r'"score":([^,}]+)', written)
    assert [np.float32(text) for text in scores] == numbers.tolist()
    assert [digits(text) for text in scores] == [digits(str(number)) for number in numbers]
    (first, *_) = re.findall(r'"vector":\[([^\]]+)\]', written)
    assert first.split(",") == scores


def digits(text: str) -> str:
    """The significant digits of a number."""
    return text.lower().partition("e")[0].replace("-", "").replace(".", "").strip("0")


def test_every_kind_of_answer_shows_short_numbers(http: httpx.Client, name: str) -> None:
    points = [
        {"id": 1, "vector": [1, 2, 3, 4.358899], "payload": {"g": 1}},
        {"id": 2, "vector": [0.1, 0.7, 0.3, 0], "payload": {"g": 2}},
    ]
    http.put(f"/collections/{name}/points?wait=true", json={"points": points}).raise_for_status()
    vector = [0.1, 0.2, 0.3, 0.4]
    for path, body in {
        "search": {"vector": vector, "limit": 5, "with_vector": True},
        "query": {"query": vector, "with_vector": True},
        "query/batch": {"searches": [{"query": vector}]},
        "query/groups": {"query": vector, "group_by": "g"},
        "search/matrix/pairs": {"sample": 2, "limit": 1},
        "search/matrix/offsets": {"sample": 2, "limit": 1},
        "scroll": {"with_vector": True},
    }.items():
        answer = http.post(f"/collections/{name}/points/{path}", json=body)
        assert result(answer)
        numbers = re.findall(r"\d\.\d+(?:e-?\d+)?", answer.text.partition('"time"')[0])
        assert numbers
        assert all(len(number) <= 12 for number in numbers), answer.text
