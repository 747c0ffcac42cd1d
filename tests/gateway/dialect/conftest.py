"""The dialect is the same whoever answers: its tests also run with shards that are asked through bytes, and with several."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor
from typing import NamedTuple
from uuid import uuid4

import pytest
from qdrant_client import QdrantClient, models

from gateway.dialect import configs
from gateway.reads import MakeReplica, local_replica
from query.consistency import Gate
from shard.replica import Replica
from shard.shard import Shard
from shard.shards import AppliedPositions
from tests.conftest import running
from tests.encoding_replica import EncodingReplica
from tests.gateway.dialect.numbered_points import points


def encoding_replica(shard: Shard, applied: AppliedPositions, gate: Gate, executor: Executor) -> Replica:
    """Every other shard as if it were on another node."""
    replica = local_replica(shard, applied, gate, executor)
    return EncodingReplica(replica) if shard.number % 2 == 0 else replica


class Kind(NamedTuple):
    """How a node's shards are asked, and how many a collection has if nobody says so."""

    make_replica: MakeReplica
    shards: int


KINDS = {
    "local": Kind(local_replica, 1),
    "encoding": Kind(encoding_replica, 1),
    "2-shards": Kind(local_replica, 2),
    "5-shards-encoding": Kind(encoding_replica, 5),
}


OTHERS = [pytest.param(name, marks=pytest.mark.slow) for name in KINDS if name != "local"]


@pytest.fixture(scope="package", params=["local", *OTHERS])
def node_url(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an embedded node of each kind."""
    kind = KINDS[request.param]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(configs, "DEFAULT_SHARDS", kind.shards)
        with running(tmp_path_factory.mktemp("node"), kind.make_replica) as url:
            yield url


@pytest.fixture
def client(node_url: str) -> Iterator[QdrantClient]:
    client = QdrantClient(url=node_url, timeout=30)
    yield client
    client.close()


@pytest.fixture(params=[1, 3], ids=["one shard", "three shards"])
def filled(client: QdrantClient, request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"d{uuid4().hex[:8]}"
    params = models.VectorParams(size=4, distance=models.Distance.EUCLID)
    assert client.create_collection(name, vectors_config=params, shard_number=request.param)
    assert client.upsert(name, points(), wait=True).status == models.UpdateStatus.COMPLETED
    yield name
    client.delete_collection(name)
