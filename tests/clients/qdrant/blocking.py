"""The asynchronous client, called as the blocking one is."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

from qdrant_client import AsyncQdrantClient


class Blocking:
    """An asynchronous client called as the other one is: what it answers is awaited."""

    def __init__(self, client: AsyncQdrantClient) -> None:
        self._client = client
        self._loop = asyncio.new_event_loop()

    def __getattr__(self, name: str) -> Callable[..., Any]:
        def call(*positional: Any, **named: Any) -> Any:
            answer = getattr(self._client, name)(*positional, **named)
            return self._loop.run_until_complete(answer) if inspect.isawaitable(answer) else answer

        return call

    def close(self) -> None:
        self._loop.run_until_complete(self._client.close())
        self._loop.close()
