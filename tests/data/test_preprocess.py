"""The way from an image to slices and back: axes, resampling, intensities, crop and restoration."""

import itertools

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmodal.data.preprocess import Geometry, background_level, preprocess, restore
from fedmodal.tasks import ABDOMEN, Modality, Percentiles, Task, Window

CODES = [
    "".join(code) for axes in itertools.permutations(["LR", "PA", "IS"]) for code in itertools.product(*axes)
]


def small(slice_size: tuple[int, int] = (16, 16), spacing: tuple[float, float, float] = (3, 3, 3)) -> Task:
    """The abdomen with a small slice, a window from 0 to 1 and percentiles of everything."""
    changes = {
        "slice_size": slice_size,
        "spacing": spacing,
        "ct": Window(low=0, high=1),
        "mri": Percentiles(low=0, high=100),
    }
    return ABDOMEN.model_copy(update=changes)


def affine_of(codes: str, spacing: tuple[float, ...]) -> np.ndarray:
    """An affine whose axes point to `codes`, with the spacing along them."""
    ornt = nib.orientations.axcodes2ornt(codes)
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (world, sign) in enumerate(ornt):
        affine[int(world), axis] = sign * spacing[axis]
    return affine


def image_of(
    array: np.ndarray, spacing: tuple[float, ...] = (3, 3, 3), codes: str = "SPL"
) -> nib.Nifti1Image:
    return nib.Nifti1Image(array, affine_of(codes, spacing))


def one_hot(label: np.ndarray) -> torch.Tensor:
    return torch.nn.functional.one_hot(torch.from_numpy(label).long(), 7).permute(3, 0, 1, 2).float()


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())


def ball(shape: tuple[int, ...], spacing: tuple[float, ...], radius: float) -> np.ndarray:
    """A ball of label 5 in the middle, in millimetres."""
    places = np.indices(shape).reshape(3, -1).T
    middle = (np.array(shape) - 1) / 2
    inside = np.linalg.norm((places - middle) * spacing, axis=1) <= radius
    return (5 * inside).reshape(shape).astype(np.uint8)


# --- axes


@pytest.mark.parametrize("codes", ["SPL", "LPS", "RAS", "IAR", "ASL"])
def test_axes_become_feet_to_head_front_to_back_right_to_left(codes: str) -> None:
    spl = np.zeros((4, 16, 16), np.float32)
    spl[3, 15, 0] = 1  # head, back, right
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("SPL"), nib.orientations.axcodes2ornt(codes)
    )
    image = image_of(nib.orientations.apply_orientation(spl, turn), codes=codes)
    np.testing.assert_array_equal(preprocess(image, None, small(), Modality.CT).image, spl)


@given(codes=st.sampled_from(CODES), seed=st.integers(0, 99))
@settings(deadline=None, max_examples=48)
def test_a_grid_at_the_tasks_spacing_comes_back_exactly(codes: str, seed: int) -> None:
    array = np.random.default_rng(seed).integers(0, 7, (9, 16, 12)).astype(np.uint8)
    image = image_of(array, codes=codes)
    prepared = preprocess(image, image, small(), Modality.CT)
    assert prepared.label is not None
    np.testing.assert_array_equal(restore(one_hot(prepared.label), prepared.geometry), array)


def test_a_stored_grid_is_the_identity() -> None:
    values = np.random.default_rng(0).random((5, 16, 16), np.float32)
    label = np.random.default_rng(1).integers(0, 7, (5, 16, 16)).astype(np.uint8)
    prepared = preprocess(image_of(values), image_of(label), small(), Modality.CT)
    np.testing.assert_array_equal(prepared.image, values.astype(np.float16))
    np.testing.assert_array_equal(prepared.label, label)
    assert prepared.geometry.start == (0, 0)
    assert prepared.image.dtype == np.float16
    assert prepared.label is not None
    assert prepared.label.dtype == np.uint8


