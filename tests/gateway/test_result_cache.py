"""The result cache: bounded, and not driven out by questions that are asked once (T4)."""

import random

import httpx

from gateway.result_cache import ENTRY_BYTES, ResultCache
from tests.conftest import result

VALUE = bytes(300)


def test_what_was_put_is_found() -> None:
    cache = ResultCache(100_000)
    cache.put("a", b"1")
    assert cache.get("a") == b"1"
    assert cache.get("b") is None
    assert (cache.hits, cache.misses) == (1, 1)


def test_it_stays_within_its_bound() -> None:
    """I11"""
    cache = ResultCache(50_000)
    for number in range(5_000):
        cache.get(number % 700)
        cache.put(number % 700, VALUE)
        assert cache.size_bytes() <= 50_000
    cache.put("huge", bytes(60_000))
    assert cache.get("huge") is None


def test_questions_asked_once_drive_out_nothing() -> None:
    """T4: of a hundred popular questions nearly all are still there after ten thousand that nobody asks again."""
    cache = ResultCache(150 * (len(VALUE) + ENTRY_BYTES))
    chance = random.Random(1)
    for _ in range(3_000):
        key = chance.randrange(100)
        if cache.get(key) is None:
            cache.put(key, VALUE)
    for number in range(10_000):
        key = ("once", number) if number % 3 else chance.randrange(100)
        if cache.get(key) is None:
            cache.put(key, VALUE)
    assert sum(cache.get(key) is not None for key in range(100)) >= 95


def test_an_answer_is_kept_until_something_is_written(http: httpx.Client, name: str) -> None:
    """T4: the same request is answered from the cache, and never with what was there before a write."""
    path, query = f"/collections/{name}/points/search", {"vector": [1, 2, 3, 4], "limit": 5}
    before = hits(http)
    for number in range(1, 4):
        point = {"id": number, "vector": [number, 2, 3, 4]}
        http.put(f"/collections/{name}/points?wait=true", json={"points": [point]}).raise_for_status()
        for _ in range(3):
            assert len(result(http.post(path, json=query))) == number
    assert hits(http) >= before + 6


def hits(http: httpx.Client) -> float:
    """How often the cache had the answer."""
    (line,) = [line for line in http.get("/metrics").text.splitlines() if line.startswith("vecraft_result_cache_hits_total ")]
    return float(line.split()[1])
