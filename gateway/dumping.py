"""Encoding of answers as JSON; large ones are encoded in the thread pool."""

from __future__ import annotations

from functools import partial
from typing import Any

from gateway.dialect.answers import dumps
from gateway.reads import ReadService
from gateway.request import Response


async def dumped(body: Any, response: Response, reads: ReadService) -> bytes:
    """Encodes an answer, or its result, as JSON. Resets `response.is_large`: an encoded result is quick to include."""
    if not response.is_large:
        return dumps(body)
    response.is_large = False
    return await reads.offload(False, partial(dumps, body))
