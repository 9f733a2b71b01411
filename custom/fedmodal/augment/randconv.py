"""RandConv: one linear convolution with random weights, drawn anew for every image.

The method is that of Xu et al., "Robust and Generalizable Visual Representation Learning via Random
Convolutions" (ICLR 2021, arXiv 2007.13003), without its consistency loss.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from monai.config import KeysCollection
from torch import Tensor

from fedmodal.augment.convolution import checked_kernel_sizes, convolve
from fedmodal.augment.monai_transforms import RandArm, RandArmd
from fedmodal.augment.samples import change, check_fit, checked_probability, per_sample


@dataclass(frozen=True)
class RandConvDraw:
    """Every random number of one call, on the CPU.

    Attributes:
        kernels: (N, C out, C in, k, ..., k).
        alphas: (N,), the part of the convolution's output in the mix.
        applied: (N,) bool; the other samples stay as they are.
    """

    kernels: Tensor
    alphas: Tensor
    applied: Tensor


class RandomConvolution(torch.nn.Module):
    """RandConv on batches (N, C, *spatial), 2D or 3D, on the batch's device; it has no parameters.

    Weights from N(0, 1 / (C k^d)), that is Kaiming's for a linear layer, no bias, same padding with
    zeros; alpha from U(0, 1) mixes the output with the image. The kernel size is drawn once a call.
    As published, but that weights and alpha are drawn for each sample, not each batch.

    The output is not rescaled, as published: on standardized images (as the trainer passes them,
    and as published) such weights keep the mean square in expectation, and the network standardizes
    its input. With one channel, kernels of size 1 change the contrast, or invert the image, only.

    Args:
        kernel_sizes: odd sizes to draw from, along every spatial axis.
        mixing: mix with the image; without, and with `prob=0.5`, it is the published pure variant.
        prob: probability that a sample is changed.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self, *, kernel_sizes: Sequence[int] = (1, 3, 5, 7), mixing: bool = True, prob: float = 1.0
    ) -> None:
        super().__init__()
        self.kernel_sizes = checked_kernel_sizes(kernel_sizes)
        self.mixing = mixing
        self.prob = checked_probability(prob)

    def draw(self, batch_shape: Sequence[int], generator: torch.Generator) -> RandConvDraw:
        """Draw for a batch of shape (N, C, *spatial) from a CPU generator.

        The numbers are the same whatever device the batch is on.
        """
        samples, channels, *spatial = batch_shape
        choice = int(torch.randint(len(self.kernel_sizes), (), generator=generator))
        size = [self.kernel_sizes[choice]] * len(spatial)
        kernels = torch.randn(samples, channels, channels, *size, generator=generator)
        kernels /= kernels[0, 0].numel() ** 0.5
        alphas = torch.rand(samples, generator=generator) if self.mixing else torch.ones(samples)
        applied = torch.rand(samples, generator=generator) < self.prob
        return RandConvDraw(kernels, alphas, applied)

    def forward(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Draw and apply; see `apply_randconv`."""
        return apply_randconv(images, self.draw(images.shape, generator))


def apply_randconv(images: Tensor, draw: RandConvDraw) -> Tensor:
    """Apply the drawn kernels to a batch, without gradient, in float32 even under autocast.

    Args:
        images: (N, C, *spatial), floating point; not changed.
        draw: drawn for the same N, C and number of spatial axes.

    Returns:
        A new tensor of the images' shape, type and device.

    Raises:
        ValueError: the draw is for another kind of batch.
    """
    kernels = draw.kernels
    check_fit(
        "(samples, channels, spatial axes)",
        (*kernels.shape[:2], kernels.ndim - 3),
        (*images.shape[:2], images.ndim - 2),
    )
    return change(images, draw.applied, lambda plain: _mix(plain, draw))


def _mix(images: Tensor, draw: RandConvDraw) -> Tensor:
    """The convolutions' output mixed with the images."""
    no_shifts = images.new_zeros(draw.kernels.shape[:2])
    output = convolve(images, draw.kernels.to(images), no_shifts)
    return torch.lerp(images, output, per_sample(draw.alphas, images))


class RandConv(RandArm[RandConvDraw]):
    """`RandomConvolution` as a MONAI transform on one channel-first image; see `RandArm`.

    Args:
        prob: probability that an image is changed.
        kernel_sizes: see `RandomConvolution`.
        mixing: see `RandomConvolution`.

    Raises:
        ValueError: an argument is out of its range.
    """

    def __init__(
        self, prob: float = 1.0, *, kernel_sizes: Sequence[int] = (1, 3, 5, 7), mixing: bool = True
    ) -> None:
        super().__init__(RandomConvolution(kernel_sizes=kernel_sizes, mixing=mixing), apply_randconv, prob)


class RandConvd(RandArmd):
    """`RandConv` on the images of a dictionary, the same draw for all keys; see `RandArmd`.

    Args:
        keys: the images; never name a label map here.
        prob: probability that the images of a dictionary are changed.
        kernel_sizes: see `RandomConvolution`.
        mixing: see `RandomConvolution`.
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
        kernel_sizes: Sequence[int] = (1, 3, 5, 7),
        mixing: bool = True,
        allow_missing_keys: bool = False,
    ) -> None:
        rand_conv = RandConv(kernel_sizes=kernel_sizes, mixing=mixing)
        super().__init__(keys, rand_conv, prob, allow_missing_keys)
