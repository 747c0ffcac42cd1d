"""The result cache: bounded, and not driven out by questions that are asked once (T4)."""

import random
import tracemalloc
from collections.abc import Callable, Hashable
from sys import getsizeof

import httpx
import pytest

from gateway.result_cache import ENTRY_BYTES, MAX_BODY_BYTES, ResultCache, digest_of
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


@pytest.mark.parametrize("count", [10_000, 12_000])
@pytest.mark.parametrize(
    ("key", "value"),
    [
        (lambda number: digest_of("search", b"%d" % number, 1, (1,)), bytes(10)),
        (lambda number: b"%d" % number + bytes(2_000), bytes(10)),
        (lambda number: digest_of("search", b"%d" % number, 1, (1,)), bytes(1_000)),
    ],
    ids=["small", "long keys", "long values"],
)
def test_it_knows_what_it_takes(key: Callable[[int], Hashable], value: bytes, count: int) -> None:
    """I11: by what Python has allocated."""
    cache = ResultCache(1 << 30)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(count):
            cache.put(key(number), bytes(bytearray(value)))
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert taken / 1.3 <= cache.size_bytes() <= taken * 1.3


def test_long_keys_leave_room_for_fewer() -> None:
    """I11"""
    cache = ResultCache(200_000)
    for number in range(1_000):
        cache.put(b"%d" % number + bytes(2_000), b"")
        assert cache.size_bytes() <= 200_000
    assert sum(cache.get(b"%d" % number + bytes(2_000)) is not None for number in range(1_000)) < 100


def test_a_key_tells_requests_apart() -> None:
    """T4, I14: by route, body, collection, and the views that answer."""
    requests = [
        ("search", b"{}", 1, (1, 2)),
        ("query", b"{}", 1, (1, 2)),
        ("search", b"{ }", 1, (1, 2)),
        ("search", b"{}", 2, (1, 2)),
        ("search", b"{}", 1, (2, 1)),
        ("search", b"{}", 1, (12,)),
        ("search", b"{}", 11, (2,)),
    ]
    keys = {digest_of(*request) for request in requests}
    assert len(keys) == len(requests)
    assert all(key is not None and len(key) == 16 for key in keys)
    assert digest_of(*requests[0]) in keys


def test_a_request_with_a_large_body_has_no_key() -> None:
    """I11: its digest would take longer than it is worth."""
    assert digest_of("search", bytes(MAX_BODY_BYTES), 1, (1,)) is not None
    assert digest_of("search", bytes(MAX_BODY_BYTES + 1), 1, (1,)) is None


def test_questions_asked_once_drive_out_nothing() -> None:
    """T4: of a hundred popular questions nearly all are still there after ten thousand that nobody asks again."""
    cache = ResultCache(150 * (getsizeof(VALUE) + ENTRY_BYTES + getsizeof((0, 0))))
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
