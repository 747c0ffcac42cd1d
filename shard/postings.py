"""An inverted index: which rows have which value. Postings are roaring bitmaps of rows."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterable, Iterator
from itertools import islice, takewhile

from pyroaring import BitMap

from shard.checkpoint_file import PostingRows
from shard.fitted import fitted
from shard.sorted_indexes import RESORT_ROWS, Unsorted

LOCKED_KEYS = 256
"""Keys that are copied for a checkpoint each time the lock is held."""

KEY_BYTES = 150
"""The estimated memory of a key without its rows."""

Key = str | int | bool


class Postings:
    """An inverted index: value -> rows."""

    def __init__(self) -> None:
        self._rows: dict[Key, BitMap] = {}
        self._texts: list[str] | None = None
        self._new_texts: list[str] | None = None
        """The strings that were added since `_texts` was made or is being made."""
        self._sorting = threading.Lock()

    def add(self, row: int, keys: Iterable[Key]) -> None:
        for key in keys:
            if (rows := self._rows.get(key)) is None:
                rows = self._rows[key] = BitMap()
                if self._new_texts is not None and isinstance(key, str):
                    self._note(key, self._new_texts)
            rows.add(row)

    def remove(self, row: int, keys: Iterable[Key]) -> None:
        for key in keys:
            if (rows := self._rows.get(key)) is not None:
                rows.discard(row)
                if not rows:
                    del self._rows[key]
        self._rows = fitted(self._rows)

    def remove_rows(self, rows: BitMap) -> None:
        """Removes rows whose values the caller does not know; slower than `remove`."""
        for key, held in list(self._rows.items()):
            if not held.isdisjoint(rows):  # a hundred times faster than taking `rows` out of each
                if kept := held - rows:
                    self._rows[key] = kept
                else:
                    del self._rows[key]
        self._rows = fitted(self._rows)

    def parts(self, lock: threading.Lock) -> Iterator[PostingRows]:
        """The content for a checkpoint. Keys that are added during the iteration are left out."""
        with lock:
            keys = list(self._rows)
        for start in range(0, len(keys), LOCKED_KEYS):
            with lock:
                held = {key: _stored(rows) for key in keys[start : start + LOCKED_KEYS] if (rows := self._rows.get(key))}
            yield PostingRows(list(held), list(held.values()))

    def restore(self, part: PostingRows) -> None:
        """Adds a part that `parts` produced."""
        self._rows.update(zip(part.keys, map(_restored, part.rows), strict=True))

    def any_of(self, keys: Iterable[Key]) -> BitMap:
        """The rows that have at least one of the keys."""
        postings = [rows for key in keys if (rows := self._rows.get(key)) is not None]
        return BitMap.union(*postings) if postings else BitMap()

    def all_of(self, keys: Iterable[Key]) -> BitMap:
        """The rows that have all of the keys."""
        postings = [self._rows.get(key, BitMap()) for key in keys]
        return BitMap.intersection(*postings) if postings else BitMap()

    def starting(self, prefix: str) -> BitMap:
        """The rows that have a string that starts with `prefix`. Raises Unsorted."""
        texts = self._sorted_texts()
        matching: Iterator[str] = takewhile(lambda text: text.startswith(prefix), islice(texts, bisect_left(texts, prefix), None))
        return self.any_of(matching)

    def containing(self, part: str) -> BitMap:
        """The rows that have a string that contains `part`."""
        return self.any_of(text for text in self._rows if isinstance(text, str) and part in text)

    def keys(self) -> list[Key]:
        """All values of all rows."""
        return list(self._rows)

    def holders(self, keys: Iterable[Key], among: BitMap) -> list[tuple[Key, BitMap]]:
        """For each of some values its rows within `among`; values without such rows are left out."""
        common = [(key, rows & among) for key in keys if (rows := self._rows.get(key)) is not None]
        return [(key, rows) for key, rows in common if rows]

    def size_bytes(self, lock: threading.Lock) -> int:
        with lock:
            keys = list(self._rows)
        size = 0
        for start in range(0, len(keys), LOCKED_KEYS):
            with lock:
                held = [rows for key in keys[start : start + LOCKED_KEYS] if (rows := self._rows.get(key)) is not None]
                size += sum(KEY_BYTES + bitmap_bytes(rows) for rows in held)
        return size

    def sort(self, lock: threading.Lock) -> None:
        """Sorts the strings, if that is due; not under the lock. Concurrent calls wait for the first."""
        with self._sorting:
            with lock:
                if not self._needs_sort():
                    return
                texts = [text for text in self._rows if isinstance(text, str)]
                self._texts, self._new_texts = None, []
            texts.sort()
            with lock:
                self._texts = texts

    def _needs_sort(self) -> bool:
        return self._texts is None or len(self._texts) > 2 * len(self._rows) + RESORT_ROWS

    def _note(self, text: str, new: list[str]) -> None:
        new.append(text)
        if self._texts is not None and len(new) > RESORT_ROWS + len(self._texts) // 2:
            self._texts, self._new_texts = None, None  # not used recently; the next lookup sorts all again

    def _sorted_texts(self) -> list[str]:
        """The strings in order; some may have no rows any more. Raises Unsorted."""
        if self._texts is None or self._needs_sort():
            raise Unsorted(self)
        if self._new_texts:
            self._texts.extend(self._new_texts)
            self._texts.sort()  # quick: a long sorted part and a short one
            self._new_texts = []
        return self._texts


def _stored(rows: BitMap) -> int | bytes:
    """Rows for a checkpoint: most keys of some fields have one row, which as a number is read back twice as fast."""
    return int(rows.min()) if len(rows) == 1 else bytes(rows.serialize())


def _restored(rows: int | bytes) -> BitMap:
    return BitMap((rows,)) if isinstance(rows, int) else BitMap.deserialize(rows)


def bitmap_bytes(rows: BitMap) -> int:
    """The memory of a bitmap."""
    held = rows.get_statistics()
    return 64 + held["n_bytes_array_containers"] + held["n_bytes_run_containers"] + held["n_bytes_bitset_containers"]
