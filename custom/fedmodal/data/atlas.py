"""The nominal torso: its tissues, and where each organ lies and how much it differs among people.

All lengths are millimetres in the person's own frame: x from right to left, y from front to back,
z from feet to head; the origin lies in the midline at the height of the kidneys.
"""

from dataclasses import dataclass
from enum import IntEnum, IntFlag, auto
from functools import reduce

import numpy as np

from fedmodal.data.solids import Bounds, Ellipsoid, Floats, Point, Solid, Tube, rotation, smooth_min


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
    axes = rotation(turn) * [side, 1, 1]

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


BACK = Structure(
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
    layers=_pipes(Tissue.GALLBLADDER, "-38 -26 18 8; -49 -43 5 14.5; -57 -60 -12 16.5", fat=1.5),
    shift=3.0,
    size=0.07,
    absent=0.06,
)

CHEST = Structure(
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
ORGANS = (_COLON, _STOMACH, _LIVER, _SPLEEN, *_KIDNEYS, _PANCREAS, _VESSELS, _GALLBLADDER, _HEART)
