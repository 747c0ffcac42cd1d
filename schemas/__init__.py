"""The wire contract: Avro schemas of what stands in the journal, for this project and for foreign producers.

Owns the `.avsc` files and finds them; knows nothing of what they mean. Must not import any other package of the project.
A published file never changes: a new version gets a new file, and `RECORD_SCHEMAS` names all that may be met in a log.
"""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

RECORD_SCHEMAS = ("record.v1.avsc", "record.v2.avsc", "record.v3.avsc", "record.v4.avsc", "record.v5.avsc", "record.v6.avsc")
"""Every version of the journal record, oldest first; the last one is written."""

INGEST_SCHEMAS = ("ingest.v1.avsc",)
"""Every version of what producers may write to the ingest topic in single-object framing."""


def load(name: str) -> dict[str, Any]:
    """The parsed JSON of the schema file `name`."""
    text = resources.files(__name__).joinpath(name).read_text(encoding="utf-8")
    schema: dict[str, Any] = json.loads(text)
    return schema
