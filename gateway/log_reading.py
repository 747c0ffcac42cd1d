"""Questions to the log on behalf of requests: in the thread pool, and with an answer when the log gives none."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

from gateway.http.errors import Unavailable
from gateway.reads import ReadService
from journal.log import JournalError

P = ParamSpec("P")
T = TypeVar("T")

RETRY_S = 1.0


async def ask_log(reads: ReadService, ask: Callable[P, T], *arguments: P.args, **named: P.kwargs) -> T:
    """The result of a function that asks the log. Raises Unavailable when the log does not answer; nothing was written."""
    try:
        return await reads.offload(False, partial(ask, *arguments, **named))
    except JournalError as error:
        raise Unavailable(f"the log cannot be asked: {error}", RETRY_S) from error
