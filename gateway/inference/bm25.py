"""BM25 as sparse vectors: a term's index is a hash of it, its value in a document the part of BM25 that the document decides.

The other part, the inverse document frequency, is applied by a search in a sparse vector with the modifier `idf`. So the dot
product of a query's vector and a document's is the document's BM25 score. Pure, so that it can run in another process.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import mmh3
import msgspec
import numpy as np
from msgspec import Meta, structs

from gateway.dialect.bodies import Body, TokenLength
from gateway.dialect.documents import Document, check_texts
from gateway.dialect.upserts import ParsedUpsert, with_vectors
from gateway.http.errors import BadRequest
from journal.records import SPARSE, Vector
from payload.schema import FieldSchema, FieldType, Language, Stemmer, StemmerLanguage, Stopwords, Tokenizer, text_options_error
from payload.text import Analyzer, analyzer_of

MODEL = "qdrant/bm25"

NO_LANGUAGE = "none"
"""The language that means neither stopwords nor a stemmer, unless they are given."""

_WITH_STOPWORDS = frozenset(Language)
_WITH_STEMMER = frozenset(StemmerLanguage)


class Bm25Options(Body):
    """The options of a document. `k` weighs how often a term stands in the text, `b` the length of the text against `avg_len`,
    which is in terms. The others say how the text is cut into terms, as those of a text index do.
    """

    k: Annotated[float, Meta(ge=0, le=1000)] = 1.2
    b: Annotated[float, Meta(ge=0, le=1)] = 0.75
    avg_len: Annotated[float, Meta(ge=0.001, le=1e9)] = 256.0
    tokenizer: Tokenizer | None = None
    language: str | None = None
    lowercase: bool | None = None
    ascii_folding: bool | None = None
    stopwords: Language | Stopwords | None = None
    stemmer: Stemmer | None = None
    min_token_len: TokenLength | None = None
    max_token_len: TokenLength | None = None


def is_bm25(document: Document) -> bool:
    """Whether the document's vector is made by BM25; the name of the model may be in any case."""
    return document.model.lower() == MODEL


def document_vector(text: str, options: Bm25Options) -> Vector:
    """The vector of a stored text: for each term how much it counts in this text. SPARSE, shape (terms,)."""
    counts = _analyzer(options).occurrences(text)
    k, b = options.k, options.b
    length = k * (1 - b + b * counts.total() / options.avg_len)
    return _vector({_index(term): count * (k + 1) / (count + length) for term, count in counts.items()})


def query_vector(text: str, options: Bm25Options) -> Vector:
    """The vector of a query: 1 for each term. SPARSE, shape (terms,)."""
    return _vector({_index(term): 1.0 for term in _analyzer(options).wanted(text)})


def options_of(given: Mapping[str, Any] | None, place: str) -> Bm25Options:
    """The options of a document at that place. Raises BadRequest, naming the option and its bound."""
    place = f"{place}.options"
    try:
        options = msgspec.convert(given or {}, Bm25Options)
    except msgspec.ValidationError as error:
        raise BadRequest(f"{place}: {error}") from error
    known = {*_WITH_STOPWORDS, *_WITH_STEMMER, NO_LANGUAGE}
    if options.language is not None and options.language not in known:
        raise BadRequest(f"{place}.language {options.language[:32]!r} must be one of {', '.join(sorted(known))}")
    if conflict := text_options_error(options.min_token_len, options.max_token_len, options.stemmer):
        raise BadRequest(f"{place}.{conflict}")
    return options


def vector_of_text(document: Document, place: str, as_query: bool) -> Vector:
    """The vector of a document of this model. Raises BadRequest for its options."""
    options = options_of(document.options, place)
    return query_vector(document.text, options) if as_query else document_vector(document.text, options)


def with_bm25(parsed: ParsedUpsert) -> ParsedUpsert:
    """The upsert with the vectors of its documents of this model; documents of other models are left. Raises BadRequest."""
    if not parsed.documents:
        return parsed
    check_texts(placed.document for placed in parsed.documents)
    mine = [placed for placed in parsed.documents if is_bm25(placed.document)]
    others = [placed for placed in parsed.documents if not is_bm25(placed.document)]
    vectors = [vector_of_text(placed.document, placed.place, as_query=False) for placed in mine]
    return structs.replace(parsed, operation=with_vectors(parsed.operation, mine, vectors), documents=others)


def _analyzer(options: Bm25Options) -> Analyzer:
    language = options.language or Language.ENGLISH.value
    stopwords, stemmer = options.stopwords, options.stemmer
    if stopwords is None and language in _WITH_STOPWORDS:
        stopwords = Language(language)
    if stemmer is None and language in _WITH_STEMMER:
        stemmer = Stemmer("snowball", StemmerLanguage(language))
    return analyzer_of(
        FieldSchema(
            FieldType.TEXT,
            lowercase=options.lowercase,
            min_token_len=options.min_token_len,
            max_token_len=options.max_token_len,
            tokenizer=options.tokenizer,
            ascii_folding=options.ascii_folding,
            stopwords=stopwords,
            stemmer=stemmer,
        )
    )


def _index(term: str) -> int:
    """The same as clients compute that make these vectors themselves: murmur3 with 32 bits, without its sign."""
    return abs(mmh3.hash(term))


def _vector(values: Mapping[int, float]) -> Vector:
    vector = np.empty(len(values), SPARSE)
    vector["index"] = np.fromiter(values.keys(), np.uint32, len(values))
    vector["value"] = np.fromiter(values.values(), np.float32, len(values))
    return np.sort(vector, order="index")
