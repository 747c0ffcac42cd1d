"""Places and areas, against known distances and the shapes' definitions (V12)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from payload.geo import Area, Box, Circle, Polygon, as_coordinates, distance_m
from payload.geo import Coordinates as At

BERLIN, MOSCOW = At(13.405, 52.52), At(37.6173, 55.7558)
SQUARE = (At(0, 0), At(4, 0), At(4, 4), At(0, 4), At(0, 0))
HOLE = (At(1, 1), At(2, 1), At(2, 2), At(1, 2), At(1, 1))


@pytest.mark.parametrize(
    ("value", "place"),
    [
        ({"lon": 13.4, "lat": 52}, At(13.4, 52.0)),
        ({"lon": -180, "lat": 90, "name": "pole"}, At(-180.0, 90.0)),
        ({"lon": 180.1, "lat": 0}, None),
        ({"lon": 0, "lat": -90.1}, None),
        ({"lon": True, "lat": 0}, None),
        ({"lon": "0", "lat": 0}, None),
        ({"lat": 0}, None),
        ([0, 0], None),
        (None, None),
    ],
)
def test_what_is_a_place(value: Any, place: At | None) -> None:
    assert as_coordinates(value) == place


def test_distances() -> None:
    assert distance_m(BERLIN, BERLIN) == 0
    assert 1_600_000 < distance_m(BERLIN, MOSCOW) < 1_620_000
    assert distance_m(At(0, 90), At(0, -90)) == pytest.approx(20_015_115, abs=1)
    assert distance_m(At(179.5, 0), At(-179.5, 0)) == pytest.approx(111_195, abs=1)


@pytest.mark.parametrize(
    ("area", "inside", "outside"),
    [
        (Box(0, 0, 2, 1), [At(1, 0.5)], [At(0, 0.5), At(1, 1), At(3, 0.5)]),
        (
            Box(170, -1, -170, 1),
            [At(175, 0), At(-180, 0), At(-171, 0)],
            [At(0, 0), At(170, 0)],
        ),
        (Circle(BERLIN, 1_620_000), [MOSCOW, BERLIN], [At(-70, 40)]),
        (Circle(BERLIN, 0), [], [BERLIN]),
        (Circle(At(179.9, 0), 50_000), [At(-179.9, 0)], [At(179, 0)]),
        (Circle(At(0, 89.9), 30_000), [At(180, 89.9), At(90, 90)], [At(180, 89.8)]),
        (
            Polygon(SQUARE),
            [At(2, 2), At(0, 0), At(4, 2), At(1, 4)],
            [At(-1, 0), At(5, 4), At(2, 4.001)],
        ),
        (Polygon(SQUARE, (HOLE,)), [At(1, 1), At(2, 1.5), At(3, 3)], [At(1.5, 1.5)]),
        (Polygon(SQUARE[::-1]), [At(2, 2)], [At(5, 5)]),
    ],
)
def test_areas(area: Area, inside: list[At], outside: list[At]) -> None:
    assert all(area.holds(*place) for place in inside)
    assert not any(area.holds(*place) for place in outside)


@given(
    st.builds(Circle, st.builds(At, st.floats(-180, 180), st.floats(-90, 90)), st.floats(0, 2.2e7)),
    st.lists(st.builds(At, st.floats(-180, 180), st.floats(-90, 90)), min_size=1, max_size=10),
)
def test_arrays_of_places_get_the_answer_of_each(circle: Circle, places: list[At]) -> None:
    """What the array form does not leave open it decides as `holds` does, and the bounds leave out nothing that is held."""
    held, doubtful = circle.holding(*np.array(places).T)
    west, south, east, north = circle.bounds()
    for place, is_held, is_doubtful in zip(places, held, doubtful, strict=True):
        assert is_doubtful or is_held == circle.holds(*place)
        if circle.holds(*place):
            assert south <= place.lat <= north
            assert west <= place.lon <= east or (west > east and (place.lon >= west or place.lon <= east))
