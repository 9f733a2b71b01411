"""A site's data set: the folder with `dataset.json`, read, checked and written."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fedmodal.errors import UserError
from fedmodal.tasks import Modality, Organ, Task, get_task

DATASET_FILE = "dataset.json"


class Split(StrEnum):
    """Which of a site's patients a case belongs to; never two parts of one patient in two splits."""

    TRAIN = "train"
    VALIDATION = "validation"
    TEST = "test"


class Case(BaseModel):
    """One labelled volume: paths relative to the data set's folder, patient and split."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image: Annotated[Path, Field(description="NIfTI image")]
    label: Annotated[Path, Field(description="NIfTI label map in the task's ids, on the image's grid")]
    patient: Annotated[str, Field(min_length=1)]
    split: Split

    @model_validator(mode="after")
    def _inside(self) -> Self:
        for path in (self.image, self.label):
            if path.is_absolute() or ".." in path.parts:
                raise ValueError(f"'{path}' must be a path inside the data set's folder")
        return self


class Dataset(BaseModel):
    """`dataset.json`, in the manner of the Medical Segmentation Decathlon and nnU-Net.

    `num_training` is what the data set says it holds; `fedmodal check` and the learner refuse a
    folder that holds fewer. `synthetic` marks phantoms, so that no report takes them for patients.
    `annotated` names the organs of the task that the label maps outline, where they do not outline all:
    elsewhere in such a set, background may be any of the other organs.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)

    name: str
    task: str
    modality: Modality
    labels: dict[str, int]
    num_training: Annotated[int, Field(alias="numTraining", ge=0)]
    cases: Annotated[tuple[Case, ...], Field(alias="training")]
    description: str = ""
    synthetic: bool = False
    annotated: Annotated[tuple[str, ...] | None, Field(min_length=1)] = None
    folder: Annotated[Path, Field(exclude=True)] = Path()

    @property
    def task_definition(self) -> Task:
        """The task that the labels belong to."""
        return get_task(self.task)

    @property
    def annotated_organs(self) -> tuple[Organ, ...]:
        """The organs that the label maps outline; for all others, background says nothing."""
        organs = self.task_definition.organs
        return tuple(organ for organ in organs if self.annotated is None or organ.name in self.annotated)

    def split(self, split: Split) -> tuple[Case, ...]:
        """The cases of one split, in the file's order."""
        return tuple(case for case in self.cases if case.split == split)

    def image_path(self, case: Case) -> Path:
        """Where the case's image lies."""
        return self.folder / case.image

    def label_path(self, case: Case) -> Path:
        """Where the case's label map lies."""
        return self.folder / case.label


def new_dataset(
    folder: Path,
    task: Task,
    modality: Modality,
    cases: tuple[Case, ...],
    *,
    name: str,
    description: str = "",
    synthetic: bool = False,
    annotated: tuple[str, ...] | None = None,
) -> Dataset:
    """A data set of `task` in `folder`, with the task's label table and the true number of cases.

    `annotated` names the organs that its label maps outline, in the task's order; None means all.
    """
    return Dataset(
        name=name,
        task=task.name,
        modality=modality,
        labels=task.labels,
        num_training=len(cases),
        cases=cases,
        description=description,
        synthetic=synthetic,
        annotated=annotated,
        folder=folder,
    )


def write_dataset(dataset: Dataset) -> Path:
    """Write `dataset.json` into the data set's folder, as a whole or not at all; returns its path."""
    path = dataset.folder / DATASET_FILE
    partial = path.with_suffix(".json.partial")
    text = json.dumps(dataset.model_dump(mode="json", by_alias=True, exclude_none=True), indent=2)
    partial.write_text(text + "\n", encoding="utf-8")
    partial.replace(path)
    return path


def read_dataset(folder: Path) -> Dataset:
    """Read and check `dataset.json`; the images are not opened.

    Raises:
        UserError: no such file, not JSON, a missing or wrong entry, an unknown task, or labels or
            annotated organs that are not the task's.
    """
    path = folder / DATASET_FILE
    if not path.is_file():
        raise UserError(f"{folder}: no {DATASET_FILE} here; name the folder that holds it (see docs/data.md)")
    try:
        dataset = Dataset.model_validate(json.loads(path.read_text(encoding="utf-8")) | {"folder": folder})
    except (json.JSONDecodeError, UnicodeDecodeError, TypeError) as error:
        raise UserError(f"{path}: not readable as JSON ({error}); mend or rewrite the file") from error
    except ValidationError as error:
        raise UserError(f"{path}: {_first_problem(error)}") from error
    task = get_task(dataset.task)
    if dataset.labels != task.labels:
        raise UserError(
            f"{path}: labels {dataset.labels} are not those of task '{task.name}' {task.labels}; "
            "convert the label maps with `fedmodal convert`"
        )
    strange = sorted(set(dataset.annotated or ()) - {organ.name for organ in task.organs})
    if strange:
        raise UserError(f"{path}: annotated: '{strange[0]}' is no organ of task '{task.name}'; correct it")
    return dataset


def _first_problem(error: ValidationError) -> str:
    """The first of pydantic's complaints, as one line."""
    first, *more = error.errors()
    where = ".".join(str(part) for part in first["loc"]) or "the file"
    rest = f" (and {len(more)} more)" if more else ""
    return f"{where}: {first['msg']}{rest}; see docs/data.md for the format"
