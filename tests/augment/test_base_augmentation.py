from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor

from fedmodal.augment.base import (
    BaseAugmentation,
    BaseAugmentationConfig,
    IntensityDraw,
    apply_intensity,
    draw_geometry,
)
from fedmodal.augment.warp import GeometryDraw, apply_geometry

NO_INTENSITY = {"gamma_prob": 0, "contrast_prob": 0, "noise_prob": 0, "blur_prob": 0}
NO_GEOMETRY = {"affine_prob": 0, "elastic_prob": 0, "mirror_prob": 0}
ALWAYS = {f"{name}_prob": 1 for name in ("affine", "elastic", "gamma", "contrast", "noise", "blur", "mirror")}
SHAPES = [(4, 1, 24, 20), (2, 3, 16, 16), (2, 1, 8, 12, 10)]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make(mirror_axes: tuple[int, ...] = (), **settings: object) -> BaseAugmentation:
    return BaseAugmentation(BaseAugmentationConfig.model_validate(settings), mirror_axes)


def batch(shape: tuple[int, ...], dtype: torch.dtype = torch.uint8) -> tuple[Tensor, Tensor]:
    images = torch.rand(shape, generator=seeded(7))
    return images, torch.randint(0, 7, (shape[0], *shape[2:]), generator=seeded(8)).to(dtype)


def still(samples: int, dims: int) -> GeometryDraw:
    return GeometryDraw(
        torch.eye(dims).repeat(samples, 1, 1),
        torch.zeros(samples, dims),
        torch.zeros(samples, dims, *[5] * dims),
    )


def unchanged(samples: int) -> IntensityDraw:
    zero, one = torch.zeros(samples), torch.ones(samples)
    return IntensityDraw(zero, one, one, zero, zero, 0)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64])
def test_types_shapes_and_label_values(shape: tuple[int, ...], dtype: torch.dtype) -> None:
    images, labels = batch(shape, dtype)
    labels = labels.masked_fill(labels == 3, 255)
    new_images, new_labels = make((0, 1, 2), **ALWAYS)(images, labels, seeded())
    assert new_images.shape == images.shape
    assert new_images.dtype == images.dtype
    assert 0 <= float(new_images.min()) < float(new_images.max()) <= 1
    assert new_labels.shape == labels.shape
    assert new_labels.dtype == dtype
    assert set(new_labels.unique().tolist()) <= {0, 1, 2, 4, 5, 6, 255}
    assert all(
        torch.equal(a, b) for a, b in zip(batch(shape, dtype), (images, labels), strict=True) if a is images
    )


@pytest.mark.parametrize("shape", SHAPES)
def test_without_effects_it_is_the_exact_identity(shape: tuple[int, ...]) -> None:
    images, labels = batch(shape)
    new_images, new_labels = make((0, 1, 2), **NO_INTENSITY, **NO_GEOMETRY)(images, labels, seeded())
    assert torch.equal(new_images, images)
    assert torch.equal(new_labels, labels)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_input_is_not_changed(shape: tuple[int, ...]) -> None:
    images, labels = batch(shape)
    make((2,), **ALWAYS)(images, labels, seeded())
    assert torch.equal(images, batch(shape)[0])
    assert torch.equal(labels, batch(shape)[1])