def test_oblique_directions_are_kept() -> None:
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
    values = np.random.default_rng(0).random((5, 16, 16), np.float32)
    oblique = nib.Nifti1Image(values, turn @ affine_of("SPL", (3, 3, 3)))
    prepared = preprocess(oblique, None, small(), Modality.CT)
    np.testing.assert_array_equal(prepared.image, values.astype(np.float16))
    assert prepared.geometry.spacing == pytest.approx((3, 3, 3))


# --- resampling


def resampled(values: list[float], spacing: float, target: float) -> np.ndarray:
    """A profile along axis 2, resampled; the other axes are constant and stay."""
    array = np.broadcast_to(np.array(values, np.float32), (1, 16, len(values)))
    task = small(spacing=(1, 1, target))
    prepared = preprocess(image_of(array, (1, 1, spacing)), None, task, Modality.CT)
    start = -prepared.geometry.start[1]
    return prepared.image[0, 0, start : start + prepared.geometry.resampled[2]]


def test_a_weak_reduction_interpolates_as_torch_does() -> None:
    values = torch.rand(1, 1, 14, generator=torch.Generator().manual_seed(0))
    expected = torch.nn.functional.interpolate(values, size=10, mode="linear", align_corners=False)
    got = resampled(values.flatten().tolist(), 1, 1.4)
    np.testing.assert_allclose(got, expected.flatten().numpy(), atol=1e-3)


def test_a_strong_reduction_averages_over_area() -> None:
    np.testing.assert_allclose(resampled([0, 1, 0.5, 0.5, 1, 1, 0, 0], 1, 2), [0.5, 0.5, 1, 0])
    got = resampled([0.75, 0, 0.75, 1, 1], 1, 2.5)  # parts of 2.5 voxels
    np.testing.assert_allclose(got, [(0.75 + 0.375) / 2.5, (0.375 + 2) / 2.5], atol=1e-3)


def test_noise_does_not_alias() -> None:
    noise = np.random.default_rng(0).random((1, 1, 256)).astype(np.float32)
    assert resampled(noise.ravel().tolist(), 1, 16).std() < noise.std() / 3


def test_labels_go_to_the_largest_share_and_ties_to_background() -> None:
    # four pairs of voxels along axis 2 become one each
    label = np.broadcast_to(np.array([1, 1, 1, 0, 2, 3, 0, 0], np.uint8), (1, 16, 8))
    task = small(spacing=(1, 1, 2))
    image = image_of(label, (1, 1, 1))
    prepared = preprocess(image, image, task, Modality.CT)
    assert prepared.label is not None
    assert prepared.label[0, 0, 6:10].tolist() == [1, 0, 2, 0]


def test_rounding_does_not_decide_a_tie() -> None:
    """Of 2.5 voxels, background and organ 1 hold 0.4 each and organ 2 holds 0.2."""
    label = np.broadcast_to(np.array([1, 0, 2, 3, 3], np.uint8), (1, 16, 5))
    image = image_of(label, (1, 1, 1))
    prepared = preprocess(image, image, small(spacing=(1, 1, 2.5)), Modality.CT)
    assert prepared.label is not None
    assert prepared.label[0, 0, 7:9].tolist() == [0, 3]


@pytest.mark.parametrize(
    ("shape", "spacing", "resampled_shape", "true_spacing"),
    [
        ((10, 16, 16), (5, 3, 3), (10, 16, 16), (5, 3, 3)),  # thick slices stay
        ((10, 16, 16), (1, 3, 3), (3, 16, 16), (10 / 3, 3, 3)),  # thin ones are merged
        ((10, 10, 20), (3, 2, 4), (10, 7, 27), (3, 20 / 7, 80 / 27)),
        ((1, 2, 2), (0.5, 0.5, 0.5), (1, 1, 1), (0.5, 1, 1)),
    ],
)
def test_sizes_and_true_spacing(
    shape: tuple[int, ...],
    spacing: tuple[float, ...],
    resampled_shape: tuple[int, ...],
    true_spacing: tuple[float, ...],
) -> None:
    array = np.random.default_rng(0).random(shape).astype(np.float32)
    prepared = preprocess(image_of(array, spacing), None, small(), Modality.CT)
    assert prepared.geometry.resampled == resampled_shape
    assert prepared.geometry.spacing == pytest.approx(true_spacing)
    assert prepared.image.shape == prepared.geometry.stored == (resampled_shape[0], 16, 16)


