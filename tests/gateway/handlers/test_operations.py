"""V3: the log read by people, over HTTP and by the command, on an embedded node."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest

from journal.hlc import stamp_at
from journal.log import Indefinite, TopicPartition
from tests.conftest import refusal, result, start_node, until
from vecraft.cli import main
from vecraft.node import Node

WAIT_S = 20
PATH = "/v1/operations"
HOME = TopicPartition("vecraft.tier1", 0)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A node with two collections, of which one is dropped, six writes, an alias, an ingested record and two that are refused."""
    node, thread = start_node(tmp_path_factory.mktemp("node"))
    with httpx.Client(base_url=node.url, timeout=30) as http:
        for name in ("gone", "kept"):
            result(http.put(f"/collections/{name}", json={"vectors": {"size": 2, "distance": "Dot"}}, headers=by(f"make-{name}")))
            points = [{"id": number, "vector": [1, 2]} for number in range(5)]
            result(http.put(f"/collections/{name}/points?wait=true", json={"points": points}, headers=by(f"fill-{name}")))
        for number in range(4):
            body = {"points": [{"id": number, "vector": [3, 4]}]}
            headers = by(f"one-{number}") | {"X-Vecraft-Tier": str(number)}
            result(http.put("/collections/kept/points?wait=true", json=body, headers=headers))
        action = {"create_alias": {"collection_name": "kept", "alias_name": "also"}}
        result(http.post("/collections/aliases", json={"actions": [action]}, headers=by("alias")))
        result(http.delete("/collections/gone", headers=by("drop")))
        assert node._services is not None
        journal = node._services.node.journal
        journal.append(HOME, b"nonsense").result(WAIT_S)
        change = {"collection": "kept", "id": 77, "vector": [5, 6]}
        journal.append(TopicPartition("vecraft.ingest", 3), orjson.dumps(change)).result(WAIT_S)
        until(lambda: len(result(http.get("/v1/admin/dlq"))["dead_letters"]) == 1, WAIT_S)
        until(lambda: http.get("/collections/kept/points/77?consistency=strong").status_code == 200, WAIT_S)
    yield node
    node.stop()
    thread.join(15)
    assert not thread.is_alive()


@pytest.fixture
def http(node: Node) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=node.url, timeout=30) as client:
        yield client


def by(request_id: str) -> dict[str, str]:
    return {"X-Request-Id": request_id}


def listed(http: httpx.Client, **params: object) -> list[dict[str, Any]]:
    """All pages of a listing; barriers, which background work may write, are left out."""
    found, before = [], {}
    while True:
        answer = result(http.get(PATH, params={**params, **before}))
        found += [row for row in answer["operations"] if row.get("operation") != "Barrier"]
        if "next" not in answer:
            return found
        before = {"before": answer["next"]}


def requests_of(rows: list[dict[str, Any]]) -> list[str]:
    return [row["request_id"] for row in rows if "request_id" in row]


def test_the_log_is_listed_newest_first_with_commands_and_writes(http: httpx.Client) -> None:
    rows = listed(http)
    assert [row["time"] for row in rows] == sorted((row["time"] for row in rows), reverse=True)
    assert set(requests_of(rows)) >= {"make-gone", "fill-gone", "make-kept", "fill-kept", "one-0", "one-3", "alias", "drop"}
    assert requests_of(rows)[-2:] == ["fill-gone", "make-gone"]
    assert listed(http, limit=1) == rows


def test_a_write_is_told_in_full(http: httpx.Client) -> None:
    (row,) = listed(http, request_id="fill-kept")
    assert row["position"].startswith("vecraft.tier1/")
    assert row["time"].endswith("Z")
    assert (row["operation"], row["points"], row["ids"]) == ("Upsert", 5, [0, 1, 2])
    assert (row["collection_name"], row["tier"], row["shard"], row["outcome"]) == ("kept", 1, 0, "applied")
    assert row["stamp"] >= row["hlc"] > stamp_at(1_700_000_000_000)
    assert result(http.get("/operations", params={"request_id": "fill-kept"}))["operations"] == [row]
    (told,) = result(http.get("/v1/operations/fill-kept"))["records"]
    assert row["position"] == f"{told['topic']}/{told['partition']}/{told['offset']}"


def test_what_was_refused_leads_to_its_dead_letter(http: httpx.Client) -> None:
    (row,) = [row for row in listed(http) if "fault" in row]
    assert (row["outcome"], row["bytes"], "operation" in row) == ("refused", 8, False)
    letter = result(http.get(f"/v1/admin/dlq/{row['dead_letter']}"))
    assert letter["reason"] == row["reason"]


def test_an_ingested_record_names_its_source(http: httpx.Client) -> None:
    (row,) = [row for row in listed(http) if "origin" in row]
    assert (row["origin"], row["ids"], row["outcome"]) == ("vecraft.ingest/3/0-0", [77], "applied")
    assert listed(http, principal="vecraft.ingest/3") == [row]
    assert listed(http, principal="nobody") == []