@pytest.mark.parametrize("shape", SHAPES)
def test_the_generator_decides(shape: tuple[int, ...]) -> None:
    augmentation = make((1, 2), **ALWAYS)
    first, again, other = (augmentation(*batch(shape), seeded(seed)) for seed in (1, 1, 2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert not torch.equal(first[1], other[1])


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 2**31), dims=st.sampled_from([2, 3]))
def test_image_and_label_move_together(seed: int, dims: int) -> None:
    size = (64, 64) if dims == 2 else (20, 32, 32)
    labels = torch.zeros(3, *size, dtype=torch.uint8)
    labels[(slice(None), *[slice(length // 4, length // 2) for length in size])] = 1
    augmentation = make((0, 1, 2), **(ALWAYS | NO_INTENSITY))
    images, moved = augmentation(labels[:, None].float(), labels, seeded(seed))
    assert not torch.equal(moved, labels)
    assert moved.any()
    agreement = ((images[:, 0] > 0.5) == moved.bool()).float().mean()
    assert agreement > 0.99
    both = 2 * ((images[:, 0] > 0.5) & moved.bool()).sum() / ((images[:, 0] > 0.5).sum() + moved.sum())
    assert both > 0.9


def test_intensity_leaves_labels_alone() -> None:
    images, labels = batch((4, 1, 16, 16))
    new_images, new_labels = make((1, 2), **(ALWAYS | NO_GEOMETRY))(images, labels, seeded())
    assert torch.equal(new_labels, labels)
    assert not torch.equal(new_images, images)


def test_a_quarter_turn_by_hand() -> None:
    images, labels = batch((2, 1, 9, 9))
    turn = torch.tensor([[0.0, 1.0], [-1.0, 0.0]])  # output (r, c) is input (c, 8 - r)
    draw = replace(still(2, 2), matrices=torch.stack([turn, torch.eye(2)]))
    new_images, new_labels = apply_geometry(images, labels, draw)
    torch.testing.assert_close(new_images[0], torch.rot90(images[0], 1, (1, 2)), rtol=0, atol=1e-5)
    assert torch.equal(new_labels[0], torch.rot90(labels[0], 1, (0, 1)))
    assert torch.equal(new_images[1], images[1])


def test_a_shift_by_hand_fills_with_zeros() -> None:
    images, labels = batch((1, 1, 6, 8))
    new_images, new_labels = apply_geometry(
        images, labels, replace(still(1, 2), shifts=torch.tensor([[0.0, 2.0]]))
    )
    torch.testing.assert_close(new_images[..., :6], images[..., 2:], rtol=0, atol=1e-5)
    assert torch.equal(new_labels[..., :6], labels[..., 2:])
    assert not new_labels[..., 6:].any()
    assert float(new_images[..., 6:].abs().max()) < 1e-5


def test_half_scale_in_3d_by_hand() -> None:
    labels = torch.zeros(1, 8, 8, 8, dtype=torch.uint8)
    labels[:, 2:6, 2:6, 2:6] = 1
    draw = replace(still(1, 3), matrices=torch.diag(torch.tensor([0.5, 1.0, 1.0]))[None])
    _, stretched = apply_geometry(labels[:, None].float(), labels, draw)
    assert stretched[0, :, 3, 3].tolist() == [1] * 8
    assert stretched[0, 3, :, 3].tolist() == [0, 0, 1, 1, 1, 1, 0, 0]


@pytest.mark.parametrize("shape", SHAPES)
def test_equal_control_points_shift_the_image(shape: tuple[int, ...]) -> None:
    images, labels = batch(shape)
    dims = len(shape) - 2
    controls = torch.zeros(shape[0], dims, *[5] * dims)
    controls[:, -1] = 3  # B-splines add up to one: the last axis moves by three voxels everywhere
    new_images, new_labels = apply_geometry(images, labels, replace(still(shape[0], dims), controls=controls))
    torch.testing.assert_close(new_images[..., :-3], images[..., 3:], rtol=0, atol=1e-4)
    assert torch.equal(new_labels[..., :-3], labels[..., 3:])


def test_linear_control_points_scale_the_image() -> None:
    # 2 intervals on 16 voxels: knots at voxels -8.5, -0.5, 7.5, ...; a line through them is a line.
    knots = torch.tensor([-16.0, -8.0, 0.0, 8.0, 16.0])
    controls = torch.zeros(1, 2, 5, 5)
    controls[0, 0] = -0.5 * knots[:, None]
    images, labels = batch((1, 1, 16, 16))
    bent = apply_geometry(images, labels, replace(still(1, 2), controls=controls))
    half = torch.diag(torch.tensor([0.5, 1.0]))[None]
    scaled = apply_geometry(images, labels, replace(still(1, 2), matrices=half))
    torch.testing.assert_close(bent[0], scaled[0], rtol=0, atol=1e-4)


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31), dims=st.sampled_from([2, 3]))
def test_the_strongest_elastic_field_never_folds(seed: int, dims: int) -> None:
    config = BaseAugmentationConfig(affine_prob=0, elastic_prob=1, elastic_magnitude=0.39)
    size = (48, 60) if dims == 2 else (24, 30, 36)
    draw = draw_geometry(config, 2, size, (), seeded(seed))
    ramps = torch.meshgrid(*[torch.linspace(0, 1, n) for n in size], indexing="ij")
    labels = torch.zeros(2, *size, dtype=torch.uint8)
    for axis, ramp in enumerate(ramps):
        moved, _ = apply_geometry(ramp.expand(2, 1, *size), labels, draw)
        inside = (slice(None), 0, *[slice(n // 6, -n // 6) for n in size])
        assert moved[inside].diff(dim=axis + 1).min() > 0


@pytest.mark.parametrize(
    ("spatial", "axes", "flips"),
    [
        ((8, 8), (), [[]]),
        ((8, 8), (0,), [[]]),
        ((8, 8), (2,), [[], [2]]),
        ((8, 8), (0, 1), [[], [1]]),
        ((6, 8, 8), (0,), [[], [1]]),
        ((6, 8, 8), (0, 2), [[], [1], [3], [1, 3]]),
    ],
)
def test_mirrors_only_along_the_tasks_axes(
    spatial: tuple[int, ...], axes: tuple[int, ...], flips: list[list[int]]
) -> None:
    labels = torch.randint(0, 7, (1, *spatial), generator=seeded()).repeat(64, *[1] * len(spatial))
    config = NO_INTENSITY | {"affine_prob": 0, "elastic_prob": 0}
    images, mirrored = make(axes, **config)(labels[:, None].float(), labels, seeded(1))
    expected = {str(torch.flip(labels[:1], flip).tolist()) for flip in flips}
    assert {str([label.tolist()]) for label in mirrored} == expected
    torch.testing.assert_close(images[:, 0], mirrored.float(), rtol=0, atol=1e-4)


def test_affine_ranges_are_kept() -> None:
    limits = {"rotation": 10, "scale": (0.5, 2.0), "shear": 0.0, "translation": 0.1, "elastic_prob": 0}
    config = BaseAugmentationConfig.model_validate({"affine_prob": 1} | limits)
    draw = draw_geometry(config, 2000, (100, 50), (), seeded())
    scales = 1 / torch.linalg.det(draw.matrices).sqrt()
    assert 0.5 <= float(scales.min()) < 0.55
    assert 1.8 < float(scales.max()) <= 2.0
    assert abs(float(scales.log().mean())) < 0.05
    angles = torch.rad2deg(torch.atan2(draw.matrices[:, 1, 0], draw.matrices[:, 0, 0]))
    assert 9.5 < float(angles.abs().max()) <= 10.001
    assert (draw.shifts.abs().amax(0) <= torch.tensor([10.0, 5.0])).all()
    assert (draw.shifts.abs().amax(0) > torch.tensor([9.5, 4.75])).all()


def test_a_scale_above_one_makes_the_patient_larger() -> None:
    labels = torch.zeros(1, 16, 16, dtype=torch.uint8)
    labels[:, 6:10, 6:10] = 1
    limits = {
        "affine_prob": 1,
        "elastic_prob": 0,
        "rotation": 0,
        "shear": 0,
        "translation": 0,
        "scale": (2, 2),
    }
    _, larger = make(**(NO_INTENSITY | limits))(labels[:, None].float(), labels, seeded())
    assert int(larger.sum()) == 4 * int(labels.sum())
    assert larger[0, 4:12, 4:12].all()


def test_probabilities_hold_per_sample() -> None:
    images, labels = batch((400, 1, 4, 4))
    config = NO_INTENSITY | {"affine_prob": 0.5, "elastic_prob": 0}
    changed = (make(**config)(images, labels, seeded())[0] != images).flatten(1).any(1)
    assert 160 < int(changed.sum()) < 240  # 4 standard deviations


def test_gamma_contrast_and_brightness_by_hand() -> None:
    images = torch.tensor([0.0, 0.5, 1.0, 0.5]).reshape(1, 1, 2, 2)
    values = torch.tensor
    gamma = apply_intensity(images, replace(unchanged(1), gammas=values([2.0])))
    assert gamma.flatten().tolist() == [0, 0.25, 1, 0.25]
    two = torch.cat([images, images / 2])  # each about its own mean
    contrast = apply_intensity(two, replace(unchanged(2), contrasts=values([0.5, 0.5])))
    assert contrast.flatten().tolist() == [0.25, 0.5, 0.75, 0.5, 0.125, 0.25, 0.375, 0.25]
    brightness = apply_intensity(images, replace(unchanged(1), brightnesses=values([0.25])))
    assert brightness.flatten().tolist() == [0.25, 0.75, 1, 0.75]


def test_noise_has_the_drawn_deviation() -> None:
    images = torch.full((2, 1, 64, 64), 0.5)
    noisy = apply_intensity(images, replace(unchanged(2), noises=torch.tensor([0.05, 0.0])))
    assert float(noisy[0].std()) == pytest.approx(0.05, rel=0.05)
    assert float(noisy[0].mean()) == pytest.approx(0.5, abs=0.005)
    assert torch.equal(noisy[1], images[1])
    other = apply_intensity(images, replace(unchanged(2), noises=torch.tensor([0.05, 0.0]), noise_seed=1))
    assert not torch.equal(noisy[0], other[0])


@pytest.mark.parametrize("dims", [2, 3])
def test_blur_spreads_a_point_by_the_drawn_deviation(dims: int) -> None:
    images = torch.zeros(2, 1, *[21] * dims)
    images[(slice(None), 0, *[10] * dims)] = 1
    blurred = apply_intensity(images, replace(unchanged(2), blurs=torch.tensor([1.0, 2.0])))
    assert blurred.flatten(1).sum(1).tolist() == pytest.approx([1, 1], abs=1e-3)
    places = torch.arange(21) - 10.0
    for sample, deviation in enumerate([1.0, 2.0]):
        for axis in range(dims):
            profile = blurred[sample, 0].sum([other for other in range(dims) if other != axis])
            assert float((profile * places**2).sum()) == pytest.approx(deviation**2, rel=0.01)


def test_blur_keeps_a_constant_image() -> None:
    images = torch.full((1, 3, 9, 11), 0.5)
    blurred = apply_intensity(images, replace(unchanged(1), blurs=torch.ones(1)))
    torch.testing.assert_close(blurred, images, rtol=1e-5, atol=1e-6)


def test_half_precision_and_autocast_do_not_coarsen_the_grid() -> None:
    images, labels = batch((2, 1, 64, 64))
    augmentation = make((2,), **ALWAYS)
    expected = augmentation(images, labels, seeded())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = augmentation(images, labels, seeded())
    assert torch.equal(result[0], expected[0])
    assert torch.equal(result[1], expected[1])
    half, moved = augmentation(images.half(), labels, seeded())
    assert half.dtype == torch.float16
    assert torch.equal(moved, expected[1])


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_gpu_agrees_with_cpu_but_for_the_noise() -> None:
    images, labels = batch((4, 1, 64, 64))
    augmentation = make((2,), **(ALWAYS | {"noise_prob": 0}))
    expected = augmentation(images, labels, seeded())
    result = augmentation(images.cuda(), labels.cuda(), seeded())
    assert result[0].is_cuda
    torch.testing.assert_close(result[0].cpu(), expected[0], rtol=0, atol=1e-3)
    assert (result[1].cpu() == expected[1]).float().mean() > 0.999


@pytest.mark.parametrize(
    "settings",
    [
        {"affine_prob": 1.1},
        {"scale": (1.2, 0.8)},
        {"gamma": (0, 1)},
        {"elastic_magnitude": 0.5},
        {"rotate": 3},
    ],
)
def test_wrong_settings_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match=next(iter(settings))):
        BaseAugmentationConfig.model_validate(settings)
