"""The geometry of a synthetic torso: a volume of tissues for one invented person.

All lengths are millimetres in the person's own frame: x from right to left, y from front to back,
z from feet to head; the origin lies in the midline at the height of the kidneys. One torso serves
every task: a task images a stretch of it and names some of its tissues.
"""

from dataclasses import dataclass
from enum import IntEnum, IntFlag, auto
from functools import cached_property, reduce
from typing import Protocol

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]
Tissues = npt.NDArray[np.uint8]
Bounds = npt.NDArray[np.float64]
Box = tuple[slice, slice, slice]
Point = tuple[float, float, float]


class Tissue(IntEnum):
    """What a voxel is made of; the modalities turn it into an intensity."""

    AIR = 0
    SKIN = auto()
    FAT = auto()
    MUSCLE = auto()
    BONE = auto()
    MARROW = auto()
    DISC = auto()
    CARTILAGE = auto()
    CANAL = auto()
    LUNG = auto()
    ARTERY = auto()
    VEIN = auto()
    GUT_WALL = auto()
    GUT_GAS = auto()
    GUT_FLUID = auto()
    GUT_FOOD = auto()
    SPLEEN = auto()
    RIGHT_CORTEX = auto()
    RIGHT_MEDULLA = auto()
    LEFT_CORTEX = auto()
    LEFT_MEDULLA = auto()
    RENAL_PELVIS = auto()
    GALLBLADDER = auto()
    LIVER = auto()
    LIVER_VESSEL = auto()
    LIVER_CYST = auto()
    PANCREAS = auto()
    MYOCARDIUM = auto()
    LEFT_BLOOD = auto()
    RIGHT_BLOOD = auto()


ORGAN_TISSUES: dict[str, tuple[Tissue, ...]] = {
    "spleen": (Tissue.SPLEEN,),
    "right kidney": (Tissue.RIGHT_CORTEX, Tissue.RIGHT_MEDULLA),
    "left kidney": (Tissue.LEFT_CORTEX, Tissue.LEFT_MEDULLA),
    "gallbladder": (Tissue.GALLBLADDER,),
    "liver": (Tissue.LIVER, Tissue.LIVER_VESSEL, Tissue.LIVER_CYST),
    "pancreas": (Tissue.PANCREAS,),
    "heart": (Tissue.MYOCARDIUM, Tissue.LEFT_BLOOD, Tissue.RIGHT_BLOOD),
}


class Room(IntFlag):
    """Where in the torso a structure may lie."""

    OUTSIDE = 0
    WALL = 1
    ABDOMEN = 2
    THORAX = 4
    TRUNK = 7


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
        reach = np.sqrt(np.square(_rotation(self.turn) * self.radii).sum(1))
        return np.stack([self.centre - reach, self.centre + reach])

    def level(self, x: Floats, y: Floats, z: Floats) -> Floats:
        """See `Solid`."""
        to_unit = (_rotation(self.turn) / self.radii).T.astype(np.float32)
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


def _rotation(turn: Point) -> npt.NDArray[np.float64]:
    """Rotation matrix of a turn in degrees about x, then y, then z."""
    (cx, cy, cz), (sx, sy, sz) = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    about_x = np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_z = np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    turned: npt.NDArray[np.float64] = about_z @ about_y @ about_x
    return turned


@dataclass(frozen=True)
class Layer:
    """One tissue of a structure, painted over what is there already.

    Attributes:
        tissue: what is painted; a gut layer is filled with a drawn content inside its wall.
        solids: the shape is their union, rounded over `blend` millimetres.
        minus: solids cut out of the shape.
        fat: thickness of the fat painted around it.
        inside: only voxels of these tissues are painted; all of the structure's room if empty.
    """

    tissue: Tissue
    solids: tuple[Solid, ...]
    minus: tuple[Solid, ...] = ()
    blend: float = 0.0
    fat: float = 0.0
    inside: tuple[Tissue, ...] = ()

    def bounds(self) -> Bounds:
        """Lowest and highest corner, shape (2, 3), fat included."""
        corners = np.stack([solid.bounds() for solid in self.solids])
        reach = self.blend + 1.6 * self.fat
        return np.stack([corners[:, 0].min(0) - reach, corners[:, 1].max(0) + reach])

    def level(self, x: Floats, y: Floats, z: Floats) -> Floats:
        """Negative inside the layer; about millimetres."""
        levels = (solid.level(x, y, z) for solid in self.solids)
        level = reduce(lambda one, other: smooth_min(one, other, self.blend), levels)
        for solid in self.minus:
            level = -smooth_min(-level, solid.level(x, y, z), 4.0)
        return level


