"""The simulator finds what it is there to find: each of these faults, put into the real code, makes a seed fail."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from journal.embedded import EmbeddedJournal, _Stored
from journal.stamps import MAX_VERSION, NEVER
from replayer.repair import Repair
from shard.batch import WriteBatch
from shard.decisions import Attempt
from shard.settling import Settling, _Mark
from shard.shard import Shard
from tests.simulation.__main__ import run_seed

SEEDS = 60
LOG_SEEDS = 300


def decides_on_what_it_has(patch: pytest.MonkeyPatch) -> None:
    """A condition is tested on the state as it is, also when a later write is already in it."""

    def fold(self: WriteBatch, point_id: bytes, changed: Any, version: int, write: Any) -> None:
        if write.condition is None:
            self._join(point_id, changed, version, write)
        else:
            self._decide(point_id, changed, version, write, write.condition)

    patch.setattr(WriteBatch, "_fold", fold)


def closes_by_the_fastest_partition(patch: pytest.MonkeyPatch) -> None:
    """The closed stamp is that of one home partition instead of all."""
    patch.setattr(Shard, "closed", lambda self: max(progress.stamp for progress in self._progress.values()))


def settles_too_early(patch: pytest.MonkeyPatch) -> None:
    """Points are settled whether or not the stamp is closed."""
    step = Settling.step

    def step_early(self: Settling, most: int) -> None:
        self._mark = _Mark(MAX_VERSION, NEVER)
        step(self, most)

    patch.setattr(Settling, "step", step_early)


def lets_every_attempt_in(patch: pytest.MonkeyPatch) -> None:
    """A late attempt of a request is applied beside an earlier one."""
    patch.setattr(Attempt, "accepts", lambda self, number, request_id: True)


@pytest.mark.parametrize(
    "plant",
    [decides_on_what_it_has, closes_by_the_fastest_partition, settles_too_early, lets_every_attempt_in],
    ids=lambda plant: plant.__name__,
)
def test_a_planted_fault_is_found(plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """I4, I5, I7"""
    plant(monkeypatch)
    with pytest.raises(AssertionError, match="repeat with"):
        run_seeds()


def reads_what_was_changed(patch: pytest.MonkeyPatch) -> None:
    """The log does not compare what it reads with its digest."""
    patch.setattr(_Stored, "is_changed", lambda self, before, key: False)


def forgets_the_ends(patch: pytest.MonkeyPatch) -> None:
    """The log does not compare its ends with those that it has noted."""
    patch.setattr(EmbeddedJournal, "_noted_ends", lambda self: {})


def compares_with_an_old_state(patch: pytest.MonkeyPatch) -> None:
    """A repair takes what the state has not applied yet for what the log has lost the opposite of."""
    patch.setattr(Repair, "_catch_up", lambda self, kept: None)


def gives_offsets_out_again(patch: pytest.MonkeyPatch) -> None:
    """A repair writes back where another node believes to have read already."""
    patch.setattr(Repair, "_fill_up", lambda self, loss, writer: None)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("plant", "kind"),
    [
        (reads_what_was_changed, "log"),
        (forgets_the_ends, "log"),
        (compares_with_an_old_state, "log"),
        (gives_offsets_out_again, "shared-log"),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_a_planted_fault_of_the_log_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """I1, I2"""
    plant(monkeypatch)
    with pytest.raises(AssertionError, match="repeat with"):
        run_seeds(LOG_SEEDS, kind)


def run_seeds(count: int = SEEDS, kind: str = "") -> None:
    for seed in range(count):
        run_seed(seed, kind)
