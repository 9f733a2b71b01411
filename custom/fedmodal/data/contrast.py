"""From tissues to images: Hounsfield units by contrast phase, MRI signal by sequence."""

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from fedmodal.data.anatomy import Grid, Tissues, smooth_field
from fedmodal.data.atlas import Tissue
from fedmodal.data.solids import Floats
from fedmodal.tasks import Modality

Voxels = npt.NDArray[np.int16]


class Phase(StrEnum):
    """When a CT was taken after the contrast agent."""

    NATIVE = "native"
    ARTERIAL = "arterial"
    PORTAL = "portal venous"


class Sequence(StrEnum):
    """What an MRI is weighted by."""

    T1 = "T1"
    T2 = "T2"


@dataclass(frozen=True)
class _Matter:
    """Physical properties of a tissue.

    Attributes:
        hu: attenuation without contrast agent, Hounsfield units.
        arterial, portal: what the agent adds in that phase, HU.
        spread: how much people differ, standard deviation in HU.
        texture: how much the tissue varies within, standard deviation in HU.
        t1, t2: relaxation times at 1.5 T, ms.
        density: of protons, relative to water.
    """

    hu: float
    arterial: float
    portal: float
    spread: float
    texture: float
    t1: float
    t2: float
    density: float


# Relaxation times: de Bazelaire et al., Radiology 2004 (abdomen, 1.5 T); the rest of common textbooks.
_KIDNEY_CORTEX = _Matter(34, 130, 120, 6, 7, 966, 87, 0.85)
_KIDNEY_MEDULLA = _Matter(32, 40, 105, 6, 7, 1412, 85, 0.88)
_MATTER = {
    Tissue.AIR: _Matter(-1000, 0, 0, 0, 0, 1000, 30, 0.0),
    Tissue.SKIN: _Matter(20, 5, 10, 10, 8, 900, 35, 0.7),
    Tissue.FAT: _Matter(-104, 0, 0, 5, 9, 343, 110, 1.0),
    Tissue.MUSCLE: _Matter(54, 5, 12, 6, 11, 900, 33, 0.8),
    Tissue.BONE: _Matter(560, 0, 0, 90, 90, 1000, 20, 0.1),
    Tissue.MARROW: _Matter(190, 5, 15, 50, 40, 549, 55, 0.65),
    Tissue.DISC: _Matter(85, 0, 0, 10, 10, 1000, 70, 0.7),
    Tissue.CARTILAGE: _Matter(110, 0, 0, 20, 20, 1000, 40, 0.6),
    Tissue.CANAL: _Matter(22, 0, 0, 5, 6, 3000, 500, 1.0),
    Tissue.LUNG: _Matter(-850, 5, 5, 25, 35, 1200, 30, 0.12),
    Tissue.ARTERY: _Matter(42, 230, 105, 8, 3, 1441, 220, 0.9),
    Tissue.VEIN: _Matter(42, 40, 100, 8, 5, 1441, 180, 0.9),
    Tissue.GUT_WALL: _Matter(40, 35, 45, 8, 10, 900, 60, 0.8),
    Tissue.GUT_GAS: _Matter(-950, 0, 0, 20, 10, 1000, 30, 0.02),
    Tissue.GUT_FLUID: _Matter(14, 0, 0, 10, 8, 2800, 350, 0.95),
    Tissue.GUT_FOOD: _Matter(45, 0, 0, 25, 40, 750, 80, 0.8),
    Tissue.SPLEEN: _Matter(48, 62, 62, 5, 8, 1057, 79, 0.85),
    Tissue.RIGHT_CORTEX: _KIDNEY_CORTEX,
    Tissue.RIGHT_MEDULLA: _KIDNEY_MEDULLA,
    Tissue.LEFT_CORTEX: _KIDNEY_CORTEX,
    Tissue.LEFT_MEDULLA: _KIDNEY_MEDULLA,
    Tissue.RENAL_PELVIS: _Matter(8, 0, 0, 4, 4, 3000, 500, 1.0),
    Tissue.GALLBLADDER: _Matter(12, 0, 0, 5, 3, 2200, 320, 0.98),
    Tissue.LIVER: _Matter(56, 14, 46, 8, 8, 586, 48, 0.78),
    Tissue.LIVER_VESSEL: _Matter(42, 32, 100, 8, 5, 1441, 180, 0.9),
    Tissue.LIVER_CYST: _Matter(8, 0, 0, 4, 4, 3000, 500, 1.0),
    Tissue.PANCREAS: _Matter(42, 50, 45, 6, 13, 600, 55, 0.78),
    Tissue.MYOCARDIUM: _Matter(45, 60, 55, 6, 8, 1030, 52, 0.8),
    Tissue.LEFT_BLOOD: _Matter(42, 240, 105, 8, 6, 1441, 220, 0.9),
    Tissue.RIGHT_BLOOD: _Matter(42, 190, 100, 8, 15, 1441, 220, 0.9),
}
_FLOWING = (Tissue.ARTERY, Tissue.VEIN, Tissue.LIVER_VESSEL, Tissue.LEFT_BLOOD, Tissue.RIGHT_BLOOD)


def _table(name: str) -> Floats:
    """One property of every tissue, to be indexed with a volume of tissues."""
    return np.array([getattr(_MATTER[tissue], name) for tissue in Tissue], np.float32)


def _alike(values: npt.NDArray[np.floating]) -> Floats:
    """Intensities of all tissues, with both kidneys made equal."""
    same = values.astype(np.float32)
    same[[Tissue.LEFT_CORTEX, Tissue.LEFT_MEDULLA]] = same[[Tissue.RIGHT_CORTEX, Tissue.RIGHT_MEDULLA]]
    return same