@dataclass(frozen=True)
class Structure:
    """Layers that move together: how far (mm) and how much (relative) they differ among people."""

    layers: tuple[Layer, ...]
    room: Room = Room.ABDOMEN
    shift: float = 3.0
    size: float = 0.05
    absent: float = 0.0


def _tube(line: str) -> Tube:
    """A tube from its points, "x y z radius; x y z radius; ..."."""
    points = np.array([point.split() for point in line.split(";")], float).tolist()
    return Tube(tuple((x, y, z, radius) for x, y, z, radius in points))


def _pipes(tissue: Tissue, *lines: str, fat: float = 0.0) -> tuple[Layer, ...]:
    """A layer for each line of points."""
    return tuple(Layer(tissue, (_tube(line),), fat=fat) for line in lines)


def _kidney(side: int, height: float, cortex: Tissue, medulla: Tissue) -> Structure:
    """A kidney: cortex, pyramids around the sinus, sinus fat and pelvis; `side` is -1 for the right."""
    turn = (-10.0, -12.0 * side, 25.0 * side)
    centre = np.array([58.0 * side, 36.0, height])
    axes = _rotation(turn) * [side, 1, 1]

    def place(across: float, ahead: float, up: float) -> Point:
        x, y, z = (centre + axes @ (across, ahead, up)).tolist()
        return x, y, z

    angles = [(a, c) for c in (-31.0, -13.0, 5.0, 23.0) for a in (-0.2, 1.2, 2.6, -1.5)]
    pyramids = tuple(
        Ellipsoid(place(4 + 12 * np.cos(a), 11 * np.sin(a), c), (7.0, 6.5, 7.0), turn) for a, c in angles
    )
    return Structure(
        layers=(
            Layer(cortex, (Ellipsoid(place(0, 0, 0), (29, 24, 57), turn),), fat=5.0),
            Layer(medulla, pyramids, inside=(cortex,)),
            Layer(Tissue.FAT, (Ellipsoid(place(-17, -3, 0), (16, 8, 22), turn),), inside=(cortex, medulla)),
            Layer(
                Tissue.RENAL_PELVIS, (Ellipsoid(place(-15, -2, -3), (9, 4, 11), turn),), inside=(Tissue.FAT,)
            ),
        ),
        shift=5.0,
        size=0.05,
    )


_BACK = Structure(
    layers=_pipes(
        Tissue.MUSCLE,
        "-30 72 -150 23; -30 72 320 20",
        "30 72 -150 23; 30 72 320 20",
        "-62 66 30 8; -68 62 -150 15",
        "62 66 30 8; 68 62 -150 15",
        "-24 34 12 7; -34 36 -50 17; -48 30 -150 22",
        "24 34 12 7; 34 36 -50 17; 48 30 -150 22",
        "-13 17 -30 5; -15 20 40 7; -15 26 82 6",
        "13 17 -30 5; 15 20 40 7; 15 26 82 6",
    ),
    room=Room.TRUNK,
    shift=0.0,
)

_COLON = Structure(
    layers=_pipes(
        Tissue.GUT_WALL,
        "-100 22 -150 21; -100 18 -70 22; -92 -5 -38 19",
        "-92 -12 -38 18; -62 -62 -46 17; -10 -72 -58 18; 45 -70 -38 17",
        "45 -70 -36 17; 88 -48 5 18; 106 -8 32 18",
        "108 0 26 16; 110 24 -20 15; 106 22 -90 15; 98 20 -150 15",
    ),
    shift=5.0,
)

