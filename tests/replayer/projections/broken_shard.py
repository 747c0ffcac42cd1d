"""A shard that fails until it is mended, and how that shows."""

from __future__ import annotations

from pathlib import Path

import pytest

from shard.shard import Shard
from shard.shards import MAX_DELAY_S, ShardUnavailable
from shard.store import Changes, Store
from tests.replayer.rig import Rig


class Broken:
    """Makes one shard fail at its writes to RocksDB, when it is opened, or when it is configured, until it is mended."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, collection: int, number: int, at: str = "write") -> None:
        self.at = at
        write, configure = Store.write, Shard.configure
        mine = (str(collection), str(number))

        def break_at(what: str, folder: Path) -> None:
            if self.at == what and folder.parts[-2:] == mine:
                raise RuntimeError("IO error: the disk is gone")

        def write_or_fail(store: Store, changes: Changes) -> None:
            break_at("write", store._path.parent)
            write(store, changes)

        def configure_or_fail(shard: Shard, collection: object) -> None:
            break_at("open" if shard._view is None else "configure", shard._folder)
            configure(shard, collection)  # type: ignore[arg-type]

        monkeypatch.setattr(Store, "write", write_or_fail)
        monkeypatch.setattr(Shard, "configure", configure_or_fail)

    def mend(self) -> None:
        self.at = ""


def unavailable(rig: Rig, collection: int) -> str:
    with pytest.raises(ShardUnavailable) as refusal:
        rig.shards.of(collection)
    return str(refusal.value)


def served_again(rig: Rig, collection: int = 0) -> bool:
    """Whether a few steps, once the longest delay is over, bring the collection back."""
    rig.now_ms += int(MAX_DELAY_S * 1000)
    for _ in range(5):
        rig.replayer.step(0)
    return not any(key[0] == collection for key in rig.shards.quarantined())
