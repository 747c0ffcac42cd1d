"""Payload and edits through the Python client of the dialect (N6, V12)."""

from __future__ import annotations

from typing import Any

import pytest
from qdrant_client import models

from tests.clients.qdrant.asked_songs import IDS, matches, payload_of, titles
from tests.clients.songs import dense


def test_payload_is_indexed_counted_and_ordered(client: Any, songs: str) -> None:
    assert client.create_payload_index(songs, "composer", models.PayloadSchemaType.KEYWORD, wait=True).status == "completed"
    client.create_payload_index(songs, "year", models.IntegerIndexParams(type="integer", lookup=True, range=True), wait=True)
    schema = client.get_collection(songs).payload_schema
    assert {name: (index.data_type, index.points) for name, index in schema.items()} == {
        "composer": ("keyword", 6),
        "year": ("integer", 6),
    }
    hits = client.facet(songs, "composer", limit=2).hits
    assert (hits[0].value, hits[0].count, hits[1].count) == ("Debussy", 2, 1)
    early = models.Filter(must=[models.FieldCondition(key="year", range=models.Range(lt=1900))])
    assert client.count(songs, count_filter=early, exact=True).count == 2
    page, _ = client.scroll(songs, order_by=models.OrderBy(key="year", direction=models.Direction.DESC), limit=2)
    assert titles(page) == ["Spiegel im Spiegel", "The Rite of Spring"]
    client.delete_payload_index(songs, "year", wait=True)
    assert set(client.get_collection(songs).payload_schema) == {"composer"}


def test_edits_one_by_one_and_in_a_batch(client: Any, songs: str) -> None:
    """The operations of a batch apply in their order."""
    clair, mer, toccata = IDS["Clair de lune"], IDS["La mer"], IDS["Toccata"]
    client.set_payload(songs, {"style": "Impressionism"}, points=matches("composer", "Debussy"))
    assert payload_of(client, songs, "La mer")["style"] == "Impressionism"
    client.overwrite_payload(songs, {"style": "Minimalism"}, points=[IDS["Spiegel im Spiegel"]])
    assert payload_of(client, songs, "Spiegel im Spiegel") == {"style": "Minimalism"}
    client.delete_vectors(songs, ["each word"], points=[mer])
    client.update_vectors(songs, [models.PointVectors(id=mer, vector={"meaning": dense("quiet piano")})])
    (record,) = client.retrieve(songs, [mer], with_vectors=True)
    assert set(record.vector) == {"meaning", "words"}
    assert record.vector["meaning"] == pytest.approx(dense("quiet piano"), abs=1e-6)
    results = client.batch_update_points(
        songs,
        [
            models.SetPayloadOperation(set_payload=models.SetPayload(payload={"seen": 1, "heard": 1}, points=[clair, mer])),
            models.DeletePayloadOperation(delete_payload=models.DeletePayload(keys=["seen"], points=[clair])),
            models.ClearPayloadOperation(clear_payload=models.PointIdsList(points=[mer])),
            models.DeleteOperation(delete=models.PointIdsList(points=[toccata])),
            models.UpsertOperation(
                upsert=models.PointsList(points=[models.PointStruct(id=toccata, vector={"meaning": dense("loud organ")})])
            ),
        ],
    )
    assert [result.status for result in results] == ["completed"] * 5
    assert {*payload_of(client, songs, "Clair de lune")} == {"title", "composer", "year", "style", "heard"}
    assert payload_of(client, songs, "La mer") == {}
    assert payload_of(client, songs, "Toccata") == {}
    client.delete(songs, models.FilterSelector(filter=matches("composer", "Satie")))
    client.delete(songs, [toccata])
    assert client.count(songs).count == 4
