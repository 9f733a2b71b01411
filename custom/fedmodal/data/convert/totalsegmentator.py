"""The public TotalSegmentator data sets (CT and MRI).

A folder per patient holds `ct.nii.gz` or `mri.nii.gz` and one mask per structure in
`segmentations/`; `meta.csv` may assign patients to splits.
"""

import csv
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np

from fedmodal.data.check import grid_problem
from fedmodal.data.convert.source import Left, NothingToLearnError, Pair, Source, SourceCase, not_this_set
from fedmodal.data.dataset import Split
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


def totalsegmentator(src: Path, task: Task, modality: Modality) -> Source:
    """A TotalSegmentator data set; a patient's split is the one in `meta.csv` if it has such a column.

    Args:
        src: folder with a folder per patient.
        task: whose organs are merged into label maps.
        modality: which of the two data sets it is.

    Raises:
        UserError: not such a folder.
    """
    published = _published_splits(src)
    cases = tuple(
        SourceCase(
            patient,
            patient,
            partial(_read, src / patient / _IMAGE[modality], task),
            published.get(patient),
        )
        for patient in _patients(src, modality)
    )
    left = _without_image(src, modality)
    return Source("totalsegmentator", src, task, modality, cases, left=left, notes=_notes(src, modality))


def _patients(src: Path, modality: Modality) -> list[str]:
    wanted = _IMAGE[modality]
    found = sorted(path.parent.name for path in src.glob(f"*/{wanted}"))
    if found:
        return found
    for other, name in _IMAGE.items():
        if any(src.glob(f"*/{name}")):
            raise UserError(
                f"{src}: looked for <patient>/{wanted}, found <patient>/{name}; use --modality {other}"
            )
    raise not_this_set(src, f"<patient>/{wanted} and <patient>/segmentations/")


def _without_image(src: Path, modality: Modality) -> tuple[Left, ...]:
    """Patients with masks but no image, as an unpacking that broke off leaves them."""
    folders = sorted(path.parent for path in src.glob("*/segmentations"))
    return tuple(
        Left(folder.name, f"no {_IMAGE[modality]}")
        for folder in folders
        if not any((folder / name).is_file() for name in _IMAGE.values())
    )


def _notes(src: Path, modality: Modality) -> tuple[str, ...]:
    wanted = _IMAGE[modality]
    others = [path for path in src.glob("*/*.nii.gz") if path.name in _IMAGE.values() and path.name != wanted]
    return (f"{len(others)} images of the other modality: convert them into a folder of their own",) * bool(
        others
    )


def _published_splits(src: Path) -> dict[str, Split]:
    """Patient to split, from the `split` column of `meta.csv`; empty without one."""
    path = src / "meta.csv"
    if not path.is_file():
        return {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, delimiter=";"))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: not readable as CSV; copy it from the set again or take it out") from error
    named = [(row.get("image_id") or "", row.get("split") or "") for row in rows]
    return {patient: _META_SPLITS[split] for patient, split in named if split in _META_SPLITS}


def _read(source: Path, task: Task) -> Pair:
    """The image and the task's label map, one mask in memory at a time; a voxel keeps its first organ."""
    image = read_nifti(source)
    merged = np.zeros(image.shape, np.uint8)
    folder = source.parent / "segmentations"
    for organ in task.organs:
        for path in _masks(folder, organ.name):
            mask = read_nifti(path)
            if problem := grid_problem(image, mask, (source, path)):
                raise UserError(problem)
            merged[(np.asanyarray(mask.dataobj) > 0) & (merged == 0)] = organ.id
    if not merged.any():
        raise NothingToLearnError("no organ of the task in the volume")
    return Pair(image, nib.Nifti1Image(merged, image.affine), (source, folder), original=source)


def _masks(folder: Path, organ: str) -> list[Path]:
    """The mask files that make up an organ."""
    choices = [[folder / f"{name}.nii.gz" for name in names] for names in _STRUCTURES[organ]]
    for paths in choices:
        if all(path.is_file() for path in paths):
            return paths
    raise UserError(f"{choices[0][0]}: no such file, nor its parts; copy the patient from the set again")
