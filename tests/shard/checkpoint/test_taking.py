"""When a checkpoint is taken, and when not."""

from __future__ import annotations

from tests.shard.checkpoint.life import Life


def test_it_is_taken_while_idle_when_a_few_rows_changed(life: Life) -> None:
    life.shard.checkpoint.take()
    life.upsert([0])
    life.shard.tend(idle=True)
    assert not life.tasks, "two rows are fewer than four"
    life.upsert([1])
    life.shard.tend(idle=True)
    life.shard.tend(idle=True)
    assert len(life.tasks) == 1
    life.tasks.pop()()
    assert life.shard.checkpoint.stale_rows == 0
    life.shard.tend(idle=True)
    assert not life.tasks, "nothing changed since"


def test_it_is_taken_while_writes_come_in_when_many_rows_changed(life: Life) -> None:
    life.shard.checkpoint.take()
    for number in range(3):
        life.upsert([number])
    assert not life.tasks, "nine rows, of three points, are fewer than twelve"
    life.upsert([3, 4])
    assert len(life.tasks) == 1


def test_a_task_that_comes_after_the_end_does_nothing(life: Life) -> None:
    life.upsert([0, 1, 2, 3, 4])
    life.upsert([0, 1, 2, 3, 4])
    take = life.tasks[0]
    life.kill()
    life.shard.release()
    before = (life.folder / "checkpoint").read_bytes()
    take()
    assert (life.folder / "checkpoint").read_bytes() == before
    life.shard = life.open()
