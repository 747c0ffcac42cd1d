"""File descriptors of the process: how many it may have, how many are open, and what a shard takes of them.

A process without free descriptors can neither open a shard nor read its log nor take a connection. So a shard is opened only as
long as some are left for all of this.
"""

from __future__ import annotations

import errno
import os
import resource
import sys

PER_SHARD = 12
"""What a small shard takes at most. RocksDB keeps its own log, the lock, the manifest, the write-ahead log and two folders open,
four when they are new; then come files of each family. A full segment takes two more, and growing data up to
`journal.rocksdb.MAX_OPEN_FILES`."""

SPARE_SHARE = 0.05
MIN_SPARE = 32

_OPEN = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"


class OutOfDescriptors(Exception):
    """Too many files are open to open another shard."""


def limit() -> int:
    """How many descriptors the process may have."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft


def spare() -> int:
    """How many descriptors no shard may take when it is opened: they are for connections, and for shards that grow."""
    return max(MIN_SPARE, int(SPARE_SHARE * limit()))


def used() -> int:
    """How many descriptors are open. Linux before 6.2 and other systems have to list them."""
    return (os.stat(_OPEN).st_size if sys.platform == "linux" else 0) or len(os.listdir(_OPEN))


def check_room() -> None:
    """Raises OutOfDescriptors when there is no room to open a shard."""
    if (open_now := used()) + PER_SHARD + spare() > limit():
        raise OutOfDescriptors(
            f"{open_now} file descriptors of {limit()} are in use, {spare()} are kept free, and a shard takes up to {PER_SHARD}: "
            "raise the limit of open files (`ulimit -n`)"
        )


def is_shortage(error: Exception) -> bool:
    """Whether an error says that no descriptor was free, and nothing about the file. FAISS and RocksDB have only texts for it."""
    return getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE) or os.strerror(errno.EMFILE) in str(error)
