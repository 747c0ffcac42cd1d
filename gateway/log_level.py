"""The level of this process's logs, which the admin API can change while the node runs."""

from __future__ import annotations

import logging
from typing import Literal, cast

Level = Literal["debug", "info", "warning", "error"]

QUIET = ("asyncio", "faiss", "httpcore", "httpx", "uvicorn")
"""Libraries that log what they do: they log warnings and errors only, unless the level is debug."""


def level() -> Level:
    """The level: entries below it are not logged."""
    return cast(Level, logging.getLevelName(logging.getLogger().level).lower())


def set_level(name: Level) -> None:
    """Sets the level, of libraries too."""
    chosen = logging.getLevelNamesMapping()[name.upper()]
    logging.getLogger().setLevel(chosen)
    for library in QUIET:
        logging.getLogger(library).setLevel(chosen if name == "debug" else max(chosen, logging.WARNING))