_STOMACH = Structure(
    layers=(
        *_pipes(
            Tissue.GUT_WALL,
            "-42 -32 10 12; -55 -12 2 12; -55 4 -28 12",
            "-55 4 -28 12; -38 -2 -48 12; -6 -12 -50 11; 28 -12 -34 10",
            fat=1.5,
        ),
        Layer(
            Tissue.GUT_WALL,
            (
                _tube("62 22 70 33; 68 -8 62 35; 60 -38 38 29; 38 -55 14 22"),
                _tube("38 -55 14 22; 6 -55 2 18; -24 -46 8 13; -40 -36 12 12"),
            ),
            blend=4.0,
            fat=1.5,
        ),
    ),
    shift=4.0,
    size=0.08,
)

_LIVER = Structure(
    layers=(
        Layer(
            Tissue.LIVER,
            (
                Ellipsoid((-70, -2, 40), (78, 86, 94)),
                Ellipsoid((0, -42, 66), (72, 34, 35), (0, -4, 0)),
                Ellipsoid((-12, 4, 56), (22, 17, 28)),
            ),
            minus=(
                Ellipsoid((-4, 2, -22), (56, 66, 52)),
                Ellipsoid((70, 10, 40), (50, 46, 70)),
                Ellipsoid((4, 62, 40), (46, 48, 200)),
            ),
            blend=12.0,
            fat=1.5,
        ),
        Layer(Tissue.FAT, (Ellipsoid((-10, -52, 48), (2.5, 26, 22)),), inside=(Tissue.LIVER,)),
        Layer(
            Tissue.LIVER_VESSEL,
            (
                _tube("-20 0 96 6; -60 10 82 5; -105 14 60 3"),
                _tube("-20 0 96 5.5; -50 -28 76 4.5; -78 -55 48 3"),
                _tube("-20 0 96 5; 0 -32 80 4; 30 -46 66 2.5"),
                _tube("-42 -12 46 7; -68 -4 46 5.5; -95 28 42 3.5; -112 34 30 2.5"),
                _tube("-68 -4 46 5; -88 -34 46 4; -110 -40 40 2.5"),
                _tube("-68 -4 46 4.5; -84 10 10 3.5; -95 12 -20 2.5"),
                _tube("-42 -12 46 6; -18 -30 54 5; -8 -48 56 4; 22 -48 64 2.5"),
            ),
            inside=(Tissue.LIVER,),
        ),
    ),
    shift=4.0,
    size=0.05,
)

_SPLEEN = Structure(
    layers=(
        Layer(
            Tissue.SPLEEN,
            (Ellipsoid((102, 38, 56), (29, 48, 58), (-22, 0, 28)),),
            minus=(Ellipsoid((72, 14, 56), (20, 30, 30), (0, 0, 28)),),
            fat=1.5,
        ),
    ),
    shift=4.0,
    size=0.08,
)

_PANCREAS = Structure(
    layers=(
        Layer(
            Tissue.PANCREAS,
            (
                _tube("-35 -8 -24 12; -33 -15 -5 16.5; -12 -31 6 12.5"),
                _tube("-12 -31 6 12.5; 12 -32 13 13; 38 -14 20 13"),
                _tube("38 -14 20 13; 64 10 32 13; 84 22 40 12"),
            ),
            blend=4.0,
            fat=2.5,
        ),
        *_pipes(Tissue.VEIN, "-9 -17 8 5; 13 -16 14 4.5; 44 2 20 4.5; 68 25 31 4; 90 35 46 3.5"),
    ),
    shift=3.0,
    size=0.05,
)

