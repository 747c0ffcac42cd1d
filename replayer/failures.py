"""Logging for loops that retry after a failure: its begin and its end, not each attempt."""

from __future__ import annotations

import logging

from journal.log import JournalError

log = logging.getLogger(__name__)


class FailureLog:
    """Logs the first failure of a row, each failure of another kind, and the end of the row. Repetitions are logged at DEBUG."""

    def __init__(self) -> None:
        self._kind: type[Exception] | None = None
        self._failures = 0

    def failed(self, what: str, error: Exception) -> None:
        """Logs that `what` failed: for a JournalError a warning, for any other error an error with a stack trace."""
        known = type(error) is self._kind
        self._kind, self._failures = type(error), self._failures + 1
        unexpected = not isinstance(error, JournalError)
        level = logging.DEBUG if known else logging.ERROR if unexpected else logging.WARNING
        log.log(level, "%s: %s", what, error, exc_info=unexpected and not known)

    def succeeded(self, what: str) -> None:
        """Logs `what` works again, at the end of a row of failures; otherwise does nothing."""
        if self._failures:
            log.info("%s, after %d failures", what, self._failures)
            self._kind, self._failures = None, 0
