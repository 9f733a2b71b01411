"""One image and its label map brought into a data set."""

import gzip
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np

from fedmodal.data.check import fraction_problem, label_ids, pair_problems
from fedmodal.data.convert.labels import map_labels, require_all_organs
from fedmodal.data.dataset import DATASET_FILE, Case, Dataset, Split, new_dataset, read_dataset, write_dataset
from fedmodal.data.digests import file_digest
from fedmodal.data.nifti import GZIP_MAGIC, read_nifti
from fedmodal.errors import UserError
from fedmodal.tasks import Modality, Task

_PATIENT = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def add_pair(
    out: Path,
    task: Task,
    modality: Modality,
    *,
    image: Path,
    label: Path,
    patient: str,
    split: Split,
    mapping: Mapping[int, int],
) -> Dataset:
    """Add a case to the data set in `out`, which is made if it does not exist.

    The image is copied as it is (`.nii` is compressed), the label map is written in the task's
    ids. `dataset.json` changes last, and only if the pair keeps every rule of `fedmodal check`.

    Args:
        out: the data set's folder.
        task: what the label map is mapped to.
        modality: how the image was acquired.
        image: NIfTI image.
        label: NIfTI label map on the image's grid.
        patient: a pseudonym; letters, digits, dot, dash and underscore.
        split: where this patient's cases belong; the same for all of them.
        mapping: source id to task id; ids not listed become background.

    Returns:
        The data set with the new case.

    Raises:
        UserError: the pair breaks a rule, the mapping leaves an organ out, the data set is of
            another task or modality, the patient is in another split, or the image is there already.
    """
    require_all_organs(mapping, task)
    dataset = open_or_new(out, task, modality)
    case = _new_case(dataset, patient, split)
    mapped = _mapped(label, mapping)
    for problem in pair_problems(read_nifti(image), mapped, task, modality, (image, label)):
        raise UserError(problem)
    with whole_file(out / case.image) as partial:
        copy_compressed(image, partial)
        _refuse_copy(dataset, partial, image)
    with whole_file(out / case.label) as partial:
        nib.save(mapped, partial)
    cases = (*dataset.cases, case)
    grown = dataset.model_copy(update={"cases": cases, "num_training": len(cases)})
    with writing(out / DATASET_FILE):
        write_dataset(grown)
    return grown


def open_or_new(out: Path, task: Task, modality: Modality) -> Dataset:
    """The data set in `out`, or an empty one where there is none yet.

    Raises:
        UserError: the data set there is of another task or modality.
    """
    if not (out / DATASET_FILE).exists():
        return new_dataset(out, task, modality, (), name=out.resolve().name)
    dataset = read_dataset(out)
    if (dataset.task, dataset.modality) != (task.name, modality):
        raise UserError(
            f"{out}: holds {dataset.modality} of task '{dataset.task}', not {modality} of '{task.name}'; "
            "name another folder, a site holds one modality"
        )
    return dataset


def valid_patient(patient: str) -> bool:
    """Whether a patient's pseudonym can be a file name."""
    return _PATIENT.fullmatch(patient) is not None


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Make the folder of `path`; what the system refuses meanwhile becomes an error that names `path`.

    Raises:
        UserError: the system refused to write.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); make room or mend permissions"
        ) from error


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; it becomes `path` on success, else it goes.

    Raises:
        UserError: the system refused to write.
    """
    partial = path.with_name(f".partial-{path.name}")
    with writing(path):
        try:
            yield partial
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def copy_compressed(source: Path, target: Path) -> None:
    """Copy a NIfTI file; one that is not compressed yet is compressed, without a time stamp."""
    with source.open("rb") as file:
        compressed = file.read(2) == GZIP_MAGIC
    if compressed:
        shutil.copyfile(source, target)
        return
    with source.open("rb") as file, gzip.GzipFile(target, "wb", compresslevel=6, mtime=0) as packed:
        shutil.copyfileobj(file, packed)


def _new_case(dataset: Dataset, patient: str, split: Split) -> Case:
    if not valid_patient(patient):
        raise UserError("--patient: use a pseudonym of letters, digits, dot, dash and underscore")
    if any(case.patient == patient and case.split != split for case in dataset.cases):
        raise UserError(
            f"{dataset.folder}: patient '{patient}' is in another split there; a patient belongs to one"
        )
    taken = {case.image.name for case in dataset.cases}
    names = (f"{patient}{suffix}.nii.gz" for suffix in ("", *(f"_{n}" for n in range(2, len(taken) + 3))))
    name = next(name for name in names if name not in taken)
    return Case(image=Path("images") / name, label=Path("labels") / name, patient=patient, split=split)


def _mapped(label: Path, mapping: Mapping[int, int]) -> nib.Nifti1Image:
    source = read_nifti(label)
    values = np.asanyarray(source.dataobj)
    if fractions := fraction_problem(label_ids(values), label):
        raise UserError(fractions)
    return nib.Nifti1Image(map_labels(values, mapping), source.affine)


def _refuse_copy(dataset: Dataset, new: Path, source: Path) -> None:
    """Refuse an image that the data set holds already, whatever its name or split."""
    for case in dataset.cases:
        held = dataset.image_path(case)
        same_size = held.is_file() and held.stat().st_size == new.stat().st_size
        if same_size and file_digest(held) == file_digest(new):
            raise UserError(f"{source}: already in the data set as {case.image}; add each image once")
