"""The collections that the walk asks about: one with a single vector, one with everything that a collection can have."""

from __future__ import annotations

from typing import Any

PLAIN: dict[str, Any] = {"vectors": {"size": 3, "distance": "Cosine"}}
RICH: dict[str, Any] = {
    "vectors": {
        "a": {
            "size": 3,
            "distance": "Euclid",
            "hnsw_config": {"m": 16, "ef_construct": 64, "full_scan_threshold": 100, "payload_m": 16, "on_disk": False},
            "quantization_config": {"scalar": {"type": "int8", "quantile": 0.99, "always_ram": True}},
            "on_disk": True,
        },
        "spare": {"size": 2, "distance": "Dot"},
        "many": {"size": 2, "distance": "Dot", "multivector_config": {"comparator": "max_sim"}},
    },
    "sparse_vectors": {
        "s": {"modifier": "idf", "index": {"on_disk": False, "full_scan_threshold": 10}},
        "t": {},
        "spare terms": {},
    },
    "shard_number": 2,
    "on_disk_payload": False,
    "hnsw_config": {"m": 12, "ef_construct": 32, "max_indexing_threads": 2, "inline_storage": False},
    "optimizers_config": {
        "deleted_threshold": 0.3,
        "vacuum_min_vector_number": 100,
        "default_segment_number": 3,
        "max_segment_size": 1000,
        "memmap_threshold": 0,
        "indexing_threshold": 50,
        "flush_interval_sec": 2,
        "max_optimization_threads": 2,
        "prevent_unoptimized": True,
    },
    "wal_config": {"wal_capacity_mb": 4, "wal_segments_ahead": 1, "wal_retain_closed": 2},
    "quantization_config": {"binary": {"encoding": "two_bits", "query_encoding": "scalar8bits", "always_ram": False}},
    "strict_mode_config": {
        "enabled": True,
        "max_query_limit": 100_000,
        "max_timeout": 100,
        "search_max_oversampling": 50.5,
        "multivector_config": {"many": {"max_vectors": 10}},
        "sparse_config": {"s": {"max_length": 10}},
        "max_payload_index_count": 50,
    },
    "metadata": {"owner": "walk", "tags": [1, None]},
}
FIELDS: dict[str, Any] = {
    "word": {"type": "keyword", "is_tenant": True, "prefix": True},
    "n": {"type": "integer", "lookup": True, "range": True, "is_principal": True, "on_disk": True},
    "x": {"type": "float", "on_disk": False, "is_principal": False},
    "yes": {"type": "bool", "enable_hnsw": False},
    "at": "datetime",
    "place": {"type": "geo"},
    "key": {"type": "uuid", "is_tenant": False},
    "text": {
        "type": "text",
        "tokenizer": "word",
        "lowercase": True,
        "min_token_len": 1,
        "max_token_len": 20,
        "phrase_matching": True,
        "ascii_folding": True,
        "stopwords": {"languages": ["english"], "custom": ["foo"]},
        "stemmer": {"type": "snowball", "language": "english"},
    },
    "other": {"type": "text", "stopwords": "german", "stemmer": {"type": "none"}},
}
UUID = "8a9d2e6c-52c6-4a0e-a2b9-14b4f1d4f3f5"
IDS = [*range(1, 21), UUID]


def payload(n: int) -> dict[str, Any]:
    return {
        "word": "even" if n % 2 == 0 else ["odd", "word"],
        "n": n % 5,
        "x": n / 4,
        "yes": n % 3 == 0,
        "at": f"2024-05-{n % 28 + 1:02}T12:00:00Z",
        "place": {"lon": n, "lat": -n},
        "key": UUID,
        "text": "the quick brown fox",
        "other": None,
        "list": [{"a": n, "b": [n]}, {"a": -n}],
        "id": n,
    }


def plain_points() -> list[dict[str, Any]]:
    return [{"id": id_, "vector": [1, at + 1, -at], "payload": payload(at)} for at, id_ in enumerate(IDS)]


def rich_points() -> list[dict[str, Any]]:
    return [{"id": id_, "vector": rich_vectors(at), "payload": payload(at) if at % 4 else {}} for at, id_ in enumerate(IDS)]


def rich_vectors(at: int) -> dict[str, Any]:
    """Some have all vectors, some not."""
    given = {
        "a": [0.5, at, 1],
        "many": [[at, 1], [1, 0]],
        "s": {"indices": [1, at + 2], "values": [1, 0.5]},
        "t": {"indices": [], "values": []},
    }
    return given if at % 3 else {"a": given["a"]}
