"""From a volume on its own grid to slices on the task's grid, and back."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from nibabel import orientations
from torch import Tensor

from fedmodal.data.nifti import Array, spacing_of
from fedmodal.tasks import Modality, Task

# Change it whenever the stored arrays would differ: stores are named after it.
PREPROCESSING_VERSION = 1

AREA_FROM = 1.5  # reductions stronger than this average, weaker ones interpolate
BODY_HU = -300.0  # between lung or air and fat
BACKGROUND_FRACTION = 0.05  # of an MRI's bright tissue: air and noise stay below
TABLE_MASS = 0.025  # part of the body's mass cut off at either end when its middle is sought
_SLAB_VALUES = 1 << 22  # float32 values worked on at once
_SPL = orientations.axcodes2ornt(("S", "P", "L"))

Size3 = tuple[int, int, int]


@dataclass(frozen=True)
class Geometry:
    """Where a stored array lies in its image: enough to bring a prediction back.

    Attributes:
        shape: voxels of the image's own grid, in its own axis order.
        affine: the image's affine, rows of 4, voxel index to millimetres (RAS+).
        oriented: the image's shape turned to (S, P, L).
        resampled: the shape on the task's grid before cropping; the same extent as `oriented`.
        start: row and column of `resampled` where the stored slice begins; negative where padded.
        size: rows and columns of the stored slice.
        spacing: millimetres between stored voxels along (S, P, L).
    """

    shape: Size3
    affine: tuple[tuple[float, float, float, float], ...]
    oriented: Size3
    resampled: Size3
    start: tuple[int, int]
    size: tuple[int, int]
    spacing: tuple[float, float, float]

    @property
    def stored(self) -> Size3:
        """Shape (S, H, W) of the stored arrays."""
        return self.resampled[0], *self.size

    @property
    def native_spacing(self) -> tuple[float, float, float]:
        """Millimetres between voxels along the image's own axes."""
        return spacing_of(np.array(self.affine))


@dataclass(frozen=True, eq=False)
class Prepared:
    """A case on the task's grid.

    Attributes:
        image: float16 (S, H, W), 0 to 1.
        label: uint8 (S, H, W) in the task's ids; None for an image without labels.
        geometry: the way back to the image's own grid.
    """

    image: npt.NDArray[np.float16]
    label: npt.NDArray[np.uint8] | None
    geometry: Geometry


def preprocess(
    image: nib.Nifti1Image, label: nib.Nifti1Image | None, task: Task, modality: Modality
) -> Prepared:
    """Turn to (S, P, L), resample to the task's spacing, scale intensities, crop or pad to its slice size.

    The grid's outer edges stay where they are and oblique directions are kept. Slices are never
    made thinner. Reductions beyond 1.5 average over area, all else is linear; labels are
    resampled as shares of each organ and the largest share wins.

    Args:
        image: 3D volume of finite values.
        label: label map in the task's ids on the image's grid, or None.
        task: spacing, slice size and intensity rules.
        modality: which of the intensity rules.
    """
    turned = _turn(np.asanyarray(image.dataobj), image.affine)
    geometry = _geometry(image, turned, task, modality)
    matrices = [_forward(geometry, axis) for axis in range(3)]
    values = _resample(turned, matrices)
    inside = (matrices[1].sum(1) > 0)[:, None] & (matrices[2].sum(1) > 0)
    low, high = _bounds(values[:, inside], task, modality)
    scaled = ((values - low) / max(high - low, 1e-6)).clamp(0, 1)
    stored = torch.where(inside, scaled, 0.0).to(torch.float16).numpy()
    if label is None:
        return Prepared(stored, None, geometry)
    turned_label = _turn(np.asanyarray(label.dataobj), image.affine)
    return Prepared(stored, _resample_labels(turned_label, matrices, task), geometry)


def restore(scores: Tensor, geometry: Geometry) -> npt.NDArray[np.uint8]:
    """Bring scores of classes back to the image's own grid and name the highest.

    Works in slabs of slices: beyond the result it needs about 100 MB for any image.

    Args:
        scores: (C, S, H, W) on the stored grid, any float type and device; logits or probabilities.
        geometry: of the stored case.

    Returns:
        Label map of `geometry.shape`. Linear interpolation of the scores; ties go to the lower id,
        voxels outside the stored slices are background.
    """
    result = np.zeros(geometry.shape, np.uint8)
    turned = _turn(result, np.array(geometry.affine))
    rows, columns = _backward(geometry, 0), _backward(geometry, 1)
    for slab, part in _slabs(scores, geometry):
        organs = (part[1:].amax(0) > part[0]).any(0).cpu()
        if organs.any():
            to_rows, from_rows = _touched(rows, organs.any(1))
            to_columns, from_columns = _touched(columns, organs.any(0))
            on_rows = _along(part[..., from_rows, from_columns], rows[to_rows, from_rows], 2)
            labels = _highest(_along(on_rows, columns[to_columns, from_columns], 3))
            turned[slab, to_rows, to_columns] = labels.cpu().numpy()
    return result


