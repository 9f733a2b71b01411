"""A run's global model on patients whose images the report's reader has: which went well, which did not."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from fedmodal.data.dataset import Dataset, Split, read_dataset
from fedmodal.data.preprocess import restore
from fedmodal.data.site import find_phantoms
from fedmodal.data.store import StoredCase, default_cache, open_store
from fedmodal.errors import UserError
from fedmodal.inference.model import Model
from fedmodal.report.record import RunRecord
from fedmodal.report.scores import shown_model
from fedmodal.tasks import Task
from fedmodal.training.evaluator import predict_scores
from fedmodal.training.metrics import PatientScore, Summary, score_patient, summarize
from fedmodal.training.session import FALLBACKS

_SAME = 0.005
"""Mean Dice by which a machine's floating-point sums may differ from another's."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class Shown:
    """A case to show.

    Attributes:
        role: why it is shown, such as "worst".
        case: the stored case.
        score: of the model on it.
        found: uint8 (S, H, W), the model's label map on the stored grid.
    """

    role: str
    case: StoredCase
    score: PatientScore
    found: npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class CaseResults:
    """A data set that the reader has.

    Attributes:
        name: the data set's.
        site: the site that it belongs to; empty where the reader named it.
        synthetic: whether its patients are phantoms.
        split: which of its patients.
        summary: of the model on them.
        scores: a patient each, the worst first.
        shown: some of them.
    """

    name: str
    site: str
    synthetic: bool
    split: Split
    summary: Summary
    scores: tuple[PatientScore, ...]
    shown: tuple[Shown, ...]


def find_phantoms_of(record: RunRecord, task: Task) -> dict[str, Dataset]:
    """The sites' phantoms, where this machine still keeps them: site to data set."""
    found = {
        site: find_phantoms(site, task, default_cache())
        for site, about in sorted(record.sites.items())
        if about.phantoms
    }
    return {site: dataset for site, dataset in found.items() if dataset is not None}


def as_recorded(record: RunRecord, tested: CaseResults) -> bool:
    """Whether a site's phantoms are those that it tested on, as far as the mean Dice tells."""
    models = record.evaluation.get(tested.site, {})
    recorded = shown_model(models).mean if models else None
    here = tested.summary.mean
    return recorded is not None and here is not None and abs(recorded - here) < _SAME


def read_data(folders: Sequence[Path], task: Task) -> list[Dataset]:
    """The data sets that the reader names.

    Raises:
        UserError: no data set there, or one for another task.
    """
    found = [read_dataset(folder) for folder in folders]
    for dataset in found:
        if dataset.task != task.name:
            raise UserError(
                f"{dataset.folder}: is for task '{dataset.task}', the run for '{task.name}'; name another one"
            )
    return found


def evaluate_on(
    model: Model, dataset: Dataset, site: str = "", progress: Progress | None = None
) -> CaseResults:
    """Predict every test patient of a data set, or what stands in for them, and pick those to show.

    Raises:
        UserError: the data set breaks a rule of `fedmodal check`, or the model is not for its modality.
    """
    store = open_store(dataset, default_cache())
    split = next((one for one in FALLBACKS[Split.TEST] if store.split(one)), Split.TEST)
    cases = store.split(split)
    if not cases:
        raise UserError(f"{dataset.folder}: holds no case to show")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = model.network(store.modality, site).to(device)
    scores, found = [], []
    for number, case in enumerate(cases, 1):
        probabilities = predict_scores(network, case.image, device)
        scores.append(_score(case, probabilities, model.task))
        found.append(probabilities.argmax(0).numpy().astype(np.uint8))
        if progress:
            progress(number, len(cases))
    order = sorted(range(len(cases)), key=lambda at: mean_dice(scores[at]))
    shown = (Shown(role, cases[at], scores[at], found[at]) for role, at in _picked(order))
    ranked = tuple(scores[at] for at in order)
    return CaseResults(
        store.name, site, dataset.synthetic, split, summarize(scores, model.task), ranked, tuple(shown)
    )


def _score(case: StoredCase, probabilities: torch.Tensor, task: Task) -> PatientScore:
    label = restore(probabilities, case.geometry)
    return score_patient(case.patient, label, case.reference, task, case.annotated)


def mean_dice(score: PatientScore) -> float:
    """Mean over the patient's organs; 0 for one who has none."""
    known = score.dice[~np.isnan(score.dice)]
    return float(known.mean()) if len(known) else 0.0


def _picked(order: Sequence[int]) -> Iterator[tuple[str, int]]:
    """Of indices sorted by Dice the worst and the median one (of two in the middle the lower)."""
    yield "worst", order[0]
    if len(order) == 2:
        yield "better", order[1]
    elif len(order) > 2:
        yield "median", order[(len(order) - 1) // 2]


def missed(score: PatientScore, task: Task) -> list[str]:
    """Organs that the patient has and the model did not touch."""
    return [organ.name for organ, dice in zip(task.organs, score.dice, strict=True) if dice == 0]


def invented(score: PatientScore, task: Task) -> list[str]:
    """Organs that the model found and the patient does not have."""
    return [organ.name for organ, flag in zip(task.organs, score.invented, strict=True) if flag]
