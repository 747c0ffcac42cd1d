"""The logs of a process on stderr: as text or as JSON, one line for each entry, whatever library it comes from.

What repeats is bounded: each place in the code may log BURST entries a minute. The first entry after that minute says how many
were left out.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime

import orjson

from gateway.log_level import set_level
from vecraft.settings import Settings

log = logging.getLogger("vecraft")

BURST = 20
WINDOW_S = 60.0
MAX_PLACES = 1000
"""Places in the code that are counted at the same time; beyond that, the counts begin anew."""

_ESCAPED = {code: f"\\x{code:02x}" for code in (*range(32), 127)} | {ord("\n"): "\\n", ord("\r"): "\\r", ord("\t"): "\\t"}
"""Control characters, which a name from outside could use to forge a line or to confuse a terminal."""


def set_up(settings: Settings) -> None:
    """Sends all logs of this process to stderr, in the form and from the level on that the settings name."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(settings.node) if settings.log_format == "json" else TextLines())
    handler.addFilter(Bound())
    logging.basicConfig(handlers=[handler])
    set_level(settings.log_level)


def log_uncaught() -> None:
    """Logs what ends a thread or the process, which Python would print, and warnings."""
    threading.excepthook = lambda ended: log.critical(
        "the thread %s has ended", ended.thread.name if ended.thread else "?", exc_info=ended.exc_value
    )
    sys.excepthook = lambda kind, error, trace: log.critical("the process has ended", exc_info=error)
    logging.captureWarnings(True)


class TextLines(logging.Formatter):
    """`time level logger: message`. The lines of a stack trace follow."""

    def format(self, record: logging.LogRecord) -> str:
        line = f"{_moment(record)} {record.levelname} {record.name}: {_message(record).translate(_ESCAPED)}"
        return "\n".join([line, *(text for text in (_trace(self, record),) if text)])


class JsonLines(logging.Formatter):
    """JSON objects with timestamp (ISO 8601, UTC), level, logger, message, node, and exception where there is one."""

    def __init__(self, node: str) -> None:
        super().__init__()
        self._node = node

    def format(self, record: logging.LogRecord) -> str:
        entry = {
            "timestamp": _moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
            "node": self._node,
        }
        if trace := _trace(self, record):
            entry["exception"] = trace
        return orjson.dumps({name: text.encode(errors="replace").decode() for name, text in entry.items()}).decode()


class Bound(logging.Filter):
    """Lets each place in the code log BURST entries in WINDOW_S, and counts the others. DEBUG has no bound. Thread-safe."""

    def __init__(self, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._monotonic_s = monotonic_s
        self._lock = threading.Lock()
        self._counts: dict[tuple[str, int], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log the entry. Its `left_out` becomes the number of entries before it that were not logged."""
        if record.levelno <= logging.DEBUG:
            return True
        place, now_s = (record.pathname, record.lineno), self._monotonic_s()
        with self._lock:
            since_s, count = self._counts.get(place, (now_s, 0))
            if now_s - since_s >= WINDOW_S:
                record.left_out = max(0, count - BURST)
                since_s, count = now_s, 0
            if place not in self._counts and len(self._counts) >= MAX_PLACES:
                self._counts.clear()
            self._counts[place] = since_s, count + 1
            return count < BURST


def _moment(record: logging.LogRecord) -> str:
    return datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _message(record: logging.LogRecord) -> str:
    left_out = getattr(record, "left_out", 0)
    return record.getMessage() + (f" ({left_out} more like this were left out)" if left_out else "")


def _trace(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    if record.exc_info and not record.exc_text:
        record.exc_text = formatter.formatException(record.exc_info)
    return "\n".join(text for text in (record.exc_text, record.stack_info) if text)
