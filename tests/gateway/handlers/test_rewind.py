"""Tags, differences, restores and forks: a collection is compared with its past, and taken back there (N1, N3, N8)."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from tests.conftest import result


@pytest.fixture
def songs(http: httpx.Client, name: str) -> str:
    """A collection whose first instant is tagged `before`; then some points were changed, deleted and created."""
    put(http, name, {number: number for number in range(10)})
    result(http.put(f"/collections/{name}/tags/before"))
    put(http, name, {0: 100, 1: 101, 20: 200})
    result(http.post(f"/collections/{name}/points/delete?wait=true", json={"points": [2, 3, 4]}))
    result(http.post(f"/collections/{name}/points/payload?wait=true", json={"points": [5], "payload": {"new": True}}))
    return name


def put(http: httpx.Client, name: str, values: dict[int, int]) -> httpx.Response:
    points = [{"id": id_, "vector": [value, 1, 0, 0], "payload": {"n": value}} for id_, value in values.items()]
    answer = http.put(f"/collections/{name}/points?wait=true", json={"points": points})
    result(answer)
    return answer


def contents(http: httpx.Client, name: str, as_of: str = "") -> dict[int, Any]:
    params = {"as_of": as_of} if as_of else {}
    shown: Any = result(http.post(f"/collections/{name}/points/scroll", json={"limit": 100, "with_vector": True}, params=params))
    return {point["id"]: (point["payload"], point["vector"]) for point in shown["points"]}


def restored(http: httpx.Client, name: str, body: dict[str, Any]) -> Any:
    return result(http.post(f"/collections/{name}/restore", json=body, params={"wait": True}))


def test_a_tag_names_an_instant(http: httpx.Client, songs: str) -> None:
    assert sorted(contents(http, songs, "tag:before")) == list(range(10))
    tags: Any = result(http.get(f"/collections/{songs}/tags"))["tags"]  # type: ignore[index]
    (tag,) = tags
    assert (tag["name"], tag["held_bytes"]) == ("before", 0), "the retention keeps it still"
    assert contents(http, songs, tag["stamp"]) == contents(http, songs, "tag:before")
    again: Any = result(http.put(f"/collections/{songs}/tags/before", json={"as_of": tag["stamp"]}))
    assert again["stamp"] == tag["stamp"]
    result(http.delete(f"/collections/{songs}/tags/before"))
    assert http.delete(f"/collections/{songs}/tags/before").status_code == 404
    answer = http.get(f"/collections/{songs}/points/1", params={"as_of": "tag:before"})
    assert answer.status_code == 404
    assert "tag 'before'" in answer.text


def test_a_diff_lists_what_differs(http: httpx.Client, songs: str) -> None:
    told: Any = result(http.get(f"/collections/{songs}/diff", params={"from": "tag:before"}))
    assert {key: told[key] for key in ("created", "changed", "deleted", "next")} == {
        "created": 1,
        "changed": 3,
        "deleted": 3,
        "next": None,
    }
    changes = {point["id"]: (point["change"], point["payload_keys"], point["vectors"]) for point in told["points"]}
    assert changes == {
        0: ("changed", ["n"], [""]),
        1: ("changed", ["n"], [""]),
        2: ("deleted", ["n"], [""]),
        3: ("deleted", ["n"], [""]),
        4: ("deleted", ["n"], [""]),
        5: ("changed", ["new"], []),
        20: ("created", ["n"], [""]),
    }
    page: Any = result(http.get(f"/collections/{songs}/diff", params={"from": "tag:before", "limit": 2, "after": "1"}))
    assert [point["id"] for point in page["points"]] == [2, 3]
    assert page["next"] == 3
    put(http, songs, {7: 7})
    same: Any = result(http.get(f"/collections/{songs}/diff", params={"from": "tag:before"}))
    assert same["changed"] == 3, "a point that is written anew with equal content does not differ"


def test_a_collection_is_taken_back_and_forth(http: httpx.Client, songs: str) -> None:
    before, after = contents(http, songs, "tag:before"), contents(http, songs)
    dry = restored(http, songs, {"to": "tag:before", "dry_run": True})
    assert (dry["upserted"], dry["deleted"]) == (6, 1)
    assert contents(http, songs) == after == contents(http, songs, dry["as_of"])
    done = restored(http, songs, {"to": "tag:before"})
    assert (done["upserted"], done["deleted"]) == (6, 1)
    assert contents(http, songs) == before
    again = restored(http, songs, {"to": "tag:before"})
    assert (again["upserted"], again["deleted"]) == (0, 0)
    restored(http, songs, done["undo"])
    assert contents(http, songs) == after


def test_a_part_is_taken_back(http: httpx.Client, songs: str) -> None:
    before, after = contents(http, songs, "tag:before"), contents(http, songs)
    restored(http, songs, {"to": "tag:before", "ids": [2, 5, 99]})
    assert contents(http, songs) == after | {id_: before[id_] for id_ in (2, 5)}
    result(http.post(f"/collections/{songs}/points/3/restore?wait=true", json={"as_of": "tag:before"}))
    assert contents(http, songs)[3] == before[3]
    range_ = {"must": [{"key": "n", "range": {"gte": 100, "lt": 200}}]}
    restored(http, songs, {"to": "tag:before", "filter": range_})
    assert contents(http, songs) == after | {id_: before[id_] for id_ in (0, 1, 2, 3, 5)}


def test_an_undo_touches_what_the_restore_has_changed(http: httpx.Client, songs: str) -> None:
    after = contents(http, songs)
    done = restored(http, songs, {"to": "tag:before", "ids": [0, 3]})
    put(http, songs, {1: 999, 77: 7})
    restored(http, songs, done["undo"])
    assert contents(http, songs) == after | {id_: contents(http, songs)[id_] for id_ in (1, 77)}
    assert contents(http, songs)[1][0] == {"n": 999}


def test_a_restore_that_is_sent_again_gets_the_first_answer(http: httpx.Client, songs: str) -> None:
    body, headers = {"to": "tag:before"}, {"Idempotency-Key": f"restore-{songs}"}
    answers = [http.post(f"/collections/{songs}/restore?wait=true", json=body, headers=headers) for _ in range(2)]
    first, second = map(result, answers)
    assert first == second
    assert first["upserted"] == 6  # type: ignore[index]


def test_a_tag_is_of_the_collection_that_has_the_name(http: httpx.Client, name: str) -> None:
    put(http, name, {1: 1})
    before = result(http.put(f"/collections/{name}/tags/before"))["stamp"]  # type: ignore[index]
    result(http.delete(f"/collections/{name}"))
    result(http.put(f"/collections/{name}", json={"vectors": {"size": 4, "distance": "Dot"}}))
    put(http, name, {2: 2})
    answer = http.put(f"/collections/{name}/tags/old", json={"as_of": before})
    assert answer.status_code in (409, 503), "503 while the state of the deleted one is being put aside"


def test_a_restore_refuses_a_collection_that_moved_on(http: httpx.Client, songs: str, name: str) -> None:
    position = http.get(f"/collections/{songs}/points/1").headers["x-vecraft-position"]
    body = {"to": "tag:before", "if_position": position}
    put(http, songs, {1: 102})
    refused = http.post(f"/collections/{songs}/restore", json=body)
    assert refused.status_code == 409
    assert "point 1" in refused.text
    after = contents(http, songs)
    body["if_position"] = http.get(f"/collections/{songs}/points/1").headers["x-vecraft-position"]
    assert restored(http, songs, body)["upserted"] == 6
    assert contents(http, songs) != after


def test_a_fork_has_its_own_future(http: httpx.Client, songs: str) -> None:
    fork = f"fork-{songs}"
    result(http.put(f"/collections/{songs}/index?wait=true", json={"field_name": "n", "field_schema": "integer"}))
    told: Any = result(http.post(f"/collections/{fork}/fork", json={"from": songs, "as_of": "tag:before"}))
    assert told["points"] == 10
    assert contents(http, fork) == contents(http, songs, "tag:before")
    now = f"now-{songs}"
    some = {"from": songs, "filter": {"must": [{"key": "n", "range": {"lt": 100}}]}}
    assert result(http.post(f"/collections/{now}/fork", json=some))["points"] == 5  # type: ignore[index]
    assert "n" in result(http.get(f"/collections/{now}"))["payload_schema"]  # type: ignore[index]
    put(http, fork, {0: 7})
    result(http.delete(f"/collections/{songs}"))
    assert contents(http, fork)[0][0] == {"n": 7}
    assert len(contents(http, fork)) == 10
    assert http.post(f"/collections/{fork}/fork", json={"from": now}).status_code == 409
    for made in (fork, now):
        result(http.delete(f"/collections/{made}"))


def test_what_cannot_be_done_is_refused(http: httpx.Client, songs: str) -> None:
    path = f"/collections/{songs}"
    future = f"{(int(time.time() * 1000) + 60_000) << 16}"
    for method, route, body, status in (
        ("POST", f"{path}/restore", {"to": future}, 400),
        ("POST", f"{path}/restore", {"to": "2001-01-01T00:00:00Z"}, 404),
        ("POST", f"{path}/restore", {"to": "tag:before", "ids": [1], "filter": {}}, 400),
        ("POST", f"{path}/restore", {}, 400),
        ("GET", f"{path}/diff", None, 400),
        ("GET", f"{path}/diff?form=-1s", None, 400),
        ("GET", f"{path}/diff?from=-1s&limit=100000", None, 422),
        ("GET", f"{path}/diff?from=-0s&limit=0", None, 200),
        ("GET", f"{path}/diff?from=-1s&as_of=-1s", None, 400),
        ("GET", f"{path}/points/1/history?before=0", None, 422),
        ("PUT", f"{path}/tags/{'x' * 300}", {}, 400),
        ("PUT", f"{path}/tags/later", {"as_of": future}, 400),
        ("POST", "/collections/a:b/fork", {"from": songs}, 422),
        ("POST", "/collections/new/fork", {"from": "nothing-there"}, 404),
    ):
        answer = http.request(method, route, json=body)
        assert answer.status_code == status, (route, answer.text)
    assert http.get("/collections/new").status_code == 404


@pytest.mark.parametrize(
    ("method", "route", "body", "field"),
    [
        ("POST", "points/count?as_of=yesterday", {}, "as_of"),
        ("POST", "restore", {"to": "yesterday"}, "to"),
        ("POST", "restore", {"to": "-0s", "if_position": "yesterday"}, "if_position"),
        ("GET", "diff?from=yesterday", None, "from"),
        ("GET", "diff?from=-0s&to=yesterday", None, "to"),
        ("POST", "points/1/restore", {"as_of": "yesterday"}, "as_of"),
        ("PUT", "tags/later", {"as_of": "yesterday"}, "as_of"),
    ],
)
def test_an_instant_that_cannot_be_read_is_named_by_its_field(
    http: httpx.Client, songs: str, method: str, route: str, body: Any, field: str
) -> None:
    answer = http.request(method, f"/collections/{songs}/{route}", json=body)
    assert answer.status_code == 400
    assert f"{field}: 'yesterday' must be an RFC 3339 time" in answer.text


def test_the_history_of_a_point_tells_its_states_and_who_made_them(http: httpx.Client, name: str) -> None:
    """V3: from the request to its record in the log, to the state that it made."""
    path = f"/collections/{name}/points"
    put(http, name, {1: 1})
    headers = {"X-Request-Id": "my-request"}
    result(http.post(f"{path}/payload?wait=true", json={"points": [1], "payload": {"b": 2}}, headers=headers))
    result(http.put(f"{path}/vectors?wait=true", json={"points": [{"id": 1, "vector": [9, 9, 9, 9]}]}))
    result(http.post(f"{path}/delete?wait=true", json={"points": [1]}))
    before_delete: Any = result(http.get(f"{path}/1/history"))[1]  # type: ignore[index]
    result(http.post(f"{path}/1/restore?wait=true", json={"as_of": before_delete["stamp"]}))
    told: Any = result(http.get(f"{path}/1/history", params={"with_vector": True}))
    assert [one["operation"] for one in told] == ["Upsert", "Delete", "PatchVectors", "PatchPayload", "Upsert"]
    assert [one["deleted"] for one in told] == [False, True, False, False, False]
    assert [one.get("payload") for one in told] == [{"n": 1, "b": 2}, None, {"n": 1, "b": 2}, {"n": 1, "b": 2}, {"n": 1}]
    assert [one.get("vector") for one in told] == [[9, 9, 9, 9], None, [9, 9, 9, 9], [1, 1, 0, 0], [1, 1, 0, 0]]
    assert [one["changed"] for one in told][2:] == [
        {"payload": [], "vectors": [""]},
        {"payload": ["b"], "vectors": []},
        {"payload": ["n"], "vectors": [""]},
    ]
    assert told[0]["origin"] == f"as_of:{before_delete['stamp']}"
    assert told[3]["request_id"] == "my-request"
    assert [int(one["stamp"]) for one in told] == sorted((int(one["stamp"]) for one in told), reverse=True)
    listed: Any = result(http.get("/operations", params={"request_id": "my-request"}))["operations"]  # type: ignore[index]
    assert [one["position"] for one in listed] == [told[3]["position"]]
    pages, before = [], {}
    while page := result(http.get(f"{path}/1/history", params={"limit": 2, "with_vector": True, **before})):
        pages += page  # type: ignore[arg-type]
        before = {"before": pages[-1]["stamp"]}
    assert pages == told
    for one in told:
        shown = http.get(f"{path}/1", params={"as_of": one["stamp"]})
        assert shown.status_code == (404 if one["deleted"] else 200)
        if not one["deleted"]:
            assert result(shown)["payload"] == one["payload"]  # type: ignore[index]
    assert http.get(f"{path}/99/history").status_code == 404
    assert http.get(f"{path}/1/history", params={"as_of": "-1s"}).status_code == 400