# --- intensities


def test_ct_uses_the_window() -> None:
    array = np.zeros((1, 16, 16), np.int16)
    array[0, 0, :5] = [-1000, -160, 40, 240, 3000]
    prepared = preprocess(
        image_of(array), None, ABDOMEN.model_copy(update={"slice_size": (16, 16)}), Modality.CT
    )
    assert prepared.image[0, 0, :5].tolist() == [0, 0, 0.5, 1, 1]


@pytest.mark.parametrize("padding", [0, 0.9])
def test_mri_percentiles_are_of_the_tissue(padding: float) -> None:
    """A zero-padded field of view changes nothing, however large it is."""
    rng = np.random.default_rng(0)
    array = np.zeros((4, 64, 64), np.float32)
    rows = int(64 * (1 - padding))
    array[:, :rows] = rng.uniform(100, 1100, (4, rows, 64))
    array[:, :rows, :20] = np.abs(rng.normal(0, 5, (4, rows, 20)))  # air
    task = ABDOMEN.model_copy(update={"slice_size": (64, 64)})
    prepared = preprocess(image_of(array), None, task, Modality.MRI)
    low, high = 105, 1095  # half a percent off either end of 100..1100
    expected = (array[:, :rows] - low) / (high - low)
    np.testing.assert_allclose(prepared.image[:, :rows], expected.clip(0, 1), atol=0.02)
    assert not prepared.image[:, rows:].any()


@pytest.mark.parametrize("padding", [0, 2_000_000])
def test_mri_noise_is_background(padding: int) -> None:
    rng = np.random.default_rng(0)
    air, tissue = np.abs(rng.normal(0, 8, 9000)), rng.uniform(150, 1000, 3000)
    level = background_level(np.concatenate([air, tissue, np.zeros(padding)]))
    assert air.max() < level < 150


@pytest.mark.parametrize("scale", [0.001, 1, 1000])
def test_mri_does_not_depend_on_the_scale(scale: float) -> None:
    array = np.random.default_rng(0).uniform(1, 9, (3, 16, 16)).astype(np.float32)
    first = preprocess(image_of(array), None, small(), Modality.MRI).image
    second = preprocess(image_of(array * scale), None, small(), Modality.MRI).image
    np.testing.assert_allclose(first, second, atol=2e-3)


# --- crop and padding


def test_padding_is_zero_and_even() -> None:
    prepared = preprocess(image_of(np.ones((2, 10, 13), np.int16)), None, small(), Modality.CT)
    assert prepared.geometry.start == (-3, -1)
    assert prepared.image[:, 3:13, 1:14].all()
    assert prepared.image.sum() == 2 * 10 * 13


def test_the_crop_is_around_the_body_and_not_the_table() -> None:
    array = np.full((4, 48, 64), -1000, np.int16)
    array[:, 4:16, 40:56] = 50  # the body, middle at row 10, column 48
    array[:, 40, 30:34] = 200  # a table far behind it
    prepared = preprocess(
        image_of(array), None, ABDOMEN.model_copy(update={"slice_size": (16, 32)}), Modality.CT
    )
    assert prepared.geometry.start == (2, 32)


def test_the_crop_stays_inside_the_image() -> None:
    array = np.full((2, 40, 40), -1000, np.int16)
    array[:, :4, 36:] = 50
    prepared = preprocess(image_of(array), None, small(), Modality.CT)
    assert prepared.geometry.start == (0, 24)


# --- restoration


def test_outside_the_crop_is_background_and_inside_is_not() -> None:
    array = np.full((2, 40, 40), -1000, np.int16)
    array[:, 10:20, 20:30] = 50
    geometry = preprocess(image_of(array), None, small(), Modality.CT).geometry
    scores = torch.zeros(7, 2, 16, 16)
    scores[3] = 1
    expected = np.zeros((2, 40, 40), np.uint8)
    expected[:, 7:23, 17:33] = 3
    np.testing.assert_array_equal(restore(scores, geometry), expected)


