"""Shapes that organs are made of: ellipsoids and tubes, by their level (negative inside)."""

from dataclasses import dataclass
from functools import reduce
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Bounds = npt.NDArray[np.float64]
Point = tuple[float, float, float]


class Solid(Protocol):
    """A shape with a level: negative inside, about the distance to its surface in millimetres."""

    def bounds(self) -> Bounds:
        """Lowest and highest corner, shape (2, 3), in the order x, y, z."""

    def level(self, x: Floats, y: Floats, z: Floats) -> Floats:
        """The level at the points with these coordinates."""


@dataclass(frozen=True)
class Ellipsoid:
    """An ellipsoid: centre, radii, and degrees of turn about x, then y, then z."""

    centre: Point
    radii: Point
    turn: Point = (0, 0, 0)

    def bounds(self) -> Bounds:
        """See `Solid`."""
        reach = np.sqrt(np.square(rotation(self.turn) * self.radii).sum(1))
        return np.stack([self.centre - reach, self.centre + reach])

    def level(self, x: Floats, y: Floats, z: Floats) -> Floats:
        """See `Solid`."""
        to_unit = (rotation(self.turn) / self.radii).T.astype(np.float32)
        dx, dy, dz = (axis - np.float32(c) for axis, c in zip((x, y, z), self.centre, strict=True))
        first, second, third = (np.square(a * dx + b * dy + c * dz) for a, b, c in to_unit)
        level: Floats = (np.sqrt(first + second + third) - 1) * np.float32(min(self.radii))
        return level


@dataclass(frozen=True)
class Tube:
    """A round tube along a line of points (x, y, z, radius)."""

    points: tuple[tuple[float, float, float, float], ...]
    blend = 6.0

    def bounds(self) -> Bounds:
        """See `Solid`."""
        points = np.array(self.points)
        centres, radii = points[:, :3], points[:, 3:]
        return np.stack([(centres - radii).min(0), (centres + radii).max(0)])

    def level(self, x: Floats, y: Floats, z: Floats) -> Floats:
        """See `Solid`."""
        pieces = (_capsule(x, y, z, a, b) for a, b in zip(self.points, self.points[1:], strict=False))
        return reduce(lambda one, other: smooth_min(one, other, self.blend), pieces)


def _capsule(x: Floats, y: Floats, z: Floats, start: tuple[float, ...], end: tuple[float, ...]) -> Floats:
    """The level of one piece of a tube, whose radius changes along it."""
    a, b = np.array(start, np.float32), np.array(end, np.float32)
    step = b - a
    dx, dy, dz = x - a[0], y - a[1], z - a[2]
    along = (dx * step[0] + dy * step[1] + dz * step[2]) / max(np.square(step[:3]).sum(), np.float32(1e-3))
    np.clip(along, 0, 1, out=along)
    squares = (dx - along * step[0]) ** 2 + (dy - along * step[1]) ** 2 + (dz - along * step[2]) ** 2
    level: Floats = np.sqrt(squares) - a[3] - along * step[3]
    return level


def smooth_min(one: Floats, other: Floats, blend: float) -> Floats:
    """The smaller of two levels, rounded where they meet over about `blend` millimetres."""
    if blend == 0:
        return np.minimum(one, other)
    width = np.float32(blend)
    h = np.clip(0.5 + (other - one) / (2 * width), 0, 1)
    rounded: Floats = other + h * (one - other) - width * h * (1 - h)
    return rounded


def rotation(turn: Point) -> npt.NDArray[np.float64]:
    """Rotation matrix of a turn in degrees about x, then y, then z."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    turned: npt.NDArray[np.float64] = about_z @ about_y @ about_x
    return turned
