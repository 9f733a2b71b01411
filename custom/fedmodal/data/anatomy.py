"""The geometry of a synthetic torso: a volume of tissues for one invented person.

All lengths are millimetres in the person's own frame: x from right to left, y from front to back,
z from feet to head; the origin lies in the midline at the height of the kidneys.
One torso serves every task: a task images a stretch of it and names some of its tissues.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from fedmodal.data.atlas import BACK, CHEST, ORGANS, Layer, Room, Structure, Tissue
from fedmodal.data.solids import Bounds, Ellipsoid, Floats, Tube

Tissues = npt.NDArray[np.uint8]
Box = tuple[slice, slice, slice]


_VARIATION = 0.7  # of the atlas's spreads: people differ as much as a small network learns in minutes


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
    for structure in (BACK, CHEST, _lung_vessels(rng), _small_bowel(person, rng), *ORGANS):
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
        bend = 2.2 * smooth_field(rng, grid, 75.0) + 0.9 * smooth_field(rng, grid, 26.0)
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
    shift, size = (
        _VARIATION * rng.normal(0, structure.shift, 3),
        float(np.exp(_VARIATION * rng.normal(0, structure.size))),
    )
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