def test_scores_are_interpolated_before_the_highest_wins() -> None:
    """Between 0.9 and 0.2 of an organ (threshold 0.5) the border lies at 4/7 of the way."""
    label = np.zeros((1, 16, 28), np.uint8)
    geometry = preprocess(image_of(label, (3, 3, 3 / 7)), None, small(), Modality.CT).geometry
    assert geometry.resampled == (1, 16, 4)
    organ = torch.zeros(16)
    organ[6:10] = torch.tensor([0.9, 0.2, 0.0, 0.0])  # columns 6 to 9 hold the image
    scores = torch.zeros(7, 1, 16, 16)
    scores[5], scores[0] = organ, 1 - organ
    restored = restore(scores, geometry)[0, 0]
    assert np.flatnonzero(restored).tolist() == list(range(7))  # centres 0.5 + 4/7 = 7.5 voxels of 1/7


def test_ties_go_to_the_lower_id() -> None:
    geometry = preprocess(image_of(np.ones((1, 16, 16), np.int16)), None, small(), Modality.CT).geometry
    scores = torch.ones(7, 1, 16, 16)
    assert not restore(scores, geometry).any()
    scores[0] = 0
    assert (restore(scores, geometry) == 1).all()


def reference_restore(scores: torch.Tensor, geometry: Geometry) -> np.ndarray:
    """Restoration by torch's interpolation of the whole padded grid; for crops that only pad."""
    rows, columns = -geometry.start[0], -geometry.start[1]
    inside = scores[:, :, rows : rows + geometry.resampled[1], columns : columns + geometry.resampled[2]]
    whole = torch.nn.functional.interpolate(inside[None], geometry.oriented, mode="trilinear")
    return whole[0].argmax(0).to(torch.uint8).numpy()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16])
def test_restoration_equals_torchs_interpolation(dtype: torch.dtype) -> None:
    array = np.ones((17, 30, 22), np.int16)
    geometry = preprocess(image_of(array, (1.1, 1.3, 1.9)), None, small(), Modality.CT).geometry
    scores = torch.randn(7, *geometry.stored, generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = reference_restore(scores.float(), geometry)
    assert (restore(scores, geometry) != expected).mean() < 1e-3  # rounding may turn a near tie


def test_slabs_leave_no_seam() -> None:
    """A native grid of several slabs, with organs in a part of it only."""
    array = np.ones((12, 512, 512), np.int16)
    geometry = preprocess(image_of(array, (1, 0.09, 0.09)), None, small(), Modality.CT).geometry
    scores = torch.zeros(7, *geometry.stored)
    scores[0] = 0.5
    scores[2, 1:3, 5:11, 3:12] = torch.rand(2, 6, 9, generator=torch.Generator().manual_seed(0))
    restored = restore(scores, geometry)
    assert restored.any()
    assert (restored != reference_restore(scores, geometry)).mean() < 1e-4


@given(
    codes=st.sampled_from(CODES),
    spacing=st.tuples(st.floats(1, 6), st.floats(1, 4.5), st.floats(1, 4.5)),
)
@settings(deadline=None, max_examples=25)
def test_an_organ_survives_the_round_trip(codes: str, spacing: tuple[float, float, float]) -> None:
    """A ball of 30 mm through any orientation and spacing keeps its place and size."""
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("SPL"), nib.orientations.axcodes2ornt(codes)
    )
    label = ball(tuple(round(75 / step) for step in spacing), spacing, 30)
    native = nib.orientations.apply_orientation(label, turn)
    native_spacing = tuple(spacing[int(axis)] for axis in np.argsort(turn[:, 0]))
    image = image_of(native, native_spacing, codes)
    prepared = preprocess(image, image, small(slice_size=(32, 32)), Modality.CT)
    assert prepared.label is not None
    restored = restore(one_hot(prepared.label), prepared.geometry)
    assert restored.shape == native.shape
    assert dice(restored == 5, native == 5) > 0.94
    volume = (prepared.label == 5).sum() * np.prod(prepared.geometry.spacing)
    assert volume == pytest.approx((native == 5).sum() * np.prod(spacing), rel=0.08)
