"""The public TotalSegmentator data sets (CT and MRI) converted to a site's data set.

A folder per patient holds `ct.nii.gz` or `mri.nii.gz` and one mask per structure in
`segmentations/`; `meta.csv` may assign patients to splits.
"""

import csv
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from fedmodal.data.check import grid_problem, pair_problems
from fedmodal.data.convert.pair import copy_compressed, open_or_new, valid_patient, whole_file, writing
from fedmodal.data.dataset import DATASET_FILE, Case, Dataset, Split, new_dataset, write_dataset
from fedmodal.data.nifti import read_nifti
from fedmodal.errors import UserError
from fedmodal.tasks import Modality, Task

# For each organ, the sets of structures that make it up: the first set whose files exist counts.
_STRUCTURES: dict[str, tuple[tuple[str, ...], ...]] = {
    "spleen": (("spleen",),),
    "right kidney": (("kidney_right",),),
    "left kidney": (("kidney_left",),),
    "gallbladder": (("gallbladder",),),
    "liver": (("liver",),),
    "pancreas": (("pancreas",),),
    "heart": (
        ("heart",),
        (
            "heart_myocardium",
            "heart_atrium_left",
            "heart_ventricle_left",
            "heart_atrium_right",
            "heart_ventricle_right",
        ),
    ),
}
_IMAGE = {Modality.CT: "ct.nii.gz", Modality.MRI: "mri.nii.gz"}
_META_SPLITS = {"train": Split.TRAIN, "val": Split.VALIDATION, "test": Split.TEST}


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion took and what it left.

    Attributes:
        dataset: the data set as written.
        taken: patients taken, in order.
        left: patient to the reason why it was left out.
    """

    dataset: Dataset
    taken: tuple[str, ...]
    left: dict[str, str]


def convert_totalsegmentator(
    src: Path,
    out: Path,
    task: Task,
    modality: Modality,
    *,
    seed: int = 0,
    fractions: tuple[float, float, float] = (0.7, 0.15, 0.15),
    progress: Callable[[int, int], None] | None = None,
) -> ConversionReport:
    """Convert a TotalSegmentator data set, one patient at a time.

    Started again after an interruption, it keeps the cases already finished. Images are copied
    as they are. A patient's split is the one in `meta.csv` if it has such a column, else a
    function of the seed and the patient's folder name alone.

    Args:
        src: folder with a folder per patient.
        out: the data set's folder, made or extended.
        task: whose organs are merged into label maps.
        modality: which of the two data sets it is.
        seed: of the splits.
        fractions: of the patients for training, validation and test; they add up to 1.
        progress: called with patients done and patients in all, after each patient.

    Raises:
        UserError: not such a folder, fractions that do not add up, a data set of another task or
            modality in `out`, or no patient that could be taken.
    """
    if min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise UserError(f"fractions {fractions} must be three shares that add up to 1")
    patients = _patients(src, modality)
    published = _published_splits(src)
    dataset = open_or_new(out, task, modality)
    with writing(out / DATASET_FILE):
        write_dataset(dataset)  # so that a restart knows whose finished cases these are
    cases, left = [], {}
    for number, patient in enumerate(patients, 1):
        split = published.get(patient) or _drawn_split(seed, patient, fractions)
        try:
            cases.append(_convert(src / patient, dataset, patient, split))
        except _LeftOutError as reason:
            left[patient] = str(reason)
        if progress:
            progress(number, len(patients))
    if not cases:
        first, why = next(iter(left.items()))
        raise UserError(f"{src}: none of {len(left)} patients could be taken; the first, {first}: {why}")
    others = [case for case in dataset.cases if case.patient not in patients]
    whole = new_dataset(out, task, modality, (*others, *cases), name=dataset.name)
    with writing(out / DATASET_FILE):
        write_dataset(whole)
    return ConversionReport(whole, tuple(case.patient for case in cases), left)


class _LeftOutError(Exception):
    """Why one patient is left out; the others go on."""


def _patients(src: Path, modality: Modality) -> list[str]:
    wanted = _IMAGE[modality]
    found = sorted(path.parent.name for path in src.glob(f"*/{wanted}"))
    if found:
        return found
    if not src.is_dir():
        raise UserError(f"{src}: no such folder; name the folder that holds a folder per patient")
    for other, name in _IMAGE.items():
        if any(src.glob(f"*/{name}")):
            raise UserError(
                f"{src}: looked for <patient>/{wanted}, found <patient>/{name}; use --modality {other}"
            )
    inside = ", ".join(sorted(path.name for path in src.iterdir())[:3]) or "nothing"
    raise UserError(
        f"{src}: looked for <patient>/{wanted} and <patient>/segmentations/, found {inside}; "
        "name the unpacked data set's folder"
    )


def _published_splits(src: Path) -> dict[str, Split]:
    """Patient to split, from the `split` column of `meta.csv`; empty without one."""
    path = src / "meta.csv"
    if not path.is_file():
        return {}
    with path.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file, delimiter=";"))
    named = [(row.get("image_id") or "", row.get("split") or "") for row in rows]
    return {patient: _META_SPLITS[split] for patient, split in named if split in _META_SPLITS}


def _drawn_split(seed: int, patient: str, fractions: tuple[float, float, float]) -> Split:
    digest = hashlib.sha256(f"{seed}:{patient}".encode()).digest()
    place = int.from_bytes(digest[:8]) / 2**64
    if place < fractions[0]:
        return Split.TRAIN
    return Split.VALIDATION if place < fractions[0] + fractions[1] else Split.TEST


def _convert(folder: Path, dataset: Dataset, patient: str, split: Split) -> Case:
    if not valid_patient(patient):
        raise _LeftOutError("the folder's name holds characters other than letters, digits, '.', '-' and '_'")
    name = f"{patient}.nii.gz"
    case = Case(image=Path("images") / name, label=Path("labels") / name, patient=patient, split=split)
    if dataset.image_path(case).is_file() and dataset.label_path(case).is_file():
        return case
    source = folder / _IMAGE[dataset.modality]
    try:
        label = _merged(source, dataset)
    except UserError as error:
        raise _LeftOutError(str(error)) from error
    with whole_file(dataset.image_path(case)) as partial:
        copy_compressed(source, partial)
    with whole_file(dataset.label_path(case)) as partial:
        nib.save(label, partial)
    return case


def _merged(source: Path, dataset: Dataset) -> nib.Nifti1Image:
    """The task's label map of one patient, one mask in memory at a time; a voxel keeps its first organ."""
    image, task = read_nifti(source), dataset.task_definition
    folder = source.parent / "segmentations"
    merged = np.zeros(image.shape, np.uint8)
    for organ in task.organs:
        for path in _masks(folder, organ.name):
            mask = read_nifti(path)
            if problem := grid_problem(image, mask, (source, path)):
                raise UserError(problem)
            merged[(np.asanyarray(mask.dataobj) > 0) & (merged == 0)] = organ.id
    if not merged.any():
        raise _LeftOutError("no organ of the task in the volume")
    label = nib.Nifti1Image(merged, image.affine)
    for problem in pair_problems(image, label, task, dataset.modality, (source, folder)):
        raise UserError(problem)
    return label


def _masks(folder: Path, organ: str) -> list[Path]:
    """The mask files that make up an organ."""
    choices = [[folder / f"{name}.nii.gz" for name in names] for names in _STRUCTURES[organ]]
    for paths in choices:
        if all(path.is_file() for path in paths):
            return paths
    raise _LeftOutError(f"no segmentations/{choices[0][0].name} (or its parts)")
