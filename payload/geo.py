"""Places on Earth and areas of them, as the dialect's geo conditions mean them. Degrees of longitude and latitude; metres.

The methods that decide take floats or numpy arrays alike and give the same answer for both, so that an index and a test agree.
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
"""The mean radius, as the International Union of Geodesy and Geophysics recommends it."""

MAX_LON = 180.0
MAX_LAT = 90.0
_SLACK = 1e-9
"""Relative: far more than what rounding does to a distance, far less than anybody asks for."""


class Coordinates(NamedTuple):
    """A point on Earth."""

    lon: float
    lat: float


class Bounds(NamedTuple):
    """A rectangle around an area; where `west` is greater than `east` it runs across the 180th meridian."""

    west: float
    south: float
    east: float
    north: float


class Area(Protocol):
    """A set of places."""

    def bounds(self) -> Bounds:
        """A rectangle that holds the whole area."""

    def holds(self, lon: float, lat: float) -> bool:
        """Whether a place lies in the area."""

    def holding(self, lon: Any, lat: Any) -> tuple[Any, Any]:
        """For arrays of places: a mask of those that lie in the area, and a mask of those that `holds` must decide."""


def as_coordinates(value: Any) -> Coordinates | None:
    """The place that an object {"lon", "lat"} names; None when it is no such object or out of bounds."""
    if not isinstance(value, dict):
        return None
    lon, lat = as_number(value.get("lon")), as_number(value.get("lat"))
    if lon is None or lat is None or not (abs(lon) <= MAX_LON and abs(lat) <= MAX_LAT):
        return None
    return Coordinates(float(lon), float(lat))


@dataclass(frozen=True)
class Box:
    """Places strictly between two meridians and two parallels; from west to east, across the 180th meridian if need be."""

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
    """Places nearer than `radius_m` to a centre."""

    center: Coordinates
    radius_m: float

    def bounds(self) -> Bounds:
        angle = self.radius_m / EARTH_RADIUS_M * (1 + _SLACK) + _SLACK
        south, north = self.center.lat - math.degrees(angle), self.center.lat + math.degrees(angle)
        if south <= -MAX_LAT or north >= MAX_LAT:  # a pole lies within, and with it all meridians
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
        slack_m = EARTH_RADIUS_M * _SLACK * 100  # near the antipode rounding weighs more
        return away < self.radius_m - slack_m, abs(away - self.radius_m) <= slack_m


@dataclass(frozen=True)
class Polygon:
    """Places within a ring or on it, but not within one of the holes. Rings are closed; edges are straight in degrees."""

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
        held = inside | on_ring
        for interior in self.interiors:
            inside, on_ring = _in_ring(interior, lon, lat)
            held = held & (on_ring | (inside ^ True))
        return held


def distance_m(one: Coordinates, other: Coordinates) -> float:
    """The distance along the surface, by the haversine formula."""
    lon, lat, other_lon, other_lat = map(math.radians, (*one, *other))
    half = math.sin((other_lat - lat) / 2) ** 2 + math.cos(lat) * math.cos(other_lat) * math.sin((other_lon - lon) / 2) ** 2
    return 2 * EARTH_RADIUS_M * math.asin(math.sqrt(min(half, 1.0)))


def _in_ring(ring: Sequence[Coordinates], lon: Any, lat: Any) -> tuple[Any, Any]:
    """Whether places lie within a closed ring, by the number of edges met on the way east; and whether they lie on it."""
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
