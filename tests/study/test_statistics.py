"""Means, intervals, differences and ratios against numbers worked out by hand."""

import itertools

import numpy as np
import pytest

from fedmodal.study.statistics import (
    MEAN,
    Group,
    dice_of,
    difference,
    estimate,
    group_scores,
    organ_means,
    ratio,
    ratios_to_pooled,
)
from tests.study.conftest import MakeRow

NAN = float("nan")


def test_mean_over_organs_is_of_the_means_over_patients() -> None:
    """Spleen (0.2 + 0.4) / 2 = 0.3; gallbladder 0.9 of the one who has it; together 0.6."""
    values = np.array([[0.2, 0.9], [0.4, NAN]])
    np.testing.assert_allclose(organ_means(values), [0.3, 0.9, 0.6])


def test_organ_that_nobody_has_is_nan_and_left_out_of_the_mean() -> None:
    np.testing.assert_allclose(organ_means(np.array([[0.2, NAN], [0.4, NAN]])), [0.3, NAN, 0.3])


def test_bootstrap_of_two_patients() -> None:
    """Two patients, 0 and 1: the resampled mean is 0, 0.5 or 1 with chances 1/4, 1/2, 1/4."""
    values = np.array([[[0.0], [1.0]]])
    found = estimate(organ_means, values)[0]
    assert (found.value, found.low, found.high) == (0.5, 0.0, 1.0)


def test_bootstrap_interval_is_that_of_all_resamples() -> None:
    """All 5^5 resamples counted out: the interval from 2,000 of them lies within a grid step of it."""
    dice = np.array([0.5, 0.6, 0.65, 0.7, 0.9])
    every = [np.mean(one) for one in itertools.product(dice, repeat=5)]
    low, high = np.percentile(every, [2.5, 97.5])
    found = estimate(organ_means, dice[None, :, None])[0]
    assert found.value == pytest.approx(0.67)
    assert found.low == pytest.approx(low, abs=0.012)
    assert found.high == pytest.approx(high, abs=0.012)


def test_one_patient_and_seed_have_no_interval(make_row: MakeRow) -> None:
    scores = group_scores([make_row("gin", "p1", "liver", 0.8)], ["liver"])
    found = dice_of(next(iter(scores.values())))[MEAN]
    assert (found.value, found.low, found.high) == (0.8, None, None)


def test_one_patient_has_the_range_over_seeds(make_row: MakeRow) -> None:
    """Of both the score (0.2 to 0.6) and the paired difference to an arm that has 0.1 and 0.3."""
    rows = [make_row("gin", "p1", "liver", dice, seed=seed) for seed, dice in ((1, 0.2), (2, 0.6))]
    rows += [make_row("none", "p1", "liver", dice, seed=seed) for seed, dice in ((1, 0.1), (2, 0.3))]
    scores = group_scores(rows, ["liver"])
    gin, none = (scores[Group("abdomen", "federated", arm, "MRI")] for arm in ("gin", "none"))
    found = dice_of(gin)[MEAN]
    assert [found.value, found.low, found.high] == pytest.approx([0.4, 0.2, 0.6])
    found = difference(none, gin)[MEAN]
    assert [found.value, found.low, found.high] == pytest.approx([-0.2, -0.3, -0.1])


def test_a_patient_counts_once_however_many_seeds(make_row: MakeRow) -> None:
    """p1: (0.2 + 0.6) / 2 = 0.4; p2: 0.8 with both seeds; mean 0.6, and resamples from these two only."""
    rows = [
        make_row("gin", patient, "liver", dice, seed=seed)
        for patient, seed, dice in (("p1", 1, 0.2), ("p1", 2, 0.6), ("p2", 1, 0.8), ("p2", 2, 0.8))
    ]
    found = dice_of(next(iter(group_scores(rows, ["liver"]).values())))["liver"]
    assert found.value == pytest.approx(0.6)
    assert (found.low, found.high) == (pytest.approx(0.4), pytest.approx(0.8))


def test_paired_difference_is_negative_where_the_reference_is_better(make_row: MakeRow) -> None:
    """Patients differ much, arms by 0.1 in each: paired, the interval is that one number."""
    rows = [make_row("none", f"p{i}", "liver", i / 10) for i in range(5)]
    rows += [make_row("gin", f"p{i}", "liver", i / 10 + 0.1) for i in range(5)]
    scores = group_scores(rows, ["liver"])
    none, gin = (scores[Group("abdomen", "federated", arm, "MRI")] for arm in ("none", "gin"))
    found = difference(none, gin)[MEAN]
    assert [found.value, found.low, found.high] == pytest.approx([-0.1] * 3)
    assert difference(gin, none)[MEAN].value == pytest.approx(0.1)


def test_difference_uses_shared_patients_and_seeds_only(make_row: MakeRow) -> None:
    rows = [make_row("gin", "p1", "liver", 0.5), make_row("gin", "p2", "liver", 0.1)]
    rows += [make_row("gin", "p1", "liver", 0.9, seed=2), make_row("none", "p1", "liver", 0.4)]
    rows += [make_row("gin", "p2", "liver", 0.1, seed=2)]
    none, gin = (
        group_scores(rows, ["liver"])[Group("abdomen", "federated", arm, "MRI")] for arm in ("none", "gin")
    )
    assert difference(none, gin)[MEAN].value == pytest.approx(-0.1)


def test_ratio_of_means(make_row: MakeRow) -> None:
    """Federated 0.6 and 0.3, pooled 0.8 and 0.4: 0.75 in every resample."""
    rows = [make_row("gin", f"p{i}", "liver", dice) for i, dice in enumerate((0.6, 0.3))]
    rows += [make_row("gin", f"p{i}", "liver", dice, regime="pooled") for i, dice in enumerate((0.8, 0.4))]
    scores = group_scores(rows, ["liver"])
    found = ratios_to_pooled(scores, "pooled")
    group = Group("abdomen", "federated", "gin", "MRI")
    assert list(found) == [group]
    assert [found[group].value, found[group].low, found[group].high] == pytest.approx([0.75] * 3)


def test_no_ratio_to_zero_and_none_for_sites_of_one_modality(make_row: MakeRow) -> None:
    rows = [make_row("gin", "p1", "liver", 0.5), make_row("gin", "p1", "liver", 0.0, regime="pooled")]
    scores = list(group_scores(rows, ["liver"]).values())
    assert ratio(scores[0], scores[1]) is None
    rows = [
        make_row("gin", "p1", "liver", 0.5, regime="federated_ct", trained_on="CT"),
        make_row("gin", "p1", "liver", 0.8, regime="pooled"),
    ]
    assert ratios_to_pooled(group_scores(rows, ["liver"]), "pooled") == {}
