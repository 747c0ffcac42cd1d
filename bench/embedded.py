"""Embedded databases: each runs in its own process, so that its memory and CPU time can be measured separately.

Its clients are threads of that process, as is usual for an embedded database, and are timed there. So no figure includes the pipe
to this process. Memory is that of the whole process: Python, the library and its data.
"""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
from collections.abc import Callable, Sequence
from math import inf
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol, Self

from bench.client import WARM_UP_S, Timings, in_threads
from bench.data import Filter, Points
from bench.process import Watched
from journal.records import Vectors

_TIMEOUT_S = 600.0
_STOP_TIMEOUT_S = 30.0

Action = Callable[[], Any]
"""A prepared request, which any thread can execute."""

Request = tuple[str, tuple[Any, ...]]
"""The name of the engine method that returns the action, and its arguments."""


class EngineError(Exception):
    """The process of an engine failed, ended, or does not answer."""


class Engine(Protocol):
    """An embedded database; the constructor opens the data in `folder`."""

    name: str
    replaces: bool
    batch: int
    settings: str

    def __init__(self, folder: Path) -> None: ...

    def create(self, dimensions: int) -> None: ...

    def upserting(self, points: Points, single: bool) -> Action: ...

    def searching(self, query: Vectors, only: Filter | None) -> Action:
        """An action that returns the rows of the hits."""

    def index(self) -> None:
        """Builds the index, if that needs an explicit call. Returns when it is complete."""

    def close(self) -> None: ...


class Embedded:
    """The target for an engine, which runs in its own process."""

    process: Watched

    def __init__(self, engine: type[Engine], folder: Path) -> None:
        self.name, self.batch, self.replaces = engine.name, engine.batch, engine.replaces
        self.folder = folder
        self.settings = ""
        self._engine = engine

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        self._child = context.Process(target=_serve, args=(self._engine, self.folder / "data", theirs), daemon=True)
        self._child.start()
        theirs.close()
        assert self._child.pid is not None
        self.process = Watched(self._child.pid)
        self.settings = f"{self._answer()}; in process, client threads"

    def stop(self) -> None:
        if self._child.is_alive():
            try:
                self._ask("close")
            except (EngineError, OSError):
                self._child.kill()
        self._child.join(_STOP_TIMEOUT_S)
        self._child.kill()
        self._child.join()
        self._pipe.close()

    def create(self, dimensions: int) -> None:
        self._ask("create", dimensions)

    def bulk(self, points: Points, last: bool = True) -> Request:
        return "upserting", (points, False)

    def upsert(self, points: Points) -> Request:
        return "upserting", (points, True)

    def search(self, query: Vectors, only: Filter | None = None) -> Request:
        return "searching", (query, only)

    def send(self, request: Request) -> Any:
        return self._ask("send", request)

    def rows_of(self, answer: list[int]) -> list[int]:
        return answer

    def searchable(self, count: int) -> bool:
        self._ask("index")
        self._ask("give_back")
        return True

    def run(self, streams: Sequence[Sequence[Request]], seconds: float = inf, warm_up_s: float = WARM_UP_S) -> list[Timings]:
        if seconds < inf:
            taken: list[Timings] = self._ask("run", streams, seconds, warm_up_s)
            self._ask("give_back")
            return taken
        # An ingest is sent one request at a time, so that the engine's process need not hold all of it.
        assert len(streams) == 1
        pieces = [self._ask("run", [[request]], inf, 0.0)[0] for request in streams[0]]
        errors = [piece.error for piece in pieces if piece.error]
        return [Timings(0, [second for piece in pieces for second in piece.seconds], errors[0] if errors else "")]

    def _ask(self, name: str, *arguments: Any) -> Any:
        self._pipe.send((name, arguments))
        return self._answer()

    def _answer(self) -> Any:
        if not self._pipe.poll(_TIMEOUT_S):
            raise EngineError(f"{self.name} has not answered for {_TIMEOUT_S:.0f} s")
        try:
            done, answer = self._pipe.recv()
        except EOFError:
            raise EngineError(f"the process of {self.name} has ended") from None
        if not done:
            raise EngineError(f"{self.name}: {answer}")
        return answer


class _Host:
    """The commands that the process of an engine executes."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def create(self, dimensions: int) -> None:
        self._engine.create(dimensions)

    def index(self) -> None:
        self._engine.index()

    def send(self, request: Request) -> Any:
        return self._prepare(request)()

    def run(self, streams: Sequence[Sequence[Request]], seconds: float, warm_up_s: float) -> list[Timings]:
        requests = {id(request): request for stream in streams for request in stream}  # requests may be repeated
        prepared = {key: self._prepare(request) for key, request in requests.items()}
        actions = [[prepared[id(request)] for request in stream] for stream in streams]
        return in_threads(_Caller, actions, seconds, warm_up_s)

    def give_back(self) -> None:
        """Frees the memory of the clients, so that only the engine's is measured."""
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)

    def close(self) -> None:
        self._engine.close()

    def _prepare(self, request: Request) -> Action:
        name, arguments = request
        action: Action = getattr(self._engine, name)(*arguments)
        return action


class _Caller:
    """A client thread: executes prepared actions."""

    def send(self, request: Action) -> Any:
        return request()

    def close(self) -> None:
        pass


def _serve(engine: type[Engine], folder: Path, pipe: Connection) -> None:
    name = "open"
    host = None
    while name != "close":
        try:
            if host is None:
                opened = engine(folder)
                host, answer = _Host(opened), opened.settings
            else:
                name, arguments = pipe.recv()
                answer = getattr(host, name)(*arguments)
            arguments = None
            pipe.send((True, answer))
        except EOFError:  # the parent has closed the pipe
            return
        except Exception as error:
            pipe.send((False, f"{type(error).__name__}: {error}"))
            if host is None:
                return
