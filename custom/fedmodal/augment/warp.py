"""Warping images and label maps together: affine maps, mirror images and cubic B-spline fields."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import grid_sample


@dataclass(frozen=True)
class GeometryDraw:
    """Where a voxel is read from: in = matrix @ (out + field) + shift, in voxels about the centre.

    Attributes:
        matrices: (N, D, D), mirror images included.
        shifts: (N, D).
        controls: (N, D, *coarse), the field's B-spline coefficients in voxels, one interval beyond
            the image on either side.
    """

    matrices: Tensor
    shifts: Tensor
    controls: Tensor


@torch.no_grad()
def apply_geometry(images: Tensor, labels: Tensor, draw: GeometryDraw) -> tuple[Tensor, Tensor]:
    """Move images (linear interpolation) and labels (nearest voxel) through the same grid.

    A sample whose draw is the identity is handed on bit for bit.
    """
    still = torch.eye(draw.matrices.shape[-1])
    moved = (draw.matrices != still).flatten(1).any(1) | draw.shifts.any(1) | draw.controls.flatten(1).any(1)
    chosen = moved.nonzero()[:, 0]
    if len(chosen) == 0:
        return images, labels
    with torch.autocast(images.device.type, enabled=False):
        grid = _sampling_grid(draw, chosen, images.shape[2:], images.device)
        index = chosen.to(images.device)
        new_images = grid_sample(
            images.index_select(0, index).float(), grid, "bilinear", "zeros", align_corners=False
        )
        new_labels = grid_sample(
            labels.index_select(0, index)[:, None].float(), grid, "nearest", "zeros", align_corners=False
        )
    return (
        images.index_copy(0, index, new_images.to(images.dtype)),
        labels.index_copy(0, index, new_labels[:, 0].to(labels.dtype)),
    )


def _sampling_grid(
    draw: GeometryDraw, chosen: Tensor, spatial: Sequence[int], device: torch.device
) -> Tensor:
    """The chosen samples' grid for `grid_sample`, (n, *spatial, D), last axis first, image edges at +-1."""
    axes = [torch.arange(size, device=device) - (size - 1) / 2 for size in spatial]
    places = torch.stack(torch.meshgrid(*axes, indexing="ij")).expand(len(chosen), *[-1] * (len(axes) + 1))
    if draw.controls[chosen].any():
        places = places + spline_field(draw.controls[chosen].to(device), spatial)
    shifts, matrices = draw.shifts[chosen, :, None].to(device), draw.matrices[chosen].to(device)
    sources = torch.baddbmm(shifts, matrices, places.flatten(2)).view(places.shape)
    sizes = torch.tensor(spatial, device=device, dtype=torch.float32)
    return (sources * broadcast(2 / sizes, sources[0])).flip(1).movedim(1, -1)


def spline_field(controls: Tensor, spatial: Sequence[int]) -> Tensor:
    """Uniform cubic B-splines (N, D, *spatial) from coefficients (N, D, *coarse)."""
    field = controls
    for axis, size in enumerate(spatial):
        intervals = controls.shape[axis + 2] - 3
        places = (torch.arange(size, device=controls.device) + 0.5) / size * intervals
        knots = torch.arange(intervals + 3, device=controls.device) - 1
        distances = (places[:, None] - knots).abs()
        near = 2 / 3 - distances**2 * (1 - distances / 2)
        far = (2 - distances).clamp(min=0) ** 3 / 6
        field = along_axis(field, axis + 2, torch.where(distances < 1, near, far))
    return field


def along_axis(values: Tensor, axis: int, matrices: Tensor) -> Tensor:
    """Multiply each line of `values` along `axis` by a matrix (out, in), one for all or one a sample."""
    return (values.movedim(axis, -1) @ matrices.mT).movedim(-1, axis)


def broadcast(values: Tensor, like: Tensor) -> Tensor:
    """Values for the first axis of `like`, shaped to broadcast over its others."""
    return values.reshape(-1, *[1] * (like.ndim - 1))