def acquisition_of(modality: Modality, index: int) -> Phase | Sequence:
    """How patient `index` is imaged: phases and sequences take turns, so that few patients hold all."""
    kinds: list[Phase | Sequence] = list(Phase if modality is Modality.CT else Sequence)
    return kinds[index % len(kinds)]


def render(acquisition: Phase | Sequence, tissue: Tissues, grid: Grid, rng: np.random.Generator) -> Voxels:
    """Image a torso, shape (S, P, L)."""
    if isinstance(acquisition, Phase):
        return render_ct(tissue, grid, acquisition, rng)
    return render_mri(tissue, grid, acquisition, rng)


def render_ct(tissue: Tissues, grid: Grid, phase: Phase, rng: np.random.Generator) -> Voxels:
    """A CT in Hounsfield units: texture, partial volume, a table under the body, correlated noise."""
    enhancement = {Phase.ARTERIAL: "arterial", Phase.PORTAL: "portal"}
    uptake = _table(enhancement[phase]) if phase in enhancement else np.zeros(len(Tissue), np.float32)
    level = _table("hu") + _table("spread") * rng.normal(0, 1, len(Tissue)) + uptake * rng.normal(1, 0.12)
    image = _alike(level)[tissue]
    image += _table("texture")[tissue] * _texture(grid, rng)
    _lay_on_table(image, tissue, grid, rng)
    image = ndimage.gaussian_filter(image, (0.35, 0.6, 0.6))
    image += rng.uniform(8, 16) * _noise(image.shape, (0.0, 0.6, 0.6), rng)
    voxels: Voxels = np.rint(image.clip(-1024, 3000)).astype(np.int16)
    return voxels


def render_mri(tissue: Tissues, grid: Grid, sequence: Sequence, rng: np.random.Generator) -> Voxels:
    """An MRI in arbitrary units: spin-echo signal, flow, coil sensitivity, Rician noise."""
    signal = _spin_echo(sequence, rng) * np.exp(rng.normal(0, 0.07, len(Tissue)))
    image = _alike(signal)[tissue]
    image *= 1 + 0.5 * np.clip(_table("texture")[tissue] / 60, 0.08, 0.5) * _texture(grid, rng)
    image = ndimage.gaussian_filter(image, (0.35, 0.6, 0.6))
    image *= _sensitivity(tissue, grid, rng)
    bright = np.percentile(image, 98)
    noise = bright * rng.uniform(0.01, 0.025)
    real, imaginary = (noise * rng.standard_normal(image.shape, dtype=np.float32) for _ in range(2))
    magnitude = np.hypot(image + real, imaginary)
    voxels: Voxels = np.rint(magnitude * (rng.uniform(300, 3000) / magnitude.max())).astype(np.int16)
    return voxels


def _sensitivity(tissue: Tissues, grid: Grid, rng: np.random.Generator) -> Floats:
    """Coil sensitivity: a smooth random field, and brighter towards the coils around the body."""
    bias = smooth_field(rng, grid, 140.0)
    _, y, x = grid.axes
    body = tissue != Tissue.AIR
    columns, rows = x[body.any((0, 1))], y[body.any((0, 2))]
    across = (x - columns.mean()) / (np.ptp(columns) / 2)
    deep = (y - rows.mean()) / (np.ptp(rows) / 2)
    nearness = np.clip(across**2 + deep[:, None] ** 2, 0, 1.2)
    field: Floats = np.exp(rng.uniform(0.15, 0.35) * bias / np.abs(bias).max()).astype(np.float32)
    field *= (1 + rng.uniform(0.05, 0.25) * nearness).astype(np.float32)
    return field


def _spin_echo(sequence: Sequence, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Signal of every tissue: density (1 - exp(-TR/T1)) exp(-TE/T2), with flow."""
    t1_weighted = sequence is Sequence.T1
    repetition, echo = (
        (rng.uniform(350, 650), rng.uniform(6, 14))
        if t1_weighted
        else (rng.uniform(2500, 5000), rng.uniform(60, 95))
    )
    rate = 1 / _table("t1")
    signal: npt.NDArray[np.float64] = (
        _table("density") * (1 - np.exp(-repetition * rate)) * np.exp(-echo / _table("t2"))
    )
    signal[list(_FLOWING)] *= rng.uniform(0.1, 1.0, len(_FLOWING)) if t1_weighted else rng.uniform(0.05, 0.5)
    return signal


def _texture(grid: Grid, rng: np.random.Generator) -> Floats:
    """Variation within tissues, standard deviation 1: coarse and fine."""
    return 0.6 * smooth_field(rng, grid, 22.0) + 0.8 * smooth_field(rng, grid, 7.0)


def _noise(shape: tuple[int, ...], blur: tuple[float, ...], rng: np.random.Generator) -> Floats:
    """White noise blurred over neighbouring voxels, scaled back to standard deviation 1."""
    noise = ndimage.gaussian_filter(rng.standard_normal(shape, dtype=np.float32), blur)
    scaled: Floats = noise / noise.std()
    return scaled


def _lay_on_table(image: Floats, tissue: Tissues, grid: Grid, rng: np.random.Generator) -> None:
    """A thin curved table under the body, where there is air only."""
    _, y, x = grid.axes
    rows = np.flatnonzero((tissue != Tissue.AIR).any((0, 2)))
    under = y[rows[-1]] + rng.uniform(4, 10) - x**2 / rng.uniform(1500, 4000)
    depth = y[:, None] - under
    shell = (np.abs(depth) < grid.spacing[1]) & (np.abs(x) < 220)
    foam = (depth > 0) & (depth < 40) & (np.abs(x) < 220)
    air = tissue == Tissue.AIR
    image[air & foam] = -920
    image[air & shell] = rng.uniform(50, 350)
