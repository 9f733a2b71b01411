from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedmodal.augment.gin import GIN, GINDraw, RandGIN, apply_gin


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch(*shape: int, seed: int = 7) -> Tensor:
    return torch.rand(*shape, generator=seeded(seed))


def norms(images: Tensor) -> Tensor:
    return images.double().flatten(1).pow(2).sum(1).sqrt()


def written_out(image: np.ndarray, draw: GINDraw, sample: int, kernel_set: int) -> np.ndarray:
    """The published definition for one image, voxel by voxel, in float64."""
    features = image.astype(np.float64)
    for layer, (kernels, shifts) in enumerate(zip(draw.kernels, draw.shifts, strict=True)):
        weights, bias = kernels[kernel_set].double().numpy(), shifts[kernel_set].double().numpy()
        radius = weights.shape[-1] // 2
        output = np.zeros((len(weights), *image.shape[1:]))
        for place in np.ndindex(output.shape):
            total = bias[place[0]]
            for channel, *tap in np.ndindex(weights.shape[1:]):
                source = [p + t - radius for p, t in zip(place[1:], tap, strict=True)]
                if all(0 <= s < size for s, size in zip(source, image.shape[1:], strict=True)):
                    total += weights[(place[0], channel, *tap)] * features[(channel, *source)]
            last = layer == len(draw.kernels) - 1
            output[place] = total if last or total > 0 else 0.01 * total
        features = output
    alpha = float(draw.alphas[sample])
    mixed = alpha * features + (1 - alpha) * image
    return mixed * np.sqrt((image**2).sum()) / (np.sqrt((mixed**2).sum()) + 1e-5)


@pytest.mark.parametrize("share_kernels", [False, True])
@pytest.mark.parametrize("shape", [(2, 1, 6, 5), (2, 3, 5, 6), (2, 1, 4, 3, 5)])
@pytest.mark.parametrize("sizes", [(1,), (3,), (1, 5)])
def test_agrees_with_the_published_definition(
    shape: tuple[int, ...], sizes: tuple[int, ...], share_kernels: bool
) -> None:
    images = 2 * batch(*shape) - 0.7  # MRI holds negative values too
    draw = GIN(kernel_sizes=sizes, share_kernels=share_kernels).draw(shape, seeded(3))
    result = apply_gin(images, draw)
    for sample in range(2):
        expected = written_out(images[sample].numpy(), draw, sample, 0 if share_kernels else sample)
        np.testing.assert_allclose(result[sample].numpy(), expected, rtol=1e-4, atol=1e-5)


@settings(deadline=None, max_examples=25)
@given(
    seed=st.integers(0, 2**31),
    channels=st.sampled_from([1, 3]),
    dims=st.sampled_from([2, 3]),
    shared=st.booleans(),
)
def test_keeps_shape_and_norm(seed: int, channels: int, dims: int, shared: bool) -> None:
    images = batch(3, channels, *[9, 8, 7][:dims], seed=seed)
    result = GIN(share_kernels=shared)(images, seeded(seed))
    assert result.shape == images.shape
    assert not torch.equal(result, images)
    torch.testing.assert_close(norms(result), norms(images), rtol=1e-4, atol=0)


def test_equal_images_come_out_different() -> None:
    images = batch(1, 1, 16, 16).repeat(4, 1, 1, 1)
    draw = replace(GIN().draw(images.shape, seeded()), alphas=torch.ones(4))
    result = apply_gin(images, draw)
    assert all((result[a] - result[b]).abs().max() > 0.01 for a, b in [(0, 1), (1, 2), (2, 3), (0, 3)])


def test_shared_kernels_differ_by_alpha_only() -> None:
    images = batch(1, 1, 16, 16).repeat(4, 1, 1, 1)
    draw = GIN(share_kernels=True).draw(images.shape, seeded())
    assert len(set(draw.alphas.tolist())) == 4
    same_alpha = apply_gin(images, replace(draw, alphas=torch.full((4,), 0.7)))
    assert all(torch.equal(same_alpha[0], other) for other in same_alpha[1:])


def test_alpha_zero_is_the_image() -> None:
    images = batch(2, 1, 16, 16)
    draw = replace(GIN().draw(images.shape, seeded()), alphas=torch.zeros(2))
    torch.testing.assert_close(apply_gin(images, draw), images, rtol=1e-5, atol=1e-6)


def test_kernel_sizes_are_drawn_equally_often_for_each_layer() -> None:
    generator = seeded()
    sizes = np.array([[k.shape[-1] for k in GIN().draw((1, 1, 8, 8), generator).kernels] for _ in range(800)])
    assert set(sizes.ravel()) == {1, 3}
    share = (sizes == 3).mean(axis=0)
    assert np.abs(share - 0.5).max() < 0.08  # 4.5 standard deviations
    pairs = {tuple(row) for row in sizes}
    assert len(pairs) == 16, "layers must be drawn independently"


def test_weights_shifts_and_alphas_have_the_published_distributions() -> None:
    draw = GIN(kernel_sizes=(3,)).draw((4000, 1, 8, 8), seeded())
    assert [k.shape[1:3] for k in draw.kernels] == [(2, 1), (2, 2), (2, 2), (1, 2)]
    for numbers in (*draw.kernels, *draw.shifts):
        assert abs(float(numbers.mean())) < 0.06
        assert abs(float(numbers.std()) - 1) < 0.06
    ranks = (torch.arange(4000) + 0.5) / 4000
    assert (draw.alphas.sort().values - ranks).abs().max() < 0.03  # Kolmogorov-Smirnov


@pytest.mark.parametrize("sizes", [(), (2,), (1, 0), (-1,)])
def test_kernel_sizes_without_a_centre_are_refused(sizes: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="kernel_sizes"):
        GIN(kernel_sizes=sizes)


def test_the_draw_does_not_depend_on_the_image_size() -> None:
    small, large = (GIN().draw((2, 1, size, size), seeded()) for size in (8, 64))
    assert all(torch.equal(a, b) for a, b in zip(small.kernels, large.kernels, strict=True))
    assert torch.equal(small.alphas, large.alphas)


@pytest.mark.parametrize("shape", [(1, 16, 16), (3, 16, 16), (1, 8, 9, 10)])
def test_the_monai_transform_keeps_the_norm(shape: tuple[int, ...]) -> None:
    result = RandGIN().set_random_state(0)(batch(*shape))
    assert result.shape == shape
    assert float(result.norm()) == pytest.approx(float(batch(*shape).norm()), rel=1e-4)
