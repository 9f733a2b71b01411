import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.metrics import compute_dice
from torch.nn.functional import one_hot

from fedmodal.tasks import ABDOMEN
from fedmodal.training.metrics import (
    HD95,
    SURFACE_DICE,
    VOLUME_ERROR,
    Spread,
    score_patient,
    spread,
    summarize,
)

LIVER, SPLEEN = ABDOMEN.labels["liver"], ABDOMEN.labels["spleen"]


def volume(**voxels: slice) -> np.ndarray:
    """A volume of 10 voxels in a row with the named organs."""
    result = np.zeros((1, 1, 10), np.uint8)
    for organ, where in voxels.items():
        result[0, 0, where] = ABDOMEN.labels[organ]
    return result


def test_dice_of_half_overlap() -> None:
    score = score_patient("p", volume(liver=slice(2, 6)), volume(liver=slice(0, 4)), ABDOMEN)
    assert score.dice[LIVER - 1] == 2 * 2 / (4 + 4)


def test_absent_organ_is_neither_right_nor_wrong() -> None:
    score = score_patient("p", volume(), volume(liver=slice(0, 4)), ABDOMEN)
    assert np.isnan(score.dice[SPLEEN - 1])
    assert score.dice[LIVER - 1] == 0
    assert not score.invented.any()


def test_organ_predicted_where_there_is_none_is_invented() -> None:
    score = score_patient("p", volume(spleen=slice(0, 1)), volume(), ABDOMEN)
    assert score.invented.tolist() == [True] + [False] * 5
    assert np.isnan(score.dice).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_agrees_with_monai(seed: int) -> None:
    rng = np.random.default_rng(seed)
    prediction, reference = rng.integers(0, 7, (2, 3, 4, 5)).astype(np.uint8)
    reference[reference == SPLEEN] = 0
    channels = [one_hot(torch.from_numpy(v).long(), 7).movedim(-1, 0)[None] for v in (prediction, reference)]
    expected = compute_dice(*channels, include_background=False)[0].numpy()
    np.testing.assert_allclose(score_patient("p", prediction, reference, ABDOMEN).dice, expected, rtol=1e-6)


def test_summary_counts_patients_per_organ() -> None:
    perfect = score_patient("a", volume(liver=slice(0, 4)), volume(liver=slice(0, 4)), ABDOMEN)
    missed = score_patient("b", volume(spleen=slice(8, 9)), volume(liver=slice(0, 4)), ABDOMEN)
    summary = summarize([perfect, missed], ABDOMEN)
    liver, spleen = summary.organs["liver"], summary.organs["spleen"]
    assert (liver.dice, liver.n, liver.missed, liver.absent) == (0.5, 2, 1, 0)
    assert (spleen.dice, spleen.n, spleen.absent, spleen.invented) == (None, 0, 2, 1)


def test_mean_is_over_organs_of_the_mean_over_patients() -> None:
    one = score_patient("a", volume(liver=slice(0, 4)), volume(liver=slice(0, 4)), ABDOMEN)
    two = score_patient(
        "b", volume(spleen=slice(6, 8)), volume(liver=slice(0, 4), spleen=slice(6, 8)), ABDOMEN
    )
    assert summarize([one, two], ABDOMEN).mean == (0.5 + 1.0) / 2


def test_no_patient_gives_no_mean() -> None:
    assert summarize([], ABDOMEN).mean is None


def test_an_organ_that_is_not_outlined_is_neither_scored_nor_invented() -> None:
    prediction = volume(liver=slice(0, 4), spleen=slice(6, 7))
    liver = ABDOMEN.labels["liver"]
    score = score_patient("p", prediction, volume(liver=slice(0, 4)), ABDOMEN, [liver])
    assert score.dice[liver - 1] == 1
    assert np.isnan(np.delete(score.dice, liver - 1)).all()
    assert not score.invented.any()


GRID = np.diag([1.0, 2.0, 5.0, 1.0])
"""Voxels of 1 x 2 x 5 mm, 0.01 ml."""


def cube(start: int, organ: int = LIVER) -> np.ndarray:
    """A volume with an organ of 6 x 6 x 6 voxels that begins at `start` along the last axis, 5 mm a voxel."""
    result = np.zeros((10, 10, 20), np.uint8)
    result[2:8, 2:8, start : start + 6] = organ
    return result


def test_surface_measures_of_a_shifted_cube() -> None:
    shifted = score_patient("p", cube(6), cube(5), ABDOMEN, affine=GRID).others
    assert shifted[HD95][LIVER - 1] == 5
    assert shifted[VOLUME_ERROR][LIVER - 1] == 0
    same = score_patient("p", cube(5), cube(5), ABDOMEN, affine=GRID).others
    assert (same[HD95][LIVER - 1], same[SURFACE_DICE][LIVER - 1]) == (0, 1)
    assert shifted[SURFACE_DICE][LIVER - 1] < 1


def test_surface_dice_forgives_three_millimetres_along_a_fine_axis() -> None:
    fine = np.diag([5.0, 2.0, 3.0, 1.0])
    assert score_patient("p", cube(6), cube(5), ABDOMEN, affine=fine).others[SURFACE_DICE][LIVER - 1] == 1


def test_volume_error_is_signed_and_in_millilitres() -> None:
    smaller = cube(5)
    smaller[2:8, 2:8, 5] = 0
    score = score_patient("p", smaller, cube(5), ABDOMEN, affine=GRID)
    np.testing.assert_allclose(score.others[VOLUME_ERROR][LIVER - 1], -36 * 0.01)


def test_a_missed_organ_has_no_surface_distance_and_an_absent_one_no_measure() -> None:
    score = score_patient("p", cube(5, SPLEEN), cube(5), ABDOMEN, affine=GRID)
    assert np.isnan(score.others[HD95]).all()
    assert score.others[SURFACE_DICE][LIVER - 1] == 0
    assert np.isnan(score.others[SURFACE_DICE][SPLEEN - 1])
    organs = summarize([score], ABDOMEN).organs
    assert set(organs["liver"].spreads) == {"dice", SURFACE_DICE, VOLUME_ERROR}
    assert organs["spleen"].spreads == {}


def test_spread_of_five_values() -> None:
    found = spread(np.array([0.2, np.nan, 0.4, 0.6, 0.8, 1.0]))
    assert found is not None
    assert (found.q1, found.median, found.q3) == (0.4, 0.6, 0.8)
    assert (found.n, round(found.mean, 6)) == (5, 0.6)
    assert found.low is not None
    assert found.high is not None
    assert 0.2 < found.low < 0.6 < found.high < 1.0


def test_of_few_patients_there_is_a_mean_and_nothing_that_is_one_patients() -> None:
    assert spread(np.array([0.5, 0.25, np.nan, 0.75, 0.5])) == Spread(4, 0.5)


def test_without_a_grid_only_dice_is_taken() -> None:
    score = score_patient("p", cube(5), cube(5), ABDOMEN)
    assert score.others == {}
    assert summarize([score], ABDOMEN).organs["liver"].spreads == {}