_VESSELS = Structure(
    layers=(
        *_pipes(
            Tissue.ARTERY,
            "22 0 -150 7; 4 6 -98 9; 6 4 0 10; 8 8 60 11; 16 22 120 12",
            "16 22 120 12; 24 34 180 13; 23 32 222 13; 12 8 240 14",
            "6 -4 12 3.5; 2 -18 -18 4; 2 -30 -80 3.5",
            fat=2.0,
        ),
        *_pipes(
            Tissue.ARTERY,
            "-18 0 -150 7; 4 6 -98 8",
            "12 8 240 14; -10 -14 230 14; -16 -22 202 16; -6 -20 165 16",
            "6 -4 24 4; 4 -16 26 4; -22 -20 34 3",
            "8 2 4 3; 34 20 6 3",
            "4 6 -2 3; -36 24 -6 3",
            "8 -44 160 13; 14 -30 192 13; 16 -4 206 12",
            "14 -12 202 10; -42 6 204 8",
        ),
        *_pipes(
            Tissue.VEIN,
            "-24 10 -150 10; -22 8 0 11; -22 2 52 12; -20 -2 98 13; -24 -10 128 13",
            "-20 4 3 4.5; 5 -7 3 4; 36 22 4 4.5",
            "-24 8 -4 5; -38 24 -7 4.5",
            "-8 -34 -90 5; -10 -26 -40 5.5; -9 -17 6 6.5; -28 -12 32 7; -44 -12 46 7",
            "-26 -12 165 9; -30 -16 300 9",
        ),
    ),
    room=Room.TRUNK,
    shift=2.0,
    size=0.04,
)

_GALLBLADDER = Structure(
    layers=_pipes(Tissue.GALLBLADDER, "-38 -26 18 8; -49 -43 5 14.5; -57 -60 -12 16.5"),
    shift=3.0,
    size=0.07,
    absent=0.06,
)

_CHEST = Structure(
    layers=(
        Layer(Tissue.FAT, (Ellipsoid((6, -8, 200), (40, 82, 150)), Ellipsoid((4, -70, 180), (16, 40, 130)))),
        *_pipes(Tissue.CARTILAGE, "0 10 310 10; 0 16 218 10", "-38 16 194 7; 0 16 218 8; 38 16 194 7"),
        *_pipes(Tissue.GUT_GAS, "0 10 310 8; 0 16 218 8", "-38 16 194 5; 0 16 218 6; 38 16 194 5"),
        *_pipes(Tissue.GUT_WALL, "4 26 310 8; 4 28 160 8; 14 14 96 8; 34 4 76 9"),
        *_pipes(Tissue.ARTERY, "-52 18 168 6; -8 8 164 8", "8 8 164 8; 52 18 168 6"),
    ),
    room=Room.THORAX,
    shift=2.0,
)

_LEFT_VENTRICLE = (0.0, 27.0, -43.0)
_HEART = Structure(
    layers=(
        Layer(
            Tissue.MYOCARDIUM,
            (
                Ellipsoid((36, -32, 130), (52, 34, 35), _LEFT_VENTRICLE),
                Ellipsoid((4, -46, 132), (44, 29, 38), (0, 20, -20)),
                Ellipsoid((-28, -18, 142), (27, 31, 33)),
                Ellipsoid((8, 6, 162), (37, 23, 25)),
            ),
            blend=8.0,
            fat=4.0,
        ),
        Layer(
            Tissue.RIGHT_BLOOD,
            (Ellipsoid((4, -46, 132), (40, 25, 34), (0, 20, -20)), Ellipsoid((-28, -18, 142), (24, 28, 30))),
        ),
        Layer(Tissue.LEFT_BLOOD, (Ellipsoid((8, 6, 162), (34, 20, 22)),)),
        Layer(Tissue.MYOCARDIUM, (Ellipsoid((36, -32, 130), (52, 34, 35), _LEFT_VENTRICLE),)),
        Layer(Tissue.LEFT_BLOOD, (Ellipsoid((33, -29, 132), (40, 21, 22), _LEFT_VENTRICLE),)),
    ),
    room=Room.THORAX,
    shift=5.0,
    size=0.08,
)

