"""What is known of a model's training: from the record of its run, or the results beside it."""

from dataclasses import dataclass

import torch

from fedmodal.inference.model import SERVER_FOLDER, Model
from fedmodal.report.record import (
    RECORD_FILE,
    EvaluationRecord,
    RunRecord,
    read_record,
    read_results,
    share_of,
)
from fedmodal.training.measures import RESULTS_FILE

FEDERATED, UNFEDERATED, UNKNOWN = "federated", "not federated", "not recorded"


@dataclass(frozen=True)
class Site:
    """A site that trained: its modality, patients a split, whether phantoms, rounds and slices it gave."""

    name: str
    modality: str
    patients: dict[str, int]
    phantoms: bool
    rounds: int
    slices: int


@dataclass(frozen=True)
class Score:
    """The model on one site's patients or one data set: 3D Dice, None where no patient has the organ."""

    data: str
    modality: str
    split: str
    patients: int
    mean: float | None
    organs: dict[str, float | None]


@dataclass(frozen=True)
class Facts:
    """A model's training, as far as it is recorded. No path, patient or person is in it.

    Attributes:
        kind: how it was trained: `FEDERATED`, `UNFEDERATED` or `UNKNOWN`.
        name: the job's; empty without a federation.
        arm: intensity augmentation; empty if not known.
        rounds: rounds finished; None if not known.
        chosen: which of the run's models it is, in words; empty if not known.
        modalities: that it was trained on, as far as known.
        sites: of a federation.
        scores: on patients that were not trained on.
        phantoms: trained on synthetic patients, wholly or in part; None if not recorded.
    """

    kind: str
    name: str = ""
    arm: str = ""
    rounds: int | None = None
    chosen: str = ""
    modalities: tuple[str, ...] = ()
    sites: tuple[Site, ...] = ()
    scores: tuple[Score, ...] = ()
    phantoms: bool | None = None


def find_facts(model: Model) -> Facts:
    """Look beside the model: a federated run's record, or the results of `fedmodal train`.

    Raises:
        UserError: a record or results file that is damaged.
    """
    record = model.path.parents[1] / RECORD_FILE
    if model.path.parent.name == SERVER_FOLDER and record.is_file():
        return _of_run(read_record(record), model.path.name)
    about = torch.load(model.path, map_location="cpu", weights_only=True).get("fedmodal") or {}
    results = model.path.parent / RESULTS_FILE
    scores = read_results(results)[1] if results.is_file() else ()
    return Facts(
        kind=UNFEDERATED if about else UNKNOWN,
        arm=about.get("arm", ""),
        modalities=tuple(about.get("modalities", ())),
        scores=tuple(_score(data, result) for data, result in scores),
        phantoms=about.get("phantoms"),
    )


def _of_run(record: RunRecord, file: str) -> Facts:
    best = file.startswith("best_")
    chosen = f"the best global model, after round {record.best_round}" if best else "the last global model"
    scores = {
        site: models[f"SRV_{file}"] for site, models in record.evaluation.items() if f"SRV_{file}" in models
    }
    return Facts(
        kind=FEDERATED,
        name=record.job,
        arm=record.arm,
        rounds=len(record.rounds),
        chosen=chosen,
        modalities=tuple(sorted({site.modality for site in record.sites.values()})),
        sites=tuple(_site(record, name) for name in sorted(record.sites)),
        scores=tuple(_score(site, scores[site]) for site in sorted(scores)),
        phantoms=any(site.phantoms for site in record.sites.values()) if record.sites else None,
    )


def _site(record: RunRecord, name: str) -> Site:
    site, share = record.sites[name], share_of(record, name)
    return Site(name, site.modality, site.patients, site.phantoms, share.rounds, share.slices)


def _score(data: str, result: EvaluationRecord) -> Score:
    organs = {name: organ.dice for name, organ in result.organs.items()}
    return Score(data, result.modality, result.split, result.patients, result.mean, organs)
