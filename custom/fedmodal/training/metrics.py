"""How well a predicted label map agrees with the true one, per organ, and its summary over patients."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from fedmodal.data.nifti import millilitres_a_voxel, spacing_of
from fedmodal.tasks import Task
from fedmodal.training.measures import DICE, FEW_PATIENTS, HD95, SURFACE_DICE, VOLUME_ERROR
from fedmodal.training.surfaces import surface_measures

RESAMPLES = 2000
_BOOTSTRAP_SEED = 0
_LEVELS = (2.5, 97.5)


@dataclass(frozen=True)
class PatientScore:
    """One patient's result.

    Attributes:
        patient: the patient's name in the data set.
        dice: 3D Dice per organ in the task's order; NaN where the patient does not have the organ, or
            the label map does not outline it.
        invented: per organ, whether it was predicted in a patient who does not have it.
        others: further measures by name, each per organ, NaN where it is not defined.
    """

    patient: str
    dice: np.ndarray
    invented: np.ndarray
    others: Mapping[str, np.ndarray] = field(default_factory=dict)


def score_patient(
    patient: str,
    prediction: np.ndarray,
    reference: np.ndarray,
    task: Task,
    annotated: Sequence[int] | None = None,
    affine: np.ndarray | None = None,
) -> PatientScore:
    """3D Dice of each organ, 2 |P and R| / (|P| + |R|) (Dice 1945), on label maps of one shape.

    Counts all organs in one pass over the volume; the values are those of MONAI's `compute_dice`.
    Organs whose ids are not in `annotated` (None means all are) are not scored, and none is taken
    for an invented one. With the grid's `affine`, to mm, the other measures are there too: they
    take longer.
    """
    classes = task.num_classes
    table = _count_pairs(reference, prediction, classes)
    in_reference, in_prediction = table.sum(1)[1:], table.sum(0)[1:]
    present = in_reference > 0
    total = np.where(present, in_reference + in_prediction, 1)
    dice = np.where(present, 2 * np.diag(table)[1:] / total, np.nan)
    outlined = np.isin(np.arange(1, classes), annotated if annotated is not None else range(classes))
    others = {}
    if affine is not None:
        error = np.where(present, (in_prediction - in_reference) * millilitres_a_voxel(affine), np.nan)
        distance, overlap = surface_measures(prediction, reference, spacing_of(affine), len(task.organs))
        others = {SURFACE_DICE: overlap, HD95: distance, VOLUME_ERROR: error}
    return PatientScore(patient, dice, outlined & ~present & (in_prediction > 0), others)


def _count_pairs(reference: np.ndarray, prediction: np.ndarray, classes: int) -> np.ndarray:
    """Voxels of each (true, predicted) pair of ids; plane by plane, for memory."""
    table = np.zeros(classes**2, np.intp)
    for true, found in zip(reference, prediction, strict=True):
        table += np.bincount((true.astype(np.intp) * classes + found).ravel(), minlength=classes**2)
    return table.reshape(classes, classes)


@dataclass(frozen=True)
class Spread:
    """One measure over patients; of fewer than five the mean alone, so that no patient stands out.

    Attributes:
        n: patients for whom it is defined.
        mean: over them.
        low: where the 95 % bootstrap interval of the mean begins.
        high: where it ends.
        q1: the first quartile.
        median: the second.
        q3: the third.
    """

    n: int
    mean: float
    low: float | None = None
    high: float | None = None
    q1: float | None = None
    median: float | None = None
    q3: float | None = None


def spread(values: np.ndarray) -> Spread | None:
    """Describe values (patients,), NaN left out; None if nothing is left.

    The interval is the percentile bootstrap's (Efron 1979) over patients.
    """
    known = values[~np.isnan(values)]
    if not len(known):
        return None
    if len(known) < FEW_PATIENTS:
        return Spread(len(known), float(known.mean()))
    drawn = np.random.default_rng(_BOOTSTRAP_SEED).choice(known, (RESAMPLES, len(known)))
    ends = np.percentile(drawn.mean(1), _LEVELS).tolist()
    return Spread(len(known), float(known.mean()), *ends, *np.quantile(known, (0.25, 0.5, 0.75)).tolist())


@dataclass(frozen=True)
class OrganSummary:
    """One organ over patients.

    Attributes:
        dice: mean 3D Dice over the patients who have the organ; None where none has it.
        n: patients who have the organ.
        missed: of those, patients with Dice 0.
        absent: patients who do not have it, or whose label map does not outline it.
        invented: of those, patients in whom it was predicted.
        spreads: measure to its values over patients, for the measures that were taken.
    """

    dice: float | None
    n: int
    missed: int
    absent: int
    invented: int
    spreads: Mapping[str, Spread] = field(default_factory=dict)


@dataclass(frozen=True)
class Summary:
    """A model's result on one group of patients: what a site sends, counts and means only."""

    organs: dict[str, OrganSummary]
    patients: int

    @property
    def mean(self) -> float | None:
        """Mean over organs of the mean over patients; organs that nobody has are left out."""
        means = [organ.dice for organ in self.organs.values() if organ.dice is not None]
        return float(np.mean(means)) if means else None


def summarize(scores: Sequence[PatientScore], task: Task) -> Summary:
    """Summarize patients per organ."""
    shape = len(scores), len(task.organs)
    invented = np.array([score.invented for score in scores], dtype=bool).reshape(shape)
    measures = {DICE: np.array([score.dice for score in scores]).reshape(shape)}
    for name in scores[0].others if scores else ():
        measures[name] = np.array([score.others[name] for score in scores])
    organs = {
        organ.name: _summarize_organ(
            {name: values[:, column] for name, values in measures.items()}, invented[:, column]
        )
        for column, organ in enumerate(task.organs)
    }
    return Summary(organs, patients=len(scores))


def _summarize_organ(measures: Mapping[str, np.ndarray], invented: np.ndarray) -> OrganSummary:
    dice = measures[DICE]
    values = dice[~np.isnan(dice)]
    several = len(measures) > 1
    found = {name: spread(each) for name, each in measures.items()} if several else {}
    return OrganSummary(
        dice=float(values.mean()) if len(values) else None,
        n=len(values),
        missed=int((values == 0).sum()),
        absent=len(dice) - len(values),
        invented=int(invented.sum()),
        spreads={name: one for name, one in found.items() if one is not None},
    )
