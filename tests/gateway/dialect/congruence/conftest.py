"""This server and the in-memory mode of the dialect's own client, side by side with the same data."""

from __future__ import annotations

import warnings
from collections.abc import Iterator

import pytest
from qdrant_client import QdrantClient

from tests.gateway.dialect.congruence.congruent_points import ALL, INDEXES, OTHER, fill

pytest.register_assert_rewrite("tests.gateway.dialect.congruence.comparison")


@pytest.fixture(scope="package")
def both(node_url: str) -> Iterator[list[QdrantClient]]:
    """This server and the reference, with the same data."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        clients = [QdrantClient(url=node_url, timeout=30), QdrantClient(":memory:")]
        for client in clients:
            fill(client, ALL)
            fill(client, OTHER, seed=1)
        for field, kind in INDEXES.items():
            clients[0].create_payload_index(ALL, field, kind)
        yield clients
        for client in clients:
            client.delete_collection(ALL)
            client.delete_collection(OTHER)
            client.close()
