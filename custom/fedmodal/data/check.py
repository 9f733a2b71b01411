"""The rules that a data set must keep: `fedmodal check`, and the same rules when a site starts."""

import hashlib
import json
from collections.abc import Callable, Iterable
from pathlib import Path

import nibabel as nib
import numpy as np
from pydantic import BaseModel, ConfigDict
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedmodal.data.dataset import DATASET_FILE, Case, Dataset, Split
from fedmodal.data.nifti import Array, read_nifti, spacing_of
from fedmodal.data.plausible import modality_problem
from fedmodal.errors import UserError
from fedmodal.tasks import Modality, Task

_GRID_TOLERANCE = 1e-3  # relative: headers round


def pair_problems(
    image: nib.Nifti1Image, label: nib.Nifti1Image, task: Task, modality: Modality, paths: tuple[Path, Path]
) -> tuple[str, ...]:
    """What is wrong with one image and its label map; empty if nothing.

    Args:
        image: as `read_nifti` gives it.
        label: as `read_nifti` gives it.
        task: whose ids the label map must use.
        modality: what the data set declares.
        paths: of image and label map, for the messages.
    """
    found = [
        grid_problem(image, label, paths),
        _value_problem(np.asanyarray(image.dataobj), modality, paths[0]),
        _label_problem(np.asanyarray(label.dataobj), task, paths[1]),
    ]
    return tuple(problem for problem in found if problem)


def dataset_problems(dataset: Dataset) -> tuple[str, ...]:
    """What is wrong with `dataset.json` as a whole, without opening an image."""
    where = dataset.folder / DATASET_FILE
    problems = []
    if not dataset.cases:
        problems.append(f"{where}: lists no case; add some, or start an interrupted conversion again")
    elif len(dataset.cases) < dataset.num_training:
        problems.append(
            f"{where}: lists {len(dataset.cases)} cases where numTraining says {dataset.num_training}; "
            "add the missing ones or correct numTraining"
        )
    patients: dict[str, list[Case]] = {}
    for case in dataset.cases:
        patients.setdefault(case.patient, []).append(case)
    for cases in patients.values():
        splits = sorted({case.split for case in cases})
        if len(splits) > 1:
            images = ", ".join(str(case.image) for case in cases)
            problems.append(
                f"{where}: one patient in several splits ({', '.join(splits)}): {images}; keep each in one"
            )
    return tuple(problems)


def duplicate_problems(digests: Iterable[tuple[str, str]]) -> tuple[str, ...]:
    """Images with the same content, from pairs of content hash and path."""
    groups = _grouped(digests).values()
    return tuple(
        f"{' and '.join(paths)}: the same image; keep one of them" for paths in groups if len(paths) > 1
    )


def _grouped(pairs: Iterable[tuple[str, str]]) -> dict[str, list[str]]:
    groups: dict[str, list[str]] = {}
    for key, value in pairs:
        groups.setdefault(key, []).append(value)
    return groups


def grid_problem(image: nib.Nifti1Image, label: nib.Nifti1Image, paths: tuple[Path, Path]) -> str | None:
    """What is wrong if a label map does not lie on its image's grid, or None."""
    if image.shape != label.shape:
        return (
            f"{paths[1]}: {_by(label.shape)} voxels where its image {paths[0].name} has {_by(image.shape)}; "
            "resample the label map onto the image's grid"
        )
    spacing = np.array(spacing_of(image.affine))
    difference = np.abs(image.affine - label.affine)
    turned = (difference[:3, :3] / spacing).max()
    moved = difference[:3, 3].max() / (spacing * image.shape).max()
    if max(turned, moved) > _GRID_TOLERANCE:
        return (
            f"{paths[1]}: lies elsewhere in space than its image {paths[0].name} (the affines differ); "
            "resample the label map onto the image's grid"
        )
    return None


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(str(size) for size in shape)


def _value_problem(values: Array, modality: Modality, path: Path) -> str | None:
    if not all(np.isfinite(part).all() for part in np.moveaxis(values, -1, 0)):
        return f"{path}: holds values that are not numbers (NaN or infinite); export the image again"
    if values.min() == values.max():
        return f"{path}: every voxel has the same value; export the image again"
    wrong = modality_problem(values, modality)
    return f"{path}: {wrong}" if wrong else None


def label_ids(values: Array) -> list[float]:
    """The values that occur in a label map, sorted; fractions and NaN included."""
    found: set[float] = set()
    for part in np.moveaxis(values, -1, 0):
        found.update(np.unique(part).tolist())
    return sorted(found)


def fraction_problem(ids: Iterable[float], path: Path) -> str | None:
    """What is wrong if label ids are not whole numbers, or None."""
    if all(float(value).is_integer() for value in ids):
        return None
    return f"{path}: holds fractions where whole label ids belong; export it without interpolation"


def _label_problem(values: Array, task: Task, path: Path) -> str | None:
    ids = label_ids(values)
    if fractions := fraction_problem(ids, path):
        return fractions
    strange = [int(value) for value in ids if value not in task.labels.values()]
    if strange:
        some = ", ".join(str(value) for value in strange[:5]) + (", ..." if len(strange) > 5 else "")
        return (
            f"{path}: label ids {some} are not of task '{task.name}' (0 to {len(task.organs)}); "
            "map them with `fedmodal convert pair`"
        )
    if ids == [0]:
        return f"{path}: no organ is labelled; take the case out or label it"
    return None


