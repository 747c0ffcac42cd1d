"""Fetches archives from the hosts that the operator allows."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import httpx

from gateway.http.errors import BadRequest
from gateway.reads import ReadService

CONNECT_S, SILENCE_S = 10.0, 30.0
FETCH_S = 3600.0
"""The bound of a whole download."""

WRITE_BYTES = 1 << 20


async def fetch(
    location: str,
    api_key: str,
    hosts: frozenset[str],
    path: Path,
    reads: ReadService,
    check: Callable[[int], None],
) -> None:
    """Writes the content of a URL to the new file `path`. `hosts`: the allowed ones, `host` for any port or `host:port`.

    Redirects are not followed. Calls `check` with the bytes that come next. Raises BadRequest.
    """
    url = _checked(location, hosts)
    timeout = httpx.Timeout(SILENCE_S, connect=CONNECT_S)
    headers = {"accept-encoding": "identity"} | ({"api-key": api_key} if api_key else {})
    try:
        async with (
            asyncio.timeout(FETCH_S),
            httpx.AsyncClient(timeout=timeout, follow_redirects=False, trust_env=False) as client,
            client.stream("GET", url, headers=headers) as answer,
        ):
            if answer.status_code != 200:
                raise BadRequest(f"location: {url.host} answers with {answer.status_code}; redirects are not followed")
            length = answer.headers.get("content-length", "")
            check(int(length) if length.isascii() and length.isdecimal() else 0)
            with path.open("xb") as file:
                async for chunk in answer.aiter_raw(WRITE_BYTES):
                    check(len(chunk))
                    await reads.offload(False, lambda data=chunk: file.write(data))  # type: ignore[misc]
    except TimeoutError as error:
        raise BadRequest(f"location: {url.host} did not send all of it within {FETCH_S:g} s") from error
    except (httpx.HTTPError, httpx.StreamError) as error:
        raise BadRequest(f"location: {url.host} cannot be read: {error or type(error).__name__}") from error


def _checked(location: str, hosts: frozenset[str]) -> httpx.URL:
    try:
        url = httpx.URL(location)
    except (httpx.InvalidURL, ValueError) as error:
        raise BadRequest(f"location: {location[:200]!r} is no URL: {error}") from error
    if url.scheme not in ("http", "https") or not url.host or url.userinfo:
        raise BadRequest(f"location: {location[:200]!r} must be file:///path, http://host/path or https://host/path")
    port = url.port or {"http": 80, "https": 443}[url.scheme]
    if not {url.host.lower(), f"{url.host.lower()}:{port}"} & hosts:
        raise BadRequest(f"location: the host {url.host}:{port} is not among those that --snapshot-hosts allows")
    return url
