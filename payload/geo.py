"""Geo coordinates and areas for the API's geo conditions. Longitude and latitude in degrees, distances in metres.

An area can test one place (floats) or many (numpy arrays). Both give the same result, so that an index and a test of a single
point agree.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import numpy as np

from payload.paths import as_number

EARTH_RADIUS_M = 6_371_008.8
"""Mean Earth radius recommended by the International Union of Geodesy and Geophysics."""

MAX_LON = 180.0
MAX_LAT = 90.0
_SLACK = 1e-9
"""Relative tolerance: much larger than rounding errors of distances, much smaller than any useful precision."""


class Coordinates(NamedTuple):
    """A point on Earth."""

    lon: float
    lat: float


class Bounds(NamedTuple):
    """A bounding box in degrees. If `west` > `east` it crosses the 180th meridian."""

    west: float
    south: float
    east: float
    north: float


class Area(Protocol):
    """A region that a geo condition selects."""

    def bounds(self) -> Bounds:
        """A bounding box of the area."""

    def holds(self, lon: float, lat: float) -> bool:
        """Whether the area contains a place."""

    def holding(self, lon: Any, lat: Any) -> tuple[Any, Any]:
        """For arrays of n places, two boolean masks of shape (n,): inside the area, and too close to the border, so that `holds`
        must decide.
        """


def as_coordinates(value: Any) -> Coordinates | None:
    """Parses an object {"lon", "lat"}; None when it is not one or is out of range."""
    if not isinstance(value, dict):
        return None
    lon, lat = as_number(value.get("lon")), as_number(value.get("lat"))
    if lon is None or lat is None or not (abs(lon) <= MAX_LON and abs(lat) <= MAX_LAT):
        return None
    return Coordinates(float(lon), float(lat))


@dataclass(frozen=True)
class Box:
    """Places strictly inside a bounding box. If `west` > `east` it crosses the 180th meridian."""

    west: float
    south: float
    east: float
    north: float

    def bounds(self) -> Bounds:
        return Bounds(self.west, self.south, self.east, self.north)

    def holds(self, lon: float, lat: float) -> bool:
        return bool(self._holds(lon, lat))

    def holding(self, lon: Any, lat: Any) -> tuple[Any, Any]:
        return self._holds(lon, lat), np.zeros(len(lon), bool)

    def _holds(self, lon: Any, lat: Any) -> Any:
        east_of, west_of = self.west < lon, lon < self.east
        between = east_of | west_of if self.west > self.east else east_of & west_of
        return between & (self.south < lat) & (lat < self.north)


@dataclass(frozen=True)
class Circle:
    """Places less than `radius_m` from the centre."""

    center: Coordinates
    radius_m: float

    def bounds(self) -> Bounds:
        angle = self.radius_m / EARTH_RADIUS_M * (1 + _SLACK) + _SLACK
        south, north = self.center.lat - math.degrees(angle), self.center.lat + math.degrees(angle)
        if south <= -MAX_LAT or north >= MAX_LAT:  # contains a pole, so it crosses all meridians
            return Bounds(-MAX_LON, max(south, -MAX_LAT), MAX_LON, min(north, MAX_LAT))
        reach = math.degrees(math.asin(min(1.0, math.sin(angle) / math.cos(math.radians(self.center.lat))))) + _SLACK
        if reach >= MAX_LON:
            return Bounds(-MAX_LON, south, MAX_LON, north)
        return Bounds(_wrapped(self.center.lon - reach), south, _wrapped(self.center.lon + reach), north)

    def holds(self, lon: float, lat: float) -> bool:
        return distance_m(self.center, Coordinates(lon, lat)) < self.radius_m

    def holding(self, lon: Any, lat: Any) -> tuple[Any, Any]:
        lons, lats = np.radians(lon), np.radians(lat)
        center_lon, center_lat = math.radians(self.center.lon), math.radians(self.center.lat)
        half = np.sin((lats - center_lat) / 2) ** 2 + math.cos(center_lat) * np.cos(lats) * np.sin((lons - center_lon) / 2) ** 2
        away = 2 * EARTH_RADIUS_M * np.arcsin(np.sqrt(np.minimum(half, 1.0)))
        slack_m = EARTH_RADIUS_M * _SLACK * 100  # rounding errors are larger near the antipode
        return away < self.radius_m - slack_m, abs(away - self.radius_m) <= slack_m


@dataclass(frozen=True)
class Polygon:
    """Places inside or on the exterior ring, and not inside a hole (its border is allowed). Rings are closed; edges are straight
    lines in degrees.
    """

    exterior: Sequence[Coordinates]
    interiors: Sequence[Sequence[Coordinates]] = ()

    def bounds(self) -> Bounds:
        lons, lats = [place.lon for place in self.exterior], [place.lat for place in self.exterior]
        return Bounds(min(lons), min(lats), max(lons), max(lats))

    def holds(self, lon: float, lat: float) -> bool:
        return bool(self._holds(lon, lat))

    def holding(self, lon: Any, lat: Any) -> tuple[Any, Any]:
        return self._holds(lon, lat), np.zeros(len(lon), bool)

    def _holds(self, lon: Any, lat: Any) -> Any:
        inside, on_ring = _in_ring(self.exterior, lon, lat)
        contained = inside | on_ring
        for interior in self.interiors:
            inside, on_ring = _in_ring(interior, lon, lat)
            contained = contained & (on_ring | (inside ^ True))
        return contained


def distance_m(one: Coordinates, other: Coordinates) -> float:
    """The great-circle distance in metres (haversine formula)."""
    lon, lat, other_lon, other_lat = map(math.radians, (*one, *other))
    half = math.sin((other_lat - lat) / 2) ** 2 + math.cos(lat) * math.cos(other_lat) * math.sin((other_lon - lon) / 2) ** 2
    return 2 * EARTH_RADIUS_M * math.asin(math.sqrt(min(half, 1.0)))


def _in_ring(ring: Sequence[Coordinates], lon: Any, lat: Any) -> tuple[Any, Any]:
    """Whether places are inside a closed ring (ray casting to the east), and whether they are on it. Scalars or arrays."""
    inside, on_ring = lon != lon, lon != lon
    for (lon_a, lat_a), (lon_b, lat_b) in pairwise(ring):
        turn = (lon_b - lon_a) * (lat - lat_a) - (lat_b - lat_a) * (lon - lon_a)
        beside = (min(lon_a, lon_b) <= lon) & (lon <= max(lon_a, lon_b)) & (min(lat_a, lat_b) <= lat) & (lat <= max(lat_a, lat_b))
        on_ring = on_ring | ((turn == 0) & beside)
        crosses = (lat_a > lat) ^ (lat_b > lat)
        inside = inside ^ (crosses & ((turn > 0) == (lat_b > lat_a)))
    return inside, on_ring


def _wrapped(lon: float) -> float:
    return lon - 360 if lon > MAX_LON else lon + 360 if lon < -MAX_LON else lon
