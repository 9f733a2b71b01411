"""Whether intensities can be what they are taken for: Hounsfield units for CT, not for MRI, and an image."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from fedmodal.data.nifti import Array
from fedmodal.tasks import Modality

_MOST = 2_000_000  # voxels looked at
_DARKEST_AIR = -1100  # a lower minimum is padding around the field of view
_MOST_LABELS = 128


@dataclass(frozen=True)
class _Shares:
    """Fractions of the voxels, padding left out, in ranges of Hounsfield units."""

    air: float  # -1250 to -400: air and lung, noise included
    below: float  # under -30: fat, lung, air
    fat: float  # -200 to -50
    soft: float  # 0 to 150: organs and muscle
    tissue: float  # -200 to 300: fat and soft tissue
    unshifted: float  # 850 to 1250: tissue whose offset of -1024 is missing


def modality_problem(values: Array, modality: Modality) -> str | None:
    """Why the intensities cannot be of the declared modality, or None.

    CT is known by soft tissue around 0 HU together with something darker (fat, lung or air); a crop
    without air still holds fat. Nothing is learnt from the file's name or header.
    """
    shares = _shares(values)
    if modality is Modality.MRI:
        if _looks_like_hounsfield(shares):
            return "declared MRI, but its intensities are Hounsfield units; correct `modality` or the file"
        return None
    if shares.below < 0.005 and shares.unshifted > 0.05:
        return "declared CT, but its values are not in Hounsfield units; add the offset -1024"
    if not _looks_like_hounsfield(shares):
        return (
            "declared CT, but its intensities are not Hounsfield units (air -1000, fat -100, tissue 50) "
            "and more like an MRI's; correct `modality` or the file"
        )
    return None


def label_map_problem(values: Array) -> str | None:
    """Why this is a label map rather than an image, or None: few whole numbers from 0 on, mostly 0."""
    sample = _sample(values)
    found = np.unique(sample)
    if len(found) > _MOST_LABELS or found[0] != 0 or (found % 1).any() or (sample == 0).mean() < 0.3:
        return None
    return f"holds {len(found)} whole numbers, most of them 0: a label map, not an image?"


def _sample(values: Array) -> npt.NDArray[np.float32]:
    return values.ravel(order="K")[:: (values.size // _MOST) | 1].astype(np.float32)


def _looks_like_hounsfield(shares: _Shares) -> bool:
    with_air = shares.air > 0.01 and shares.tissue > 0.03
    without_air = shares.fat > 0.01 and shares.soft > 0.2 and shares.tissue > 0.8
    return with_air or without_air


def _shares(values: Array) -> _Shares:
    sample = _sample(values)
    real = sample[sample > sample.min()] if sample.min() < _DARKEST_AIR else sample

    def share(low: float, high: float) -> float:
        return float(((real >= low) & (real < high)).mean())

    return _Shares(
        air=share(-1250, -400),
        below=share(-np.inf, -30),
        fat=share(-200, -50),
        soft=share(0, 150),
        tissue=share(-200, 300),
        unshifted=share(850, 1250),
    )
