"""Every kind of condition (V11, I10)."""

from __future__ import annotations

from uuid import UUID

from qdrant_client import QdrantClient, models

from tests.gateway.dialect.congruence.comparison import compare
from tests.gateway.dialect.congruence.congruent_points import ALL, COUNT
from tests.gateway.dialect.congruence.questions import AT, field, known, must, query, scroll, value


def ring(*places: tuple[float, float]) -> models.GeoLineString:
    return models.GeoLineString(points=[models.GeoPoint(lon=lon, lat=lat) for lon, lat in (*places, places[0])])


CENTER = models.GeoPoint(lon=0, lat=50)
CONDITIONS: dict[str, object] = {
    "value": value("tag", "b"),
    "array": value("tags", "x"),
    "integer": value("n", 7),
    "bool": value("odd", True),
    "deep": value("deep.er.value", 3),
    "list in list": value("deep.list[0][]", 1),
    "list": value("deep.list[1]", 1),
    "any": field("tag", match=models.MatchAny(any=["a", "c"])),
    "any number": field("n", match=models.MatchAny(any=[1, 2, 3])),
    "any of nothing": field("tag", match=models.MatchAny(any=[])),
    "except": field("tags", match=models.MatchExcept(**{"except": ["x", "y"]})),
    "text": field("text", match=models.MatchText(text="red stone")),
    "range": field("f", range=models.Range(gt=-0.5, lte=0.5)),
    "moments": field("at", range=models.DatetimeRange(gte="2024-03-01T00:00:00Z", lt="2024-07-01T00:00:00+02:00")),
    "box": field(
        "place",
        geo_bounding_box=models.GeoBoundingBox(
            top_left=models.GeoPoint(lon=-5, lat=55), bottom_right=models.GeoPoint(lon=5, lat=45)
        ),
    ),
    "radius": field("place", geo_radius=models.GeoRadius(center=CENTER, radius=500_000)),
    "polygon": field(
        "place",
        geo_polygon=models.GeoPolygon(
            exterior=ring((-8, 42), (8, 42), (8, 58), (-8, 58)), interiors=[ring((-2, 48), (2, 48), (2, 52))]
        ),
    ),
    "count": field("tags", values_count=models.ValuesCount(gte=2)),
    "count of none": field("tags", values_count=models.ValuesCount(lt=1)),
    "empty": models.IsEmptyCondition(is_empty=models.PayloadField(key="maybe")),
    "null": models.IsNullCondition(is_null=models.PayloadField(key="maybe")),
    "ids": models.HasIdCondition(has_id=[1, 2, str(UUID(int=3 * 7919)), 999]),
    "vector": models.HasVectorCondition(has_vector="rare"),
    "multi": models.HasVectorCondition(has_vector="many"),
    "nested": models.NestedCondition(
        nested=models.Nested(key="parts", filter=must(value("kind", "p"), field("size", range=models.Range(gte=2))))
    ),
    "not nested": models.Filter(
        must_not=[models.NestedCondition(nested=models.Nested(key="parts[]", filter=must(value("kind", "p"))))]
    ),
    "inner": value("parts[].kind", "q"),
    "uuid": value("uuid", str(UUID(int=2))),
    "at least": models.Filter(
        min_should=models.MinShould(conditions=[value("tag", "a"), value("flag", True), value("tags", "w")], min_count=2)
    ),
    "clauses": models.Filter(
        must=[value("flag", True)], should=[value("tag", "a"), value("tag", "b")], must_not=[value("tags", "z")]
    ),
}
if known("MatchTextAny", "MatchPhrase"):
    CONDITIONS |= {
        "any word": field("text", match=models.MatchTextAny(text_any="iron cloud")),
        "phrase": field("text", match=models.MatchPhrase(phrase="red stone")),
    }


def test_filters(both: list[QdrantClient]) -> None:
    """Every kind of condition, in scrolls, counts, queries and facets (V11, I10)."""
    for label, condition in CONDITIONS.items():
        filter_ = condition if isinstance(condition, models.Filter) else must(condition)
        inverse = models.Filter(must_not=[condition])
        for wanted in (filter_, inverse):
            try:
                compare(both, scroll(wanted, limit=COUNT))
                compare(both, lambda client: client.count(ALL, wanted))  # noqa: B023
                compare(both, query(AT["cos"], "cos", query_filter=wanted, with_payload=False))
                compare(both, lambda client: client.facet(ALL, "tag", facet_filter=wanted))  # noqa: B023
            except AssertionError as error:
                raise AssertionError(label) from error
