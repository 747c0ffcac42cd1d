"""Collections, their configuration and their other names (N6)."""

from __future__ import annotations

from uuid import uuid4

from qdrant_client import QdrantClient, models

from tests.gateway.dialect.congruence.comparison import compare
from tests.gateway.dialect.congruence.congruent_points import create, points
from tests.gateway.dialect.congruence.questions import EVEN


def test_collections(both: list[QdrantClient]) -> None:
    """Configuration, aliases and counts as the client sees them (N6)."""
    name, alias = (f"{kind}-{uuid4().hex[:8]}" for kind in ("made", "alias"))
    aliases = [models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=name, alias_name=alias))]
    for client in both:
        create(client, name)
        client.upsert(name, points())
        client.update_collection_aliases(aliases)
    compare(both, lambda client: client.get_collection(name).config.params.model_dump(include={"vectors", "sparse_vectors"}))
    compare(both, lambda client: client.get_collection(alias).points_count)
    compare(both, lambda client: client.get_collection_aliases(name))
    compare(both, lambda client: client.count(alias, EVEN))
    compare(both, lambda client: client.collection_exists(name))
    compare(both, lambda client: client.collection_exists("nowhere"))
    renamed = models.RenameAlias(old_alias_name=alias, new_alias_name=f"{alias}-2")
    for client in both:
        client.update_collection_aliases([models.RenameAliasOperation(rename_alias=renamed)])
    compare(both, lambda client: client.collection_exists(f"{alias}-2"))
    compare(both, lambda client: client.delete_collection(name))
    compare(both, lambda client: client.collection_exists(f"{alias}-2"))
    compare(both, lambda client: client.delete_collection(name))
