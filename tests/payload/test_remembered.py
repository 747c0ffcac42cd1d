"""Remembered results: the same as new ones, within a bound in bytes (I11)."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from sys import getsizeof

import pytest

from payload import text
from payload.paths import MAX_PATH_CHARS, MAX_PATHS_BYTES, PathError, split_path, steps_of
from payload.remembered import remembered
from payload.schema import FieldSchema, FieldType, StemmerLanguage, Stopwords
from payload.text import MAX_ANALYZERS_BYTES, MAX_STEMS_BYTES, analyzer_of

MAX_BYTES = 100_000


class Doubling:
    """A function of texts that counts how often it is called."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self.calls = 0
        self.remembered = remembered(self.call, lambda text, twice: getsizeof(text) + getsizeof(twice), max_bytes)

    def call(self, text: str) -> str:
        self.calls += 1
        return text * 2


def test_a_result_is_computed_once() -> None:
    doubling = Doubling()
    assert [doubling.remembered("a") for _ in range(3)] == ["aa"] * 3
    assert doubling.calls == 1


def test_what_is_asked_for_again_outlives_what_is_not() -> None:
    doubling = Doubling()
    for number in range(5_000):
        assert doubling.remembered("again") == "againagain"
        doubling.remembered(f"once {number}")
    assert doubling.calls == 5_001


def test_what_would_fill_it_is_not_kept() -> None:
    doubling = Doubling()
    doubling.remembered("small")
    for _ in range(2):
        assert len(doubling.remembered("x" * MAX_BYTES)) == 2 * MAX_BYTES
    doubling.remembered("small")
    assert doubling.calls == 3


@pytest.mark.parametrize("chars", [5, 500])
def test_its_memory_is_within_the_bound(chars: int) -> None:
    """I11: by what Python has allocated, not by what it counts itself."""
    doubling = Doubling(2_000_000)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(20_000):
            doubling.remembered(f"{number:0{chars}}")
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 500_000 < after - before <= 2_000_000


@pytest.mark.usefixtures("hasty_threads")
def test_threads_get_their_own_results() -> None:
    doubling = Doubling(20_000)

    def ask(seed: int) -> bool:
        chance = random.Random(seed)
        texts = [str(chance.randrange(300)) for _ in range(3_000)]
        return all(doubling.remembered(text) == text * 2 for text in texts)

    with ThreadPoolExecutor(4) as threads:
        assert all(threads.map(ask, range(4)))


def test_a_path_is_bounded() -> None:
    """I11"""
    path = "a." * (MAX_PATH_CHARS // 2 - 1) + "b"
    assert steps_of(path) == split_path(path)
    with pytest.raises(PathError, match=str(MAX_PATH_CHARS)):
        steps_of(path + "x" * 10)


def grown_bytes(work: Callable[[], None]) -> int:
    """How much more memory is held after `work`."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        work()
        return tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()


def test_paths_of_any_length_are_remembered_within_a_bound() -> None:
    """I11"""

    def ask() -> None:
        for number in range(1_000):
            steps_of(f"{number}" + "x" * 4_000)

    assert grown_bytes(ask) <= MAX_PATHS_BYTES


def test_stems_of_words_of_any_length_are_remembered_within_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """I11: with a stemmer that is quicker than any real one is with such words."""
    monkeypatch.setattr(text.snowballstemmer, "stemmer", lambda _: Plural())
    stem = text._stemmer.__wrapped__(StemmerLanguage.ENGLISH)

    def ask() -> None:
        for number in range(400):
            stem(f"{number}" + "x" * 50_000)

    assert grown_bytes(ask) <= MAX_STEMS_BYTES


class Plural:
    def stemWord(self, word: str) -> str:
        return word + "s"


def test_analyzers_with_stopwords_in_any_number_are_remembered_within_a_bound() -> None:
    """I11"""

    def ask() -> None:
        for number in range(40):
            words = tuple(f"word{number}x{at}" for at in range(5_000))
            analyzer_of(FieldSchema(FieldType.TEXT, stopwords=Stopwords(custom=words)))

    assert grown_bytes(ask) <= MAX_ANALYZERS_BYTES
