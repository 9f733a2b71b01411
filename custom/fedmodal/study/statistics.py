"""Means over patients with bootstrap intervals, paired differences and ratios."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from fedmodal.study.results import Row
from fedmodal.training.metrics import RESAMPLES

Values = npt.NDArray[np.float64]

MEAN = "mean"
_SEED = 0
_LEVELS = (2.5, 97.5)


class Group(NamedTuple):
    """What one estimate is of: an arm in a regime, on the test patients of a modality."""

    task: str
    regime: str
    arm: str
    modality: str


@dataclass(frozen=True)
class Estimate:
    """A value and the ends of its interval; NaN where nobody has the organ.

    The interval is the 95 % one over patients; of a single patient, the lowest and the highest
    seed; None with a single patient and seed.
    """

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Scores:
    """The Dice of one group.

    Attributes:
        values: (seeds, patients, organs), NaN where the patient does not have the organ.
        seeds: of the first axis.
        patients: of the second axis.
        organs: of the third axis.
        trained_on: the modalities trained on, as in "CT+MRI".
    """

    values: Values
    seeds: tuple[int, ...]
    patients: tuple[str, ...]
    organs: tuple[str, ...]
    trained_on: str


def group_scores(rows: Sequence[Row], organs: Sequence[str]) -> dict[Group, Scores]:
    """Rows as arrays, group by group; `organs` gives the order of the last axis."""
    groups: dict[Group, list[Row]] = {}
    for row in rows:
        groups.setdefault(Group(row.task, row.regime, row.arm, row.modality), []).append(row)
    return {group: _arrange(found, organs) for group, found in groups.items()}


def _arrange(rows: Sequence[Row], order: Sequence[str]) -> Scores:
    seeds = tuple(sorted({row.seed for row in rows}))
    patients = tuple(sorted({row.patient for row in rows}))
    organs = tuple(organ for organ in order if organ in {row.organ for row in rows})
    values = np.full((len(seeds), len(patients), len(organs)), np.nan)
    for row in rows:
        if row.dice is not None:
            place = seeds.index(row.seed), patients.index(row.patient), organs.index(row.organ)
            values[place] = row.dice
    return Scores(values, seeds, patients, organs, rows[0].trained_on)


def organ_means(values: Values) -> Values:
    """(..., patients, organs) to (..., organs + 1): each organ's mean over patients, then their mean."""
    means = _mean_known(values, -2)
    return np.concatenate((means, _mean_known(means, -1)[..., None]), axis=-1)


def _mean_known(values: Values, axis: int) -> Values:
    """The mean of what is not NaN along an axis; NaN if there is nothing."""
    known = ~np.isnan(values)
    count = known.sum(axis)
    mean: Values = np.where(known, values, 0).sum(axis) / np.where(count, count, np.nan)
    return mean


def estimate(statistic: Callable[..., Values], *groups: Values) -> list[Estimate]:
    """A statistic of one or more groups of scores of the same patients, with its intervals.

    A patient's scores are averaged over seeds first, so that a patient counts once, however often
    trained. The interval is the percentile bootstrap's (Efron 1979), over patients, the same ones
    drawn from every group.

    Args:
        statistic: of one (..., patients, organs) array a group to values (..., n).
        groups: (seeds, patients, organs) each.
    """
    means = [values.mean(0) for values in groups]
    seeds, patients = groups[0].shape[:2]
    if patients > 1:
        drawn = np.random.default_rng(_SEED).integers(0, patients, (RESAMPLES, patients))
        others, levels = statistic(*(values[drawn] for values in means)), _LEVELS
    else:
        others, levels = statistic(*groups), (0, 100)
    found = []
    for value, column in zip(statistic(*means).tolist(), others.T, strict=True):
        known = column[~np.isnan(column)]
        ends = np.percentile(known, levels).tolist() if len(known) and (patients, seeds) > (1, 1) else ()
        found.append(Estimate(value, *(ends or (None, None))))
    return found


def dice_of(scores: Scores) -> dict[str, Estimate]:
    """Per organ, and for their mean, the mean over patients of the mean over seeds."""
    return dict(zip((*scores.organs, MEAN), estimate(organ_means, scores.values), strict=True))


def difference(scores: Scores, reference: Scores) -> dict[str, Estimate]:
    """Paired difference of two arms on the same patients: negative where `reference` is better.

    Seeds and patients that only one of them has are left out; empty if they share none.
    """
    pair = _paired(scores, reference)
    if pair is None:
        return {}
    found = estimate(lambda one, other: organ_means(one) - organ_means(other), *pair)
    return dict(zip((*scores.organs, MEAN), found, strict=True))


def ratio(scores: Scores, reference: Scores) -> Estimate | None:
    """The ratio of the two means over organs on the same patients; None if they share none or it is n/0."""
    pair = _paired(scores, reference)
    if pair is None:
        return None
    found = estimate(_quotient, *pair)[0]
    return None if np.isnan(found.value) else found


def _quotient(one: Values, other: Values) -> Values:
    below = organ_means(other)[..., -1:]
    result: Values = organ_means(one)[..., -1:] / np.where(below > 0, below, np.nan)
    return result


def _paired(scores: Scores, reference: Scores) -> tuple[Values, Values] | None:
    """Both (seeds, patients, organs), of the seeds and patients that they share."""
    seeds = [seed for seed in scores.seeds if seed in reference.seeds]
    patients = [patient for patient in scores.patients if patient in reference.patients]
    if not seeds or not patients or scores.organs != reference.organs:
        return None
    return _select(scores, seeds, patients), _select(reference, seeds, patients)


def _select(scores: Scores, seeds: Sequence[int], patients: Sequence[str]) -> Values:
    chosen = [scores.seeds.index(seed) for seed in seeds]
    values: Values = scores.values[chosen][:, [scores.patients.index(patient) for patient in patients]]
    return values


def ratios_to_pooled(groups: Mapping[Group, Scores], pooled: str) -> dict[Group, Estimate]:
    """Of every group in a federated regime of the same modalities: its mean over that of pooled training."""
    found = {}
    for group, scores in groups.items():
        reference = groups.get(group._replace(regime=pooled))
        if reference is None or group.regime == pooled or reference.trained_on != scores.trained_on:
            continue
        if (value := ratio(scores, reference)) is not None:
            found[group] = value
    return found