_KIDNEYS = (
    _kidney(-1, -6.0, Tissue.RIGHT_CORTEX, Tissue.RIGHT_MEDULLA),
    _kidney(1, 8.0, Tissue.LEFT_CORTEX, Tissue.LEFT_MEDULLA),
)
_ORGANS = (_COLON, _STOMACH, _LIVER, _SPLEEN, *_KIDNEYS, _PANCREAS, _VESSELS, _GALLBLADDER, _HEART)


@dataclass(frozen=True)
class Person:
    """What is drawn once for a person; the fields follow from `rng` when the torso is built.

    Attributes:
        scale: the person's size along x, y, z, relative to the nominal one.
        turn: how the person lies in the scanner, degrees about z.
        fat: thickness of the fat under the skin at the sides, mm.
        muscle: thickness of the muscle wall, mm.
        belly: how far the front wall bulges beyond the nominal one, mm.
    """

    scale: tuple[float, float, float]
    turn: float
    fat: float
    muscle: float
    belly: float

    @property
    def half_size(self) -> tuple[float, float]:
        """Half the body's extent along x and y, mm, a bit generous."""
        x, y, _ = self.scale
        return x * (_SIDE + self.fat + 8), y * (_DEPTH + self.fat + self.belly / 2 + 8)


def draw_person(rng: np.random.Generator) -> Person:
    """Draw size and habitus, from thin to fat."""
    fat = float(np.clip(rng.gamma(4.0, 4.5), 5, 42))
    return Person(
        scale=tuple(np.exp(rng.normal(0, 0.045, 3)).clip(0.9, 1.1)),
        turn=float(rng.normal(0, 2.5)),
        fat=fat,
        muscle=float(rng.uniform(10, 15)),
        belly=float(np.clip(fat * 0.6 + rng.normal(0, 6), -4, 35)),
    )


@dataclass(frozen=True)
class Grid:
    """Voxel centres: shape, spacing (mm) and first voxel's place (mm), all in the order (S, P, L)."""

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    first: tuple[float, float, float]

    @cached_property
    def axes(self) -> tuple[Floats, Floats, Floats]:
        """Millimetres along z, y, x."""
        z, y, x = (
            (start + step * np.arange(size)).astype(np.float32)
            for size, step, start in zip(self.shape, self.spacing, self.first, strict=True)
        )
        return z, y, x


def smooth_field(rng: np.random.Generator, grid: Grid, knot: float) -> Floats:
    """A random field of mean 0 and standard deviation 1 that varies over about `knot` millimetres.

    Cubic B-splines on a grid of normal coefficients; shape (S, P, L).
    """
    weights = [_spline_weights(axis, knot) for axis in grid.axes]
    field = rng.standard_normal([w.shape[1] for w in weights], dtype=np.float32)
    for axis, weight in enumerate(weights):
        field = np.moveaxis(np.tensordot(weight, field, (1, axis)), 0, axis)
    return np.ascontiguousarray(field)


def _spline_weights(points: Floats, knot: float) -> Floats:
    """Weights (points, knots) of the cubic B-splines, each point's squares summing to 1."""
    at = (points - points[0]) / knot + 1
    distance = np.abs(at[:, None] - np.arange(int(np.ceil(at[-1])) + 2))
    inner = 2 / 3 - distance**2 + distance**3 / 2
    outer = np.clip(2 - distance, 0, None) ** 3 / 6
    weights = np.where(distance < 1, inner, outer)
    normed: Floats = (weights / np.sqrt(np.square(weights).sum(1, keepdims=True))).astype(np.float32)
    return normed


def build_torso(person: Person, grid: Grid, rng: np.random.Generator) -> Tissues:
    """The tissues of a person at the grid's voxels, shape (S, P, L), values of `Tissue`."""
    canvas = _Canvas(*_own_frame(person, grid, rng), padding=float(np.clip(person.fat / 18, 0.5, 1.6)))
    _paint_envelope(canvas, person)
    for structure in (_BACK, _CHEST, _lung_vessels(rng), _small_bowel(person, rng), *_ORGANS):
        if rng.random() >= structure.absent:
            _paint(canvas, structure, rng)
    _paint_cysts(canvas, rng)
    _paint_spine(canvas)
    return canvas.tissue


