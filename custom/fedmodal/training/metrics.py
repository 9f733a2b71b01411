"""Overlap of a predicted and a true label map, per organ, and its summary over patients."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fedmodal.tasks import Task


@dataclass(frozen=True)
class PatientScore:
    """One patient's result.

    Attributes:
        patient: the patient's name in the data set.
        dice: 3D Dice per organ in the task's order; NaN where the patient does not have the organ, or
            the label map does not outline it.
        invented: per organ, whether it was predicted in a patient who does not have it.
    """

    patient: str
    dice: np.ndarray
    invented: np.ndarray


def score_patient(
    patient: str,
    prediction: np.ndarray,
    reference: np.ndarray,
    task: Task,
    annotated: Sequence[int] | None = None,
) -> PatientScore:
    """3D Dice of each organ, 2 |P and R| / (|P| + |R|) (Dice 1945), on label maps of one shape.

    Counts all organs in one pass over the volume; the values are those of MONAI's `compute_dice`.
    Organs whose ids are not in `annotated` (None means all are) are not scored, and none is taken
    for an invented one.
    """
    classes = task.num_classes
    pairs = reference.astype(np.intp).ravel() * classes + prediction.astype(np.intp).ravel()
    table = np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    in_reference, in_prediction = table.sum(1)[1:], table.sum(0)[1:]
    present = in_reference > 0
    total = np.where(present, in_reference + in_prediction, 1)
    dice = np.where(present, 2 * np.diag(table)[1:] / total, np.nan)
    outlined = np.isin(np.arange(1, classes), annotated if annotated is not None else range(classes))
    return PatientScore(patient, dice, outlined & ~present & (in_prediction > 0))


@dataclass(frozen=True)
class OrganSummary:
    """One organ over patients.

    Attributes:
        dice: mean 3D Dice over the patients who have the organ; None where none has it.
        n: patients who have the organ.
        missed: of those, patients with Dice 0.
        absent: patients who do not have it, or whose label map does not outline it.
        invented: of those, patients in whom it was predicted.
    """

    dice: float | None
    n: int
    missed: int
    absent: int
    invented: int


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
    dice = np.array([score.dice for score in scores]).reshape(-1, len(task.organs))
    invented = np.array([score.invented for score in scores], dtype=bool).reshape(dice.shape)
    organs = {
        organ.name: _summarize_organ(dice[:, column], invented[:, column])
        for column, organ in enumerate(task.organs)
    }
    return Summary(organs, patients=len(scores))


def _summarize_organ(dice: np.ndarray, invented: np.ndarray) -> OrganSummary:
    values = dice[~np.isnan(dice)]
    return OrganSummary(
        dice=float(values.mean()) if len(values) else None,
        n=len(values),
        missed=int((values == 0).sum()),
        absent=len(dice) - len(values),
        invented=int(invented.sum()),
    )
