"""GIN: global intensity non-linear augmentation, a shallow network drawn anew for every image.

The method is that of Ouyang et al., "Causality-inspired single-source domain generalization for
medical image segmentation" (IEEE TMI 2022, arXiv 2111.12525).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from monai.config import KeysCollection
from torch import Tensor
from torch.nn.functional import leaky_relu

from fedmodal.augment.convolution import checked_kernel_sizes, convolve
from fedmodal.augment.monai_transforms import RandArm, RandArmd
from fedmodal.augment.samples import change, check_fit, checked_probability, per_sample

NEGATIVE_SLOPE = 0.01
NORM_EPSILON = 1e-5


@dataclass(frozen=True)
class GINDraw:
    """Every random number of one call, on the CPU.

    Attributes:
        kernels: for each layer (N, out, in, k, ..., k); first axis 1 where the batch shares them.
        shifts: for each layer (N, out), or (1, out).
        alphas: (N,), the part of the network's output in the mix.
        applied: (N,) bool; the other samples stay as they are.
    """

    kernels: tuple[Tensor, ...]
    shifts: tuple[Tensor, ...]
    alphas: Tensor
    applied: Tensor


class GIN(torch.nn.Module):
    """GIN on batches (N, C, *spatial), 2D or 3D, on the batch's device; it has no parameters.

    Convolutions with weights and shifts from N(0, 1), leaky ReLU after all but the last, same
    padding with zeros. The output is mixed with the image by alpha from U(0, 1) and brought back
    to the image's Frobenius norm: alpha 0 is the image, and an image of zeros stays zero. Values
    may leave the image's range. Kernel sizes are drawn once a layer and call, for all samples.

    Args:
        num_layers: convolutions.
        hidden_channels: channels between them.
        kernel_sizes: odd sizes to draw from, along every spatial axis.
        share_kernels: one set of kernels for the whole batch, as in FedGIN (arXiv 2508.05137);
            otherwise one a sample, as published.
        prob: probability that a sample is changed.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        *,
        num_layers: int = 4,
        hidden_channels: int = 2,
        kernel_sizes: Sequence[int] = (1, 3),
        share_kernels: bool = False,
        prob: float = 1.0,
    ) -> None:
        super().__init__()
        if num_layers < 1 or hidden_channels < 1:
            raise ValueError(f"GIN needs a layer and a channel, got {num_layers} and {hidden_channels}")
        self.num_layers = num_layers
        self.hidden_channels = hidden_channels
        self.kernel_sizes = checked_kernel_sizes(kernel_sizes)
        self.share_kernels = share_kernels
        self.prob = checked_probability(prob)

    def draw(self, batch_shape: Sequence[int], generator: torch.Generator) -> GINDraw:
        """Draw for a batch of shape (N, C, *spatial) from a CPU generator.

        The numbers are the same whatever device the batch is on.
        """
        samples, channels, *spatial = batch_shape
        sets = 1 if self.share_kernels else samples
        widths = [channels, *[self.hidden_channels] * (self.num_layers - 1), channels]
        choices = torch.randint(len(self.kernel_sizes), (self.num_layers,), generator=generator).tolist()
        kernels, shifts = [], []
        for choice, (inputs, outputs) in zip(choices, pairwise(widths), strict=True):
            size = [self.kernel_sizes[choice]] * len(spatial)
            kernels.append(torch.randn(sets, outputs, inputs, *size, generator=generator))
            shifts.append(torch.randn(sets, outputs, generator=generator))
        alphas = torch.rand(samples, generator=generator)
        applied = torch.rand(samples, generator=generator) < self.prob
        return GINDraw(tuple(kernels), tuple(shifts), alphas, applied)

    def forward(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Draw and apply; see `apply_gin`."""
        return apply_gin(images, self.draw(images.shape, generator))


def apply_gin(images: Tensor, draw: GINDraw) -> Tensor:
    """Apply the drawn networks to a batch, without gradient, in float32 even under autocast.

    Args:
        images: (N, C, *spatial), floating point; not changed.
        draw: drawn for the same N, C and number of spatial axes.

    Returns:
        A new tensor of the images' shape, type and device.

    Raises:
        ValueError: the draw is for another kind of batch.
    """
    kernels = draw.kernels[0]
    check_fit(
        "(samples, channels, spatial axes)",
        (len(draw.alphas), kernels.shape[2], kernels.ndim - 3),
        (*images.shape[:2], images.ndim - 2),
    )
    return change(images, draw.applied, lambda plain: _mix(plain, draw))


def _mix(images: Tensor, draw: GINDraw) -> Tensor:
    """The networks' output mixed with the images, at the images' norm."""
    features = images
    for layer, (kernels, shifts) in enumerate(zip(draw.kernels, draw.shifts, strict=True)):
        if layer:
            features = leaky_relu(features, NEGATIVE_SLOPE)
        features = convolve(features, kernels.to(images), shifts.to(images))
    mixed = torch.lerp(images, features, per_sample(draw.alphas, images))
    return mixed * per_sample(_norms(images) / (_norms(mixed) + NORM_EPSILON), images)


def _norms(images: Tensor) -> Tensor:
    """Frobenius norm of each sample over channels and space, (N,)."""
    norms: Tensor = torch.linalg.vector_norm(images.flatten(1), dim=1)
    return norms


class RandGIN(RandArm[GINDraw]):
    """`GIN` as a MONAI transform on one channel-first image (C, *spatial); see `RandArm`.

    Args:
        prob: probability that an image is changed.
        num_layers: see `GIN`.
        hidden_channels: see `GIN`.
        kernel_sizes: see `GIN`.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self,
        prob: float = 1.0,
        *,
        num_layers: int = 4,
        hidden_channels: int = 2,
        kernel_sizes: Sequence[int] = (1, 3),
    ) -> None:
        gin = GIN(num_layers=num_layers, hidden_channels=hidden_channels, kernel_sizes=kernel_sizes)
        super().__init__(gin, apply_gin, prob)


class RandGINd(RandArmd):
    """`RandGIN` on the images of a dictionary, the same draw for all keys; see `RandArmd`.

    Args:
        keys: the images; never name a label map here.
        prob: probability that the images of a dictionary are changed.
        num_layers: see `GIN`.
        hidden_channels: see `GIN`.
        kernel_sizes: see `GIN`.
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
        num_layers: int = 4,
        hidden_channels: int = 2,
        kernel_sizes: Sequence[int] = (1, 3),
        allow_missing_keys: bool = False,
    ) -> None:
        rand_gin = RandGIN(num_layers=num_layers, hidden_channels=hidden_channels, kernel_sizes=kernel_sizes)
        super().__init__(keys, rand_gin, prob, allow_missing_keys)