def _own_frame(person: Person, grid: Grid, rng: np.random.Generator) -> tuple[Floats, Floats, Floats]:
    """Each voxel's x, y, z in the person's own frame: turned, scaled and smoothly deformed."""
    z, y, x = np.broadcast_arrays(*np.ix_(*grid.axes))
    cos, sin = np.float32(np.cos(np.deg2rad(person.turn))), np.float32(np.sin(np.deg2rad(person.turn)))
    straight = (cos * x + sin * y, cos * y - sin * x, z)
    warped: list[Floats] = []
    for axis, scale in zip(straight, person.scale, strict=True):
        bend = 3.0 * smooth_field(rng, grid, 75.0) + 1.2 * smooth_field(rng, grid, 26.0)
        warped.append((axis / np.float32(scale) + bend).astype(np.float32))
    return warped[0], warped[1], warped[2]


class _Canvas:
    """The volume being painted: coordinates, tissues and rooms, all (S, P, L).

    `padding` scales the fat around organs.
    """

    def __init__(self, x: Floats, y: Floats, z: Floats, padding: float) -> None:
        self.x, self.y, self.z = x, y, z
        self.padding = padding
        self.tissue = np.full(x.shape, Tissue.AIR, np.uint8)
        self.room = np.full(x.shape, Room.OUTSIDE, np.uint8)
        self._reach = [
            (axis.min(others), axis.max(others)) for axis, others in ((z, (1, 2)), (y, (0, 2)), (x, (0, 1)))
        ]

    def box(self, bounds: Bounds) -> Box:
        """The part of the volume that can hold points between the two corners (x, y, z)."""
        slices = []
        for (lowest, highest), low, high in zip(self._reach, bounds[0, ::-1], bounds[1, ::-1], strict=True):
            hit = np.flatnonzero((highest >= low) & (lowest <= high))
            slices.append(slice(hit[0], hit[-1] + 1) if hit.size else slice(0, 0))
        return slices[0], slices[1], slices[2]


_SIDE, _DEPTH, _POWER = 150.0, 97.0, 2.4  # half width and half depth of the muscle layer, its roundness


def _paint_envelope(canvas: _Canvas, person: Person) -> None:
    """Skin, fat, muscle wall, ribs, the abdominal cavity and the lungs above the diaphragm."""
    z = canvas.z
    chest = 0.07 * np.clip((z - 60) / 80, 0, 1)
    width = 1 - chest - 0.05 * np.exp(-(((z + 45) / 50) ** 2)) - 0.0035 * np.clip(z - 190, 0, None)
    across = np.abs(canvas.x / width) ** _POWER
    front = canvas.y < 0
    deep = np.abs(canvas.y) ** _POWER
    belly = person.belly * np.exp(-(np.clip((z - 20) / 90, 0, None) ** 2))

    def inside(side: float, back: float, ahead: float) -> npt.NDArray[np.bool_]:
        reach = np.where(front, ahead + belly, np.float32(back)) ** np.float32(-_POWER)
        filled: npt.NDArray[np.bool_] = across * np.float32(side**-_POWER) + deep * reach < 1
        return filled

    fat, side, depth = person.fat, _SIDE, _DEPTH
    canvas.tissue[inside(side + fat + 3, depth + 0.8 * fat + 3, depth + fat + 3)] = Tissue.SKIN
    canvas.tissue[inside(side + fat, depth + 0.8 * fat, depth + fat)] = Tissue.FAT
    muscle = inside(side, depth, depth)
    cavity = inside(side - person.muscle, depth - person.muscle, depth - person.muscle)
    canvas.tissue[muscle] = Tissue.MUSCLE
    canvas.room[muscle] = Room.WALL
    _paint_ribs(canvas, inside(side - 2, depth - 2, depth - 2) & ~inside(side - 9, depth - 9, depth - 9))
    canvas.tissue[muscle & front & (np.abs(canvas.x) < 6) & (z < 70)] = Tissue.FAT
    canvas.tissue[cavity] = Tissue.FAT
    canvas.room[cavity] = Room.ABDOMEN
    dome = _diaphragm(canvas.x, canvas.y)
    canvas.tissue[cavity & (z > dome - 4)] = Tissue.MUSCLE
    canvas.tissue[cavity & (z > dome)] = Tissue.LUNG
    canvas.room[cavity & (z > dome - 4)] = Room.WALL
    canvas.room[cavity & (z > dome)] = Room.THORAX