def test_a_collection_has_its_commands_and_its_writes(http: httpx.Client) -> None:
    of_kept = requests_of(listed(http, collection="kept"))
    assert {"make-kept", "fill-kept", "alias", *(f"one-{n}" for n in range(4))} <= set(of_kept)
    assert not {"make-gone", "fill-gone", "drop"} & set(of_kept)
    assert requests_of(listed(http, collection="also")) == of_kept
    assert requests_of(listed(http, collection="gone")) == ["drop", "make-gone"]
    (write,) = listed(http, request_id="fill-gone")
    assert "collection_name" not in write
    assert requests_of(listed(http, collection=write["collection"])) == ["fill-gone", "make-gone"]


def test_a_tier_of_each_write_is_shown(http: httpx.Client) -> None:
    assert [listed(http, request_id=f"one-{number}")[0]["tier"] for number in range(4)] == [0, 1, 2, 3]


def test_since_and_until_are_included_as_times_and_as_stamps(http: httpx.Client) -> None:
    rows = listed(http)
    (first,), (last,) = listed(http, request_id="fill-kept"), listed(http, request_id="one-2")
    between = [row for row in rows if first["time"] <= row["time"] <= last["time"]]
    assert listed(http, since=first["time"], until=last["time"]) == between
    stamped = [row for row in rows if first["hlc"] <= row.get("hlc", 0) <= last["hlc"]]
    assert listed(http, since=first["hlc"], until=last["hlc"]) == stamped
    assert {"fill-kept", "one-2"} <= set(requests_of(stamped))
    assert listed(http, since="2100-01-01T00:00:00Z") == []
    assert listed(http, until="2001-01-01T00:00:00Z") == []


def test_the_token_of_a_write_is_a_cursor(http: httpx.Client) -> None:
    """What lies below the position of an answer is what it rests on (N12)."""
    written = http.put("/collections/kept/points?wait=true", json={"points": [{"id": 1, "vector": [7, 8]}]}, headers=by("token"))
    token = written.headers["X-Vecraft-Position"]
    result(http.put("/collections/kept/points?wait=true", json={"points": [{"id": 1, "vector": [7, 9]}]}, headers=by("after")))
    aside = by("aside") | {"X-Vecraft-Tier": "3"}
    result(http.put("/collections/kept/points?wait=true", json={"points": [{"id": 1, "vector": [7, 9]}]}, headers=aside))
    below = requests_of(listed(http, before=token))
    assert below[0] == "token"
    assert not {"after", "aside"} & set(below)


@pytest.mark.parametrize(
    ("params", "text"),
    [
        ({"since": "yesterday"}, "since 'yesterday' must be an RFC 3339 time"),
        ({"until": str(2**63)}, f"until {2**63} must be a stamp of at most {2**63 - 1}"),
        ({"since": "2026-02-01T00:00:00Z", "until": "2026-01-01T00:00:00Z"}, "is after until"),
        ({"before": "nonsense"}, "before: not a position token"),
        ({"limit": "0"}, "limit"),
        ({"limit": "1001"}, "limit"),
        ({"timeout": "0"}, "timeout"),
        ({"colection": "kept"}, "colection"),
    ],
)
def test_what_cannot_be_is_refused_and_named(http: httpx.Client, params: dict[str, str], text: str) -> None:
    assert text in refusal(http.get(PATH, params=params))


def test_a_token_beyond_the_end_is_refused(http: httpx.Client) -> None:
    token = http.get("/collections/kept/points/1").headers["X-Vecraft-Position"]
    log, clock, *_ = token.split(".")
    assert (
        refusal(http.get(PATH, params={"before": f"{log}.{clock}.1-0-zzz"}))
        == "before: the token is beyond the end of vecraft.tier1/0"
    )


def test_a_log_that_does_not_answer_is_said(node: Node, http: httpx.Client, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(partitions: object) -> object:
        raise Indefinite("no broker answers")

    assert node._services is not None
    monkeypatch.setattr(node._services.node.journal, "start_offsets", fails)
    answer = http.get(PATH)
    assert (answer.status_code, "no broker answers" in answer.text) == (503, True)
    assert int(answer.headers["Retry-After"]) >= 1


def test_the_command_prints_lines_or_json(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--url", node.url, "--collection", "kept"]
    assert main(["operations", *flags, "--request-id", "fill-kept"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    _, position, *rest = line.split()
    assert position.startswith("vecraft.tier1/")
    assert rest == ["applied", "fill-kept", "Upsert", "0,", "1,", "2,", "…", "5", "points", "in", "kept"]
    assert main(["operations", *flags, "--limit", "3", "--json"]) == 0
    out, error = capsys.readouterr()
    rows = [orjson.loads(each) for each in out.splitlines()]
    assert len(rows) == 3
    assert error.startswith("more: --before ")
    assert main(["operations", *flags, "--json", "--limit", "1000", "--before", error.split()[-1]]) == 0
    out, error = capsys.readouterr()
    assert error == ""
    assert orjson.loads(out.splitlines()[-1])["request_id"] == "make-kept"
    assert not {row["position"] for row in rows} & {orjson.loads(each)["position"] for each in out.splitlines()}


def test_the_command_says_what_the_node_refuses(node: Node, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["operations", "--url", node.url, "--since", "never"]) == 1
    assert "since 'never' must be an RFC 3339 time" in capsys.readouterr().err
    assert main(["operations", "--url", "http://127.0.0.1:1"]) == 1
    assert "no node answers" in capsys.readouterr().err
