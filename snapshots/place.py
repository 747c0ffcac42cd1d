"""Where snapshots lie: a folder or S3, named by a URL. Only this module imports obstore."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, S3Store

log = logging.getLogger(__name__)

PART_BYTES = 8 << 20
"""Files are sent in parts of this size; S3 takes none below 5 MiB."""

MAX_AT_ONCE = 2
"""Parts of a file that are sent at the same time."""

MAX_SMALL_BYTES = 256 << 20
"""The bound of what `read` returns."""

CLIENT: Any = {"connect_timeout": "10s", "timeout": "120s", "allow_http": True}
RETRIES: Any = {"max_retries": 3}


class PlaceError(Exception):
    """The place cannot be reached, refuses, or has not what is asked for; the text says which."""


class Item(NamedTuple):
    """A file of a place. `modified` has an offset from UTC."""

    path: str
    size: int
    modified: datetime


class Place:
    """The files below `url`: `file:///folder` or `s3://bucket/prefix`. Thread-safe. A file is there whole or not at all.

    What S3 needs beside the URL (keys, region, AWS_ENDPOINT_URL of another service) comes from the variables AWS_… of the
    environment. All methods raise PlaceError.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        scheme = checked_scheme(url)
        with _known_errors(f"{url} cannot be used"):
            self._store: Any
            if scheme == "file":
                self._store = LocalStore.from_url(url, mkdir=True, automatic_cleanup=True)
            else:
                self._store = S3Store.from_url(url, client_options=CLIENT, retry_config=RETRIES)

    def items(self, folder: str) -> Iterator[Item]:
        """All files below a folder, in no order."""
        with _known_errors(f"{self.url} cannot be listed"):
            for some in obstore.list(self._store, folder):
                yield from (Item(item["path"], item["size"], item["last_modified"]) for item in some)

    def read(self, path: str) -> bytes:
        """A small file."""
        with _known_errors(f"{self.url}: {path} cannot be read"):
            found = obstore.get(self._store, path)
            if found.meta["size"] > MAX_SMALL_BYTES:
                raise PlaceError(f"{self.url}: {path} has {found.meta['size']} bytes, the bound is {MAX_SMALL_BYTES}")
            return bytes(found.bytes())

    def chunks(self, path: str) -> Iterator[bytes]:
        """A file of any size, in parts of some megabytes."""
        with _known_errors(f"{self.url}: {path} cannot be read"):
            for chunk in obstore.get(self._store, path).stream(min_chunk_size=PART_BYTES):
                yield bytes(chunk)

    def write(self, path: str, data: bytes) -> None:
        """Writes a small file, or replaces it."""
        with _known_errors(f"{self.url}: {path} cannot be written"):
            obstore.put(self._store, path, data)

    def send(self, path: str, chunks: Iterable[bytes]) -> None:
        """Writes a file of any size, or replaces it."""
        with _known_errors(f"{self.url}: {path} cannot be written"):
            obstore.put(self._store, path, iter(chunks), chunk_size=PART_BYTES, max_concurrency=MAX_AT_ONCE)

    def remove(self, paths: Sequence[str]) -> None:
        """Removes files; those that are not there are passed over."""
        with _known_errors(f"{self.url}: {len(paths)} files cannot be removed"):
            for path in paths:
                try:
                    obstore.delete(self._store, path)
                except FileNotFoundError:
                    log.debug("%s: %s is not there", self.url, path)


def checked_scheme(url: str) -> str:
    """The scheme of the URL of a place. Raises PlaceError for what is none; asks nobody."""
    scheme, host, path, _, _ = urlsplit(url)
    if (scheme == "file" and not host and path.strip("/")) or (scheme == "s3" and host):
        return scheme
    raise PlaceError(f"{url!r} must be file:///folder or s3://bucket/prefix")


@contextmanager
def _known_errors(what: str) -> Iterator[None]:
    try:
        yield
    except (BaseError, OSError, ValueError) as error:
        raise PlaceError(f"{what}: {str(error).splitlines()[0] if str(error) else type(error).__name__}") from error