def _diaphragm(x: Floats, y: Floats) -> Floats:
    """Height of the diaphragm: a right dome, a lower left one and the flat part under the heart."""
    right = 116 - 72 * (((x + 66) / 78) ** 2 + (y / 92) ** 2)
    left = 104 - 72 * (((x - 70) / 72) ** 2 + ((y - 5) / 92) ** 2)
    middle = 86 - 60 * (x / 60) ** 2 - 45 * (y / 90) ** 2
    height: Floats = np.maximum(np.maximum(right, left), middle)
    return height


def _paint_ribs(canvas: _Canvas, band: npt.NDArray[np.bool_]) -> None:
    """Ribs that fall from the spine to the front, bone with marrow, then cartilage; and the sternum."""
    x, y, z = canvas.x[band], canvas.y[band], canvas.z[band]
    turn = np.arctan2(np.abs(x), y)  # 0 at the back, pi at the front
    height = z + 38 * (1 - np.cos(turn))
    across = np.abs(np.mod(height, 29) - 14.5)
    rib = (across < 6) & (height > 29) & (turn < 0.9 + 0.016 * height)
    tissue = canvas.tissue[band]
    tissue[rib] = Tissue.BONE
    tissue[rib & (across < 3)] = Tissue.MARROW
    tissue[rib & (turn > 2.35)] = Tissue.CARTILAGE
    tissue[(np.abs(x) < 17) & (y < 0) & (z > 118)] = Tissue.MARROW
    canvas.tissue[band] = tissue


def _paint(canvas: _Canvas, structure: Structure, rng: np.random.Generator) -> None:
    """Paint a structure's layers with the shift and the size that are drawn for this person."""
    shift, size = rng.normal(0, structure.shift, 3), float(np.exp(rng.normal(0, structure.size)))
    pivot = structure.layers[0].bounds().mean(0)
    for layer in structure.layers:
        box = canvas.box((layer.bounds() - pivot) * size + pivot + shift)
        own = (
            (axis[box] - np.float32(middle + moved)) / np.float32(size) + np.float32(middle)
            for axis, middle, moved in zip((canvas.x, canvas.y, canvas.z), pivot, shift, strict=True)
        )
        level = layer.level(*own)
        tissue = canvas.tissue[box]
        free = (canvas.room[box] & structure.room) != 0
        if layer.inside:
            free &= np.isin(tissue, layer.inside)
        tissue[free & (level < layer.fat * canvas.padding)] = Tissue.FAT
        tissue[free & (level < 0)] = layer.tissue
        if layer.tissue is Tissue.GUT_WALL:
            _fill_gut(tissue, free & (level < -3), canvas.y[box], rng)


def _fill_gut(tissue: Tissues, lumen: npt.NDArray[np.bool_], y: Floats, rng: np.random.Generator) -> None:
    """Fill a stretch of gut: food, fluid or nothing, and gas in front of it."""
    if not lumen.any() or rng.random() < 0.2:
        return
    tissue[lumen] = rng.choice([Tissue.GUT_FOOD, Tissue.GUT_FLUID])
    surface = np.quantile(y[lumen], rng.choice([0.0, 0.25, 0.5, 0.9]))
    tissue[lumen & (y < surface)] = Tissue.GUT_GAS


