"""The peers by name. A peer is imported only when it is measured, because each needs its own package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bench.embedded import Embedded
from bench.target import Target


def _chroma(folder: Path) -> Target:
    from bench.chroma import Chroma

    return Chroma(folder)


def _milvus(folder: Path) -> Target:
    from bench.milvus import MilvusLite

    return MilvusLite(folder)


def _pgvector(folder: Path) -> Target:
    from bench.postgres import Postgres

    return Postgres(folder)


def _qdrant_edge(folder: Path) -> Target:
    from bench.qdrant_edge import QdrantEdge

    return Embedded(QdrantEdge, folder)


def _lancedb(folder: Path) -> Target:
    from bench.lance import Lance

    return Embedded(Lance, folder)


def _sqlite_vec(folder: Path) -> Target:
    from bench.sqlite import SqliteVec

    return Embedded(SqliteVec, folder)


def _faiss(folder: Path) -> Target:
    from bench.faiss_floor import FaissFloor

    return Embedded(FaissFloor, folder)


PEERS: dict[str, Callable[[Path], Target]] = {
    "chroma": _chroma,
    "milvus-lite": _milvus,
    "pgvector": _pgvector,
    "qdrant-edge": _qdrant_edge,
    "lancedb": _lancedb,
    "sqlite-vec": _sqlite_vec,
    "faiss": _faiss,
}
