"""The health of a node by component: what works, what does not, why, and since when.

`Health.look` asks and measures, and logs what has changed since the look before. Its own thread looks every LOOK_EVERY_S, so that
a change is logged even if nobody asks; the page `/healthz` looks anew.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import IntEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from journal.log import JournalError, Positions, TopicPartition
from replayer.lag import LagState, Measured

if TYPE_CHECKING:
    from gateway.services import NodeState

log = logging.getLogger(__name__)

LOOK_EVERY_S = 5.0
FRESH_S = 0.5
"""A look is not repeated within this time: probes and scrapes share it."""

STALLED_S = 60.0
"""A replay that has records to apply and applies none for this time has stopped."""

OVERLOADED_S = 10.0
"""How long a write that was refused because too many wait counts."""

DISK_LOW_BYTES, DISK_FULL_BYTES = 2 << 30, 256 << 20
MEMORY_LOW_SHARE = 0.9
SKEW_SHARE = 0.5
"""Of `max_drift_ms`: a skew from which on the clock is degraded."""

MIB = 1 << 20


class Status(IntEnum):
    """How well a component works; the numbers are those of the metric `vecraft_health`."""

    OK = 0
    STARTING = 1
    DEGRADED = 2
    FAILING = 3


_LEVELS = {Status.DEGRADED: logging.WARNING, Status.FAILING: logging.ERROR}


class Finding(NamedTuple):
    """What one look finds."""

    status: Status
    cause: str = ""


OK = Finding(Status.OK)


class Component(NamedTuple):
    """A component as found at the latest look. `since_ms`: when its status began, in ms since 1970."""

    status: Status
    cause: str
    since_ms: int


class Health:
    """Looks at a node. Thread-safe. `run` is for a thread of its own, which `stop` ends."""

    def __init__(self, node: NodeState, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._node = node
        self._monotonic_s = monotonic_s
        self._looking = threading.Lock()
        self._looked_s = float("-inf")
        self._components: dict[str, Component] = {}
        self._was_ready: bool | None = None
        self._overloaded_s = float("-inf")
        self._progress: tuple[Positions, float] = ({}, 0.0)
        self._stopping = threading.Event()

    def run(self) -> None:
        """Looks every LOOK_EVERY_S until `stop`."""
        while not self._stopping.wait(LOOK_EVERY_S):
            self.look()

    def stop(self) -> None:
        """Ends `run` after the current look, which the answer of the log may delay."""
        self._stopping.set()

    def overloaded(self) -> None:
        """Notes that a write was refused because too many others wait for their acknowledgement."""
        self._overloaded_s = self._monotonic_s()

    def look(self) -> Mapping[str, Component]:
        """All components, found within the last FRESH_S. While another thread looks, what was found before.

        Asks the log, so it can take as long as the log's timeouts: not for an event loop.
        """
        if not self._looking.acquire(blocking=not self._components):
            return self._components
        try:
            if self._monotonic_s() - self._looked_s > FRESH_S:
                self._note(self._found())
                self._looked_s = self._monotonic_s()
            return self._components
        finally:
            self._looking.release()

    def seen(self) -> Mapping[str, Component]:
        """All components as found at the latest look; none before the first. Quick."""
        return self._components

    # Looking.

    def _found(self) -> dict[str, Finding]:
        try:
            lag, unreachable = self._node.lag(), ""
        except JournalError as error:
            lag, unreachable = {}, str(error)
        return {
            "replay": self._replay(lag),
            "ingest": self._ingest(),
            "journal": self._journal(unreachable),
            "disk": self._disk(),
            "memory": self._memory(),
            "clock": self._clock(),
            "shards": self._shards(),
        }

    def _replay(self, lag: Mapping[TopicPartition, Measured]) -> Finding:
        replayer = self._node.replayer
        behind = sum(measured.lag.records for measured in lag.values())
        stalled_s = self._stalled_s(bool(behind) and replayer.failure is None and replayer.caught_up())
        if (failure := replayer.failure) is not None:
            return Finding(Status.FAILING, f"the replay has stopped: {failure}")
        if not replayer.caught_up():
            done, total = replayer.behind()
            return Finding(Status.STARTING, f"{done} of {total} records are replayed" if total else "the state is being opened")
        if stalled_s >= STALLED_S:
            return Finding(Status.FAILING, f"the replay has applied nothing for {stalled_s:.0f} s, {behind} records wait")
        if any(measured.state is LagState.BACK_PRESSURE for measured in lag.values()):
            return Finding(Status.DEGRADED, f"the replay is far behind: {behind} records wait")
        return OK

    def _stalled_s(self, behind: bool) -> float:
        """For how long nothing was applied although something waits."""
        applied, now_s = self._node.replayer.applied.get(), self._monotonic_s()
        if not behind or applied != self._progress[0]:
            self._progress = applied, now_s
        return now_s - self._progress[1]

    def _ingest(self) -> Finding:
        if (failure := self._node.ingest.failure) is not None:
            return Finding(Status.FAILING, f"the ingest has stopped: {failure}")
        if not self._node.replayer.caught_up():
            return Finding(Status.STARTING, "the ingest starts when the replay has caught up")
        return OK

    def _journal(self, unreachable: str) -> Finding:
        failure = self._node.replayer.failure
        if unreachable or (isinstance(failure, JournalError) and not self._node.replayer.applied.get()):
            return Finding(Status.FAILING, f"the log cannot be asked: {unreachable or failure}")
        if (broken := self._node.journal.failure) is not None:
            return Finding(Status.FAILING, f"the log cannot be written: {broken}")
        if refusals := list(self._node.journal.refusals().values()):
            return Finding(Status.FAILING, f"{len(refusals)} partitions take no writes: {refusals[0]}")
        if self._monotonic_s() - self._overloaded_s < OVERLOADED_S:
            return Finding(Status.DEGRADED, "writes are refused with 429: too many wait for their acknowledgement")
        return OK

    def _disk(self) -> Finding:
        if (usage := self._node.disk_usage()) is None:
            return Finding(Status.FAILING, "the data folder cannot be looked at")
        free = usage.free
        low = Status.FAILING if free < DISK_FULL_BYTES else Status.DEGRADED if free < DISK_LOW_BYTES else Status.OK
        return Finding(low, f"{free // MIB} MiB are free for the data folder") if low else OK

    def _memory(self) -> Finding:
        used, budget = self._node.budget.used(), self._node.budget.bytes
        text = f"{used // MIB} MiB are used, memory_budget_mb is {budget // MIB}"
        if used > budget:
            return Finding(Status.FAILING, f"writes that add data are refused: {text}")
        return Finding(Status.DEGRADED, text) if used > MEMORY_LOW_SHARE * budget else OK

    def _clock(self) -> Finding:
        skew_ms, bound_ms = self._node.clock.skew_ms, self._node.clock.max_drift_ms
        text = (
            f"this node's clock is {abs(skew_ms)} ms {'behind' if skew_ms > 0 else 'ahead of'} the log's, the bound is {bound_ms}"
        )
        if abs(skew_ms) > bound_ms:
            return Finding(Status.FAILING, text)
        return Finding(Status.DEGRADED, text) if abs(skew_ms) > SKEW_SHARE * bound_ms else OK

    def _shards(self) -> Finding:
        quarantined = list(self._node.shards.quarantined().values())
        if not quarantined:
            return OK
        first = quarantined[0]
        text = f"{len(quarantined)} shards are not served; shard {first.number} of {first.collection!r}: {first.reason}"
        return Finding(Status.DEGRADED if self._node.shards.all() else Status.FAILING, text)

    # Changes.

    def _note(self, found: Mapping[str, Finding]) -> None:
        """Keeps what was found, and logs each status that is another one than before."""
        now_ms = self._node.clock.physical_ms()
        components = {}
        for name, (status, cause) in found.items():
            before = self._components.get(name, Component(Status.STARTING, "", now_ms))
            same = before.status is status
            components[name] = Component(status, cause, before.since_ms if same else now_ms)
            if not same:
                _log_change(name, before, components[name])
        self._components = components
        self._note_ready()

    def _note_ready(self) -> None:
        """Logs when a node that was ready is not ready any more, and when it is again."""
        ready = self._node.ready()
        if self._was_ready is not None and ready is not self._was_ready and not self._node.stopping.is_set():
            log.log(logging.INFO if ready else logging.ERROR, "the node is ready again" if ready else "the node is not ready")
        self._was_ready = ready or (None if self._was_ready is None else False)


def _log_change(name: str, before: Component, now: Component) -> None:
    if level := _LEVELS.get(now.status):
        log.log(level, "%s is %s: %s", name, now.status.name.lower(), now.cause)
    elif before.status in _LEVELS:
        log.info("%s is %s after %.1f s", name, now.status.name.lower(), (now.since_ms - before.since_ms) / 1000)


def described(components: Mapping[str, Component]) -> dict[str, Any]:
    """The components as a page shows them, and the worst of their statuses."""
    worst = max((component.status for component in components.values()), default=Status.STARTING)
    shown = {
        name: {"status": status.name.lower(), "since": _moment(since_ms)} | ({"cause": cause} if cause else {})
        for name, (status, cause, since_ms) in components.items()
    }
    return {"status": worst.name.lower(), "components": shown}


def health_lines(components: Mapping[str, Component]) -> tuple[bool, list[str]]:
    """Whether no component fails, and a line for each that is not as it should be."""
    good = all(component.status is not Status.FAILING for component in components.values())
    return good, [
        f"{name} is {status.name.lower()} since {_moment(since_ms)}" + (f": {cause}" if cause else "")
        for name, (status, cause, since_ms) in components.items()
        if status is not Status.OK
    ]


def _moment(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
