"""Refusals speak of JSON and of the project, never in the words of Python or of a library that it uses."""

from __future__ import annotations

import io
import random
import re
from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import fastavro
import httpx
import msgspec
import orjson
import pytest

from catalog.ingest import FieldMapping
from journal.error_texts import MAX_SHOWN_CHARS, in_json, reason_of
from journal.ids import encode_id
from journal.records import VectorColumn
from replayer.ingest.format import NotIngestible
from replayer.verdicts import Refused
from tests.conftest import START_S, start_node
from tests.replayer.ingest import test_format, test_mapping
from tests.replayer.test_verdicts import GOOD, encoded, verdict

FOREIGN = re.compile(
    r"Error\b|codec can't|<class|object at 0x|\bb['\"]|NoneType|\bNone\b|\bTrue\b|\bFalse\b|Decimal\(|index out of range"
    r"|maximum recursion|sys\.|string argument|int too large|buffer size|reshape|serializable|invalid literal for"
    r"|subscriptable|unpack|was truncated"
)
DEEP = b'{"a":' * 3000 + b"1" + b"}" * 3000
MUTATIONS = 300

JSON: list[bytes] = [
    b"{",
    b"[]",
    b'"x"',
    b"\xff\xfe",
    b'{"collection":"c\xff","id":1}',
    b'{"collection":"c","id":' + b"9" * 5000 + b"}",
    b'{"collection":"c","id":' + b"9" * 4000 + b"}",
    b'{"collection":"c","id":1,"payload":' + DEEP + b"}",
    b'{"collection":"c","id":1,"op":"patch","payload":' + DEEP + b"}",
    b'{"collection":"c","id":1,"op":"patch","payload":{"a":"\xff"}}',
    b'{"collection":"c","id":1,"op":"patch","payload":[1]}',
    *(
        orjson.dumps(test_format.UPSERT | {field: value})
        for field, value in [
            ("collection", None),
            ("id", None),
            ("id", True),
            ("id", {}),
            ("op", None),
            ("vector", [1, "a"]),
            ("vector", "é"),
            ("vector", [None]),
            ("vector", "AAA="),
        ]
    ),
]
KEYS = [None, b"\xff\xfe", b"9" * 5000, b"x" * 600]
ROWS: list[Any] = [
    *JSON,
    *({"embedding": given} for given in ("x", "é", "[1", '[1,"a"]', "[1e999]", "AAA", {}, [1, None], [], None, True)),
    *({"sku": given, "embedding": [1]} for given in (None, -1, 1.5, True, [], {}, "", "x" * 600)),
    *({"op": given, "after": {"embedding": [1]}} for given in (None, 5, {"a": None}, "t", "x")),
    {"op": "c", "after": None},
]
MAPPINGS = [FieldMapping(vector="embedding"), FieldMapping("sku", "embedding", {"x": "a[]"})]
ROW_KEYS = [None, b"7", b"\xff", {"id": None}, {"id": True}, {"id": 1.5}, {"id": [None]}, {}, []]
AVRO_ROW = {"sku": 1, "embedding": [1.0], "price": Decimal("1.5")}

OPERATIONS = [
    *(
        msgspec.structs.replace(GOOD, vectors=[column])
        for column in [
            VectorColumn("", 2, None, b"1234567"),
            VectorColumn("", 2, None, b"1" * 12),
            VectorColumn("", 0, None, b"1" * 8),
            VectorColumn("", 2, None, b"1" * 8, [2]),
            VectorColumn("", 0, None, b"1" * 7, [1]),
            VectorColumn("", 2, [-1], b"1" * 8),
        ]
    ),
    *(msgspec.structs.replace(GOOD, ids=[given]) for given in (b"", b"\0", b"\x01" * 5, b"\x02\xff", b"\x02" + b"x" * 600)),
    *(msgspec.structs.replace(GOOD, payloads=[given]) for given in (b"x", b"[]", b"\xff", b'{"a":NaN}', DEEP)),
]


def damaged(data: bytes, from_: int = 0) -> Iterator[bytes]:
    """The data cut off at each byte, and with some bytes changed."""
    yield from (data[:end] for end in range(from_, len(data)))
    chance = random.Random(len(data))
    for _ in range(MUTATIONS):
        changed = bytearray(data)
        for _ in range(chance.randint(1, 3)):
            changed[chance.randrange(from_, len(data))] = chance.randrange(256)
        yield bytes(changed)


def check(texts: list[str]) -> None:
    assert len(texts) > 10
    assert not [text for text in texts if FOREIGN.search(text)]


def refusals(attempts: Iterable[Callable[[], Any]]) -> list[str]:
    """The reasons of those attempts that are refused."""
    found = []
    for attempt in attempts:
        try:
            attempt()
        except NotIngestible as error:
            found.append(str(error))
    return list(dict.fromkeys(found))


