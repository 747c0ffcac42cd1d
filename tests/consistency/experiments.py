"""Four experiments in which clients beside each other write what depends on what is stored (V13, N5, I5).

Each returns what is wrong, as text for people; nothing, if no acknowledged write was lost and nothing was won twice. A request
that got no answer, because its node died, may have had an effect or not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import httpx

from tests.conftest import until
from tests.server import Server

CLIENTS = 4
ANSWER_S = 60
BACK_S = 120


class Nodes:
    """The nodes that clients use, one after the other. `trouble` is what happens to them meanwhile."""

    def __init__(self, servers: Sequence[Server], kill_after: int | None = None) -> None:
        self.servers = servers
        self.answers = threading.Semaphore(0)
        self._kill_after = kill_after

    def url(self, client: int) -> str:
        """The address that a client uses now: a node that was killed comes back with another."""
        return self.servers[client % len(self.servers)].url

    def trouble(self) -> None:
        """Kills a node after so many answers, and starts it again."""
        if self._kill_after is not None:
            for _ in range(self._kill_after):
                assert self.answers.acquire(timeout=ANSWER_S)
            self.servers[-1].kill()
            self.servers[-1].start()


class Client:
    """One client. It sends again what was definitely not done: a node that is not there, or says 409 or 503."""

    def __init__(self, number: int, nodes: Nodes) -> None:
        self.number = number
        self._nodes = nodes
        self._http = httpx.Client(timeout=ANSWER_S)

    def ask(self, method: str, path: str, body: Any, missing: Any = None) -> Any:
        """The result; `missing` for a point that does not exist. None when it is not known what became of the request."""
        answers: list[httpx.Response | None] = []
        until(lambda: self._was_sent(method, path, body, answers), BACK_S)
        answer = answers[-1]
        if answer is None or answer.status_code == 504:
            return None
        if answer.status_code == 404 and missing is not None:
            return missing
        assert answer.status_code == 200, answer.text
        return answer.json()["result"]

    def _was_sent(self, method: str, path: str, body: Any, answers: list[httpx.Response | None]) -> bool:
        try:
            answers.append(self._http.request(method, self._nodes.url(self.number) + path, json=body))
        except httpx.ConnectError:
            return False
        except httpx.TransportError:
            answers.append(None)
            return True
        self._nodes.answers.release()
        return answers[-1] is None or answers[-1].status_code not in (409, 503)

    def insist(self, method: str, path: str, body: Any) -> Any:
        """Asks until there is an answer."""
        found: list[Any] = []

        def answered() -> bool:
            found[:] = [self.ask(method, path, body)]
            return found[0] is not None

        until(answered, BACK_S)
        return found[0]

    def points(self, name: str, ids: Sequence[int]) -> dict[int, dict[str, Any]]:
        """The payloads of the existing points among these ids, by a strong read."""
        found = self.insist("POST", f"/collections/{name}/points?consistency=strong", {"ids": list(ids), "with_payload": True})
        return {point["id"]: point["payload"] for point in found}

    def upsert(self, name: str, points: list[tuple[int, dict[str, Any]]], **modes: Any) -> bool:
        body = {"points": [{"id": id_, "vector": [1, 2, 3, 4], "payload": payload} for id_, payload in points], **modes}
        return self.ask("PUT", f"/collections/{name}/points?wait=true", body) is not None


def create(client: Client, name: str, shards: int = 1) -> None:
    config = {"vectors": {"size": 4, "distance": "Dot"}, "shard_number": shards}
    client.insist("PUT", f"/collections/{name}", config)


def beside_each_other(works: Sequence[Callable[[], None]], trouble: Callable[[], None]) -> None:
    """Runs all works in threads, and causes trouble meanwhile. Raises the first error of a work."""
    errors: list[BaseException] = []

    def guarded(work: Callable[[], None]) -> None:
        try:
            work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    trouble()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]


def upserts_beside_a_delete(nodes: Nodes, name: str, count: int = 2000) -> list[str]:
    """Upserts of new values, while a delete by filter runs that matches only the old ones."""
    clients = [Client(number, nodes) for number in range(CLIENTS)]
    create(clients[0], name)
    for start in range(0, count, 500):
        old = [(id_, {"v": "old"}) for id_ in range(start, start + 500)]
        until(lambda old=old: clients[0].upsert(name, old), BACK_S)  # type: ignore[misc]
    acknowledged: list[list[int]] = [[] for _ in clients]

    def upsert(number: int) -> None:
        for id_ in range(number, count, CLIENTS):
            if clients[number].upsert(name, [(id_, {"v": "new"})]):
                acknowledged[number].append(id_)

    def delete() -> None:
        remover = Client(CLIENTS, nodes)
        remover.insist(
            "POST",
            f"/collections/{name}/points/delete?wait=true",
            {"filter": {"must": [{"key": "v", "match": {"value": "old"}}]}},
        )

    beside_each_other([lambda n=n: upsert(n) for n in range(CLIENTS)] + [delete], nodes.trouble)  # type: ignore[misc]
    there = clients[0].points(name, range(count))
    wrong = [f"{id_} was acknowledged and is gone" for ids in acknowledged for id_ in ids if there.get(id_) != {"v": "new"}]
    return wrong + [f"{id_} has an old value" for id_, payload in there.items() if payload != {"v": "new"}]


def keys_below_one_key(nodes: Nodes, name: str, keys: int = 40) -> list[str]:
    """Each client sets keys of its own below one payload key of one point."""
    clients = [Client(number, nodes) for number in range(CLIENTS)]
    create(clients[0], name)
    until(lambda: clients[0].upsert(name, [(1, {"meta": {}})]), BACK_S)
    acknowledged: list[list[str]] = [[] for _ in clients]

    def set_keys(number: int) -> None:
        for at in range(keys):
            body = {"payload": {f"k{number}-{at}": at}, "key": "meta", "points": [1]}
            if clients[number].ask("POST", f"/collections/{name}/points/payload?wait=true", body) is not None:
                acknowledged[number].append(f"k{number}-{at}")

    beside_each_other([lambda n=n: set_keys(n) for n in range(CLIENTS)], nodes.trouble)  # type: ignore[misc]
    there = clients[0].points(name, [1])[1]["meta"]
    return [f"{key} was acknowledged and is gone" for mine in acknowledged for key in mine if key not in there]


def compare_and_set(nodes: Nodes, name: str, wins: int = 20) -> list[str]:
    """Each client appends to a list in one point if the number beside it is still as it was read, and looks whether it has."""
    clients = [Client(number, nodes) for number in range(CLIENTS)]
    create(clients[0], name)
    until(lambda: clients[0].upsert(name, [(1, {"n": 0, "log": []})]), BACK_S)
    confirmed: list[list[str]] = [[] for _ in clients]

    def win(number: int) -> None:
        me, tries = clients[number], 0
        while len(confirmed[number]) < wins:
            now = me.points(name, [1])[1]
            mine, tries = f"{number}/{tries}", tries + 1
            same = {"must": [{"key": "n", "match": {"value": now["n"]}}]}
            me.upsert(name, [(1, {"n": now["n"] + 1, "log": [*now["log"], mine]})], update_filter=same)
            if mine in me.points(name, [1])[1]["log"]:
                confirmed[number].append(mine)

    beside_each_other([lambda n=n: win(n) for n in range(CLIENTS)], nodes.trouble)  # type: ignore[misc]
    there = clients[0].points(name, [1])[1]
    wrong = [f"{mine} was won and is gone" for all_mine in confirmed for mine in all_mine if mine not in there["log"]]
    if there["n"] != len(there["log"]) or len(set(there["log"])) < len(there["log"]):
        wrong.append(f"{there['n']} changes were counted, {len(there['log'])} are there: {there['log']}")
    return wrong


def owners(nodes: Nodes, name: str, count: int = 150) -> list[str]:
    """Each client tries to be the first to insert each id, and then reads who was."""
    clients = [Client(number, nodes) for number in range(CLIENTS)]
    create(clients[0], name)
    seen: list[dict[int, int]] = [{} for _ in clients]

    def insert(number: int) -> None:
        for id_ in range(count):
            clients[number].upsert(name, [(id_, {"owner": number})], update_mode="insert_only")
            if id_ in (there := clients[number].points(name, [id_])):
                seen[number][id_] = there[id_]["owner"]

    beside_each_other([lambda n=n: insert(n) for n in range(CLIENTS)], nodes.trouble)  # type: ignore[misc]
    there = {id_: payload["owner"] for id_, payload in clients[0].points(name, range(count)).items()}
    return [
        f"{id_} belonged to {owner}, now to {there.get(id_)}"
        for mine in seen
        for id_, owner in mine.items()
        if there.get(id_) != owner
    ]


EXPERIMENTS = (upserts_beside_a_delete, keys_below_one_key, compare_and_set, owners)
