"""Compares what was acknowledged with what is there. Clients write and read on and on while faults come and go."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import Self

import httpx

from tests.conftest import result, until

COLLECTION = "checked"
WAIT_S = 120
PAUSE_S = 0.005
"""Between writes: the load is to be there, not to take the processors from the brokers."""

VECTOR = [1.0, 2.0, 3.0, 4.0]


def create(url: str) -> None:
    """The collection that the clients use, unless it is there."""
    if not result(httpx.get(f"{url}/collections/{COLLECTION}/exists"))["exists"]:
        body = {"vectors": {"size": 4, "distance": "Dot"}, "shard_number": 2}
        result(httpx.put(f"{url}/collections/{COLLECTION}", json=body, timeout=WAIT_S))


def everything(url: str) -> dict[int, object]:
    """All points by id, read strongly, asked again while the node is not able to; fails when one stands twice."""
    found: list[dict[str, object]] = []
    with httpx.Client(base_url=url, timeout=WAIT_S) as client:
        body: dict[str, object] | None = {"limit": 10_000}
        while body is not None:
            answers: list[httpx.Response] = []
            until(lambda body=body, answers=answers: _answered(client, body, answers), WAIT_S)
            page = result(answers[-1])
            found += page["points"]
            body = None if page["next_page_offset"] is None else {"limit": 10_000, "offset": page["next_page_offset"]}
    points = {point["id"]: point["payload"] for point in found}
    assert len(points) == len(found), "a point stands twice"
    return points  # type: ignore[return-value]


def _answered(client: httpx.Client, body: dict[str, object], answers: list[httpx.Response]) -> bool:
    try:
        answers.append(client.post(f"/collections/{COLLECTION}/points/scroll?consistency=strong", json=body))
    except httpx.TransportError:
        return False
    return answers[-1].status_code == 200


class _Client:
    """Does its work in a thread while its block runs."""

    def __init__(self) -> None:
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *raised: object) -> None:
        self._stopping.set()
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive()

    def _run(self) -> None:
        """Works until `_stopping` is set."""
        raise NotImplementedError


class Load(_Client):
    """A client that writes one point after the other, through the given nodes in turn, and sorts the answers."""

    def __init__(self, urls: Sequence[str], first: int, tier: int = 1) -> None:
        super().__init__()
        self.acknowledged: dict[int, float] = {}
        self.definite: set[int] = set()
        self.indefinite: set[int] = set()
        self.seconds: list[float] = []
        self._urls = urls
        self._next = first
        self._tier = tier

    def more(self, count: int) -> float:
        """Waits for so many more acknowledgements; the seconds until the first of those whose write began after the call."""
        asked_s, before = time.monotonic(), len(self.acknowledged)
        until(lambda: self._stopping.wait(0.001) or len(self.acknowledged) >= before + count, WAIT_S)
        return min(at for at in list(self.acknowledged.values()) if at > asked_s) - asked_s

    def last(self) -> int | None:
        """The point that was acknowledged last."""
        return next(reversed(self.acknowledged), None)

    def check(self, url: str) -> None:
        """Nothing lost, nothing that was refused, nothing twice."""
        found = everything(url)
        mine = {number for number, payload in found.items() if payload == {"n": number}}
        lost = self.acknowledged.keys() - mine
        assert not lost, f"{len(lost)} of {len(self.acknowledged)} acknowledged points are gone: {sorted(lost)[:10]}"
        there = self.definite & found.keys()
        assert not there, f"{len(there)} points are there whose writes were refused: {sorted(there)[:10]}"

    def _run(self) -> None:
        with httpx.Client(timeout=20) as client:
            while not self._stopping.is_set():
                number, self._next = self._next, self._next + 1
                self._write(client, self._urls[number % len(self._urls)], number)
                self._stopping.wait(PAUSE_S)

    def _write(self, client: httpx.Client, url: str, number: int) -> None:
        body = {"points": [{"id": number, "vector": VECTOR, "payload": {"n": number}}]}
        started_s = time.monotonic()
        try:
            status = client.put(
                f"{url}/collections/{COLLECTION}/points?wait=false", json=body, headers={"X-Vecraft-Tier": str(self._tier)}
            ).status_code
        except httpx.ConnectError:
            self.definite.add(number)
            return
        except httpx.TransportError:
            self.indefinite.add(number)
            return
        if status == 200:
            self.seconds.append(time.monotonic() - started_s)
            self.acknowledged[number] = time.monotonic()
        elif status in (429, 503):
            self.definite.add(number)
        else:
            assert status == 504, status
            self.indefinite.add(number)


class StrongReads(_Client):
    """A client that reads strongly what a load has had acknowledged, and counts what it does not see (I9)."""

    def __init__(self, url: str, load: Load) -> None:
        super().__init__()
        self.fresh = 0
        self.refused = 0
        self.stale: list[str] = []
        self._url = url
        self._load = load

    def __exit__(self, *raised: object) -> None:
        super().__exit__(*raised)
        assert not self.stale, f"{len(self.stale)} strong reads were stale, {self.fresh} fresh; the first: {self.stale[0]}"

    def more(self, count: int) -> float:
        """Waits for so many more strong reads that were answered; the seconds that took."""
        target = self.fresh + count
        return until(lambda: self._stopping.wait(0.001) or self.fresh >= target, WAIT_S)

    def _run(self) -> None:
        with httpx.Client(timeout=20) as client:
            while not self._stopping.is_set():
                if (number := self._load.last()) is None:
                    self._stopping.wait(0.001)
                    continue
                try:
                    self._stopping.wait(PAUSE_S)
                    answer = client.post(
                        f"{self._url}/collections/{COLLECTION}/points?consistency=strong", json={"ids": [number]}
                    )
                except httpx.TransportError:
                    self.refused += 1
                    continue
                if answer.status_code != 200:
                    self.refused += 1
                elif answer.json()["result"]:
                    self.fresh += 1
                else:
                    at = self._load.acknowledged[number] - time.monotonic()
                    self.stale.append(f"{number}, acknowledged {-at:.3f} s before the answer: {dict(answer.headers)}")
