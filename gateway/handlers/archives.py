"""Makes archives of collections, and recovers them: what an archive contains is written to the journal.

The journal is the only truth, so recovering is a write like others: the collection is created if it is missing, and the points
are upserted. Everything that an archive contains is checked before the first record is written.
"""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from hashlib import blake2b, sha256
from pathlib import Path
from typing import BinaryIO

import msgspec
from msgspec import structs

from catalog.catalog import choose_homes
from catalog.collection import Collection, CollectionConfig, Consistency, NewVector, check_name
from gateway.dialect.bodies import Priority, WriteParams
from gateway.downloads import fetch
from gateway.handlers.points import insert_missing
from gateway.http.errors import BadRequest, InsufficientStorage, NotFound, Unavailable
from gateway.request import ApiRequest, Response
from gateway.services import Services
from gateway.writes import APPLY_S
from journal.records import CreateCollection, CreatePayloadIndex, Delete, Upsert
from shard.view import ShardView
from snapshots.archive import Archive, BadArchive, Contained, ShardSource, Source, write
from snapshots.folder import Archives, Described, NoArchive, NoRoom

SHARE = 0.33
"""The part of its time that making or checking an archive works; in the rest the interpreter lock is free."""

MAX_PAUSE_S = 0.05
BULK_TIER = 2
APPLIED_EVERY = 8
"""A recovery waits after so many records until they are applied, so that other writes get in between."""

READ_BYTES = 1 << 20
DELETED_AT_ONCE = 1000


class Paced:
    """Called after each step of a long work in a thread: pauses, and raises Unavailable when the node stops."""

    def __init__(self, stopping: threading.Event) -> None:
        self._stopping = stopping
        self._began_s = time.perf_counter()

    def __call__(self) -> None:
        worked_s = time.perf_counter() - self._began_s
        if self._stopping.wait(min(MAX_PAUSE_S, worked_s * (1 - SHARE) / SHARE)):
            raise Unavailable("the node is stopping")
        self._began_s = time.perf_counter()


@dataclass(frozen=True, slots=True)
class Recovery:
    """How an archive is recovered: into the collection `name`, or only into its shard `shard`."""

    name: str
    shard: int | None = None
    priority: Priority | None = None
    checksum: str = ""


# Making.


async def source_of(request: ApiRequest, response: Response, services: Services, name: str, shard: int | None = None) -> Source:
    """A collection, or one shard of it, with all that was acknowledged. Raises NotFound."""
    pinned = await services.reads.pin(request, response, name, Consistency.STRONG)
    collection = pinned.collection
    shards = [
        ShardSource(each.number, each.view, each.guarded)
        for each in services.node.shards.of(collection.id)
        if shard in (None, each.number)
    ]
    aliases = sorted(alias for alias, of in services.reads.catalog.aliases.items() if of == collection.name)
    return Source(Contained(collection, aliases, [each.number for each in shards]), shards)


async def made(services: Services, archives: Archives, sources: Sequence[Source]) -> Described:
    """Makes an archive and adds it to `archives`. Raises InsufficientStorage."""
    path = services.node.archives.unfinished()
    try:
        checksum = await services.reads.offload(False, partial(_write, services, path, sources))
        return await services.reads.offload(False, lambda: archives.add(path, checksum, _now(services)))
    finally:
        path.unlink(missing_ok=True)


async def streamed(services: Services, source: Source) -> Path:
    """Makes an archive that nobody lists; the caller removes it."""
    path = services.node.archives.unfinished()
    try:
        await services.reads.offload(False, partial(_write, services, path, [source]))
    except BaseException:
        path.unlink(missing_ok=True)
        raise
    return path


def _write(services: Services, path: Path, sources: Sequence[Source]) -> str:
    node, paced = services.node, Paced(services.reads.given_up)

    def step() -> None:
        if node.archives.room() == 0:
            raise InsufficientStorage("the disk has no more room for the archive")
        paced()

    step()
    return write(path, sources, node.clock.physical_ms(), node.version, step)


def _now(services: Services) -> datetime:
    return datetime.fromtimestamp(services.node.clock.physical_ms() / 1000, UTC)


# Recovering.


