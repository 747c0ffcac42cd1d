"""Operations on one point are linearizable at level strong, through any node, whichever node is killed (I9, V10, N5)."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import until
from tests.consistency.conftest import TwoNodes
from tests.consistency.experiments import BACK_S, CLIENTS, Client, Nodes, beside_each_other, create
from tests.consistency.linearizable import FOREVER, Operation, State, is_linearizable
from tests.server import Server

POINTS = 6
OPERATIONS = 60
"""For each client."""


WRITTEN = ("write", 1, 0, 1, None)


@pytest.mark.parametrize(
    ("history", "holds"),
    [
        ([WRITTEN, ("read", None, 2, 3, State(1))], True),
        ([WRITTEN, ("read", None, 2, 3, State())], False),
        ([("write", 1, 0, 5, None), ("read", None, 2, 3, State()), ("read", None, 4, 6, State(1))], True),
        ([("write", 1, 0, 9, None), ("read", None, 2, 3, State(1)), ("read", None, 4, 5, State())], False),
        ([WRITTEN, ("swap", (1, 2), 2, 6, None), ("swap", (1, 3), 2, 6, None), ("read", None, 7, 8, State(3))], True),
        ([WRITTEN, ("swap", (1, 2), 2, 3, None), ("swap", (1, 3), 4, 5, None), ("read", None, 7, 8, State(3))], False),
        ([WRITTEN, ("add", 7, 2, 3, True), ("read", None, 4, 5, State(1))], False),
        ([("write", 1, 0, FOREVER, None), ("read", None, 2, 3, State())], True),
        ([WRITTEN, ("remove", 1, 2, 3, None), ("add", 2, 4, 5, True)], False),
    ],
)
def test_the_checker(history: list[tuple[str, object, float, float, object]], holds: bool) -> None:
    assert is_linearizable([Operation(*operation) for operation in history]) is holds


def play(client: Client, name: str, choose: random.Random, histories: dict[int, list[Operation]]) -> None:
    """Random operations of one client, on random points."""
    for number in range(OPERATIONS):
        point, value = choose.randrange(POINTS), 1000 * (client.number + 1) + number
        kind = choose.choice(("write", "swap", "swap", "add", "add", "remove", "read", "read", "read"))
        answers = [operation.answer for operation in histories[point][-8:]]
        seen = [answer.value for answer in answers if isinstance(answer, State) and answer.value is not None]
        expected = choose.choice(seen) if seen else 0
        argument = {"write": value, "swap": (expected, value), "add": value, "remove": expected, "read": None}[kind]
        start_s = time.monotonic()
        answered, answer = ask(client, name, point, kind, argument)
        histories[point].append(Operation(kind, argument, start_s, time.monotonic() if answered else FOREVER, answer))


def ask(client: Client, name: str, point: int, kind: str, argument: object) -> tuple[bool, object]:
    """Whether there was an answer, and the answer."""
    match kind, argument:
        case "write", int(value):
            return client.upsert(name, [(point, {"n": value})]), None
        case "swap", (expected, int(value)):
            same = {"must": [{"key": "n", "match": {"value": expected}}]}
            return client.upsert(name, [(point, {"n": value})], update_filter=same), None
        case "add", int(member):
            body = {"payload": {str(member): 1}, "key": "set", "points": [point]}
            found = client.ask("POST", f"/collections/{name}/points/payload?wait=true", body, missing=False)
            return found is not None, found is not False
        case "remove", int(value):
            body = {"filter": {"must": [{"key": "n", "match": {"value": value}}, {"has_id": [point]}]}}
            return client.ask("POST", f"/collections/{name}/points/delete?wait=true", body) is not None, None
    body = {"ids": [point], "with_payload": True}
    found = client.ask("POST", f"/collections/{name}/points?consistency=strong", body)
    if not found:
        return found is not None, State()
    payload = found[0]["payload"]
    return True, State(payload["n"], frozenset(map(int, payload.get("set", {}))))


def check(nodes: Nodes, name: str, seed: int) -> None:
    clients = [Client(number, nodes) for number in range(CLIENTS)]
    create(clients[0], name)
    until(lambda: clients[0].points(name, [1]) == {}, BACK_S)
    histories: dict[int, list[Operation]] = {point: [] for point in range(POINTS)}
    works: list[Callable[[], None]] = [
        lambda client=client: play(client, name, random.Random(seed + client.number), histories)  # type: ignore[misc]
        for client in clients
    ]
    beside_each_other(works, nodes.trouble)
    for point, history in histories.items():
        assert is_linearizable(history), f"point {point} of seed {seed}: " + "\n".join(map(str, history))


@pytest.mark.parametrize("kill_after", [None, 60])
def test_one_node(tmp_path: Path, kill_after: int | None) -> None:
    server = Server(tmp_path).start()
    try:
        check(Nodes([server], kill_after), "c", 1)
    finally:
        server.kill()


@pytest.mark.kafka
@pytest.mark.parametrize("kill_after", [None, 60])
def test_two_nodes(two_nodes: TwoNodes, kill_after: int | None) -> None:
    check(Nodes(two_nodes, kill_after), f"linearizable-{kill_after}", 2)
