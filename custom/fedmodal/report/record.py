"""What is known of a federated run: the file that the server keeps and every report reads."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from fedmodal.errors import UserError
from fedmodal.training.measures import RESULTS_FILE

RECORD_FILE = "fedmodal_run.json"


class SpreadRecord(BaseModel):
    """One measure over the patients of one site; the fields are those of `Spread`."""

    n: int
    mean: float
    low: float | None = None
    high: float | None = None
    q1: float | None = None
    median: float | None = None
    q3: float | None = None


class OrganRecord(BaseModel):
    """One organ of one model on one site's patients; the fields are those of `OrganSummary`.

    `spreads` goes by the names of `training.measures`: dice, hd95_mm, surface_dice, volume_error_ml.
    Runs of earlier versions have none.
    """

    dice: float | None
    n: int
    missed: int
    absent: int
    invented: int
    spreads: dict[str, SpreadRecord] = {}


class EvaluationRecord(BaseModel):
    """One model on one site's patients.

    Attributes:
        split: the patients' split: test, or what stood in for it.
        modality: the site's modality.
        patients: how many patients.
        mean: mean over organs of the mean over patients; None if no patient has an organ.
        organs: per organ, in the task's order.
    """

    split: str
    modality: str
    patients: int
    mean: float | None
    organs: dict[str, OrganRecord]


class ContributionRecord(BaseModel):
    """What one site did in one round.

    Attributes:
        accepted: whether the aggregator took the update.
        slices: slices trained on, the update's weight in the average.
        loss: mean training loss.
        seconds: the site's time for training, evaluation included.
        global_dice: the key metric of the global model that the round started from.
        local_dice: the key metric after the site's training.
        startup: seconds from the start of the site's process to its first batch, in a process's
            first round.
    """

    accepted: bool
    slices: int
    loss: float
    seconds: float
    global_dice: float | None = None
    local_dice: float | None = None
    startup: float | None = None


class SiteRecord(BaseModel):
    """What a site says of its data: modality, patients per split, and whether they are phantoms."""

    modality: str
    patients: dict[str, int]
    phantoms: bool


class RoundRecord(BaseModel):
    """One round: seconds it took, and each site's contribution."""

    seconds: float = 0.0
    sites: dict[str, ContributionRecord] = {}


class RunRecord(BaseModel):
    """A run as the server saw it.

    Attributes:
        job: the job's name.
        task: the task's name.
        arm: the intensity augmentation.
        num_rounds: rounds that the job asks for.
        started: when the run began, ISO 8601.
        finished: when it ended; empty while it runs.
        rounds: per round.
        sites: per site.
        refusals: what sites refused to do and why, one line each.
        best_round: the round that the best global model entered, that is: it is the average after
            round `best_round - 1`; None if none was selected.
        best_dice: its key metric, the mean over sites.
        evaluation: site to model name to result.
        versions: package versions at the server.
        submitter: who submitted the job, by certificate; empty in the simulator and in earlier runs.
        quorum: sites that a round waits for; 0 if not known.
        models: file name of each global model to the hash of its weights.
        problem: why the run ended early; empty if it did not.
    """

    model_config = ConfigDict(extra="ignore")

    job: str
    task: str
    arm: str
    num_rounds: int
    started: str
    finished: str = ""
    rounds: dict[int, RoundRecord] = {}
    sites: dict[str, SiteRecord] = {}
    refusals: list[str] = []
    best_round: int | None = None
    best_dice: float | None = None
    evaluation: dict[str, dict[str, EvaluationRecord]] = {}
    versions: dict[str, str] = {}
    submitter: str = ""
    quorum: int = 0
    models: dict[str, str] = {}
    problem: str = ""


@dataclass(frozen=True)
class Share:
    """What a site gave to a run: rounds in which its update was taken, and the slices it trained on there."""

    rounds: int
    slices: int


def share_of(record: RunRecord, site: str) -> Share:
    """One site's share."""
    parts = [done.sites[site] for done in record.rounds.values() if site in done.sites]
    taken = [part.slices for part in parts if part.accepted]
    return Share(len(taken), sum(taken))


def write_record(record: RunRecord, folder: Path) -> Path:
    """Write the record into a run's folder, as a whole or not at all."""
    path = folder / RECORD_FILE
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(record.model_dump(mode="json"), indent=2) + "\n", encoding="utf-8")
    partial.replace(path)
    return path


def read_results(path: Path) -> tuple[str, list[tuple[str, EvaluationRecord]]]:
    """The task of a training without a federation, and its results: data set and scores.

    Args:
        path: the file, or the folder that holds it.

    Raises:
        UserError: no such file, or not the results of a training.
    """
    file = path / RESULTS_FILE if path.is_dir() else path
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        found = [(str(one["data"]), EvaluationRecord.model_validate(one)) for one in content["results"]]
        return str(content["training"]["task"]), found
    except FileNotFoundError as error:
        raise UserError(f"{file}: not there; name the folder that `fedmodal train` wrote") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{file}: not the results of a training; mend it or take it away") from error


def find_record(run: Path) -> Path:
    """The one record under a run's folder: a simulator workspace, a downloaded job or the record's folder.

    Raises:
        UserError: none, or more than one.
    """
    if not run.exists():
        raise UserError(f"{run}: no such folder; name a run's folder, such as simulator_workspace")
    found = sorted(run.rglob(RECORD_FILE)) if run.is_dir() else [run]
    if not found and (run / RESULTS_FILE).is_file():
        raise UserError(
            f"{run}: a training without a federation, its figures are in {RESULTS_FILE}; name a federated "
            "run, and this one with --pooled to compare with"
        )
    if not found:
        raise UserError(
            f"{run}: no {RECORD_FILE} in it; name the workspace of a run or a downloaded job "
            "(the server writes the file during the first round)"
        )
    if len(found) > 1:
        raise UserError(f"{run}: holds {len(found)} runs; name one of {', '.join(map(str, found))}")
    return found[0]


def read_record(path: Path) -> RunRecord:
    """Read a record.

    Raises:
        UserError: the file is damaged or not a record.
    """
    try:
        content: Any = json.loads(path.read_text(encoding="utf-8"))
        return RunRecord.model_validate(content)
    except (json.JSONDecodeError, UnicodeDecodeError, ValidationError) as error:
        raise UserError(f"{path}: not a run's record ({str(error).splitlines()[0]})") from error