@asynccontextmanager
async def located(services: Services, location: str, api_key: str) -> AsyncIterator[Path]:
    """The archive at a `file://` or `http(s)://` URL. Raises an ApiError."""
    folder = services.node.archives
    if location.startswith("file:"):
        try:
            yield folder.at(location)
        except NoArchive as error:
            raise NotFound(f"location: {error}") from error
        return
    path = folder.unfinished()
    try:
        await fetch(location, api_key, services.node.snapshot_hosts, path, services.reads, checked_room(services))
        yield path
    finally:
        path.unlink(missing_ok=True)


def checked_room(services: Services) -> Callable[[int], None]:
    """A check that an archive of so many more bytes has room. Raises InsufficientStorage."""

    def check(size: int) -> None:
        try:
            services.node.archives.check_room(size)
        except NoRoom as error:
            raise InsufficientStorage(str(error)) from error

    return check


async def recover(request: ApiRequest, response: Response, services: Services, path: Path, recovery: Recovery) -> bool:
    """Writes what an archive contains to the journal. Nothing is written unless all of the archive is sound, and fits.

    Raises an ApiError.
    """
    check_name("collection", recovery.name)
    await services.reads.catch_up_catalog(request)
    recovery = replace(recovery, name=services.reads.catalog.aliases.get(recovery.name, recovery.name))
    with path.open("rb") as file:
        try:
            archive = await services.reads.offload(False, partial(_checked, file, recovery.checksum, services.reads.given_up))
            at = archive.index_of(recovery.name)
        except BadArchive as error:
            raise BadRequest(f"Wrong input: the snapshot cannot be recovered: {error}") from error
        contained = archive.contents.collections[at]
        _check_fits(services, contained, recovery)
        services.node.budget.check()
        collection = await _prepared(request, response, services, contained, recovery)
        work = _Writing(request, response, services, collection, recovery)
        await work.run(archive, at)
    return True


def _checked(file: BinaryIO, checksum: str, stopping: threading.Event) -> Archive:
    paced = Paced(stopping)
    if checksum:
        found = _sha256(file, paced)
        if found != checksum.lower():
            raise BadArchive(f"checksum: the file's SHA-256 is {found}, not {checksum.lower()}")
    return Archive(file, paced)


def _sha256(file: BinaryIO, paced: Paced) -> str:
    digest = sha256()
    file.seek(0)
    while chunk := file.read(READ_BYTES):
        digest.update(chunk)
        paced()
    return digest.hexdigest()


def _check_fits(services: Services, contained: Contained, recovery: Recovery) -> None:
    """Raises BadRequest or NotFound when what an archive contains cannot be written to the collection."""
    collection = services.reads.catalog.find(recovery.name)
    config = contained.collection.config
    if recovery.shard is None:
        if missing := set(range(config.shard_number)) - set(contained.shards):
            raise BadRequest(f"Wrong input: the snapshot is one of a shard: it lacks the shards {sorted(missing)[:16]}")
    elif collection is None:
        raise NotFound(f"Not found: Collection `{recovery.name}` doesn't exist!")
    elif recovery.shard >= collection.config.shard_number:
        raise NotFound(f"Not found: Shard {recovery.shard} of collection `{recovery.name}` doesn't exist!")
    elif recovery.shard not in contained.shards or config.shard_number != collection.config.shard_number:
        raise BadRequest(
            f"Wrong input: the snapshot has the shards {contained.shards[:16]} of {config.shard_number}, and shard "
            f"{recovery.shard} of {collection.config.shard_number} is to be recovered"
        )
    if collection is not None and (theirs := _vectors(config)) != (ours := _vectors(collection.config)):
        names = sorted(name for name in {*theirs, *ours} if theirs.get(name) != ours.get(name))
        raise BadRequest(
            f"Wrong input: collection `{recovery.name}` has other vectors than the snapshot: {', '.join(map(repr, names[:8]))} "
            "differ in size, distance, datatype or kind; recover into another collection"
        )
    if collection is None:
        services.node.descriptors.check(config.shard_number, len(services.node.shards.quarantined()))