class Row(BaseModel):
    """What `check_dataset` found out about one case; None and empty where the files could not be read."""

    model_config = ConfigDict(frozen=True)

    image: str
    split: Split
    modality: Modality
    shape: tuple[int, ...] | None = None
    spacing: tuple[float, ...] | None = None
    orientation: str = ""
    labels: tuple[str, ...] = ()
    intensities: tuple[float, float] | None = None
    problems: tuple[str, ...] = ()


class Report(BaseModel):
    """The outcome of `check_dataset`: a row per case, problems of the whole, and warnings."""

    model_config = ConfigDict(frozen=True)

    rows: tuple[Row, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...]

    @property
    def all_problems(self) -> tuple[str, ...]:
        """Problems of the data set, then those of its cases in order."""
        return self.problems + tuple(problem for row in self.rows for problem in row.problems)

    @property
    def ok(self) -> bool:
        """Whether the learner would accept the data set; warnings do not count."""
        return not self.all_problems

    def to_json(self) -> str:
        """The report for a program: `ok`, `rows`, `problems` and `warnings`."""
        return json.dumps({"ok": self.ok} | self.model_dump(mode="json"), indent=2)


def check_dataset(dataset: Dataset, progress: Callable[[int, int], None] | None = None) -> Report:
    """Open every file of a data set once and report all problems instead of stopping at the first.

    Args:
        dataset: the site's data set.
        progress: called with cases done and cases in all, after each case.
    """
    rows, digests = [], []
    for number, case in enumerate(dataset.cases, 1):
        row, digest = _check_case(dataset, case)
        rows.append(row)
        if digest:
            digests.append((digest, str(dataset.image_path(case))))
        if progress:
            progress(number, len(dataset.cases))
    problems = dataset_problems(dataset) + duplicate_problems(digests)
    return Report(rows=tuple(rows), problems=problems, warnings=_warnings(dataset, rows))


def _check_case(dataset: Dataset, case: Case) -> tuple[Row, str]:
    """The row of a case, and a hash of its voxels (empty if they could not be read)."""
    paths = dataset.image_path(case), dataset.label_path(case)
    read, problems = [], []
    for path in paths:
        try:
            read.append(read_nifti(path))
        except UserError as error:
            problems.append(str(error))
    row = Row(image=str(case.image), split=case.split, modality=dataset.modality, problems=tuple(problems))
    if problems:
        return row, ""
    image, label = read
    task = dataset.task_definition
    values = np.asanyarray(image.dataobj)
    ids = set(label_ids(np.asanyarray(label.dataobj)))
    found = {
        "shape": image.shape,
        "spacing": spacing_of(image.affine),
        "orientation": "".join(nib.aff2axcodes(image.affine)),
        "labels": tuple(organ.name for organ in task.organs if organ.id in ids),
        "intensities": (float(values.min()), float(values.max())),
        "problems": pair_problems(image, label, task, dataset.modality, paths),
    }
    digest = hashlib.sha256(str(image.shape).encode())
    digest.update(np.ascontiguousarray(values.T).data)
    return row.model_copy(update=found), digest.hexdigest()


def _warnings(dataset: Dataset, rows: list[Row]) -> tuple[str, ...]:
    seen = {name for row in rows for name in row.labels}
    unseen = [organ.name for organ in dataset.annotated_organs if organ.name not in seen]
    outlined = [organ.name for organ in dataset.annotated_organs]
    absent = [split for split in Split if not dataset.split(split)]
    return (
        *(f"no case holds the organ '{name}': this site cannot teach or measure it" for name in unseen),
        *((f"only {', '.join(outlined)} outlined here (`annotated`)",) if dataset.annotated else ()),
        *(f"no case in split '{split}'" for split in absent),
    )


# The widths keep words whole on a terminal of 80 columns.
_COLUMNS = (
    ("image", 10),
    ("split", 10),
    ("modality", 8),
    ("voxels, mm, axes", 11),
    ("organs", 12),
    ("intensities", 11),
    ("", 7),
)


def render(report: Report, console: Console) -> None:
    """Print the report: a table of cases, then problems, warnings and a line that sums up."""
    table = Table(box=None, padding=(0, 1, 0, 0), header_style="bold")
    for heading, width in _COLUMNS:
        table.add_column(heading, overflow="fold", min_width=width)
    for row in report.rows:
        table.add_row(*_cells(row))
    console.print(table)
    for problem in report.all_problems:
        console.print(Text(f"problem: {problem}", style="red"), soft_wrap=True)
    for warning in report.warnings:
        console.print(Text(f"warning: {warning}", style="yellow"), soft_wrap=True)
    style = "green" if report.ok else "bold red"
    counts = f"{len(report.rows)} cases, {len(report.all_problems)} problems"
    console.print(Text(counts, style=style), soft_wrap=True)


def _cells(row: Row) -> tuple[str, ...]:
    low_high = "" if row.intensities is None else "{:.4g} to {:.4g}".format(*row.intensities)
    return (
        row.image,
        row.split,
        row.modality,
        f"{_by(row.shape or ())} {' '.join(f'{step:.3g}' for step in row.spacing or ())} {row.orientation}",
        ", ".join(row.labels),
        low_high,
        "problem" if row.problems else "ok",
    )
