"""IPA: two GIN draws of an image, blended by a smooth random field.

Interventional pseudo-correlation augmentation of Ouyang et al., "Causality-inspired single-source
domain generalization for medical image segmentation" (IEEE TMI 2022, arXiv 2111.12525), without its
consistency loss: intensities of one tissue then differ across the image as well, as they do under the
bias field of a coil, and an organ can no longer be told by what surrounds it.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from monai.config import KeysCollection
from torch import Tensor

from fedmodal.augment.gin import GIN, GINDraw, apply_gin
from fedmodal.augment.monai_transforms import RandArm, RandArmd
from fedmodal.augment.samples import change, check_fit, checked_probability
from fedmodal.augment.warp import spline_field

FLAT = 1e-3
"""A field with a smaller range has no two sides to blend."""


@dataclass(frozen=True)
class IPADraw:
    """Every random number of one call, on the CPU.

    Attributes:
        first: the GIN draw where the field is 1.
        second: the GIN draw where it is 0.
        controls: (N, 1, *coarse), the field's B-spline coefficients.
        applied: (N,) bool; the other samples stay as they are.
    """

    first: GINDraw
    second: GINDraw
    controls: Tensor
    applied: Tensor


class IPA(torch.nn.Module):
    """IPA on batches (N, C, *spatial), 2D or 3D, on the batch's device; it has no parameters.

    The field is a cubic B-spline with coefficients from N(0, 1), brought to the range 0 to 1 over
    each image.

    Args:
        control_spacing: distance of the field's control points, as a part of the image.
        num_layers: see `GIN`.
        hidden_channels: see `GIN`.
        kernel_sizes: see `GIN`.
        prob: probability that a sample is changed.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        *,
        control_spacing: float = 1 / 4,
        num_layers: int = 4,
        hidden_channels: int = 2,
        kernel_sizes: Sequence[int] = (1, 3),
        prob: float = 1.0,
    ) -> None:
        super().__init__()
        if not 0 < control_spacing <= 1:
            raise ValueError(f"control_spacing must be above 0 and at most 1, got {control_spacing}")
        self.intervals = round(1 / control_spacing)
        self.gin = GIN(num_layers=num_layers, hidden_channels=hidden_channels, kernel_sizes=kernel_sizes)
        self.prob = checked_probability(prob)

    def draw(self, batch_shape: Sequence[int], generator: torch.Generator) -> IPADraw:
        """Draw for a batch of shape (N, C, *spatial) from a CPU generator.

        The numbers are the same whatever device the batch is on.
        """
        samples, _, *spatial = batch_shape
        first, second = (self.gin.draw(batch_shape, generator) for _ in range(2))
        coarse = [self.intervals + 3] * len(spatial)
        controls = torch.randn(samples, 1, *coarse, generator=generator)
        applied = torch.rand(samples, generator=generator) < self.prob
        return IPADraw(first, second, controls, applied)

    def forward(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Draw and apply; see `apply_ipa`."""
        return apply_ipa(images, self.draw(images.shape, generator))


def apply_ipa(images: Tensor, draw: IPADraw) -> Tensor:
    """Blend the two draws on a batch, without gradient, in float32 even under autocast.

    Args:
        images: (N, C, *spatial), floating point; not changed.
        draw: drawn for the same N, C and number of spatial axes.

    Returns:
        A new tensor of the images' shape, type and device.

    Raises:
        ValueError: the draw is for another kind of batch.
    """
    check_fit(
        "(samples, spatial axes)",
        (len(draw.controls), draw.controls.ndim - 2),
        (len(images), images.ndim - 2),
    )
    return change(images, draw.applied, lambda plain: _blend(plain, draw))


def _blend(images: Tensor, draw: IPADraw) -> Tensor:
    field = _unit_range(spline_field(draw.controls.to(images), images.shape[2:]))
    return torch.lerp(apply_gin(images, draw.second), apply_gin(images, draw.first), field)


def _unit_range(fields: Tensor) -> Tensor:
    """Each field (1, *spatial) of a batch from 0 to 1."""
    axes = tuple(range(1, fields.ndim))
    low, high = fields.amin(axes, keepdim=True), fields.amax(axes, keepdim=True)
    return (fields - low) / (high - low).clamp(min=FLAT)


class RandIPA(RandArm[IPADraw]):
    """`IPA` as a MONAI transform on one channel-first image (C, *spatial); see `RandArm`.

    Args:
        prob: probability that an image is changed.
        control_spacing: see `IPA`.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(self, prob: float = 1.0, *, control_spacing: float = 1 / 4) -> None:
        super().__init__(IPA(control_spacing=control_spacing), apply_ipa, prob)


class RandIPAd(RandArmd):
    """`RandIPA` on the images of a dictionary, the same draw for all keys; see `RandArmd`.

    Args:
        keys: the images; never name a label map here.
        prob: probability that the images of a dictionary are changed.
        control_spacing: see `IPA`.
        allow_missing_keys: do not raise for a key that the dictionary lacks.

    Raises:
        ValueError: an argument is out of its range, or, at the call, the images differ in
            channels or spatial axes.
    """

    def __init__(
        self,
        keys: KeysCollection,
        prob: float = 1.0,
        *,
        control_spacing: float = 1 / 4,
        allow_missing_keys: bool = False,
    ) -> None:
        super().__init__(keys, RandIPA(control_spacing=control_spacing), prob, allow_missing_keys)
