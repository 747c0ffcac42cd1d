"""Six pieces of music, and two stand-ins for embedding models that need neither a download nor luck.

By `dense` texts of a like meaning are near each other, whatever their words; by `sparse` only texts that share words are. Late
interaction compares `each_word`. What a search must find can so be told without a server: `by_meaning`, `by_words`,
`by_each_word`, and `fused`.
"""

from __future__ import annotations

import math
import re
from operator import mul
from typing import NamedTuple
from uuid import NAMESPACE_URL, uuid5
from zlib import crc32

DIMENSIONS = 4
_MEANINGS = {
    "quiet": (0, 1.0),
    "calm": (0, 0.9),
    "soft": (0, 0.8),
    "loud": (1, 1.0),
    "wild": (1, 0.9),
    "piano": (2, 1.0),
    "organ": (2, 0.7),
    "orchestra": (3, 1.0),
    "violin": (3, 0.8),
}
"""Each word's axis and its weight there."""


class Song(NamedTuple):
    title: str
    text: str
    composer: str
    year: int

    @property
    def id(self) -> str:
        return str(uuid5(NAMESPACE_URL, self.title))

    @property
    def metadata(self) -> dict[str, str | int]:
        return {"title": self.title, "composer": self.composer, "year": self.year}


SONGS = (
    Song("Clair de lune", "A calm piano by moonlight", "Debussy", 1905),
    Song("Gymnopédie No. 1", "A soft piano, slow and grave", "Satie", 1888),
    Song("The Rite of Spring", "A wild orchestra in spring", "Stravinsky", 1913),
    Song("La mer", "A loud orchestra, then a calm one, by the sea", "Debussy", 1905),
    Song("Spiegel im Spiegel", "A quiet violin, slow as moonlight", "Pärt", 1978),
    Song("Toccata", "A loud organ", "Widor", 1879),
)
TITLES = {song.id: song.title for song in SONGS}


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def dense(text: str) -> list[float]:
    """A vector of length 1, or of zeros where no word says anything."""
    vector = [0.0] * DIMENSIONS
    for word in words(text):
        if word in _MEANINGS:
            axis, weight = _MEANINGS[word]
            vector[axis] += weight
    length = math.hypot(*vector) or 1.0
    return [number / length for number in vector]


def each_word(text: str) -> list[list[float]]:
    """A vector for each word that says something, as long as its weight."""
    known = [_MEANINGS[word] for word in words(text) if word in _MEANINGS]
    return [[weight if axis == its_axis else 0.0 for axis in range(DIMENSIONS)] for its_axis, weight in known]


def sparse(text: str) -> tuple[list[int], list[float]]:
    """Indices and values: each word once, a long one counts more."""
    weights = {crc32(word.encode()): float(len(word)) for word in words(text)}
    return list(weights), list(weights.values())


def by_meaning(query: str) -> dict[str, float]:
    """Every title with its cosine to the query, the nearest first."""
    return _ordered({song.title: sum(map(mul, dense(query), dense(song.text))) for song in SONGS})


def by_each_word(query: str) -> dict[str, float]:
    """Every title with its late interaction: what each word of the query finds nearest in it, summed up."""
    return _ordered(
        {
            song.title: sum(max(sum(map(mul, asked, word)) for word in each_word(song.text)) for asked in each_word(query))
            for song in SONGS
        }
    )


def by_words(query: str) -> dict[str, float]:
    """The titles that share words with the query, with the product of the sparse vectors; the nearest first."""
    asked = dict(zip(*sparse(query), strict=True))
    scores = {
        song.title: sum(asked.get(index, 0.0) * value for index, value in zip(*sparse(song.text), strict=True)) for song in SONGS
    }
    return _ordered({title: score for title, score in scores.items() if score})


def fused(*rankings: dict[str, float]) -> dict[str, float]:
    """Reciprocal rank fusion with the constant of the dialect."""
    scores: dict[str, float] = {}
    for ranking in rankings:
        for rank, title in enumerate(ranking):
            scores[title] = scores.get(title, 0.0) + 1 / (rank + 2)
    return _ordered(scores)


def _ordered(scores: dict[str, float]) -> dict[str, float]:
    """The best first; what is equally good is no help to a test."""
    assert len({round(score, 6) for score in scores.values()}) == len(scores), f"ties: {scores}"
    return dict(sorted(scores.items(), key=lambda entry: -entry[1]))
