"""What the walk asks of each route: its ordinary forms and refused ones, with the status of the answer."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from tests.gateway.dialect.walk.document import Operation
from tests.gateway.dialect.walk.walked_collections import FIELDS, PLAIN, RICH, UUID, plain_points, rich_points

C = "/collections/{collection_name}"
P = f"{C}/points"


class Call(NamedTuple):
    """One request. In the path, `plain`, `rich` and `new` are the collections of the test; other parameters are by name.

    `body`: JSON, or text that is sent as it is.
    """

    status: int = 200
    body: Any = None
    query: str = ""
    at: str = "plain"
    path: Mapping[str, str] = MappingProxyType({})


def ok(*bodies: Any, at: str = "plain", query: str = "") -> list[Call]:
    return [Call(200, body, query, at) for body in bodies]


def refused(status: int, *bodies: Any, at: str = "plain", query: str = "") -> list[Call]:
    return [Call(status, body, query, at) for body in bodies]


def missing(body: Any = None) -> list[Call]:
    """No such collection."""
    return [Call(404, body, "", "absent")]


NOT_JSON = ["{", "[]", '{"made_up": 1}', '{"limit": "many"}']
VECTOR = [1, 0, 0.5]
EVEN = {"must": [{"key": "word", "match": {"value": "even"}}]}
NEW_VECTORS: dict[str, Any] = {
    "new": {"dense": {"size": 3, "distance": "Dot", "datatype": "float16"}},
    "new many": {"dense": {"size": 2, "distance": "Cosine", "multivector_config": {"comparator": "max_sim"}}},
    "new sparse": {"sparse": {"modifier": "idf", "datatype": "float32"}},
}
NO_CONDITION = {"must": [{"key": "word"}]}
SELECTED = [{"points": [1, UUID]}, {"filter": EVEN}]
PARTS = [
    {"with_payload": True, "with_vector": True},
    {"with_payload": ["n"], "with_vectors": True},
    {"with_payload": {"include": ["list[].a"]}},
    {"with_payload": {"exclude": ["list"]}, "with_vector": False},
]


def read(*ordinary: Any, wrong: list[Any] = [], **statuses: Any) -> list[Call]:  # noqa: B006 - never changed
    """A read of points: `ordinary` bodies, those with a broken bound in `wrong`, and what every body may be wrong in."""
    return [
        *ok(*ordinary),
        *ok(ordinary[0], query="consistency=majority&timeout=5"),
        *refused(422, *wrong),
        *refused(400, *NOT_JSON),
        *refused(422, ordinary[0], query="timeout=0"),
        *refused(422, {**ordinary[0], "filter": NO_CONDITION}) * ("searches" not in ordinary[0]),
        *missing(ordinary[0]),
    ]


def change(*ordinary: Any) -> list[Call]:
    """A change of points."""
    return [
        *ok(*ordinary, query="wait=true"),
        *ok(ordinary[0]),
        *ok(ordinary[0], query="wait=false&ordering=strong&timeout=5"),
        *refused(400, *NOT_JSON[:3], query="wait=true"),
        *refused(400, ordinary[0], query="ordering=some"),
        *missing(ordinary[0]),
    ]


QUERIES: list[Any] = [
    {"query": VECTOR},
    {"query": 1},
    {"query": UUID},
    {},
    {"query": {"nearest": VECTOR, "mmr": {"diversity": 0.5, "candidates_limit": 10}}},
    {"query": {"recommend": {"positive": [1, 2], "negative": [VECTOR], "strategy": "best_score"}}},
    {"query": {"discover": {"target": 1, "context": [{"positive": 2, "negative": 3}]}}},
    {"query": {"context": [{"positive": 2, "negative": 3}]}},
    {"query": {"order_by": "n"}},
    {"query": {"order_by": {"key": "x", "direction": "desc", "start_from": 3.5}}},
    {"query": {"order_by": "at"}},
    {"query": {"sample": "random"}},
    {"query": {"fusion": "rrf"}, "prefetch": [{"query": VECTOR}, {"query": 1, "limit": 3}]},
    {"query": {"rrf": {"k": 5, "weights": [1, 2]}}, "prefetch": [{"query": VECTOR}, {"query": 1}]},
    {"query": {"fusion": "dbsf"}, "prefetch": {"query": VECTOR}},
    {"query": {"formula": {"sum": ["$score", "n"]}, "defaults": {"n": 0}}, "prefetch": {"query": VECTOR}},
    {
        "query": {
            "relevance_feedback": {
                "target": 1,
                "feedback": [{"example": 2, "score": 1}, {"example": 3, "score": 0.1}],
                "strategy": {"naive": {"a": 1, "b": 1, "c": 1}},
            }
        }
    },
    {"query": VECTOR, "score_threshold": 0.5, "offset": 1, "limit": 1_000_000, "params": {"exact": True, "hnsw_ef": 16}},
    {"query": 1, "lookup_from": {"collection": "plain"}},
    *({"query": VECTOR, **part} for part in PARTS),
]
NO_QUERIES: list[Any] = [
    {"query": VECTOR, "limit": 0},
    {"query": {"recommend": {"negative": [1]}}},
    {"query": {"recommend": {}}},
    {"query": {"context": []}},
    {"query": {"fusion": "rrf"}},
    {"query": {"fusion": "rrf"}, "prefetch": [{"query": 1, "limit": 0}]},
    {"query": {"rrf": {"k": 0}}, "prefetch": {"query": 1}},
    {"query": {"nearest": VECTOR, "mmr": {"diversity": 2}}},
    {"prefetch": {"query": 1}},
    {"query": VECTOR, "params": {"quantization": {"oversampling": 0.5}}},
]
RICH_QUERIES: list[Any] = [
    {"query": VECTOR, "using": "a", "with_vector": True},
    {"query": [[1, 0], [0, 1]], "using": "many", "with_vector": ["a", "s"]},
    {"query": {"indices": [1], "values": [1]}, "using": "s", "with_vector": ["t"], "with_payload": True},
    {"query": {"order_by": "n"}, "with_vector": True},
]
GROUPS: list[Any] = [
    {"group_by": "word", "query": VECTOR, "limit": 3, "group_size": 2},
    {"group_by": "n", "query": VECTOR, "with_payload": True, "with_vector": True, "with_lookup": "plain"},
    {"group_by": "n", "query": 1, "with_lookup": {"collection": "plain", "with_payload": ["n"], "with_vectors": True}},
    {"group_by": "id", "query": 1, "with_lookup": {"collection": "plain", "with_payload": True, "with_vector": True}},
]


def new(status: int, body: Any = None) -> Call:
    return Call(status, body, at="new")


SAVED, SHARD_SAVED, ALL_SAVED = "a snapshot", "a snapshot of a shard", "a snapshot of all"
"""In the path: the name of one; with ` to delete` that of another one. As the body of an upload: its content."""

S = f"{C}/shards/{{shard_id}}"
NO_LOCATIONS: list[Any] = [*NOT_JSON[:3], {"location": 5}, {"location": "ftp://x"}, {"location": "file:///x", "priority": "mine"}]


def saved(saved: str, at: str = "plain", **path: str) -> dict[Operation, list[Call]]:
    """The calls of the snapshots of something; `saved` names one of them."""
    prefix = "" if at == "" else S if path else C
    collection = at or "plain"
    absent = [Call(404, at="absent", path=path)] if at else []
    none = {**path, "snapshot_name": "none.snapshot"}
    return {
        ("GET", f"{prefix}/snapshots"): [Call(at=collection, path=path), *absent],
        ("POST", f"{prefix}/snapshots"): [
            *(Call(at=collection, path=path, query=query) for query in ("", "wait=true")),
            Call(202, at=collection, path=path, query="wait=false"),
            *refused(400, None, query="wait=perhaps") * (not path),
            *absent,
        ],
        ("GET", f"{prefix}/snapshots/{{snapshot_name}}"): [
            Call(at=collection, path={**path, "snapshot_name": saved}),
            Call(404, at=collection, path=none),
        ],
        ("DELETE", f"{prefix}/snapshots/{{snapshot_name}}"): [
            Call(404, at=collection, path=none),
            Call(at=collection, path={**path, "snapshot_name": f"{saved} to delete"}),
        ],
    }


def recovered(prefix: str, **path: str) -> dict[Operation, list[Call]]:
    """The calls that recover something. `tests/gateway/handlers/test_snapshots.py` has those that name a location."""
    content = SHARD_SAVED if path else SAVED
    return {
        ("PUT", f"{prefix}/snapshots/recover"): [
            *(Call(400, body, path=path) for body in NO_LOCATIONS),
            Call(422, {"location": ""}, path=path),
            Call(400, {"location": "file:///x", "checksum": "z"}, path=path),
            Call(404, {"location": "file:///etc/hosts"}, path=path),
        ],
        ("POST", f"{prefix}/snapshots/upload"): [
            Call(200, content, path=path),
            *(Call(200, content, f"wait=true&priority={one}", path=path) for one in ("no_sync", "snapshot", "replica")),
            Call(202, content, "wait=false", path=path),
            Call(400, "no archive", path=path),
            Call(400, content, f"checksum={'0' * 64}", path=path),
            Call(400, content, "priority=mine", path=path),
        ],
    }


CALLS: dict[Operation, list[Call]] = {
    **recovered(C),
    **recovered(S, shard_id="0"),
    **saved(SAVED, "plain"),
    **saved(SHARD_SAVED, "plain", shard_id="0"),
    **saved(ALL_SAVED, ""),
    ("GET", f"{S}/snapshot"): [
        Call(path={"shard_id": "0"}),
        Call(404, path={"shard_id": "99"}),
        Call(400, path={"shard_id": "x"}),
    ],
    ("GET", "/"): ok(None),
    ("GET", "/telemetry"): [
        *(call for level in range(11) for call in ok(None, query=f"details_level={level}&per_collection=true")),
        *ok(None),
        *ok(None, query="anonymize=true&details_level=10"),
        *refused(400, None, query="details_level=some"),
    ],
    ("GET", "/metrics"): [
        *ok(None),
        *ok(None, query="anonymize=true&per_collection=true&timeout=5"),
        *refused(422, None, query="anonymize=some"),
    ],
    ("GET", "/healthz"): ok(None),
    ("GET", "/livez"): ok(None),
    ("GET", "/readyz"): ok(None),
    ("GET", "/issues"): ok(None),
    ("DELETE", "/issues"): ok(None),
    ("GET", "/cluster"): ok(None),
    ("GET", "/quotas"): ok(None),
    ("GET", "/collections"): ok(None),
    ("GET", C): [*ok(None), *ok(None, at="rich"), *ok(None, at="alias"), *missing()],
    ("PUT", C): [
        *(new(200, body) for body in ({}, PLAIN, RICH)),
        *(new(400, body) for body in (*NOT_JSON[:3], {"vectors": {"size": 3}}, {"vectors": {"size": 3, "distance": "Far"}})),
        *(new(422, body) for body in ({"vectors": {"size": 0, "distance": "Dot"}}, {**PLAIN, "shard_number": 0})),
        new(422, {**PLAIN, "hnsw_config": {"ef_construct": 1}}),
        new(422, {**PLAIN, "optimizers_config": {"vacuum_min_vector_number": 1}}),
        Call(409, PLAIN),
    ],
    ("PATCH", C): [
        *ok(
            {"optimizers_config": {"max_optimization_threads": "auto"}},
            {"optimizers_config": {"indexing_threshold": 10}, "hnsw_config": {"m": 8}, "metadata": {"k": 1}},
            {"vectors": {"": {"hnsw_config": {"m": 10}, "quantization_config": {"product": {"compression": "x16"}}}}},
            {"quantization_config": "Disabled", "params": {"on_disk_payload": True, "read_fan_out_factor": 1}},
            {"strict_mode_config": {"enabled": False}},
        ),
        *refused(400, *NOT_JSON[:3]),
        *refused(422, {"optimizers_config": {"vacuum_min_vector_number": 99}}, {"hnsw_config": {"ef_construct": 3}}),
        *missing({"metadata": {}}),
    ],
    ("DELETE", C): [Call(200, at="new"), Call(200, at="absent")],
    ("POST", "/collections/aliases"): [
        *ok(
            {
                "actions": [
                    {"create_alias": {"collection_name": "plain", "alias_name": "first"}},
                    {"rename_alias": {"old_alias_name": "first", "new_alias_name": "second"}},
                    {"delete_alias": {"alias_name": "second"}},
                ]
            },
            {"actions": []},
        ),
        *refused(400, *NOT_JSON[:3], {"actions": [{}]}),
        *refused(404, {"actions": [{"create_alias": {"collection_name": "absent", "alias_name": "first"}}]}),
    ],
    ("PUT", f"{C}/index"): [
        *(
            call
            for name, schema in FIELDS.items()
            for call in ok({"field_name": name, "field_schema": schema}, query="wait=true")
        ),
        *ok({"field_name": "z", "field_schema": "integer"}, query="wait=false&ordering=weak&timeout=5"),
        *refused(400, *NOT_JSON[:3], {"field_name": "z", "field_schema": "made up"}),
        *refused(422, {"field_name": "n", "field_schema": {"type": "integer", "lookup": False, "range": False}}),
        *refused(422, {"field_name": "text", "field_schema": {"type": "text", "min_token_len": 5, "max_token_len": 4}}),
        *missing({"field_name": "z", "field_schema": "integer"}),
    ],
    ("PUT", f"{C}/vectors/{{vector_name}}"): [
        *(Call(200, body, "wait=true", "rich", {"vector_name": name}) for name, body in NEW_VECTORS.items()),
        Call(200, NEW_VECTORS["new"], "", "rich", {"vector_name": "new"}),
        *(Call(400, body, "", "rich", {"vector_name": "new"}) for body in (*NOT_JSON, {}, {"dense": {}}, {"sparse": {}})),
        Call(422, {"dense": {"size": 0, "distance": "Dot"}}, "", "rich", {"vector_name": "x"}),
        Call(404, NEW_VECTORS["new"], "", "absent", {"vector_name": "new"}),
    ],
    ("DELETE", f"{C}/vectors/{{vector_name}}"): [
        *(Call(200, None, "wait=true", "rich", {"vector_name": name}) for name in ("spare", "spare terms")),
        Call(400, None, "", "rich", {"vector_name": "spare"}),
        Call(404, None, "", "absent", {"vector_name": "new"}),
    ],
    ("DELETE", f"{C}/index/{{field_name}}"): [
        Call(200, None, "wait=true", "plain", {"field_name": "z"}),
        Call(200, None, "", "plain", {"field_name": "never"}),
        Call(404, None, "", "absent", {"field_name": "z"}),
    ],
    ("GET", f"{C}/exists"): [*ok(None), *ok(None, at="absent")],
    ("GET", f"{C}/cluster"): [*ok(None), *ok(None, at="rich"), *missing()],
    ("GET", f"{C}/shards"): [*ok(None), *missing()],
    ("GET", f"{C}/optimizations"): [
        *ok(None),
        *ok(None, query="with=queued,completed,idle_segments&completed_limit=3"),
        *refused(400, None, query="completed_limit=some"),
        *missing(),
    ],
    ("GET", f"{C}/aliases"): [*ok(None), *missing()],
    ("GET", "/aliases"): ok(None),
    ("GET", f"{P}/{{id}}"): [
        Call(200, path={"id": "1"}),
        Call(200, at="rich", path={"id": UUID}),
        Call(200, None, "consistency=all", path={"id": "1"}),
        Call(404, path={"id": "999"}),
        Call(404, at="absent", path={"id": "1"}),
    ],
    ("POST", P): [
        *ok(*({"ids": [1, UUID, 999], **part} for part in [{}, *PARTS])),
        *ok({"ids": [1, 2, UUID], "with_vector": True}, {"ids": [1, 2], "with_vector": ["a", "s"]}, at="rich"),
        *refused(400, *NOT_JSON, {"ids": [-1]}, {"ids": [1.5]}, {"ids": [1], "with_vector": ["absent"]}),
        *missing({"ids": [1]}),
    ],
    ("PUT", P): [
        *change(
            {"points": plain_points()[:2]},
            {"batch": {"ids": [1, UUID], "vectors": [VECTOR, VECTOR], "payloads": [None, {"n": 1}]}},
            {"points": plain_points()[:2], "update_mode": "update_only", "update_filter": EVEN},
        ),
        *ok({"points": rich_points()[:3]}, at="rich", query="wait=true"),
        *refused(400, {"points": [{"id": 1, "vector": [1, 2]}]}, {"points": [{"id": -1, "vector": VECTOR}]}),
        *refused(400, {"points": [{"id": 1, "vector": {"absent": VECTOR}}]}, at="rich"),
        *refused(422, {"points": [{"id": 1, "vector": {"many": []}}]}, at="rich"),
        *refused(422, {"points": [{"id": 1, "vector": {"s": {"indices": [1, 1], "values": [1, 2]}}}]}, at="rich"),
        *refused(422, {"batch": {"ids": [1, 2], "vectors": [VECTOR]}}),
    ],
    ("POST", f"{P}/delete"): [
        *change({"points": [777]}, {"filter": {"must": [{"has_id": [777]}]}}),
        *refused(422, {"filter": NO_CONDITION}),
    ],
    ("PUT", f"{P}/vectors"): [
        *change({"points": [{"id": 1, "vector": VECTOR}]}),
        *ok({"points": [{"id": 2, "vector": {"a": VECTOR, "s": {"indices": [5], "values": [1]}}}]}, at="rich", query="wait=true"),
        *refused(404, {"points": [{"id": 999, "vector": VECTOR}]}),
        *refused(400, {"points": [{"id": 1, "vector": [1]}]}),
        *refused(422, {"points": []}),
        *refused(422, {"points": [{"id": 1, "vector": {}}]}, at="rich"),
    ],
    ("POST", f"{P}/vectors/delete"): [
        *change(*({**selected, "vector": [""]} for selected in [{"points": [19]}])),
        *ok({"points": [1], "vector": ["a", "s"]}, at="rich", query="wait=true"),
        *refused(400, {"points": [1], "vector": ["absent"]}),
        *refused(422, {"points": [1], "vector": []}),
        *refused(404, {"points": [999], "vector": [""]}),
    ],
    ("POST", f"{P}/payload"): [
        *change(
            *({**selected, "payload": {"k": 1}} for selected in SELECTED), {"points": [1], "payload": {"b": 1}, "key": "k.deep"}
        ),
        *refused(404, {"points": [1, 999], "payload": {"k": 1}}),
        *refused(400, {"payload": {"k": 1}}),
        *refused(422, {"filter": NO_CONDITION, "payload": {"k": 1}}),
        *refused(400, {"points": [1]}, {"points": [1], "payload": 5}),
    ],
    ("PUT", f"{P}/payload"): [
        *change(*({**selected, "payload": {"k": 1, "n": 3}} for selected in [{"points": [18]}])),
        *refused(404, {"points": [999], "payload": {"k": 1}}),
        *refused(400, {"payload": {"k": 1}}),
    ],
    ("POST", f"{P}/payload/delete"): [
        *change(*({**selected, "keys": ["k", "k.deep"]} for selected in SELECTED)),
        *refused(404, {"points": [999], "keys": ["k"]}),
        *refused(400, {"keys": ["k"]}),
        *refused(400, {"points": [1], "keys": ["["]}),
    ],
    ("POST", f"{P}/payload/clear"): [
        *change({"points": [17]}, {"filter": {"must": [{"has_id": [17]}]}}),
        *refused(404, {"points": [999]}),
    ],
    ("POST", f"{P}/batch"): [
        *change(
            {
                "operations": [
                    {"upsert": {"points": plain_points()[:1]}},
                    {"upsert": {"batch": {"ids": [1], "vectors": [VECTOR]}}},
                    {"set_payload": {"points": [1], "payload": {"k": 1}}},
                    {"overwrite_payload": {"points": [1], "payload": {"n": 1}}},
                    {"delete_payload": {"points": [1], "keys": ["k"]}},
                    {"clear_payload": {"points": [16]}},
                    {"update_vectors": {"points": [{"id": 1, "vector": VECTOR}]}},
                    {"delete_vectors": {"points": [16], "vector": [""]}},
                    {"delete": {"points": [777]}},
                ]
            }
        ),
        *refused(404, {"operations": [{"set_payload": {"points": [999], "payload": {"k": 1}}}]}),
        *refused(400, {"operations": [{}]}),
    ],
    ("POST", f"{P}/scroll"): [
        *read(
            {"limit": 3},
            {},
            {"limit": 1_000_000, "filter": EVEN},
            {"offset": UUID, "limit": 2},
            {"order_by": "n", "limit": 5},
            {"order_by": {"key": "at", "direction": "desc", "start_from": "2024-05-05T00:00:00Z"}},
            *PARTS,
            wrong=[{"limit": 0}],
        ),
        *ok({"with_vector": True, "with_payload": True}, {"with_vector": ["a", "t"]}, at="rich"),
        *refused(400, {"with_vector": ["absent"]}, {"offset": -1}, {"offset": 1, "order_by": "n"}, {"order_by": "unindexed"}),
    ],
    ("POST", f"{P}/count"): read({"filter": EVEN}, {"exact": False}, {}),
    ("POST", f"{C}/facet"): read(
        {"key": "word"},
        {"key": "n", "limit": 1_000_000},
        {"key": "yes", "filter": EVEN},
        {"key": "key", "exact": True},
        wrong=[{"key": "word", "limit": 0}],
    ),
    ("POST", f"{P}/query"): [
        *read(*QUERIES, wrong=NO_QUERIES),
        *ok(*RICH_QUERIES, at="rich"),
        *refused(404, {"query": 999}, {"query": 1, "lookup_from": {"collection": "absent"}}),
        *refused(400, {"query": [1]}, {"query": VECTOR, "using": "absent"}, {"query": VECTOR, "with_vector": ["absent"]}),
        *refused(422, {"query": []}),
    ],
    ("POST", f"{P}/query/batch"): [
        *read({"searches": QUERIES}, {"searches": []}),
        *refused(422, {"searches": [{"limit": 0}]}, {"searches": [{}, {"filter": NO_CONDITION}]}),
    ],
    ("POST", f"{P}/query/groups"): [
        *read(*GROUPS, wrong=[{**GROUPS[0], "limit": 0}, {**GROUPS[0], "group_size": 0}]),
        *refused(404, {**GROUPS[0], "with_lookup": "absent"}),
        *refused(400, {**GROUPS[1], "with_lookup": {"collection": "plain", "with_vector": ["absent"]}}),
    ],
    ("POST", f"{P}/search/matrix/pairs"): read({"sample": 5, "limit": 2}, {}, wrong=[{"sample": 1}, {"limit": 0}]),
    ("POST", f"{P}/search/matrix/offsets"): [
        *read({"sample": 1_000_000, "limit": 1_000_000}, {"using": "", "filter": EVEN}, wrong=[{"sample": 1}, {"limit": 0}]),
        *ok({"using": "a"}, at="rich"),
        *refused(400, {"using": "absent"}),
    ],
}
