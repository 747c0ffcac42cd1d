"""Handlers of the log level (`/admin/log-level`)."""

from __future__ import annotations

import logging

from gateway.log_level import level, set_level
from gateway.request import ApiRequest, Response
from gateway.services import Services

log = logging.getLogger(__name__)


async def show(request: ApiRequest, response: Response, services: Services) -> dict[str, str]:
    """The level of this node's logs: entries below it are not logged."""
    return {"level": level()}


async def change(request: ApiRequest, response: Response, services: Services) -> dict[str, str]:
    """Changes the level of this node's logs until it ends; a restart goes back to the setting `log_level`."""
    before, now = level(), request.body.level
    set_level(now)
    if now != before:
        log.warning("the log level is %s now, it was %s", now, before)
    return {"level": now}
