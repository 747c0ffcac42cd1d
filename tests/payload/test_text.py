"""Texts are cut into words as the dialect's reference says (V12)."""

from __future__ import annotations

import pytest

from payload.schema import FieldSchema, FieldType, Language, Stemmer, StemmerLanguage, Stopwords, Tokenizer
from payload.text import MAX_PREFIX_CHARS, Analyzer, analyzer_of


def cut(text: str, **options: object) -> list[str]:
    return Analyzer(FieldSchema(FieldType.TEXT, **options)).words(text)  # type: ignore[arg-type]


ENGLISH = Stemmer("snowball", StemmerLanguage.ENGLISH)


@pytest.mark.parametrize(
    ("options", "text", "words"),
    [
        ({}, "The Time-Machine, 1895: H.G.Wells_", ["the", "time", "machine", "1895", "h", "g", "wells"]),
        ({"lowercase": False}, "Big BIG", ["Big", "BIG"]),
        ({"tokenizer": Tokenizer.WHITESPACE}, " Time-Machine, \t1895 ", ["time-machine,", "1895"]),
        ({"min_token_len": 2, "max_token_len": 4}, "a time of machines", ["time", "of"]),
        ({"ascii_folding": True}, "Ação Straße naïve Øre Ελλάδα Й", ["acao", "strasse", "naive", "ore", "ελλάδα", "й"]),
        ({}, "Ação cafe\u0301", ["ação", "cafe\u0301"]),
        ({"stopwords": Language.ENGLISH}, "The house that computers built", ["house", "computers", "built"]),
        ({"stopwords": Stopwords((Language.GERMAN,), ("Haus",))}, "Das rote Haus", ["rote"]),
        ({"stopwords": Stopwords(custom=("Haus",)), "lowercase": False}, "haus Haus", ["haus"]),
        ({"stemmer": ENGLISH}, "running houses", ["run", "hous"]),
        ({"stemmer": Stemmer("none")}, "running", ["running"]),
        ({"stopwords": Language.ENGLISH, "stemmer": ENGLISH, "min_token_len": 3}, "the dogs doing go", ["dog"]),
        (
            {"tokenizer": Tokenizer.MULTILINGUAL},
            "Hello 東京タワー ２０２４ ไทย",
            ["hello", "東", "京", "タワー", "2024", "ไ", "ท", "ย"],
        ),
        ({}, "हिन्दी में", ["हिन्दी", "में"]),
        ({}, "", []),
    ],
)
def test_words(options: dict[str, object], text: str, words: list[str]) -> None:
    assert cut(text, **options) == words


@pytest.mark.parametrize("language", Language)
def test_every_language_has_stopwords(language: Language) -> None:
    assert len(cut("w" + language.value, stopwords=language)) == 1


@pytest.mark.parametrize("language", StemmerLanguage)
def test_every_language_has_a_stemmer(language: StemmerLanguage) -> None:
    assert cut("x1", stemmer=Stemmer("snowball", language)) == ["x1"]


def test_prefixes() -> None:
    """A text is found by the beginnings of its words; a query is not cut into beginnings."""
    analyzer = Analyzer(FieldSchema(FieldType.TEXT, tokenizer=Tokenizer.PREFIX, min_token_len=2, max_token_len=4))
    assert analyzer.terms("Hello a") == {"he", "hel", "hell"}
    assert analyzer.wanted("HELLO, h he") == ["hell", "he"]
    assert analyzer.holds_phrase("say hello world", analyzer.wanted("hel wor"))
    assert not analyzer.holds_phrase("hello big world", analyzer.wanted("hel wor"))
    long = Analyzer(FieldSchema(FieldType.TEXT, tokenizer=Tokenizer.PREFIX))
    assert len(long.terms("x" * 10_000)) == MAX_PREFIX_CHARS
    assert set(long.wanted("x" * 10_000)) <= long.terms("x" * 10_000)


def test_phrases() -> None:
    analyzer = analyzer_of(None)
    assert analyzer.holds_phrase("The quick brown fox", ["brown", "fox"])
    assert not analyzer.holds_phrase("The quick brown fox", ["fox", "brown"])
    assert not analyzer.holds_phrase("brown", ["brown", "fox"])
    assert not analyzer.holds_phrase("brown", [])
