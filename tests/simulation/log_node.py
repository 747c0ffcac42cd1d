"""A simulated process on a log that may come to harm: it handles failures of the journal as `Loop.run` does."""

from __future__ import annotations

from journal.log import Damaged, JournalError, Unfit
from journal.rocksdb import is_damage
from replayer.loop import LogMoved
from shard.shards import Remedy
from tests.simulation.node import Node

STEPS = 10_000


class LogNode(Node):
    """`refusal`: why the process serves nothing and must be started again by an operator; empty while it serves."""

    refusal = ""

    def start(self) -> None:
        self.refusal = ""
        self._must_resume = False
        try:
            super().start()
        except JournalError as error:
            self._refuse(error)
        except Exception as error:  # RocksDB's errors have no class of their own
            if not is_damage(error):
                raise
            self.refusal = str(error)  # the log cannot be opened

    def stop(self) -> None:
        if self.world.journal is not None:
            super().stop()
            self.world.disconnect()

    def _refuse(self, error: Exception) -> None:
        self.refusal = str(error)
        self.replayer.close()

    def step(self) -> bool:
        if self.refusal:
            return False
        try:
            if self._must_resume:
                self.replayer._resume()
                self._must_resume = False
            return self.replayer.step(0) > 0
        except Unfit as error:
            self._refuse(error)
        except Damaged as damage:
            return self._skip(damage)
        except JournalError:
            self._must_resume = True
        except LogMoved:
            self.replayer.close()
            self._open_again()
        return True

    def _skip(self, damage: Damaged) -> bool:
        try:
            self.replayer.skip(damage)
        except Damaged as error:
            self._refuse(error)
        return True

    def _open_again(self) -> None:
        self._must_resume = False
        try:
            self.replayer.open()
        except (Unfit, Damaged) as error:
            self._refuse(error)

    def settle(self) -> None:
        """Reads to the end of the log and does all that is left to do, also what waits for time to pass."""
        for _ in range(STEPS):
            was_waiting = self.is_waiting()
            if self.step():
                continue
            while self.tasks:
                self.work(self.tasks.pop(0))
            if not (was_waiting or self.is_waiting()):
                return
            self.world.now_ms += 20_000
        raise AssertionError(f"{self.name} does not settle")

    def is_waiting(self) -> bool:
        """Whether it goes on by itself when time has passed."""
        if self.refusal:
            return False
        held = self.shards.quarantined().values()
        return bool(self.replayer._paused or any(shard.remedy is not Remedy.OPERATOR for shard in held))

    def look_at_the_log(self) -> None:
        """As `Replayer.watch` does every two seconds."""
        if not self.refusal:
            try:
                self.replayer.check_log()
            except Unfit as error:
                self._refuse(error)
