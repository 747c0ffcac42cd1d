"""How the loops of this package say that something failed and will be tried again."""

from __future__ import annotations

import logging

from journal.log import JournalError

log = logging.getLogger(__name__)


def log_failure(known: Exception | None, error: Exception, what: str, retry_s: float) -> None:
    """Logs a failure unless it is the `known` one again; a journal's in a line, any other with its trace."""
    if str(known) != str(error):
        unexpected = not isinstance(error, JournalError)
        level = logging.ERROR if unexpected else logging.WARNING
        log.log(level, "%s, trying again every %s s: %s", what, retry_s, error, exc_info=unexpected)
