"""Answers as bytes, which takes long for large ones."""

from __future__ import annotations

from functools import partial
from typing import Any

from gateway.dialect.answers import dumps
from gateway.reads import ReadService
from gateway.request import Response


async def dumped(body: Any, response: Response, reads: ReadService) -> bytes:
    """An answer, or its result, as JSON; of a large one made by a thread of the pool, and it is large no more."""
    if not response.is_large:
        return dumps(body)
    response.is_large = False
    return await reads.offload(False, partial(dumps, body))
