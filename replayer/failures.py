"""Logging for loops that retry after a failure."""

from __future__ import annotations

import logging

from journal.log import JournalError

log = logging.getLogger(__name__)


def log_failure(known: Exception | None, error: Exception, what: str, retry_s: float) -> None:
    """Logs `error` unless it repeats the `known` one: a JournalError as a warning, any other as an error with a stack trace."""
    if str(known) != str(error):
        unexpected = not isinstance(error, JournalError)
        level = logging.ERROR if unexpected else logging.WARNING
        log.log(level, "%s, trying again every %s s: %s", what, retry_s, error, exc_info=unexpected)
