"""BM25's vectors are those of a plain computation, and those that clients make themselves."""

from __future__ import annotations

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.http.errors import BadRequest
from gateway.inference.bm25 import document_vector, options_of, query_vector
from journal.records import Vector
from payload.schema import Language

MADE_BY_FASTEMBED = json.loads((Path(__file__).parent / "made_by_fastembed.json").read_text("utf-8"))
"""Vectors of texts in fifteen languages by fastembed 0.9.1's model Qdrant/bm25, with NLTK's stopwords."""

BITS = 0xFFFFFFFF


def murmur3(data: bytes) -> int:
    """MurmurHash3_x86_32 with seed 0, as Austin Appleby published it."""
    hashed = 0
    for start in range(0, len(data), 4):
        block = data[start : start + 4]
        mixed = int.from_bytes(block, "little") * 0xCC9E2D51 & BITS
        mixed = (mixed << 15 | mixed >> 17) & BITS
        hashed ^= mixed * 0x1B873593 & BITS
        if len(block) == 4:
            hashed = ((hashed << 13 | hashed >> 19) & BITS) * 5 + 0xE6546B64 & BITS
    hashed ^= len(data)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
        hashed = (hashed ^ hashed >> shift) * factor & BITS
    return hashed ^ hashed >> 16


def index_of(term: str) -> int:
    hashed = murmur3(term.encode())
    return hashed if hashed < 1 << 31 else (1 << 32) - hashed


def values(vector: Vector) -> dict[int, float]:
    return dict(zip(vector["index"].tolist(), vector["value"].tolist(), strict=True))


@pytest.mark.parametrize("case", MADE_BY_FASTEMBED, ids=lambda case: case["text"][:20])
def test_the_vectors_are_those_that_clients_make(case: dict[str, Any]) -> None:
    options = options_of(case["options"], "")
    expected = {int(index): value for index, value in case["document"].items()}
    assert values(document_vector(case["text"], options)) == pytest.approx(expected, rel=1e-6)
    assert values(query_vector(case["text"], options)) == dict.fromkeys(case["query"], 1.0)


TEXTS = st.lists(st.sampled_from(["red", "Red", "GREEN", "blue42", "und", "die", "x", "Straße", "ночь", "a_b"])).map(
    lambda words: " , ".join(words)
)
NUMBERS = st.fixed_dictionaries({"k": st.floats(0, 3), "b": st.floats(0, 1), "avg_len": st.floats(0.5, 500)})


@given(TEXTS, NUMBERS, st.sets(st.sampled_from(["und", "die", "red"])))
def test_the_vectors_are_those_of_a_plain_computation(text: str, numbers: dict[str, float], stopwords: set[str]) -> None:
    options = options_of(numbers | {"language": "none", "stopwords": {"custom": sorted(stopwords)}}, "")
    terms = [word for word in re.split(r"[\W_]+", text.lower()) if word and word not in stopwords]
    k, b, relative = numbers["k"], numbers["b"], len(terms) / numbers["avg_len"]
    expected = {index_of(term): often * (k + 1) / (often + k * (1 - b + b * relative)) for term, often in Counter(terms).items()}
    made = document_vector(text, options)
    assert values(made) == pytest.approx(expected, rel=1e-6)
    assert (np.diff(made["index"].astype(np.int64)) > 0).all()
    assert values(query_vector(text, options)) == {index_of(term): 1.0 for term in terms}


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_term_has_the_index_of_its_hash(term: str) -> None:
    options = options_of({"tokenizer": "whitespace", "language": "none", "lowercase": False}, "")
    assert values(query_vector(term, options)).keys() == {index_of(word) for word in term.split()}


def terms_of(text: str, **options: Any) -> set[str]:
    """Which of the words, or their beginnings and stems, are terms of the text."""
    made = values(document_vector(text, options_of(options, "")))
    known = {index_of(word): word for word in WORDS}
    return {known[index] for index in made}


WORDS = [
    "the",
    "The",
    "hous",
    "houses",
    "Houses",
    "h",
    "ho",
    "hou",
    "die",
    "und",
    "haus",
    "häuser",
    "haeus",
    "naïve",
    "naiv",
    "naive",
]
WORDS += ["th", "naïv", "und,", "東", "京", "東京", "hause"]


