"""A client of the node's REST API, for commands: JSON in, result out, and errors with a text for the user."""

from __future__ import annotations

import re
import time
from types import TracebackType
from typing import Any, Self

import httpx
import orjson

READY_EVERY_S = 0.05
_ERRNO = re.compile(r"\[Errno -?\d+\] ")


class RequestFailed(Exception):
    """The node refused a request or did not answer in time."""


class Unreachable(RequestFailed):
    """No node listens at this address, or the connection broke."""


class Client:
    """A client of the node at `url`, a context manager."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._http = httpx.Client(base_url=url, timeout=timeout_s, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._http.close()

    def wait_until_ready(self, timeout_s: float) -> None:
        """Waits until the node has replayed its journal. Raises RequestFailed after the timeout."""
        deadline_s = time.monotonic() + timeout_s
        while not (answer := self._sent("GET", "/readyz")).is_success:
            if time.monotonic() > deadline_s:
                raise RequestFailed(f"the node is not ready after {timeout_s:g} s: {answer.text}")
            time.sleep(READY_EVERY_S)

    def call(self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> Any:
        """Sends a request. Returns `result` of the answer. Raises RequestFailed."""
        return self.answer(method, path, body, headers).json()["result"]

    def answer(self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> httpx.Response:
        """Sends a request. Returns the complete answer. Raises RequestFailed, with the answer's text for an error status."""
        answer = self._sent(method, path, body, headers)
        if not answer.is_success:
            raise RequestFailed(f"{method} {path} got {answer.status_code}: {answer.text}")
        self._http.cookies.clear()  # cookies carry positions; callers send positions in the header only
        return answer

    def _sent(self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> httpx.Response:
        content = None if body is None else orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
        try:
            return self._http.request(method, path, content=content, headers=headers)
        except httpx.TimeoutException as error:
            raise RequestFailed(f"the node did not answer within {self._timeout_s:g} s") from error
        except httpx.TransportError as error:
            raise Unreachable(f"no node answers at {self._url}: {_ERRNO.sub('', str(error))}") from error
