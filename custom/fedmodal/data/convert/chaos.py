"""CHAOS: DICOM slices with a PNG label per slice; CT outlines the liver, MR four organs.

A PNG belongs to the DICOM file in the same place in the order of names, which is not the order of
positions: in CT, names run from head to feet. In MR, both have the same names.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image, UnidentifiedImageError

from fedmodal.data.convert.source import LabelTable, Left, Pair, Source, SourceCase, first_folder
from fedmodal.data.dicom import series_files, stack_slices
from fedmodal.data.nifti import Array
from fedmodal.errors import UserError
from fedmodal.tasks import ABDOMEN, Modality

_FOLDERS = {Modality.CT: "CT", Modality.MRI: "MR"}
# The set documents ranges around its grey values 63, 126, 189 and 252.
_GREY = {"liver": range(56, 70), "right kidney": range(111, 135), "left kidney": range(176, 200)}
_GREY["spleen"] = range(241, 256)
_ORGANS = {Modality.CT: ("liver",), Modality.MRI: ("spleen", "right kidney", "left kidney", "liver")}
_GREY_MODES = ("1", "L", "I;16", "I")
_DICOM = "DICOM_anon"


def chaos(src: Path, modality: Modality) -> Source:
    """The CT or the MR training part of CHAOS, labels of the abdomen task; its test part has none.

    Of MR, a patient gives three cases: T1 in phase, T1 out of phase (on the same labels) and T2.

    Args:
        src: the folder `Train_Sets`, or the one that holds it.
        modality: which part; its folder is `CT` or `MR`.

    Raises:
        UserError: not such a folder.
    """
    name = _FOLDERS[modality]
    choices = (name, f"Train_Sets/{name}", f"CHAOS_Train_Sets/Train_Sets/{name}")
    root = first_folder(src, choices, f"Train_Sets/{name}/")
    cases: list[SourceCase] = []
    left: list[Left] = []
    for folder in sorted((path for path in root.iterdir() if path.is_dir()), key=_by_number):
        patient = f"chaos-{name.lower()}-{folder.name}"
        for suffix, images, ground, read in _volumes(folder, modality):
            case = f"{patient}{suffix}"
            if missing := next((each for each in (images, ground) if not each.is_dir()), None):
                left.append(Left(case, f"no {missing.relative_to(root)}"))
            else:
                cases.append(SourceCase(case, patient, read))
    return Source("chaos", src, ABDOMEN, modality, tuple(cases), _ORGANS[modality], tuple(left))


_Volume = tuple[str, Path, Path, Callable[[], Pair]]


def _volumes(folder: Path, modality: Modality) -> list[_Volume]:
    """Of one patient: suffix of the case's name, images, labels, and the function that reads them."""
    if modality is Modality.CT:
        images, ground = folder / _DICOM, folder / "Ground"
        return [("", images, ground, partial(_read, images, ground, modality))]
    t1, t2 = folder / "T1DUAL", folder / "T2SPIR"
    inphase, outphase = t1 / _DICOM / "InPhase", t1 / _DICOM / "OutPhase"
    ground = t1 / "Ground"
    t2_images, t2_ground = t2 / _DICOM, t2 / "Ground"
    return [
        ("-t1-in", inphase, ground, partial(_read, inphase, ground, modality)),
        ("-t1-out", outphase, ground, partial(_read_out_of_phase, outphase, inphase, ground)),
        ("-t2", t2_images, t2_ground, partial(_read, t2_images, t2_ground, modality)),
    ]


def _read(images: Path, ground: Path, modality: Modality) -> Pair:
    files = series_files(images)
    series = stack_slices(files)  # anonymization gave the slices of some patients different series
    labels = _paired(files, ground)
    size = series.image.shape[:2]
    volume = np.stack([_grey_values(labels[path], size) for path in series.files], axis=-1)
    mapped = _table(modality).apply(volume, ground)
    return Pair(series.image, nib.Nifti1Image(mapped, series.image.affine), (images, ground))


def _read_out_of_phase(images: Path, in_phase: Path, ground: Path) -> Pair:
    """Out of phase, on the labels in phase: both were acquired at once, and the PNG name those files."""
    labelled = _read(in_phase, ground, Modality.MRI)
    image = stack_slices(series_files(images)).image
    return Pair(image, labelled.label, (images, ground))


def _table(modality: Modality) -> LabelTable:
    ids = {organ.name: organ.id for organ in ABDOMEN.organs}
    if modality is Modality.CT:
        return LabelTable(dict.fromkeys((1, 255), ids["liver"]))
    return LabelTable({grey: ids[organ] for organ, greys in _GREY.items() for grey in greys})


def _paired(files: Sequence[Path], ground: Path) -> Mapping[Path, Path]:
    """DICOM file to PNG."""
    labels = sorted(ground.glob("*.png"), key=_by_number)
    if len(labels) != len(files):
        raise UserError(
            f"{ground}: {len(labels)} PNG for {len(files)} DICOM slices; copy the patient from the set again"
        )
    return dict(zip(sorted(files, key=_by_number), labels, strict=True))


def _grey_values(path: Path, size: tuple[int, int]) -> Array:
    """A PNG's values as (columns, rows), which must be of this size; a picture of one bit gives 0 and 1."""
    try:
        with Image.open(path, formats=("PNG",)) as picture:
            if picture.mode not in _GREY_MODES:
                raise UserError(
                    f"{path}: a colour picture where grey labels belong; copy it from the set again"
                )
            values: Array = np.asarray(picture).astype(np.int32).T
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError) as error:
        raise UserError(f"{path}: not readable as PNG; copy it from the set again") from error
    if values.shape != size:
        raise UserError(f"{path}: has another size than its DICOM slice; copy it from the set again")
    return values


def _by_number(path: Path) -> tuple[list[int], str]:
    """Order of names in which 2 comes before 10."""
    return [int(number) for number in re.findall(r"\d+", path.stem)], path.name
