"""How RocksDB is opened and read: shared by the embedded log and by the stores of the shards."""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from tempfile import TemporaryDirectory

from rocksdict import Options, Rdict, Snapshot

MAX_OPEN_FILES = 256
"""Files with data that one database keeps open, some 16 GB of it. Others are opened when they are read."""

_OPTIONS_FILE = """\
[Version]
  rocksdb_version=9.8.4
  options_file_version=1.1
[DBOptions]
  track_and_verify_wals_in_manifest=true
  avoid_flush_during_recovery={keeps_logs}
[CFOptions "default"]
[TableOptions/BlockBasedTable "default"]
"""
"""rocksdict has no methods for these options, but it reads RocksDB's option files. Without the first, RocksDB opens as if nothing
had happened when write-ahead logs are missing."""

_DAMAGE = ("Corruption:", "IO error: No such file")


def base_options(keeps_logs: bool = False) -> Options:
    """Options for raw bytes, with `create_if_missing`, under which missing write-ahead logs are an error when opening.

    `keeps_logs`: what is read from write-ahead logs when opening stays in them until memory is full, and is not written to files.
    """
    with TemporaryDirectory() as folder:
        (Path(folder) / "OPTIONS-000001").write_text(_OPTIONS_FILE.format(keeps_logs=str(keeps_logs).lower()))
        (Path(folder) / "rocksdict-config.json").write_text('{"raw_mode": true, "prefix_extractors": {}}')
        options, _ = Options.load_latest(folder)
    options.create_if_missing(True)
    options.set_keep_log_file_num(2)
    options.set_max_open_files(MAX_OPEN_FILES)
    options.set_table_cache_num_shard_bits(2)  # so few files would be spread unevenly over the default of 64 shards
    return options


def scan(table: Rdict | Snapshot, start: bytes = b"", prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
    """Keys and values from `start` on, while they have the prefix. Raises on corruption, which a plain `items()` would hide."""
    items = table.iter()
    items.seek(start)
    while items.valid():
        key: bytes = items.key()
        if not key.startswith(prefix):
            break
        yield key, items.value()
        items.next()
    items.status()


class Damage(Exception):
    """RocksDB's files lack something that must be there, and RocksDB's own checks do not find that."""


def check_framing(folder: Path) -> None:
    """Raises Damage if a log or a MANIFEST in a folder has a record of a type that only recycled logs have.

    Logs are not recycled here, so its type was changed, by one bit. RocksDB never ends when it meets such a record.
    """
    for path in (*folder.glob("*.log"), *folder.glob("MANIFEST-*")):
        with path.open("rb") as file:
            if not (size := path.stat().st_size):
                continue
            with mmap.mmap(file.fileno(), size, access=mmap.ACCESS_READ) as data:
                at = 0
                while at + _HEADER.size <= size:
                    if (left := _BLOCK_BYTES - at % _BLOCK_BYTES) < _HEADER.size:
                        at += left
                        continue
                    _, length, kind = _HEADER.unpack_from(data, at)
                    if kind in _RECYCLED:
                        raise Damage(f"{path} has a record of type {kind} at byte {at}")
                    if not kind and not length:  # the rest was reserved and is not written
                        break
                    at += _HEADER.size + length


_HEADER = Struct("<IHB")  # checksum, length, type
_BLOCK_BYTES = 32_768
_RECYCLED = range(5, 9)


def is_damage(error: Exception) -> bool:
    """Whether RocksDB says that its files are damaged, missing or inconsistent, and not that the system refuses something.

    RocksDB's errors have no class of their own, only texts.
    """
    return isinstance(error, Damage) or str(error).startswith(_DAMAGE) or "Is a directory" in str(error)