@pytest.mark.parametrize(
    ("text", "options", "terms"),
    [
        ("The houses", {}, {"hous"}),
        ("The houses", {"language": "english"}, {"hous"}),
        ("The houses", {"language": "none"}, {"the", "houses"}),
        ("The houses", {"language": "none", "lowercase": False}, {"The", "houses"}),
        ("die Häuser und", {"language": "german"}, {"haus"}),
        ("die häuser", {"language": "basque"}, {"die", "häuser"}),  # it has stopwords, no stemmer
        ("The houses", {"stopwords": {}}, {"the", "hous"}),
        ("The houses", {"stopwords": {"languages": ["german"], "custom": ["houses"]}}, {"the"}),
        ("die the", {"stopwords": "german"}, {"the"}),
        ("The houses", {"stemmer": {"type": "none"}}, {"houses"}),
        ("The häuser", {"stemmer": {"type": "snowball", "language": "german"}}, {"haus"}),
        ("naïve", {"language": "none", "ascii_folding": True}, {"naive"}),
        ("und, die", {"language": "none", "tokenizer": "whitespace"}, {"und,", "die"}),
        ("東京 die", {"language": "none", "tokenizer": "multilingual"}, {"東", "京", "die"}),
        ("hou", {"language": "none", "tokenizer": "prefix"}, {"h", "ho", "hou"}),
        ("h ho houses", {"language": "none", "min_token_len": 2, "max_token_len": 4}, {"ho"}),
    ],
)
def test_each_option_says_how_a_text_is_cut(text: str, options: dict[str, Any], terms: set[str]) -> None:
    assert terms_of(text, **options) == terms


def test_beginnings_of_words_are_counted_and_a_query_is_not_cut_into_them() -> None:
    options = options_of({"language": "none", "tokenizer": "prefix", "k": 1, "b": 0}, "")
    assert values(document_vector("ho h", options)) == pytest.approx({index_of("h"): 4 / 3, index_of("ho"): 1.0})
    assert values(query_vector("ho h", options)) == {index_of("h"): 1.0, index_of("ho"): 1.0}


@pytest.mark.parametrize("language", [*Language, "armenian", "tamil", "none"])
def test_every_language_is_known(language: str) -> None:
    assert len(document_vector("vecraft", options_of({"language": language}, ""))) == 1


def test_a_text_without_terms_has_an_empty_vector() -> None:
    assert len(document_vector("", options_of(None, ""))) == 0
    assert len(query_vector("to be or not to be", options_of(None, ""))) == 0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"k1": 1.2}, "p.options: Object contains unknown field `k1`"),
        ({"k": -1}, "`$.k`"),
        ({"k": 1001}, "`$.k`"),
        ({"b": 1.1}, "`$.b`"),
        ({"avg_len": 0}, "`$.avg_len`"),
        ({"k": "much"}, "`$.k`"),
        ({"tokenizer": "code"}, "`$.tokenizer`"),
        ({"language": "klingon"}, "p.options.language 'klingon' must be one of arabic, armenian"),
        ({"stopwords": "klingon"}, "`$.stopwords`"),
        ({"stopwords": {"words": []}}, "`words`"),
        ({"stemmer": {"type": "porter"}}, "`$.stemmer.type`"),
        ({"stemmer": {"type": "snowball"}}, "p.options.stemmer: type snowball needs a language"),
        ({"stemmer": {"type": "snowball", "language": "basque"}}, "`$.stemmer.language`"),
        ({"min_token_len": -1}, "`$.min_token_len`"),
        ({"max_token_len": 65536}, "`$.max_token_len`"),
        ({"min_token_len": 3, "max_token_len": 2}, "p.options.min_token_len: is 3, must be at most max_token_len, 2"),
    ],
)
def test_wrong_options_are_refused_by_name(options: dict[str, Any], said: str) -> None:
    with pytest.raises(BadRequest) as refused:
        options_of(options, "p")
    assert said in str(refused.value)