def test_of_the_ingest() -> None:
    cut = [(value, headers) for data, headers in test_format.FORMS.values() for value in damaged(data)]
    given = [(value, key, headers) for value, headers in [*((value, ()) for value in JSON), *cut] for key in KEYS]
    check(refusals(partial(test_format.parsed, *one) for one in given))


def test_of_mappings() -> None:
    row = io.BytesIO(b"\0\0\0\0\x07")
    row.seek(5)
    fastavro.schemaless_writer(row, test_mapping.AVRO_ROW, AVRO_ROW)
    rows = [*ROWS, *damaged(row.getvalue(), 5)]
    plain = [(row, key, mapping, "json") for row in rows for key in KEYS[:3] for mapping in MAPPINGS]
    events = [(row, key, MAPPINGS[0], "debezium") for row in rows for key in [*ROW_KEYS, row]]
    check(refusals(partial(test_mapping.change, *one) for one in [*plain, *events]))


def test_of_records_in_the_log() -> None:
    values = [*damaged(encoded(GOOD)), *map(encoded, OPERATIONS)]
    check(list(dict.fromkeys(found.reason for value in values if isinstance(found := verdict(value), Refused))))


BODIES: list[bytes] = [
    b"",
    b"[]",
    b"\xff\xfe",
    b'{"points":[{"id":1,"vector":[1,2],"payload":{"a":"\xff"}}]}',
    b'{"points":[{"id":1,"payload":' + DEEP + b"}]}",
    b'{"points":["\xed\xa0\x80"]}',
    b'{"points":[' + b"9" * 5000 + b"]}",
    b'{"points":[true]}',
    b'{"points":[{"id":1.5,"vector":[1,2]}]}',
    b'{"points":[{"id":5,"vector":[1,"a"]}]}',
    b'{"points":[{"id":5,"vector":{"":[[1],[]]}}]}',
    b'{"vector":[' + b"9" * 5000 + b'],"limit":1}',
    b'{"vector":"\xc3\xa9","limit":1}',
    b'{"query":"\\ud800"}',
    b'{"query":{"indices":[-1],"values":[1]}}',
    b'{"filter":{"must":[{"has_id":[-1,""]}]}}',
    b'{"filter":{"must":[{"key":"a","range":{"gt":"x"}}]},"query":[1,2]}',
    b'{"filter":' * 500,
    b'{"order_by":{"key":"a[","start_from":"x"}}',
]
PACKED = [
    b"\xc1",
    b"\x81\xa1a\xa1\xff",
    b"\x81\xa6points\xdd\xff\xff\xff\xff",
    msgspec.msgpack.encode({"points": [{"id": 1, "vector": b"123"}]}),
    msgspec.msgpack.encode({"points": [{"id": 1, "vector": [[1], [1, 2]]}]}),
    msgspec.msgpack.encode({"points": [{"id": 1, "vector": {"s": {"indices": ["x"], "values": [1]}}}]}),
    msgspec.msgpack.encode({"points": [{"id": 1, "payload": {1: None}}]}),
]
ROUTES = [
    ("PUT", "points"),
    ("POST", "points"),
    ("POST", "points/search"),
    ("POST", "points/query"),
    ("POST", "points/scroll"),
    ("POST", "points/delete"),
    ("POST", "points/payload"),
]


def test_of_requests(tmp_path: Path) -> None:
    node, thread = start_node(tmp_path)
    texts = []
    with httpx.Client(base_url=f"{node.url}/collections/c", timeout=START_S) as http:
        httpx.put(f"{node.url}/collections/c", json={"vectors": {"size": 2, "distance": "Dot"}}).raise_for_status()
        for method, path in ROUTES:
            for kind, bodies in (("application/json", BODIES), ("application/msgpack", PACKED)):
                for body in bodies:
                    answer = http.request(method, path, content=body, headers={"content-type": kind})
                    assert answer.status_code in (200, 400, 404, 422), (method, path, body[:80], answer.text)
                    if answer.status_code != 200:
                        texts.append(answer.json()["status"]["error"])
    node.stop()
    thread.join(START_S)
    check(list(dict.fromkeys(texts)))


def test_of_values() -> None:
    assert [in_json(value) for value in (None, True, {"a": Decimal("1.5")}, "é")] == ["null", "true", '{"a":"1.5"}', '"é"']
    assert len(in_json("x" * 1000)) == MAX_SHOWN_CHARS
    with pytest.raises(ValueError, match=r"not null$"):
        encode_id(None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "error", [RecursionError("maximum recursion depth"), TypeError("NoneType"), OverflowError("int too large"), KeyError(1)]
)
def test_of_errors_of_python(error: Exception) -> None:
    assert not FOREIGN.search(reason_of(error))
