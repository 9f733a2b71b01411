"""How far the surfaces of a predicted and a true organ lie apart, by MONAI's metrics."""

import warnings

import numpy as np
import torch
from monai.metrics import compute_hausdorff_distance, compute_surface_dice
from scipy import ndimage

TOLERANCE_MM = 3.0
"""Surfaces no further apart than this agree; TotalSegmentator's evaluation has the same."""

_PERCENTILE = 95


def surface_measures(
    prediction: np.ndarray, reference: np.ndarray, spacing: tuple[float, ...], organs: int
) -> tuple[np.ndarray, np.ndarray]:
    """Compare the surfaces of each organ of two label maps of one shape.

    Args:
        prediction: label map, ids 0 to `organs`.
        reference: the true one.
        spacing: millimetres between voxels along each axis.
        organs: how many organs there are.

    Returns:
        95th percentile of the Hausdorff distance (HD95) in mm, and surface Dice at 3 mm (Nikolov et
        al. 2018), per organ. Both are NaN where the reference has no such organ; where it is not
        predicted, HD95 is NaN, for it has no surface, and surface Dice is 0.
    """
    distance, overlap = np.full((2, organs), np.nan)
    boxes = [ndimage.find_objects(label, organs) for label in (prediction, reference)]
    for index, (found, true) in enumerate(zip(*boxes, strict=True)):
        if true is None:
            continue
        if found is None:
            overlap[index] = 0
            continue
        box = tuple(
            slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in zip(found, true, strict=True)
        )
        masks = (torch.from_numpy(label[box] == index + 1)[None, None] for label in (prediction, reference))
        distance[index], overlap[index] = _compare(next(masks), next(masks), spacing)
    return distance, overlap


def _compare(found: torch.Tensor, true: torch.Tensor, spacing: tuple[float, ...]) -> tuple[float, float]:
    """HD95 in mm and surface Dice of two masks (1, 1, *shape)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # MONAI's own use of what it deprecates
        distance = compute_hausdorff_distance(found, true, True, percentile=_PERCENTILE, spacing=spacing)
        overlap = compute_surface_dice(found, true, [TOLERANCE_MM], True, spacing=spacing)
    return float(distance), float(overlap)
