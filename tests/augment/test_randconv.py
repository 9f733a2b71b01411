from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from fedmodal.augment.randconv import RandConvDraw, RandomConvolution, apply_randconv
from fedmodal.networks import standardize


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(*shape: int, seed: int = 7) -> Tensor:
    return torch.randn(*shape, generator=seeded(seed))


def written_out(image: np.ndarray, kernel: np.ndarray, alpha: float) -> np.ndarray:
    """The published definition for one image, voxel by voxel, in float64."""
    radius, output = kernel.shape[-1] // 2, np.zeros(image.shape)
    for place in np.ndindex(image.shape):
        for channel, *tap in np.ndindex(kernel.shape[1:]):
            source = [p + t - radius for p, t in zip(place[1:], tap, strict=True)]
            if all(0 <= s < size for s, size in zip(source, image.shape[1:], strict=True)):
                output[place] += kernel[(place[0], channel, *tap)] * image[(channel, *source)]
    return alpha * output + (1 - alpha) * image


@pytest.mark.parametrize("shape", [(2, 1, 6, 5), (2, 3, 4, 6), (2, 1, 4, 3, 5)])
@pytest.mark.parametrize("size", [1, 3, 5, 7])
def test_agrees_with_the_published_definition(shape: tuple[int, ...], size: int) -> None:
    images = batch(*shape)
    draw = RandomConvolution(kernel_sizes=(size,)).draw(shape, seeded(3))
    result = apply_randconv(images, draw)
    for image, kernel, alpha, got in zip(images, draw.kernels, draw.alphas, result, strict=True):
        expected = written_out(image.double().numpy(), kernel.double().numpy(), float(alpha))
        np.testing.assert_allclose(got.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_a_sum_of_neighbours_by_hand() -> None:
    images = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    draw = RandConvDraw(torch.ones(1, 1, 1, 3, 3), torch.tensor([0.5]), torch.tensor([True]))
    expected = torch.tensor([[[[5.5, 6.0], [6.5, 7.0]]]])  # half of the sum 10 and half of the voxel
    torch.testing.assert_close(apply_randconv(images, draw), expected)


@pytest.mark.parametrize(("channels", "dims"), [(1, 2), (3, 2), (1, 3)])
@pytest.mark.parametrize("size", [1, 3, 5])
def test_weights_are_kaimings(channels: int, dims: int, size: int) -> None:
    shape = (2000, channels, *[8] * dims)
    kernels = RandomConvolution(kernel_sizes=(size,)).draw(shape, seeded()).kernels
    assert kernels.shape == (2000, channels, channels, *[size] * dims)
    assert float(kernels.std()) * (channels * size**dims) ** 0.5 == pytest.approx(1, abs=0.06)
    assert abs(float(kernels.mean())) * (channels * size**dims) ** 0.5 < 0.08


def test_kernel_sizes_are_drawn_equally_often() -> None:
    generator, arm = seeded(), RandomConvolution()
    sizes = [arm.draw((1, 1, 8, 8), generator).kernels.shape[-1] for _ in range(800)]
    counts = [sizes.count(size) for size in (1, 3, 5, 7)]
    assert sum(counts) == 800
    assert max(abs(count - 200) for count in counts) < 55  # 4.5 standard deviations


def test_alphas_are_uniform() -> None:
    alphas = RandomConvolution().draw((4000, 1, 8, 8), seeded()).alphas
    ranks = (torch.arange(4000) + 0.5) / 4000
    assert (alphas.sort().values - ranks).abs().max() < 0.03  # Kolmogorov-Smirnov


def test_alpha_zero_is_the_image() -> None:
    images = batch(2, 1, 16, 16)
    draw = replace(RandomConvolution().draw(images.shape, seeded()), alphas=torch.zeros(2))
    assert torch.equal(apply_randconv(images, draw), images)


def test_the_pure_variant_is_the_convolution_alone() -> None:
    images = batch(2, 1, 5, 5)
    draw = RandomConvolution(mixing=False, kernel_sizes=(3,)).draw(images.shape, seeded())
    expected = written_out(images[1].double().numpy(), draw.kernels[1].double().numpy(), 1)
    np.testing.assert_allclose(apply_randconv(images, draw)[1].numpy(), expected, rtol=1e-4, atol=1e-5)


def test_a_standardized_image_keeps_its_mean_square_in_expectation() -> None:
    images = standardize(batch(4000, 1, 16, 16))
    result = RandomConvolution(mixing=False, kernel_sizes=(3,))(images, seeded())
    inside = (46 / 48) ** 2  # part of the taps that fall into the image, not onto its zero border
    assert float(result.square().mean()) == pytest.approx(inside, rel=0.05)


@pytest.mark.parametrize("sizes", [(), (2,), (1, 0), (-1,)])
def test_kernel_sizes_without_a_centre_are_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="kernel_sizes"):
        RandomConvolution(kernel_sizes=sizes)
