"""V14: a request with an idempotency key has one effect and one answer, however often it is sent, whatever it was decided on."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from tests.conftest import result


def points(*ids: int, **payload: object) -> dict[str, Any]:
    return {"points": [{"id": id_, "vector": [1, 2, 3, 4], "payload": payload} for id_ in ids]}


def ask(http: httpx.Client, method: str, path: str, body: Any, key: str = "") -> httpx.Response:
    return http.request(method, path, json=body, headers={"Idempotency-Key": key} if key else {})


def there(http: httpx.Client, name: str) -> dict[int, dict[str, Any]]:
    found = result(http.post(f"/collections/{name}/points/scroll", json={"limit": 100, "with_payload": True}))["points"]
    return {point["id"]: point["payload"] for point in found}


def where(**values: object) -> dict[str, Any]:
    return {"must": [{"key": key, "match": {"value": value}} for key, value in values.items()]}


def test_an_operation_that_stands_in_a_batch_twice_is_done_twice(http: httpx.Client, name: str) -> None:
    upsert, delete = {"upsert": points(1, n=1)}, {"delete": {"points": [1]}}
    batch = {"operations": [upsert, delete, upsert]}
    for _ in range(2):
        assert ask(http, "POST", f"/collections/{name}/points/batch?wait=true", batch, f"{name}-b").status_code == 200
        assert there(http, name) == {1: {"n": 1}}
    ask(http, "POST", f"/collections/{name}/points/delete?wait=true", {"points": [1]})
    ask(http, "POST", f"/collections/{name}/points/batch?wait=true", batch, f"{name}-b")
    assert there(http, name) == {}, "a retry changes nothing"


@pytest.mark.parametrize(
    ("path", "change", "before", "after"),
    [
        ("points/delete", {}, None, None),
        ("points/payload", {"payload": {"b": 1}}, {"v": 1}, {"v": 1, "b": 1}),
        ("points/payload", {"payload": {"b": 1}, "key": "deep"}, {"v": 1}, {"v": 1, "deep": {"b": 1}}),
        ("points/payload/clear", {}, {"v": 1}, {}),
    ],
    ids=["delete", "set", "path", "clear"],
)
def test_a_retry_that_finds_other_points(
    http: httpx.Client, name: str, path: str, change: dict[str, Any], before: dict[str, Any] | None, after: dict[str, Any] | None
) -> None:
    """A change by filter is decided once: points that match later are not changed by a retry."""
    body = {"filter": where(v=1), **change}
    result(ask(http, "PUT", f"/collections/{name}/points?wait=true", points(1, 2, v=1)))
    first = ask(http, "POST", f"/collections/{name}/{path}?wait=true", body, f"{name}-f")
    changed = there(http, name)
    assert changed == ({} if after is None else {1: after, 2: after})
    result(ask(http, "PUT", f"/collections/{name}/points?wait=true", points(2, 3, v=1)))
    again = ask(http, "POST", f"/collections/{name}/{path}?wait=true", body, f"{name}-f")
    assert result(again) == result(first)
    now = {2: {"v": 1}, 3: {"v": 1}}
    assert there(http, name) == now | {id_: payload for id_, payload in changed.items() if id_ not in now}


def test_a_retry_gets_the_first_error(http: httpx.Client, name: str) -> None:
    """An edit of points of which one does not exist: all others are written, once."""
    body = {"payload": {"b": 1}, "key": "deep", "points": [1, 9]}
    result(ask(http, "PUT", f"/collections/{name}/points?wait=true", points(1)))
    first = ask(http, "POST", f"/collections/{name}/points/payload?wait=true", body, f"{name}-e")
    result(ask(http, "PUT", f"/collections/{name}/points?wait=true", points(1, 9)))
    again = ask(http, "POST", f"/collections/{name}/points/payload?wait=true", body, f"{name}-e")
    assert first.status_code == again.status_code == 404
    assert first.json()["status"] == again.json()["status"]
    assert there(http, name) == {1: {}, 9: {}}


def test_an_insert_that_is_sent_again_inserts_nothing(http: httpx.Client, name: str) -> None:
    body = points(1, n=1) | {"update_mode": "insert_only"}
    result(ask(http, "PUT", f"/collections/{name}/points?wait=true", body, f"{name}-i"))
    result(ask(http, "POST", f"/collections/{name}/points/delete?wait=true", {"points": [1]}))
    result(ask(http, "PUT", f"/collections/{name}/points?wait=true", body, f"{name}-i"))
    assert there(http, name) == {}


def test_commands_of_the_catalog(http: httpx.Client, name: str) -> None:
    """A retry of a creation that came after a deletion creates nothing, and is told that the first one did."""
    other = f"{name}-other"
    config = {"vectors": {"size": 4, "distance": "Dot"}}
    for _ in range(2):
        assert result(ask(http, "PUT", f"/collections/{other}", config, f"{name}-c")) is True
    for _ in range(2):
        assert result(ask(http, "DELETE", f"/collections/{other}", None, f"{name}-d")) is True
    assert result(ask(http, "PUT", f"/collections/{other}", config, f"{name}-c")) is True
    assert result(http.get(f"/collections/{other}/exists")) == {"exists": False}


def test_another_body_is_another_request(http: httpx.Client, name: str) -> None:
    """A client that uses a key twice by mistake loses no write."""
    for n in (1, 2):
        result(ask(http, "PUT", f"/collections/{name}/points?wait=true", points(1, n=n), f"{name}-k"))
    assert there(http, name) == {1: {"n": 2}}


@pytest.mark.parametrize("change", ["points/payload", "points/vectors"])
def test_a_change_of_points_of_which_one_came_later(http: httpx.Client, name: str, change: str) -> None:
    """The first attempt told that one does not exist; so does the second, though it does now."""
    result(ask(http, "PUT", f"/collections/{name}/points?wait=true", points(1)))
    if change == "points/payload":
        method, body = "POST", {"payload": {"b": 1}, "points": [1, 9]}
    else:
        method, body = "PUT", {"points": [{"id": id_, "vector": [4, 3, 2, 1]} for id_ in (1, 9)]}
    first = ask(http, method, f"/collections/{name}/{change}?wait=true", body, f"{name}-l")
    result(ask(http, "PUT", f"/collections/{name}/points?wait=true", points(9)))
    again = ask(http, method, f"/collections/{name}/{change}?wait=true", body, f"{name}-l")
    assert (first.status_code, again.status_code) == (404, 404)
    assert again.json()["status"] == first.json()["status"]
    assert there(http, name)[9] == {}


def test_a_batch_that_deletes_what_it_changed(http: httpx.Client, name: str) -> None:
    """Its retry finds nothing to change, and gets the first answer all the same."""
    result(ask(http, "PUT", f"/collections/{name}/points?wait=true", points(1)))
    batch = {"operations": [{"set_payload": {"payload": {"b": 1}, "points": [1]}}, {"delete": {"points": [1]}}]}
    answers = [ask(http, "POST", f"/collections/{name}/points/batch?wait=true", batch, f"{name}-b") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200]


def test_attempts_beside_each_other_get_one_answer(http: httpx.Client, name: str) -> None:
    """A client that lost its connection asks again while the first attempt still runs."""
    result(ask(http, "PUT", f"/collections/{name}/points?wait=true", points(*range(20), v=1)))
    with ThreadPoolExecutor(4) as threads:
        body = {"filter": where(v=1)}
        sent = [
            threads.submit(ask, http, "POST", f"/collections/{name}/points/delete?wait=true", body, f"{name}-s") for _ in range(4)
        ]
        answers = [each.result() for each in sent]
    assert [answer.status_code for answer in answers] == [200] * 4, [answer.text for answer in answers]
    assert len({str(result(answer)) for answer in answers}) == 1


def test_the_same_request_by_another_path(http: httpx.Client, name: str) -> None:
    """Under /v1, or by an alias."""
    alias = f"{name}-alias"
    actions = [{"create_alias": {"collection_name": name, "alias_name": alias}}]
    result(http.post("/collections/aliases", json={"actions": actions}))
    for prefix in (f"/collections/{name}", f"/v1/collections/{name}", f"/collections/{alias}"):
        result(ask(http, "PUT", f"/collections/{name}/points?wait=true", points(2, v=1)))
        result(ask(http, "POST", f"{prefix}/points/delete?wait=true", {"filter": where(v=1)}, f"{name}-p"))
        assert there(http, name) == ({} if prefix == f"/collections/{name}" else {2: {"v": 1}})


def test_an_index_of_a_collection_that_is_gone(http: httpx.Client, name: str) -> None:
    other, body = f"{name}-gone", {"field_name": "v", "field_schema": "integer"}
    result(http.put(f"/collections/{other}", json={"vectors": {"size": 4, "distance": "Dot"}}))
    first = result(ask(http, "PUT", f"/collections/{other}/index?wait=true", body, f"{name}-x"))
    result(http.delete(f"/collections/{other}"))
    assert result(ask(http, "PUT", f"/collections/{other}/index?wait=true", body, f"{name}-x")) == first
    assert ask(http, "PUT", f"/collections/{other}/index?wait=true", body).status_code == 404
