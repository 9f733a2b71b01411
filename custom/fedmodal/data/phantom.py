"""Synthetic patients ("phantoms"): a CT or MRI data set of invented people, to try everything out."""

import gzip
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import nibabel as nib
import numpy as np
import numpy.typing as npt

from fedmodal.data.anatomy import Grid, Person, Tissues, build_torso, draw_person
from fedmodal.data.atlas import ORGAN_TISSUES, Tissue
from fedmodal.data.contrast import Phase, Sequence, Voxels, acquisition_of, render
from fedmodal.data.dataset import Case, Dataset, Split, new_dataset, write_dataset
from fedmodal.errors import UserError
from fedmodal.tasks import Modality, Task

_ORIENTATIONS = {
    Modality.CT: ("RAS", "LPS", "LAS", "LPI"),
    Modality.MRI: ("LPS", "RAS", "SLP", "IPR"),
}
_GZIP_LEVEL = 1

PHANTOM_VERSION = 7
"""Change it whenever the same seed would give other patients: cached phantoms are named after it."""


@dataclass(frozen=True)
class Phantom:
    """One synthetic patient.

    Attributes:
        image: CT in Hounsfield units or MRI in arbitrary units, shape (S, P, L).
        label: the task's ids, same shape.
        grid: the voxels' places in the person's frame.
        acquisition: contrast phase or sequence.
        orientation: the axes of the files, as in "RAS".
        isocentre: the place of the person's frame in the scanner, mm.
    """

    image: Voxels
    label: npt.NDArray[np.uint8]
    grid: Grid
    acquisition: Phase | Sequence
    orientation: str
    isocentre: tuple[float, float, float]


def make_phantom(task: Task, modality: Modality, seed: int, index: int) -> Phantom:
    """Make patient `index` of a seed: the same for the same four arguments, whatever else is made.

    CT and MRI patients are different people even at the same seed and index.
    """
    rng = np.random.default_rng([seed, crc32(task.name.encode()), crc32(modality.encode()), index])
    person = draw_person(rng)
    grid = _field_of_view(task, modality, person, rng)
    acquisition = acquisition_of(modality, index)
    tissue = build_torso(person, grid, rng)
    return Phantom(
        image=render(acquisition, tissue, grid, rng),
        label=_labels(task)[tissue],
        grid=grid,
        acquisition=acquisition,
        orientation=str(rng.choice(_ORIENTATIONS[modality])),
        isocentre=tuple(rng.uniform(-200, 200, 3)),
    )


def write_phantoms(
    folder: Path,
    task: Task,
    modality: Modality,
    counts: Mapping[Split, int],
    seed: int,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """Write a data set of synthetic patients: training first, then validation, then test.

    The folder appears as a whole when everything is written, so that an interrupted run leaves
    none that could be taken for a data set.

    Args:
        folder: where the data set will lie; it must not exist, or be empty.
        task: what is labelled; it also decides the stretch of the body.
        modality: CT or MRI.
        counts: patients a split.
        seed: patient i of a seed is the same whatever the counts.
        progress: called with (patients written, patients in all) after each patient.

    Raises:
        UserError: the folder holds something already, or does by the time everything is written.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UserError(
            f"{folder}: exists and is not empty; remove it or name another folder for the phantoms"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    splits = [split for split in Split for _ in range(counts.get(split, 0))]
    with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as scratch:
        partial = Path(scratch) / folder.name
        cases = []
        for index, split in enumerate(splits):
            patient = f"phantom-{modality.lower()}-{index + 1:03d}"
            cases.append(_write_case(partial, patient, split, make_phantom(task, modality, seed, index)))
            if progress:
                progress(index + 1, len(splits))
        dataset = new_dataset(
            partial,
            task,
            modality,
            tuple(cases),
            name=f"synthetic {modality} phantoms, {task.name}",
            description=f"Synthetic phantoms drawn by a program (seed {seed}); no image of a real patient.",
            synthetic=True,
        )
        write_dataset(dataset)
        _put_in_place(partial, folder)
    return dataset.model_copy(update={"folder": folder})


def _put_in_place(partial: Path, folder: Path) -> None:
    try:
        partial.replace(folder)
    except OSError as error:
        raise UserError(
            f"{folder}: {error.strerror} when the phantoms were done; name another folder"
        ) from error


def _field_of_view(task: Task, modality: Modality, person: Person, rng: np.random.Generator) -> Grid:
    """The stretch of the body that is imaged, with the modality's voxels and a margin of air."""
    low, high = {"abdomen": ((-105.0, -85.0), (118.0, 138.0)), "heart": ((50.0, 70.0), (225.0, 250.0))}[
        task.name
    ]
    bottom, top = rng.uniform(*low) * person.scale[2], rng.uniform(*high) * person.scale[2]
    ct = modality is Modality.CT
    plane = rng.uniform(2.3, 2.8) if ct else rng.uniform(2.3, 2.9)
    thick = rng.choice([5.0, 5.5, 6.0]) if ct else rng.choice([5.5, 6.0, 7.0])
    side, depth = np.add(person.half_size, rng.uniform(8, 25))
    below = 22.0 if ct else 0.0  # room for the table
    shape = (int((top - bottom) / thick), int((2 * depth + below) / plane), int(2 * side / plane))
    first = (bottom, -depth + rng.normal(0, 3), -side + rng.normal(0, 4))
    return Grid(shape, (float(thick), float(plane), float(plane)), first)


def _labels(task: Task) -> npt.NDArray[np.uint8]:
    """The task's organ id of every tissue, 0 for background."""
    table = np.zeros(len(Tissue), np.uint8)
    for organ in task.organs:
        table[list(ORGAN_TISSUES[organ.name])] = organ.id
    return table


def _write_case(folder: Path, patient: str, split: Split, phantom: Phantom) -> Case:
    """Write a patient's two files and name them."""
    case = Case(
        image=Path("imagesTr") / f"{patient}.nii.gz",
        label=Path("labelsTr") / f"{patient}.nii.gz",
        patient=patient,
        split=split,
    )
    for path, voxels in ((case.image, phantom.image), (case.label, phantom.label)):
        (folder / path.parent).mkdir(parents=True, exist_ok=True)
        _save(_nifti(phantom, voxels), folder / path)
    return case


def _nifti(phantom: Phantom, voxels: Voxels | Tissues) -> nib.Nifti1Image:
    """The voxels in the patient's own file orientation, with the affine that says so."""
    step, rows, columns = phantom.grid.spacing
    affine = np.zeros((4, 4))
    affine[2, 0], affine[1, 1], affine[0, 2], affine[3, 3] = step, -rows, -columns, 1
    affine[:3, 3] = np.array(phantom.isocentre) + np.array(phantom.grid.first)[::-1] * [-1, -1, 1]
    image = nib.Nifti1Image(voxels, affine)
    image.header.set_xyzt_units("mm")
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt(("S", "P", "L")),
        nib.orientations.axcodes2ornt(tuple(phantom.orientation)),
    )
    return image.as_reoriented(turn)


def _save(image: nib.Nifti1Image, path: Path) -> None:
    """Write compressed, fast rather than small."""
    path.write_bytes(gzip.compress(image.to_bytes(), _GZIP_LEVEL, mtime=0))
