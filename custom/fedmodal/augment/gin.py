"""GIN: global intensity non-linear augmentation, a shallow network drawn anew for every image.

The method is that of Ouyang et al., "Causality-inspired single-source domain generalization for
medical image segmentation" (IEEE TMI 2022, arXiv 2111.12525).
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from math import prod
from typing import Self

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import get_track_meta
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import TransformBackends, convert_to_dst_type, convert_to_tensor
from torch import Tensor
from torch.nn.functional import leaky_relu, pad

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
        if not kernel_sizes or any(size < 1 or size % 2 == 0 for size in kernel_sizes):
            raise ValueError(f"kernel_sizes must be odd and positive, got {kernel_sizes}")
        self.num_layers = num_layers
        self.hidden_channels = hidden_channels
        self.kernel_sizes = tuple(kernel_sizes)
        self.share_kernels = share_kernels
        self.prob = _checked_probability(prob)

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


@torch.no_grad()
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
    _check_fit(images, draw)
    with torch.autocast(images.device.type, enabled=False):
        plain = images.float()
        features = plain
        for layer, (kernels, shifts) in enumerate(zip(draw.kernels, draw.shifts, strict=True)):
            if layer:
                features = leaky_relu(features, NEGATIVE_SLOPE)
            features = _convolve(features, kernels.to(plain), shifts.to(plain))
        mixed = torch.lerp(plain, features, _per_sample(draw.alphas, plain))
        mixed = mixed * _per_sample(_norms(plain) / (_norms(mixed) + NORM_EPSILON), plain)
        applied = _per_sample(draw.applied, plain)
    return torch.where(applied, mixed.to(images.dtype), images)


def _convolve(features: Tensor, kernels: Tensor, shifts: Tensor) -> Tensor:
    """Convolve each sample with its own kernels, same padding with zeros, and add the shifts.

    One matrix product for each tap of the kernel, on the flattened padded image: with so few
    channels about twice as fast on a CPU as a grouped convolution (benchmarks/augmentation.py).

    Args:
        features: (N, in, *spatial).
        kernels: (N or 1, out, in, k, ..., k).
        shifts: (N or 1, out).
    """
    samples, _, *spatial = features.shape
    width = kernels.shape[-1]
    # One more row at the end of the first axis, so that the last taps stay inside the flat image.
    margins = [width // 2] * (2 * len(spatial))
    margins[-1] += int(width > 1)
    padded = pad(features, margins)
    strides = [prod(padded.shape[axis + 3 :]) for axis in range(len(spatial))]
    flat = padded.flatten(2)
    taps = kernels.expand(samples, *kernels.shape[1:]).flatten(3).movedim(3, 0).contiguous()
    length = spatial[0] * strides[0]
    result = shifts[..., None].expand(samples, -1, length).contiguous()
    for tap, place in zip(taps, product(range(width), repeat=len(spatial)), strict=True):
        start = sum(step * stride for step, stride in zip(place, strides, strict=True))
        result.baddbmm_(tap, flat[..., start : start + length])
    result = result.view(*result.shape[:2], spatial[0], *padded.shape[3:])
    for axis, size in enumerate(spatial[1:], start=3):
        result = result.narrow(axis, 0, size)
    return result


def _norms(images: Tensor) -> Tensor:
    """Frobenius norm of each sample over channels and space, (N,)."""
    norms: Tensor = torch.linalg.vector_norm(images.flatten(1), dim=1)
    return norms


def _per_sample(values: Tensor, images: Tensor) -> Tensor:
    """(N,) values on the images' device, shaped to broadcast over them."""
    return values.to(images.device).reshape(-1, *[1] * (images.ndim - 1))


def _check_fit(images: Tensor, draw: GINDraw) -> None:
    """Refuse a draw for another number of samples, channels or spatial axes."""
    kernels = draw.kernels[0]
    drawn = (len(draw.alphas), kernels.shape[2], kernels.ndim - 3)
    given = (images.shape[0], images.shape[1], images.ndim - 2)
    if drawn != given:
        raise ValueError(f"drawn for (samples, channels, spatial axes) {drawn}, but the images have {given}")


def _checked_probability(prob: float) -> float:
    """`prob`, or an error; MONAI would clip it silently."""
    if not 0 <= prob <= 1:
        raise ValueError(f"prob must be from 0 to 1, got {prob}")
    return prob


class RandGIN(RandomizableTransform):  # type: ignore[misc]  # MONAI is not typed
    """`GIN` as a MONAI transform on one channel-first image (C, *spatial).

    Integer images become float32; a MetaTensor keeps its meta data.

    Args:
        prob: probability that an image is changed.
        num_layers: see `GIN`.
        hidden_channels: see `GIN`.
        kernel_sizes: see `GIN`.

    Raises:
        ValueError: an argument is out of its range.
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012  MONAI's convention

    def __init__(
        self,
        prob: float = 1.0,
        *,
        num_layers: int = 4,
        hidden_channels: int = 2,
        kernel_sizes: Sequence[int] = (1, 3),
    ) -> None:
        RandomizableTransform.__init__(self, _checked_probability(prob))
        self.gin = GIN(num_layers=num_layers, hidden_channels=hidden_channels, kernel_sizes=kernel_sizes)
        self._draw: GINDraw | None = None

    def randomize(self, data: Tensor | np.ndarray) -> None:
        """Decide whether to transform, and draw for an image of the data's shape."""
        super().randomize(None)
        if self._do_transform:
            generator = torch.Generator().manual_seed(int(self.R.randint(2**31)))
            self._draw = self.gin.draw((1, *data.shape), generator)

    def __call__(self, img: Tensor | np.ndarray, randomize: bool = True) -> Tensor:
        """Transform one image; with `randomize=False` by the last draw."""
        image: Tensor = convert_to_tensor(img, track_meta=get_track_meta())
        if randomize:
            self.randomize(image)
        if not self._do_transform:
            return image
        if self._draw is None:
            raise RuntimeError("call randomize() first")
        plain = image.as_subclass(torch.Tensor)
        plain = plain if plain.is_floating_point() else plain.float()
        result: Tensor = convert_to_dst_type(apply_gin(plain[None], self._draw)[0], image, dtype=plain.dtype)[
            0
        ]
        return result


class RandGINd(RandomizableTransform, MapTransform):  # type: ignore[misc]
    """`RandGIN` on the images of a dictionary, the same draw for all keys; other entries stay.

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

    backend = RandGIN.backend

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
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, _checked_probability(prob))
        self.rand_gin = RandGIN(
            num_layers=num_layers, hidden_channels=hidden_channels, kernel_sizes=kernel_sizes
        )

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> Self:
        """Seed this transform and the one inside."""
        super().set_random_state(seed, state)
        self.rand_gin.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        """Transform the images of one dictionary, which is not changed."""
        result = dict(data)
        self.randomize(None)
        first = self.first_key(result)
        if self._do_transform and first != ():
            self.rand_gin.randomize(result[first])
        for key in self.key_iterator(result):
            if self._do_transform:
                result[key] = self.rand_gin(result[key], randomize=False)
            else:
                result[key] = convert_to_tensor(result[key], track_meta=get_track_meta())
        return result
