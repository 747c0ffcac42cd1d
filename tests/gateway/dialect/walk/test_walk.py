"""Every answer is what the published document says: each of its routes is called in its ordinary forms and in refused ones."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import pytest

from gateway.handlers.unsupported import REFUSED
from tests.conftest import result
from tests.gateway.dialect.walk.calls import ALL_SAVED, CALLS, SAVED, SHARD_SAVED, Call
from tests.gateway.dialect.walk.document import CLIENT, OPERATIONS, Operation, check
from tests.gateway.dialect.walk.walked_collections import FIELDS, PLAIN, RICH, plain_points, rich_points

NOT_OFFERED = {(refused.method, refused.path): refused for refused in REFUSED}


contents: dict[str, bytes] = {}
"""The snapshots of the collections, for uploads."""


@pytest.fixture(scope="module")
def names(node_url: str) -> Iterator[dict[str, str]]:
    """What the names of collections in the calls stand for here."""
    names = {name: f"{name}-{uuid4().hex[:8]}" for name in ("plain", "rich", "alias", "absent", "first", "second")}
    with httpx.Client(base_url=node_url, timeout=30) as http:
        for name, config, points in (("plain", PLAIN, plain_points()), ("rich", RICH, rich_points())):
            path = f"/collections/{names[name]}"
            result(http.put(path, json=config))
            for field, schema in FIELDS.items():
                result(http.put(f"{path}/index?wait=true", json={"field_name": field, "field_schema": schema}))
            result(http.put(f"{path}/points?wait=true", json={"points": points}))
        alias = {"create_alias": {"collection_name": names["plain"], "alias_name": names["alias"]}}
        result(http.post("/collections/aliases", json={"actions": [alias]}))
        contents.clear()
        for saved, path in (
            (SAVED, f"/collections/{names['plain']}"),
            (SHARD_SAVED, f"/collections/{names['plain']}/shards/0"),
            (ALL_SAVED, ""),
        ):
            for name in (saved, f"{saved} to delete"):
                names[name] = result(http.post(f"{path}/snapshots"))["name"]  # type: ignore[index]
            contents[saved] = http.get(f"{path}/snapshots/{names[saved]}").content
        yield names
        for name in ("plain", "rich"):
            result(http.delete(f"/collections/{names[name]}"))


@pytest.mark.parametrize("operation", OPERATIONS, ids=" ".join)
def test_every_answer_is_what_the_document_says(operation: Operation, http: httpx.Client, names: dict[str, str]) -> None:
    for call in calls_of(operation):
        new = f"new-{uuid4().hex[:8]}"
        if operation[0] == "DELETE" and call.at == "new":
            result(http.put(f"/collections/{new}", json=PLAIN))
        answer = sent(http, operation, call, names | {"new": new})
        try:
            check(operation, answer, call.status)
        except AssertionError as error:
            error.add_note(f"asked {operation} {call}")
            raise
        if call.at == "new" and call.status == 200 and operation[0] == "PUT":
            check(("GET", operation[1]), http.get(f"/collections/{new}"), 200)
            result(http.delete(f"/collections/{new}"))


def calls_of(operation: Operation) -> list[Call]:
    if operation in CALLS:
        return CALLS[operation]
    return [Call(NOT_OFFERED[operation].status, path=dict.fromkeys(re.findall(r"{(\w+)}", operation[1]), "1"))]


def sent(http: httpx.Client, operation: Operation, call: Call, names: dict[str, str]) -> httpx.Response:
    method, path = operation
    for name, value in {**call.path, "collection_name": names[call.at]}.items():
        path = path.replace(f"{{{name}}}", names.get(value, value) if name == "snapshot_name" else value)
    if path.endswith("/upload"):
        file = contents.get(call.body, str(call.body).encode())
        return http.request(method, f"{path}?{call.query}", files={"snapshot": ("file", file)})
    content = None if call.body is None else renamed(call.body, names)
    headers = {} if content is None else {"content-type": "application/json"}
    return http.request(method, f"{path}?{call.query}", content=content, headers=headers)


def renamed(body: Any, names: dict[str, str]) -> str:
    """A body as JSON, with the names of collections that are there."""
    if isinstance(body, str):
        return body
    text = json.dumps(body)
    for key in ("collection", "collection_name", "alias_name", "old_alias_name", "new_alias_name", "with_lookup"):
        for name, value in names.items():
            text = text.replace(f'"{key}": "{name}"', f'"{key}": "{value}"')
    return text


def test_what_is_not_offered_is_of_the_document_and_has_a_reason() -> None:
    assert not CALLS.keys() & NOT_OFFERED.keys()
    assert len(CLIENT.keys() & CALLS.keys()) > 35, "the client's models judge too"
    assert OPERATIONS.keys() <= CALLS.keys() | NOT_OFFERED.keys()
    assert CALLS.keys() <= OPERATIONS.keys()
    assert all(refused.text for refused in REFUSED)
