"""Documents: texts that stand in a request in place of a vector, for a model to make the vector from."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from gateway.dialect.bodies import Body
from gateway.dialect.vectors import Packed, decoded, is_object, raw_of, vector_of
from gateway.http.errors import BadRequest
from journal.records import Vector

MAX_TEXT_CHARS = 1 << 18
"""The bound of one document's text."""

MAX_TEXTS_CHARS = 4_000_000
"""The bound of the texts of all documents of a write, or of one query without its prefetches, together."""

DOCUMENT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "text": {"type": "string", "description": f"at most {MAX_TEXT_CHARS} characters"},
        "model": {"type": "string", "minLength": 1},
        "options": {"type": ["object", "null"]},
    },
    "required": ["text", "model"],
}

_INPUTS = ("text", "image", "object")
"""The fields that hold the input of a model; with `model` beside one of them, an object is for inference."""


class Document(Body):
    """A text, and the model that makes its vector."""

    text: str
    model: Annotated[str, Meta(min_length=1)]
    options: dict[str, Any] | None = None


class PlacedDocument(msgspec.Struct):
    """A document of a write: its vector becomes the one named `name` of the point with this index. `place` is for errors."""

    point: int
    name: str
    place: str
    document: Document


def given_vector_of(raw: bytes, place: str) -> Vector | Document:
    """The vector in a raw part of a body, or the document from which it is made. Raises BadRequest."""
    document = document_of(raw, place)
    return vector_of(raw, place) if document is None else document


def document_of(raw: bytes, place: str) -> Document | None:
    """The document in a raw part of a body; None when it is none.

    Raises BadRequest for a document that is not valid, and for images and other input of models.
    """
    if not is_object(raw) or b"model" not in raw:  # decoding costs much more
        return None
    parts = decoded(raw, dict[str, msgspec.Raw])
    model, *inputs = (_value(parts.get(name), isinstance(raw, Packed)) for name in ("model", *_INPUTS))
    found = [name for name, value in zip(_INPUTS, inputs, strict=True) if value is not None and not isinstance(value, list)]
    if not isinstance(model, str) or not found:
        return None  # vectors may have these names
    if found != ["text"]:
        raise BadRequest(f"{place}: vectors are made of a text only, not of {' and '.join(found)}; send the vector")
    try:
        document = decoded(raw, Document)
    except msgspec.ValidationError as error:
        raise BadRequest(f"{place}: not a document: {error}") from error
    if len(document.text) > MAX_TEXT_CHARS:
        raise BadRequest(f"{place}.text has {len(document.text)} characters, the bound is {MAX_TEXT_CHARS}")
    return document


def check_texts(documents: Iterable[Document]) -> None:
    """Raises BadRequest when the texts of these documents are too long together."""
    total = sum(len(document.text) for document in documents)
    if total > MAX_TEXTS_CHARS:
        raise BadRequest(f"the texts of documents have {total} characters together, the bound is {MAX_TEXTS_CHARS}")


def _value(part: msgspec.Raw | None, packed: bool) -> Any:
    return None if part is None else decoded(raw_of(part, packed), object)
