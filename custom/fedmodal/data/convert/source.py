"""A public data set as a converter sees it: which cases it holds, and how one of them is read."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np

from fedmodal.data.check import fraction_problem, label_ids
from fedmodal.data.convert.labels import map_labels
from fedmodal.data.dataset import Split
from fedmodal.data.nifti import Array, read_nifti
from fedmodal.errors import UserError
from fedmodal.tasks import Modality, Task


class NothingToLearnError(Exception):
    """Why a case is left out that is whole, but has nothing to teach; a set holds such cases by design."""


@dataclass(frozen=True)
class Pair:
    """One case in memory.

    Attributes:
        image: the volume.
        label: uint8 in the task's ids; the conversion refuses one that is not on the image's grid.
        paths: where both come from, for messages.
        original: the NIfTI file to copy byte for byte; None if the image is to be written.
    """

    image: nib.Nifti1Image
    label: nib.Nifti1Image
    paths: tuple[Path, Path]
    original: Path | None = None


@dataclass(frozen=True)
class SourceCase:
    """One volume of a set, not read yet.

    Attributes:
        name: of its files in the data set, without `.nii.gz`.
        patient: whose volume it is; a patient may have several.
        read: reads it; raises UserError if something is wrong with it, NothingToLearnError if not.
        split: where the set itself puts the patient, if it does.
    """

    name: str
    patient: str
    read: Callable[[], Pair]
    split: Split | None = None


@dataclass(frozen=True)
class Left:
    """A case that is not taken.

    Attributes:
        case: its name in the set.
        why: one line.
        expected: the set holds such cases by design, nothing is wrong.
    """

    case: str
    why: str
    expected: bool = False


@dataclass(frozen=True)
class Source:
    """A public data set, looked through but not read.

    Attributes:
        name: as the command line has it.
        folder: where it lies; nothing is written there.
        task: whose ids the label maps get.
        modality: of all its cases.
        cases: in the order of conversion.
        annotated: the organs that the set outlines; None for all of the task.
        left: what is left out already because a file is missing.
        notes: lines for the report: what was not looked at, and why.
        settings: what else decides the content of the files; a restart must have the same.
    """

    name: str
    folder: Path
    task: Task
    modality: Modality
    cases: tuple[SourceCase, ...]
    annotated: tuple[str, ...] | None = None
    left: tuple[Left, ...] = ()
    notes: tuple[str, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class LabelTable:
    """The ids that a set documents.

    Attributes:
        mapping: id to the task's id.
        background: ids of other structures, which become background; 0 always does.
    """

    mapping: Mapping[int, int]
    background: frozenset[int] = frozenset()

    @classmethod
    def of(cls, ids: Mapping[str, int], task: Task, documented: Iterable[int]) -> "LabelTable":
        """The table of a set that calls the task's organs by `ids` and documents more."""
        mapping = {ids[organ.name]: organ.id for organ in task.organs if organ.name in ids}
        return cls(mapping, frozenset(documented) - mapping.keys())

    def apply(self, values: Array, path: Path) -> Array:
        """The label map in the task's ids, uint8.

        Raises:
            UserError: fractions, no label at all, or an id that the set does not document.
            NothingToLearnError: other structures only.
        """
        ids = label_ids(values)
        if problem := fraction_problem(ids, path):
            raise UserError(problem)
        known = {0, *self.mapping, *self.background}
        strange = [int(value) for value in ids if value not in known]
        if strange:
            raise UserError(
                f"{path}: unknown label value {_some(strange)}; mend the file, or map it with `convert pair`"
            )
        if ids == [0]:
            raise UserError(f"{path}: empty label map; label the case or take it out")
        mapped = map_labels(values, self.mapping)
        if not mapped.any():
            raise NothingToLearnError("no organ of the task in the volume")
        return mapped


def nifti_case(
    image: Path, label: Path, table: LabelTable, *, name: str, split: Split | None = None
) -> SourceCase:
    """A case of an image and a label file, its own patient."""
    return SourceCase(name, name, partial(read_nifti_pair, image, label, table), split)


@dataclass(frozen=True)
class Naming:
    """How a set names the parts of a case, `{}` standing for what they have in common.

    Attributes:
        image: the image's file.
        label: the label map's file.
        case: the case's name in the data set.
    """

    image: str
    label: str
    case: str = "{}"


def nifti_cases(
    images: Mapping[str, Path],
    labels: Mapping[str, Path],
    table: LabelTable,
    naming: Naming,
) -> tuple[tuple[SourceCase, ...], tuple[Left, ...]]:
    """Cases of images and label maps with the same key, and what is left as one of the two is missing."""
    cases: list[SourceCase] = []
    left: list[Left] = []
    for key in sorted(images.keys() | labels.keys()):
        name, image, label = (text.format(key) for text in (naming.case, naming.image, naming.label))
        if key not in images:
            left.append(Left(name, f"no {image} for {label}"))
        elif key not in labels:
            left.append(Left(name, f"no {label}"))
        else:
            cases.append(nifti_case(images[key], labels[key], table, name=name))
    return tuple(cases), tuple(left)


def read_nifti_pair(image: Path, label: Path, table: LabelTable) -> Pair:
    """Read an image and its label map.

    Raises:
        UserError: a file is not readable, or the labels are not as documented.
        NothingToLearnError: no organ of the task.
    """
    source = read_nifti(label)
    mapped = table.apply(np.asanyarray(source.dataobj), label)
    return Pair(read_nifti(image), nib.Nifti1Image(mapped, source.affine), (image, label), original=image)


def nifti_files(folder: Path) -> dict[str, Path]:
    """Name without ending to path, for the NIfTI files of a folder; sorted, hidden ones left out.

    Raises:
        UserError: a file is there compressed and plain.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.glob("*")) if folder.is_dir() else ():
        name = path.name.removesuffix(".gz").removesuffix(".nii")
        if name != path.name and path.name.endswith((".nii", ".nii.gz")) and not name.startswith("."):
            if name in found:
                raise UserError(f"{path}: there as {found[name].name} too; keep one of them")
            found[name] = path
    return found


def first_folder(src: Path, choices: Iterable[str], expected: str) -> Path:
    """The first of the folders below `src` that exists.

    Raises:
        UserError: none does; the message says what was looked for and what is there instead.
    """
    for choice in choices:
        if (src / choice).is_dir():
            return src / choice
    raise not_this_set(src, expected)


def not_this_set(src: Path, expected: str) -> UserError:
    """The error for a folder that is not laid out as a set is."""
    if not src.is_dir():
        return UserError(f"{src}: no such folder; name the unpacked data set's folder")
    inside = ", ".join(sorted(path.name for path in src.iterdir())[:3]) or "nothing"
    return UserError(f"{src}: looked for {expected}, found {inside}; name the unpacked data set's folder")


def _some(values: list[int]) -> str:
    return ", ".join(str(value) for value in values[:5]) + (", ..." if len(values) > 5 else "")
