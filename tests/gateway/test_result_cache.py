"""The result cache: bounded, and not driven out by questions that are asked once (T4)."""

import random

from gateway.result_cache import ENTRY_BYTES, ResultCache

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