def _small_bowel(person: Person, rng: np.random.Generator) -> Structure:
    """Loops at random in the lower front of the abdomen and up its left side; thin people have more room."""
    layers = []
    for loop in range(int(36 - 0.35 * person.fat)):
        low, high = ((15, -70, -40), (100, 0, 25)) if loop % 4 == 0 else ((-75, -74, -150), (95, 8, -12))
        start, steps = rng.uniform(low, high), np.cumsum(rng.normal(0, 18, (4, 3)), axis=0)
        radius = rng.uniform(9, 14)
        points = np.clip(start + steps, (-85, -78, -170), (105, 10, high[2]))
        tube = Tube(tuple((x, y, z, radius) for x, y, z in points.tolist()))
        layers.append(Layer(Tissue.GUT_WALL, (tube,), fat=1.5))
    return Structure(tuple(layers), shift=0.0)


def _lung_vessels(rng: np.random.Generator) -> Structure:
    """Vessels that fan out from the roots of the lungs."""
    layers = []
    for side in (-1, 1):
        ends = rng.uniform((62, -70, 70), (125, 75, 280), (22, 3))
        root = np.array([40, 12, 192.0])
        middles = 0.45 * root + 0.55 * ends + rng.normal(0, 9, ends.shape)
        for (mx, my, mz), (x, y, z) in zip(middles.tolist(), ends.tolist(), strict=True):
            points = ((40.0 * side, 12.0, 192.0, 5.5), (mx * side, my, mz, 3.2), (x * side, y, z, 1.2))
            layers.append(Layer(Tissue.ARTERY, (Tube(points),), inside=(Tissue.LUNG,)))
    return Structure(tuple(layers), room=Room.THORAX, shift=0.0)


def _paint_cysts(canvas: _Canvas, rng: np.random.Generator) -> None:
    """Now and then a cyst in the liver or beside a kidney's cortex: fluid that is no gallbladder."""
    for chance, tissue, host in (
        (0.3, Tissue.LIVER_CYST, Tissue.LIVER),
        (0.25, Tissue.RENAL_PELVIS, Tissue.LEFT_CORTEX),
        (0.2, Tissue.RENAL_PELVIS, Tissue.RIGHT_CORTEX),
    ):
        places = np.flatnonzero(canvas.tissue == host)
        radius = rng.uniform(6, 13)
        pick = rng.random()
        if rng.random() < chance and places.size:
            at = places[int(pick * places.size)]
            centre = (float(canvas.x.flat[at]), float(canvas.y.flat[at]), float(canvas.z.flat[at]))
            cyst = Layer(tissue, (Ellipsoid(centre, (radius,) * 3),), inside=(host,))
            _paint(canvas, Structure((cyst,), shift=0.0, size=0.0), rng)


def _paint_spine(canvas: _Canvas) -> None:
    """Vertebrae with discs, arches and processes around the canal."""
    box = canvas.box(np.array([[-46.0, 14, -1e4], [46, 100, 1e4]]))
    x, y, z = np.abs(canvas.x[box]), canvas.y[box], canvas.z[box]
    y = y - np.where(z > 60, 0.1 * np.clip(z - 60, 0, 80), 0)
    tissue, along = canvas.tissue[box], np.mod(z, 34.0)
    disc, level = along < 7, (np.sqrt((x / 22) ** 2 + ((y - 36) / 17) ** 2) - 1) * 17
    arch = np.sqrt((x / 17) ** 2 + ((y - 60) / 15) ** 2)
    spinous = (x < 4) & (y > 66) & (y < 90) & (along > 6) & (along < 26)
    transverse = (x < 40) & (np.abs(y - 58) < 5) & (along > 14) & (along < 25)
    tissue[((arch < 1) & (along > 4)) | spinous | transverse] = Tissue.BONE
    tissue[((arch < 0.8) & (along > 8) & (along < 30)) | (spinous & (x < 2))] = Tissue.MARROW
    tissue[level < 0] = Tissue.BONE
    tissue[level < -2.2] = Tissue.MARROW
    tissue[(level < 0) & disc] = Tissue.DISC
    tissue[np.sqrt((x / 10) ** 2 + ((y - 60) / 8.5) ** 2) < 1] = Tissue.CANAL
