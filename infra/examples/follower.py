"""Keeps a collection of a second database equal to one of the first, by the change feed (docs/changes.md).

    python follower.py http://localhost:6333 http://localhost:7333 songs place.txt

It may be killed at any moment and started again: it notes its place after it has written, so at worst it writes the same once
more. Without a place, or with one that is not kept any more, it begins anew with an empty collection and the present state.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import httpx

GONE = 410


class Follower:
    """Follows `collection` of the database at `source` into that at `target`. `place_file` has the place up to which it came."""

    def __init__(self, source: str, target: str, collection: str, place_file: Path) -> None:
        self.source = httpx.Client(base_url=source, timeout=90)
        self.target = httpx.Client(base_url=target, timeout=90)
        self.path = f"/collections/{collection}"
        self.place_file = place_file

    def follow(self) -> None:
        """Follows for ever."""
        while True:
            place = self.place_file.read_text() if self.place_file.exists() else None
            if place is None:
                self.make_empty()
            print("reads", flush=True)
            page = self.page(place)
            if page is None:
                self.place_file.unlink()
                continue
            print("writes", flush=True)
            self.write(page["changes"])
            print("notes", flush=True)
            self.note(page["next"])
            print(page["next"], "caught up" if page["caught_up"] else "", flush=True)

    def page(self, place: str | None) -> dict[str, Any] | None:
        """The next changes; None when they are not kept any more."""
        where = {"snapshot": "initial"} if place is None else {"from": place}
        params = {**where, "with_vector": "true", "limit": 100, "wait_ms": 30_000}
        answer = self.source.get(f"{self.path}/changes", params=params)
        return None if answer.status_code == GONE else result(answer)

    def write(self, changes: list[dict[str, Any]]) -> None:
        """Writes what the points are after some changes: of each point only the last counts."""
        last = {change["id"]: change for change in changes}
        points = [{"id": id_, **change["after"]} for id_, change in last.items() if change["op"] != "delete"]
        gone = [id_ for id_, change in last.items() if change["op"] == "delete"]
        if points:
            result(self.target.put(f"{self.path}/points", json={"points": points}))
        if gone:
            result(self.target.post(f"{self.path}/points/delete", json={"points": gone}))

    def note(self, place: str) -> None:
        """Notes a place, so that the file has the old one or the new one."""
        unfinished = self.place_file.with_suffix(".new")
        unfinished.write_text(place)
        os.replace(unfinished, self.place_file)

    def make_empty(self) -> None:
        """Makes the collection anew, with the vectors that the source has: nothing is left that the source has deleted."""
        params = result(self.source.get(self.path))["config"]["params"]
        config = {name: params[name] for name in ("vectors", "sparse_vectors", "shard_number") if name in params}
        result(self.target.delete(self.path))
        result(self.target.put(self.path, json=config))


def result(answer: httpx.Response) -> Any:
    if answer.is_error:
        raise SystemExit(f"{answer.request.method} {answer.request.url} got {answer.status_code}: {answer.text}")
    return answer.json()["result"]


if __name__ == "__main__":
    source, target, collection, place_file = sys.argv[1:]
    Follower(source, target, collection, Path(place_file)).follow()
