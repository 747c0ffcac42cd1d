"""Places and areas, against known distances and the shapes' definitions (V12)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from payload.geo import Area, Box, Circle, Place, Polygon, as_place, distance_m

BERLIN, MOSCOW = Place(13.405, 52.52), Place(37.6173, 55.7558)
SQUARE = (Place(0, 0), Place(4, 0), Place(4, 4), Place(0, 4), Place(0, 0))
HOLE = (Place(1, 1), Place(2, 1), Place(2, 2), Place(1, 2), Place(1, 1))


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"lon": 13.4, "lat": 52}, Place(13.4, 52.0)),
        ({"lon": -180, "lat": 90, "name": "pole"}, Place(-180.0, 90.0)),
        ({"lon": 180.1, "lat": 0}, None),
        ({"lon": 0, "lat": -90.1}, None),
        ({"lon": True, "lat": 0}, None),
        ({"lon": "0", "lat": 0}, None),
        ({"lat": 0}, None),
        ([0, 0], None),
        (None, None),
    ],
)
def test_what_is_a_place(value: Any, place: Place | None) -> None:
    assert as_place(value) == place


def test_distances() -> None:
    assert distance_m(BERLIN, BERLIN) == 0
    assert 1_600_000 < distance_m(BERLIN, MOSCOW) < 1_620_000
    assert distance_m(Place(0, 90), Place(0, -90)) == pytest.approx(20_015_115, abs=1)
    assert distance_m(Place(179.5, 0), Place(-179.5, 0)) == pytest.approx(111_195, abs=1)


@pytest.mark.parametrize(
    ("area", "inside", "outside"),
    [
        (Box(0, 0, 2, 1), [Place(1, 0.5)], [Place(0, 0.5), Place(1, 1), Place(3, 0.5)]),
        (Box(170, -1, -170, 1), [Place(175, 0), Place(-180, 0), Place(-171, 0)], [Place(0, 0), Place(170, 0)]),
        (Circle(BERLIN, 1_620_000), [MOSCOW, BERLIN], [Place(-70, 40)]),
        (Circle(BERLIN, 0), [], [BERLIN]),
        (Circle(Place(179.9, 0), 50_000), [Place(-179.9, 0)], [Place(179, 0)]),
        (Circle(Place(0, 89.9), 30_000), [Place(180, 89.9), Place(90, 90)], [Place(180, 89.8)]),
        (Polygon(SQUARE), [Place(2, 2), Place(0, 0), Place(4, 2), Place(1, 4)], [Place(-1, 0), Place(5, 4), Place(2, 4.001)]),
        (Polygon(SQUARE, (HOLE,)), [Place(1, 1), Place(2, 1.5), Place(3, 3)], [Place(1.5, 1.5)]),
        (Polygon(SQUARE[::-1]), [Place(2, 2)], [Place(5, 5)]),
    ],
)
def test_areas(area: Area, inside: list[Place], outside: list[Place]) -> None:
    assert all(area.holds(*place) for place in inside)
    assert not any(area.holds(*place) for place in outside)


@given(
    st.builds(Circle, st.builds(Place, st.floats(-180, 180), st.floats(-90, 90)), st.floats(0, 2.2e7)),
    st.lists(st.builds(Place, st.floats(-180, 180), st.floats(-90, 90)), min_size=1, max_size=10),
)
def test_arrays_of_places_get_the_answer_of_each(circle: Circle, places: list[Place]) -> None:
    """What the array form does not leave open it decides as `holds` does, and the bounds leave out nothing that is held."""
    held, doubtful = circle.holding(*np.array(places).T)
    west, south, east, north = circle.bounds()
    for place, is_held, is_doubtful in zip(places, held, doubtful, strict=True):
        assert is_doubtful or is_held == circle.holds(*place)
        if circle.holds(*place):
            assert south <= place.lat <= north
            assert west <= place.lon <= east or (west > east and (place.lon >= west or place.lon <= east))
