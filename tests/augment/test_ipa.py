import pytest
import torch
from torch import Tensor

from fedmodal.augment.gin import apply_gin
from fedmodal.augment.ipa import IPA, IPADraw, apply_ipa
from fedmodal.augment.warp import spline_field


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(samples: int = 2, *spatial: int) -> Tensor:
    return torch.rand(samples, 1, *(spatial or (24, 20)), generator=seeded(7))


@pytest.mark.parametrize("spatial", [(24, 20), (16, 12, 10)])
def test_every_voxel_lies_between_the_two_draws_and_each_is_reached(spatial: tuple[int, ...]) -> None:
    batch = images(3, *spatial)
    draw = IPA().draw(batch.shape, seeded())
    first, second, result = (
        apply_gin(batch, draw.first),
        apply_gin(batch, draw.second),
        apply_ipa(batch, draw),
    )
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    assert bool(((result >= low - 1e-5) & (result <= high + 1e-5)).all())
    for one in (first, second):
        assert (result - one).abs().flatten(1).amin(1).max() < 1e-5


def test_the_blend_is_the_field_brought_to_zero_to_one() -> None:
    batch = images(1, 4, 4)
    draw = IPA().draw(batch.shape, seeded())
    field = spline_field(draw.controls, (4, 4))
    field = (field - field.min()) / (field.max() - field.min())
    expected = field * apply_gin(batch, draw.first) + (1 - field) * apply_gin(batch, draw.second)
    torch.testing.assert_close(apply_ipa(batch, draw), expected)


def test_the_field_is_smooth() -> None:
    """Between neighbours it changes by a few hundredths; a field of single voxels would by a third."""
    draw = IPA().draw((4, 1, 128, 128), seeded())
    field = spline_field(draw.controls, (128, 128))
    span = field.flatten(1).amax(1) - field.flatten(1).amin(1)
    assert (field.diff(dim=-1).abs().flatten(1).amax(1) / span).max() < 0.04


def test_a_flat_field_is_the_second_draw() -> None:
    batch = images()
    draw = IPA().draw(batch.shape, seeded())
    flat = IPADraw(draw.first, draw.second, torch.ones_like(draw.controls), draw.applied)
    torch.testing.assert_close(apply_ipa(batch, flat), apply_gin(batch, draw.second), atol=1e-2, rtol=0)


@pytest.mark.parametrize(("spacing", "coarse"), [(1 / 4, 7), (1 / 8, 11), (1.0, 4)])
def test_the_spacing_decides_the_control_points(spacing: float, coarse: int) -> None:
    assert IPA(control_spacing=spacing).draw((2, 1, 16, 16), seeded()).controls.shape == (
        2,
        1,
        coarse,
        coarse,
    )


def test_a_sample_that_is_not_chosen_stays() -> None:
    batch = images(6)
    draw = IPA(prob=0.5).draw(batch.shape, seeded(1))
    assert 0 < int(draw.applied.sum()) < 6
    same = (apply_ipa(batch, draw) == batch).flatten(1).all(1)
    assert torch.equal(same, ~draw.applied)
