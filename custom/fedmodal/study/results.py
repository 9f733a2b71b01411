"""A study's results: a row a seed, task, arm, regime, test modality, patient and organ."""

import csv
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from fedmodal.data.dataset import Dataset
from fedmodal.study.cell import ROWS_FILE
from fedmodal.study.order import Order
from fedmodal.tasks import get_task
from fedmodal.training.metrics import PatientScore


class Row(NamedTuple):
    """One organ of one patient in one cell.

    Attributes:
        seed: the training's seed.
        task: the task's name.
        arm: the arm's name.
        regime: the regime's name.
        trained_on: the modalities trained on, as in "CT+MRI".
        modality: the patient's modality.
        patient: data set and patient.
        organ: the organ's name.
        dice: 3D Dice; None if the patient does not have the organ.
        invented: whether the organ was predicted in a patient who does not have it.
    """

    seed: int
    task: str
    arm: str
    regime: str
    trained_on: str
    modality: str
    patient: str
    organ: str
    dice: float | None
    invented: bool


def rows_of(order: Order, dataset: Dataset, scores: Iterable[PatientScore]) -> list[Row]:
    """A cell's scores on one test set; only organs that the set's label maps outline."""
    cell = (order.seed, order.task, order.arm, order.regime, order.trained_on)
    annotated = {organ.name for organ in dataset.annotated_organs}
    return [
        Row(
            *cell,
            dataset.modality.value,
            f"{dataset.folder.name}/{score.patient}",
            organ.name,
            dice,
            invented,
        )
        for score in scores
        for organ, dice, invented in zip(
            get_task(order.task).organs, _dice(score), score.invented.tolist(), strict=True
        )
        if organ.name in annotated
    ]


def _dice(score: PatientScore) -> list[float | None]:
    return [None if value != value else value for value in score.dice.tolist()]  # noqa: PLR0124 - NaN


def write_rows(rows: Sequence[Row], seconds: float, path: Path) -> None:
    """Write a finished cell's rows and the time it took, as a whole or not at all."""
    content = {"seconds": seconds, "rows": [row._asdict() for row in rows]}
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def read_rows(folder: Path) -> tuple[list[Row], float]:
    """A finished cell's rows and the seconds it took."""
    content = json.loads((folder / ROWS_FILE).read_text(encoding="utf-8"))
    return [Row(**row) for row in content["rows"]], content["seconds"]


def collect(cells: Path) -> list[Row]:
    """The rows of every finished cell in a study's `cells` folder."""
    finished = sorted(path.parent for path in cells.glob(f"*/{ROWS_FILE}"))
    return [row for folder in finished for row in read_rows(folder)[0]]


def write_results(rows: Iterable[Row], path: Path) -> None:
    """Write the results as CSV; an absent organ's Dice is empty, `invented` is 0 or 1."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(Row._fields)
        writer.writerows((*row[:-1], int(row.invented)) for row in rows)


def mean_dice(rows: Iterable[Row]) -> dict[str, float]:
    """Per test modality, the mean over organs of the mean over patients."""
    values: dict[str, dict[str, list[float]]] = {}
    for row in rows:
        if row.dice is not None:
            values.setdefault(row.modality, {}).setdefault(row.organ, []).append(row.dice)
    return {
        modality: sum(sum(one) / len(one) for one in organs.values()) / len(organs)
        for modality, organs in values.items()
    }
