"""Whether a history of operations on one point can be put in an order that explains every answer and respects real time.

The search is that of Wing and Gong (1993) with the memory of Lowe (2017), as in Porcupine: take an operation that began before
every other open one ended, apply it, and go on; remember which sets of operations led to which state in vain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

FOREVER = float("inf")


class State(NamedTuple):
    """A point: the value of its register, and a set. None when it does not exist."""

    value: int | None = None
    members: frozenset[int] = frozenset()


@dataclass(frozen=True)
class Operation:
    """One operation as its client saw it. `end_s` is FOREVER when there was no answer: it may have had an effect, or not.

    kind     argument                 answer
    write    the value                None         replaces the point; its set is empty then
    swap     (expected, value)        None         as write, if the value is the expected one, or there is no point
    add      a member                 found        adds to the set, if there is a point
    remove   a value                  None         deletes the point, if it has this value
    read     None                     a State
    """

    kind: str
    argument: object
    start_s: float
    end_s: float
    answer: object = None

    def apply(self, state: State) -> State | None:
        """The state after it; None if it cannot have been answered so in this state."""
        exists = state.value is not None
        match self.kind, self.argument:
            case "write", int(value):
                return State(value)
            case "swap", (expected, int(value)):
                return State(value) if not exists or state.value == expected else state
            case "add", int(member):
                if self.end_s != FOREVER and self.answer != exists:
                    return None
                return State(state.value, state.members | {member}) if exists else state
            case "remove", int(value):
                return State() if state.value == value else state
            case "read", None:
                return state if self.end_s == FOREVER or self.answer == state else None
        raise ValueError(self)


def is_linearizable(history: Sequence[Operation]) -> bool:
    """Whether the history of a point that does not exist at first is linearizable."""
    operations = sorted(history, key=lambda operation: operation.start_s)
    must = sum(1 << at for at, operation in enumerate(operations) if operation.end_s != FOREVER)
    seen: set[tuple[int, State]] = set()
    open_: list[tuple[int, State]] = [(0, State())]
    while open_:
        done, state = open_.pop()
        if done & must == must:
            return True
        if (done, state) in seen:
            continue
        seen.add((done, state))
        left = [at for at in range(len(operations)) if not done >> at & 1]
        soonest_s = min(operations[at].end_s for at in left)
        for at in left:
            if operations[at].start_s > soonest_s:
                break
            if (after := operations[at].apply(state)) is not None:
                open_.append((done | 1 << at, after))
    return False
