"""Convolution of each sample of a batch with kernels of its own."""

from collections.abc import Sequence
from itertools import product
from math import prod

from torch import Tensor
from torch.nn.functional import pad


def checked_kernel_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    """The sizes, or a ValueError: there must be one, and each must have a centre."""
    if not sizes or any(size < 1 or size % 2 == 0 for size in sizes):
        raise ValueError(f"kernel_sizes must be odd and positive, got {sizes}")
    return tuple(sizes)


def convolve(features: Tensor, kernels: Tensor, shifts: Tensor) -> Tensor:
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
