"""The changes of a subscription between being read and being settled (N9): each until it is settled, the place never too far."""

from __future__ import annotations

import random

import pytest

from gateway.deliveries import Deliveries, Limits
from query.feed import Change, Page, Place
from shard.replica import Cursor

LIMITS = Limits(in_flight=4, ack_s=10, attempts=2)


def change(version: int) -> Change:
    return Change(Place(Cursor(version, b"x")), b"x", version, "insert", [], [], None, None)


def offered(deliveries: Deliveries, *versions: int, then: int = 100) -> None:
    page = Page([change(version) for version in versions], Place(Cursor(then)), True)
    assert deliveries.offer(deliveries.read_to, page)


def taken(deliveries: Deliveries, now_s: float, most: int = 10) -> list[tuple[int, int]]:
    return [(one.change.version, one.attempt) for one in deliveries.take(most, now_s, LIMITS)]


def key(version: int) -> Cursor:
    return Cursor(version, b"x")


def test_the_place_moves_over_what_is_settled_in_order() -> None:
    deliveries = Deliveries(5)
    assert deliveries.settled == 5
    offered(deliveries, 7, 8, 9)
    assert taken(deliveries, 0, 2) == [(7, 1), (8, 1)]
    assert taken(deliveries, 0) == [(9, 1)]
    assert deliveries.settle([key(8), key(9), key(50)]) == ([key(8), key(9)], [])
    assert deliveries.settled == 7
    assert deliveries.settle([key(7)]) == ([key(7)], [])
    assert deliveries.settled == 100
    assert deliveries.settle([key(7)]) == ([], [])


def test_what_is_not_acknowledged_in_time_is_due_again_and_then_has_failed() -> None:
    deliveries = Deliveries(0)
    offered(deliveries, 1, 2)
    assert taken(deliveries, 0) == [(1, 1), (2, 1)]
    assert taken(deliveries, 9.9) == []
    assert deliveries.next_due_s() == 10
    deliveries.settle([key(2)])
    assert taken(deliveries, 10) == [(1, 2)]
    assert deliveries.failed(19, LIMITS) == []
    assert [one.change.version for one in deliveries.failed(20, LIMITS)] == [1]
    assert taken(deliveries, 20) == []
    deliveries.again()
    assert taken(deliveries, 20) == [(1, 1)]


def test_a_refused_change_is_due_when_it_says() -> None:
    deliveries = Deliveries(0)
    offered(deliveries, 1, 2)
    taken(deliveries, 0, 1)
    assert deliveries.retry([key(1), key(2)], 5) == [key(1)], "the other one was not delivered"
    assert taken(deliveries, 4) == [(2, 1)]
    assert taken(deliveries, 5) == [(1, 2)]


def test_what_is_read_has_a_bound_and_a_page_counts_once() -> None:
    deliveries = Deliveries(0)
    start = deliveries.read_to
    offered(deliveries, 1, 2, 3)
    assert deliveries.room(LIMITS) == 1
    assert not deliveries.offer(start, Page([change(1)], Place(Cursor(9)), True))
    taken(deliveries, 0)
    deliveries.settle([key(2), key(3)])
    assert deliveries.room(LIMITS) == 1, "what is behind an open one still counts"
    assert deliveries.counts(0) == (1, 0)
    assert deliveries.counts(10) == (0, 1)


def test_what_is_replayed_holds_up_nothing() -> None:
    deliveries = Deliveries(50)
    deliveries.replay([change(7)])
    assert deliveries.settled == 50
    assert taken(deliveries, 0) == [(7, 1)]
    assert deliveries.settle([key(7)]) == ([key(7)], [key(7)])
    assert taken(deliveries, 99) == []


def test_what_another_node_has_settled_is_not_delivered() -> None:
    deliveries = Deliveries(0)
    offered(deliveries, 1, 2, 3, then=4)
    deliveries.settled_elsewhere(3)
    assert taken(deliveries, 0) == [(3, 1)]
    deliveries.settled_elsewhere(9)
    assert (deliveries.settled, deliveries.read_to) == (9, Place(Cursor(9)))


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_all_is_settled_in_the_end_and_the_place_is_never_beyond_an_open_one(seed: int) -> None:
    choose, deliveries, now_s, version = random.Random(seed), Deliveries(0), 0.0, 0
    open_: set[int] = set()
    for _ in range(300):
        now_s += choose.random() * 5
        match choose.randrange(4):
            case 0:
                new = range(version + 1, version + 1 + choose.randint(0, deliveries.room(LIMITS)))
                offered(deliveries, *new, then=version + 1 + len(new))
                version, open_ = version + len(new), open_ | set(new)
            case 1:
                deliveries.take(choose.randint(1, 4), now_s, LIMITS)
            case 2:
                keys = [key(one) for one in choose.sample(sorted(open_), min(len(open_), 2))]
                open_ -= {settled.version for settled in deliveries.settle(keys)[0]}
            case 3:
                failed = [one.change.place.cursor for one in deliveries.failed(now_s, LIMITS)]
                open_ -= {settled.version for settled in deliveries.settle(failed)[0]}
        assert deliveries.settled == min(open_, default=version + 1 if version else deliveries.settled)
