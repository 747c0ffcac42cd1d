"""`vecraft journal repair`: what an operator decides when a log has lost records.

It says first what would happen, and changes nothing until it is told to. The node must be stopped.
"""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path

from journal.embedded import EmbeddedJournal
from journal.log import Journal
from journal.topics import Topics
from replayer.known_log import KnownLog
from replayer.repair import Loss, Repair
from shard.batch import Limits
from vecraft.commands import CommandError
from vecraft.roles import journal_folder, open_journal, wall_clock_ms
from vecraft.settings import Settings

PROGRESS_EVERY_S = 2.0


def repair(settings: Settings, write_back: bool, accept_loss: bool) -> None:
    """Prints what the log has lost; with `write_back` writes it again, with `accept_loss` goes on without it."""
    topics = Topics(settings.topic_prefix, settings.preset)
    state = settings.data_dir / "state"
    if not state.is_dir():
        raise CommandError(
            f"there is no state in {state}, so nothing is known of what the log has lost: --data-dir names the folder of a node"
        )
    limits = Limits(settings.max_drift_ms, settings.max_lateness_ms, settings.idempotency_window_s * 1000)
    journal = opened(settings, accept_ends=write_back or accept_loss)
    try:
        KnownLog(state, topics).check(journal)
        with tempfile.TemporaryDirectory(dir=settings.data_dir, prefix="repair-") as scratch:
            work = Repair(journal, topics, limits, state, Path(scratch), wall_clock_ms)
            try:
                work.replay(ProgressLines("replaying"))
                losses = work.losses()
                _print(losses, list(journal.refusals().values()))
                if write_back and losses:
                    print(f"{work.write_back(losses)} points are written to the log")
                if write_back or accept_loss:
                    work.accept(losses)
                if (write_back or accept_loss) and losses:
                    print("the state of these shards is removed; it is replayed from the log when the node starts")
            finally:
                work.close()
    finally:
        journal.close()


def _print(losses: list[Loss], lost_ends: list[str]) -> None:
    for lost in lost_ends:
        print(f"{lost}; --accept-loss goes on without what no state holds")
    if not losses:
        print("the log holds all that this node's state was made from")
    for loss in losses:
        print(f"collection {loss.collection.name}, shard {loss.number}: {'; '.join(loss.reasons)}")
        if loss.missing is None or loss.extra is None:
            print("  the state needs them itself: --accept-loss goes on without them")
        else:
            print(f"  the state still holds {len(loss.missing)} points that the log lacks or has otherwise, and knows of")
            print(f"  {len(loss.extra)} deleted points: --write-back writes them to the log, --accept-loss goes on without them")


class ProgressLines:
    """Prints how far a long work is, every PROGRESS_EVERY_S."""

    def __init__(self, what: str, unit: str = "records") -> None:
        self._what = what
        self._unit = unit
        self._next_s = time.monotonic() + PROGRESS_EVERY_S

    def __call__(self, done: int, total: int) -> None:
        if total and time.monotonic() > self._next_s:
            print(f"{self._what}: {done} of {total} {self._unit}", file=sys.stderr)
            self._next_s = time.monotonic() + PROGRESS_EVERY_S


def opened(settings: Settings, accept_ends: bool) -> Journal:
    """The journal of the settings; that of Kafka when there is no embedded one. Raises CommandError while a node has it open."""
    folder = journal_folder(settings)
    if settings.journal == "kafka" or not (folder / "CURRENT").is_file():
        return open_journal(settings.model_copy(update={"journal": "kafka"}))
    try:
        return EmbeddedJournal(folder, wall_clock_ms, accept_ends=accept_ends)
    except Exception as error:  # RocksDB's errors have no class of their own
        raise CommandError(f"cannot open the journal in {folder}, the node must be stopped: {error}") from error