def restore_values(values: Tensor, geometry: Geometry, outside: int) -> npt.NDArray[np.uint8]:
    """Bring one map back to the image's own grid, linearly interpolated and rounded; slabs as in `restore`.

    Args:
        values: (S, H, W) on the stored grid, 0 to 255.
        geometry: of the stored case.
        outside: of voxels outside the stored slices.
    """
    result = np.full(geometry.shape, outside, np.uint8)
    turned = _turn(result, np.array(geometry.affine))
    rows, columns = _backward(geometry, 0), _backward(geometry, 1)
    to_rows, to_columns = (_reach(weights.sum(1) > 0) for weights in (rows, columns))
    for slab, part in _slabs(values[None], geometry):
        restored = _along(_along(part, rows[to_rows], 2), columns[to_columns], 3)[0].round().clamp(0, 255)
        turned[slab, to_rows, to_columns] = restored.to(torch.uint8).cpu().numpy()
    return result


def _slabs(values: Tensor, geometry: Geometry) -> Iterator[tuple[slice, Tensor]]:
    """Stored values (C, S, H, W) at the image's own slices, some at a time: which, and (C, n, H, W)."""
    depth = _interpolation(_positions(geometry.resampled[0], geometry.oriented[0]), geometry.resampled[0])
    step = max(1, _SLAB_VALUES // (len(values) * geometry.oriented[1] * geometry.oriented[2]))
    for first in range(0, len(depth), step):
        weights = depth[first : first + step]
        used = _reach(weights.sum(0) > 0)
        yield slice(first, first + step), _along(values[:, used].float(), weights[:, used], 1)


def _touched(weights: Tensor, organs: Tensor) -> tuple[slice, slice]:
    """Native places that an organ may reach, and the stored places that they are made of.

    Where background wins at every stored place around a native one it wins there too, so the
    rest needs no work.
    """
    reached = _reach((weights[:, organs] > 0).any(1))
    return reached, _reach((weights[reached] > 0).any(0))


def _reach(wanted: Tensor) -> slice:
    """The shortest slice that holds every true place; empty if there is none."""
    places = wanted.nonzero()
    return slice(int(places[0]), int(places[-1]) + 1) if len(places) else slice(0, 0)


def _turn(array: Array, affine: npt.NDArray[np.floating]) -> Array:
    """A view of the array with axes (S, P, L); what is written to it is in the array."""
    turn = orientations.ornt_transform(orientations.io_orientation(affine), _SPL)
    turned: Array = orientations.apply_orientation(array, turn)
    return turned


def _geometry(image: nib.Nifti1Image, turned: Array, task: Task, modality: Modality) -> Geometry:
    axes = np.argsort(orientations.ornt_transform(orientations.io_orientation(image.affine), _SPL)[:, 0])
    native = [spacing_of(image.affine)[int(axis)] for axis in axes]
    sizes = [_new_size(*pair) for pair in zip(turned.shape, native, task.spacing, strict=True)]
    sizes[0] = min(sizes[0], turned.shape[0])
    middle = _body_middle(turned, modality)
    starts = [_start(*axis) for axis in zip(sizes[1:], task.slice_size, middle, strict=True)]
    spacing = [step * old / new for step, old, new in zip(native, turned.shape, sizes, strict=True)]
    return Geometry(
        shape=_size3(image.shape),
        affine=tuple(tuple(float(value) for value in row) for row in image.affine),  # type: ignore[misc]
        oriented=_size3(turned.shape),
        resampled=_size3(sizes),
        start=(starts[0], starts[1]),
        size=task.slice_size,
        spacing=(spacing[0], spacing[1], spacing[2]),
    )


def _size3(values: Sequence[int]) -> Size3:
    first, second, third = (int(value) for value in values)
    return first, second, third


def _new_size(size: int, native: float, target: float) -> int:
    return max(1, round(size * native / target))


def _start(size: int, wanted: int, middle: float) -> int:
    """Where the stored slice begins: padded evenly if it holds everything, else around the body's middle."""
    if size <= wanted:
        return -((wanted - size) // 2)
    return min(max(round(middle * size - wanted / 2), 0), size - wanted)


def _body_middle(turned: Array, modality: Modality) -> tuple[float, float]:
    """Middle of the body along rows and columns, as a fraction of the field of view.

    Taken between quantiles of the projected body, so that a table or noise does not move it.
    """
    some = turned[:: max(1, turned.shape[0] // 64)]
    body = some > (BODY_HU if modality is Modality.CT else background_level(some))
    return _middle(body.sum((0, 2))), _middle(body.sum((0, 1)))


def _middle(mass: npt.NDArray[np.integer]) -> float:
    if not mass.any():
        return 0.5
    share = np.cumsum(mass) / mass.sum()
    first, last = np.searchsorted(share, [TABLE_MASS, 1 - TABLE_MASS])
    return float(first + last + 1) / (2 * len(mass))


def background_level(values: Array) -> float:
    """The intensity that separates an MRI's tissue from air and padding.

    Five percent of the way from the dark to the bright end, once padding (exact zeros and the
    minimum) is left out.
    """
    sample = values.ravel()[:: max(1, values.size // 1_000_000)]
    real = sample[(sample != 0) & (sample != sample.min())]
    low, high = np.percentile(real if real.size else sample, (1, 99))
    return float(low + BACKGROUND_FRACTION * (high - low))


def _bounds(values: Tensor, task: Task, modality: Modality) -> tuple[float, float]:
    """The intensities that become 0 and 1: a window for CT, percentiles of the tissue for MRI."""
    if modality is Modality.CT:
        return task.ct.low, task.ct.high
    sample = values.numpy()
    tissue = sample[sample > background_level(sample)]
    low, high = np.percentile(tissue if tissue.size else sample, (task.mri.low, task.mri.high))
    return float(low), float(high)


def _forward(geometry: Geometry, axis: int) -> Tensor:
    """Weights (stored, native) along an axis of (S, P, L): resampling, then the crop or zero padding."""
    old, new = geometry.oriented[axis], geometry.resampled[axis]
    area = old > AREA_FROM * new
    weights = _area(old, new) if area else _interpolation(_positions(old, new), old)
    if axis == 0:
        return weights
    start, size = geometry.start[axis - 1], geometry.size[axis - 1]
    placed = torch.zeros(size, old)
    taken = weights[max(start, 0) : start + size]
    placed[max(-start, 0) : max(-start, 0) + len(taken)] = taken
    return placed


def _backward(geometry: Geometry, axis: int) -> Tensor:
    """Weights (native, stored) of rows (0) or columns (1); zero for places outside the stored slice."""
    old, new = geometry.oriented[axis + 1], geometry.resampled[axis + 1]
    size = geometry.size[axis]
    places = _positions(new, old) - geometry.start[axis]
    covered = (places >= -0.5) & (places < size - 0.5)
    return _interpolation(places.clamp(0, size - 1), size) * covered[:, None]


def _positions(size: int, count: int) -> Tensor:
    """Centres of `count` equal parts of an axis, in voxels of its `size` voxels, kept inside it."""
    return ((torch.arange(count, dtype=torch.float64) + 0.5) * (size / count) - 0.5).clamp(0, size - 1)


def _interpolation(places: Tensor, size: int) -> Tensor:
    """Linear interpolation at `places` as weights (places, size)."""
    low = places.floor().long()
    share = places - low
    weights = torch.zeros(len(places), size, dtype=torch.float64)
    every = torch.arange(len(places))
    weights[every, low] = 1 - share
    weights[every, (low + 1).clamp(max=size - 1)] += share
    return weights.float()


def _area(size: int, count: int) -> Tensor:
    """Averages over `count` equal parts of an axis of `size` voxels, as weights (count, size)."""
    step = size / count
    left = torch.arange(count, dtype=torch.float64)[:, None] * step
    voxel = torch.arange(size, dtype=torch.float64)
    overlap = torch.minimum(left + step, voxel + 1) - torch.maximum(left, voxel)
    return (overlap.clamp(min=0) / step).float()


def _along(values: Tensor, weights: Tensor, dim: int) -> Tensor:
    """Apply weights (out, in) along one dimension."""
    weights = weights.to(values.device)
    if weights.shape[0] == weights.shape[1] and torch.equal(weights, torch.eye(len(weights)).to(weights)):
        return values
    if dim == values.ndim - 1:
        return values @ weights.T
    mixed = weights @ values.flatten(dim + 1).flatten(0, dim - 1) if dim else weights @ values.flatten(1)
    return mixed.reshape(*values.shape[:dim], len(weights), *values.shape[dim + 1 :])


def _resample(turned: Array, matrices: Sequence[Tensor]) -> Tensor:
    """A turned volume on the stored grid, float32 (S, H, W), a slab of slices at a time."""
    depth, rows, columns = matrices
    slices = torch.zeros(len(turned), len(rows), len(columns))
    slab = max(1, _SLAB_VALUES // (turned.shape[1] * turned.shape[2]))
    for first in range(0, len(turned), slab):
        part = turned[first : first + slab]
        if part.any():
            values = torch.from_numpy(np.ascontiguousarray(part, dtype=np.float32))
            slices[first : first + slab] = _along(_along(values, columns, 2), rows, 1)
    return _along(slices, depth, 0)


def _resample_labels(turned: Array, matrices: Sequence[Tensor], task: Task) -> npt.NDArray[np.uint8]:
    organs = torch.stack([_resample(turned == organ.id, matrices) for organ in task.organs])
    background = 1 - organs.sum(0) + 1e-6  # rounding must not decide a tie
    return _highest(torch.cat([background[None], organs])).numpy()


def _highest(scores: Tensor) -> Tensor:
    """Index of the highest of scores (C, ...) as uint8; the lower index wins a tie."""
    best = scores[0].clone()
    label = torch.zeros_like(best, dtype=torch.uint8)
    for index in range(1, len(scores)):
        label.masked_fill_(scores[index] > best, index)
        torch.maximum(best, scores[index], out=best)
    return label