def _vectors(config: CollectionConfig) -> dict[str, NewVector]:
    """The vectors of a collection with what the meaning of its points depends on."""
    return {
        name: NewVector(
            dense and structs.replace(dense, hnsw=None, quantization=None, kept={}, memory=None),
            sparse and structs.replace(sparse, kept={}),
        )
        for name in (*config.vectors, *config.sparse_vectors)
        for dense, sparse in [(config.vectors.get(name), config.sparse_vectors.get(name))]
    }


async def _prepared(
    request: ApiRequest, response: Response, services: Services, contained: Contained, recovery: Recovery
) -> Collection:
    """The collection with the payload indexes of the archive; created if it is missing."""
    stored = contained.collection
    if services.reads.catalog.find(recovery.name) is None:
        homes = choose_homes(services.reads.catalog, stored.config.shard_number)
        command = CreateCollection(recovery.name, msgspec.json.encode(stored.config), homes)
        await services.writes.command(_placed(request, "create"), response, command)
    collection = await services.reads.find(request, recovery.name)
    for at, (field, schema) in enumerate(stored.fields.items()):
        if collection.fields.get(field) != schema:
            index = CreatePayloadIndex(collection.name, field, msgspec.json.encode(schema))
            await services.writes.command(_placed(request, f"index{at}"), response, index)
    return await services.reads.find(request, recovery.name)


def _placed(request: ApiRequest, place: str) -> ApiRequest:
    """The request as one of its operations: each has its place under the idempotency key."""
    return structs.replace(request, origin=replace(request.origin, place=place))


class _Writing:
    """Writes the points of an archive, and deletes those that it does not have if it is to be the whole content."""

    def __init__(
        self, request: ApiRequest, response: Response, services: Services, collection: Collection, recovery: Recovery
    ) -> None:
        self._request = structs.replace(request, tier=BULK_TIER, body=None, content=b"")
        self._response = response
        self._services = services
        self._collection = collection
        self._recovery = recovery
        self._number = 0
        self._points = 0

    async def run(self, archive: Archive, at: int) -> None:
        """Returns when everything is applied here."""
        before = await self._views() if self._recovery.priority in (None, Priority.SNAPSHOT) else []
        contained: set[bytes] = set()
        upserts = archive.upserts(at, self._recovery.shard)
        try:
            while (operation := await self._services.reads.offload(False, lambda: next(upserts, None))) is not None:
                await self._write(operation)
                self._points += len(operation.ids)
                if before:
                    contained.update(operation.ids)
            for view in before:
                await self._delete_others(view, contained)
            if self._response.wrote is not None:
                await self._services.gate.reached(self._response.wrote.positions, self._request.timeout_s or APPLY_S)
        except Exception as error:
            error.add_note(f"{self._points} points of the snapshot are written; recovering it again writes all")
            raise

    async def _views(self) -> list[ShardView]:
        """The shards as they are now: with all that was acknowledged."""
        reads = self._services.reads
        await reads.pin(self._request, self._response, self._collection.name, Consistency.STRONG, for_write=True)
        shards = self._services.node.shards.of(self._collection.id)
        return [shard.view for shard in shards if self._recovery.shard in (None, shard.number)]

    async def _write(self, operation: Upsert | Delete) -> None:
        self._number += 1
        params = WriteParams(wait=self._number % APPLIED_EVERY == 0)
        place = f"r{self._number}"
        if isinstance(operation, Delete):  # a retry may delete others at the same number
            place = f"d{blake2b(b''.join(operation.ids), digest_size=8).hexdigest()}"
        request = structs.replace(_placed(self._request, place), params=params)
        given = request, self._response, self._services
        if self._recovery.priority is Priority.REPLICA and isinstance(operation, Upsert):
            await insert_missing(*given, self._collection, operation)
        else:
            await self._services.writes.write(request, self._response, self._collection, operation)

    async def _delete_others(self, view: ShardView, contained: set[bytes]) -> None:
        rows = view.alive.to_array()
        for start in range(0, len(rows), DELETED_AT_ONCE):
            some = rows[start : start + DELETED_AT_ONCE].tolist()
            ids = await self._services.reads.offload(False, lambda some=some: view.ids(some)[0])  # type: ignore[misc]
            if others := [id_ for id_ in ids if id_ not in contained]:
                await self._write(Delete(others))
