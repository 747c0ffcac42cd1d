"""The node's REST API for commands: JSON in, the answer's result out, one kind of error whose text is for people."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Any, Self

import httpx
import orjson

READY_EVERY_S = 0.05


class RequestFailed(Exception):
    """The node refused a request or did not answer in time; the text says which, and why."""


class Unreachable(RequestFailed):
    """Nothing listens there, or it went away."""


class Client:
    """A client of the node at `url`. To be used as a context manager."""

    def __init__(self, url: str, timeout_s: float) -> None:
        self._url = url
        self._timeout_s = timeout_s
        self._http = httpx.Client(base_url=url, timeout=timeout_s, trust_env=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._http.close()

    def wait_until_ready(self, timeout_s: float) -> None:
        """Returns once the node has replayed its journal. Raises RequestFailed when it has not in time."""
        deadline_s = time.monotonic() + timeout_s
        while not (answer := self._sent("GET", "/readyz")).is_success:
            if time.monotonic() > deadline_s:
                raise RequestFailed(f"the node is not ready after {timeout_s:g} s: {answer.text}")
            time.sleep(READY_EVERY_S)

    def call(self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> Any:
        """The result of a request. Raises RequestFailed."""
        return self.answer(method, path, body, headers).json()["result"]

    def answer(self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> httpx.Response:
        """The whole answer of a request. Raises RequestFailed, with the answer's text when it is no success."""
        answer = self._sent(method, path, body, headers)
        if not answer.is_success:
            raise RequestFailed(f"{method} {path} got {answer.status_code}: {answer.text}")
        self._http.cookies.clear()  # they carry positions too; who wants to read their own writes sends the header
        return answer

    def _sent(self, method: str, path: str, body: object = None, headers: dict[str, str] | None = None) -> httpx.Response:
        content = None if body is None else orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)
        try:
            return self._http.request(method, path, content=content, headers=headers)
        except httpx.TimeoutException as error:
            raise RequestFailed(f"the node did not answer within {self._timeout_s:g} s") from error
        except httpx.TransportError as error:
            raise Unreachable(f"no node answers at {self._url}: {error}") from error
