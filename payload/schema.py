"""The schema of an indexed payload field: its type and options, with the names of the API."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Literal

import msgspec

from payload.paths import as_micros, as_number


class FieldType(StrEnum):
    """The types of payload index."""

    KEYWORD = "keyword"
    INTEGER = "integer"
    FLOAT = "float"
    BOOL = "bool"
    DATETIME = "datetime"
    UUID = "uuid"
    TEXT = "text"
    GEO = "geo"


class Tokenizer(StrEnum):
    """How text is split: words (letters and digits), at whitespace, prefixes of words, or words and single characters of scripts
    without spaces.
    """

    WORD = "word"
    WHITESPACE = "whitespace"
    PREFIX = "prefix"
    MULTILINGUAL = "multilingual"


class Language(StrEnum):
    """Languages with a stopword list."""

    ARABIC = "arabic"
    AZERBAIJANI = "azerbaijani"
    BASQUE = "basque"
    BENGALI = "bengali"
    CATALAN = "catalan"
    CHINESE = "chinese"
    DANISH = "danish"
    DUTCH = "dutch"
    ENGLISH = "english"
    FINNISH = "finnish"
    FRENCH = "french"
    GERMAN = "german"
    GREEK = "greek"
    HEBREW = "hebrew"
    HINGLISH = "hinglish"
    HUNGARIAN = "hungarian"
    INDONESIAN = "indonesian"
    ITALIAN = "italian"
    JAPANESE = "japanese"
    KAZAKH = "kazakh"
    NEPALI = "nepali"
    NORWEGIAN = "norwegian"
    PORTUGUESE = "portuguese"
    ROMANIAN = "romanian"
    RUSSIAN = "russian"
    SLOVENE = "slovene"
    SPANISH = "spanish"
    SWEDISH = "swedish"
    TAJIK = "tajik"
    TURKISH = "turkish"


class StemmerLanguage(StrEnum):
    """Languages with a stemmer."""

    ARABIC = "arabic"
    ARMENIAN = "armenian"
    DANISH = "danish"
    DUTCH = "dutch"
    ENGLISH = "english"
    FINNISH = "finnish"
    FRENCH = "french"
    GERMAN = "german"
    GREEK = "greek"
    HUNGARIAN = "hungarian"
    ITALIAN = "italian"
    NORWEGIAN = "norwegian"
    PORTUGUESE = "portuguese"
    ROMANIAN = "romanian"
    RUSSIAN = "russian"
    SPANISH = "spanish"
    SWEDISH = "swedish"
    TAMIL = "tamil"
    TURKISH = "turkish"


class Stopwords(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """Words that a text index ignores: the lists of languages, and a custom list."""

    languages: tuple[Language, ...] | None = None
    custom: tuple[str, ...] | None = None


class Stemmer(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """The stemmer of a text index; type `none` disables it."""

    type: Literal["snowball", "none"]
    language: StemmerLanguage | None = None


def text_options_error(min_token_len: int | None, max_token_len: int | None, stemmer: Stemmer | None) -> str | None:
    """Why these options of text analysis contradict each other, beginning with the option; None when they do not."""
    if min_token_len is not None and max_token_len is not None and min_token_len > max_token_len:
        return f"min_token_len: is {min_token_len}, must be at most max_token_len, {max_token_len}"
    if stemmer is not None and (stemmer.type == "snowball") != (stemmer.language is not None):
        return "stemmer: type snowball needs a language, and type none takes none"
    return None


class FieldSchema(msgspec.Struct, frozen=True, omit_defaults=True):
    """An indexed payload field. None means not set: the API's default applies. Token lengths are in characters.

    The fields from `is_tenant` on have no effect here and are returned unchanged.
    """

    type: FieldType
    lowercase: bool | None = None
    min_token_len: int | None = None
    max_token_len: int | None = None
    tokenizer: Tokenizer | None = None
    phrase_matching: bool | None = None
    ascii_folding: bool | None = None
    stopwords: Language | Stopwords | None = None
    stemmer: Stemmer | None = None
    lookup: bool | None = None
    range: bool | None = None
    prefix: bool | None = None
    is_tenant: bool | None = None
    is_principal: bool | None = None
    on_disk: bool | None = None
    enable_hnsw: bool | None = None
    memory: Literal["cold", "cached", "pinned"] | None = None

    def number(self, value: Any) -> float | int | None:
        """The value as a number; for a datetime field, microseconds since 1970. None when it has another type."""
        return as_micros(value) if self.type is FieldType.DATETIME else as_number(value)
