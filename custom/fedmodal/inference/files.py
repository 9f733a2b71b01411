"""The images that a person names, and where their label maps go."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import nibabel as nib
from PIL import Image

from fedmodal.data.dicom import read_series, series_modality
from fedmodal.data.nifti import read_nifti
from fedmodal.errors import UserError
from fedmodal.inference.predict import OrganStats, Prediction
from fedmodal.tasks import Modality

NIFTI = (".nii.gz", ".nii")
STATS_FILE = "stats.csv"


@dataclass(frozen=True)
class Source:
    """An image that is there: a NIfTI file, or a folder with a DICOM series.

    Attributes:
        path: the file or folder.
        out: the label map that it becomes.
    """

    path: Path
    out: Path

    def read(self) -> tuple[nib.Nifti1Image, Modality | None]:
        """The volume, and the modality that its header declares; NIfTI headers declare none.

        Raises:
            UserError: as `read_nifti` and `read_series` have it.
        """
        if self.path.is_dir():
            return read_series(self.path), series_modality(self.path)
        return read_nifti(self.path), None


def find_sources(image: Path, out: Path) -> tuple[Source, ...]:
    """One image, or all in a folder: NIfTI files, or folders with a DICOM series each.

    Args:
        image: NIfTI file, DICOM folder, or a folder of either.
        out: NIfTI file for one image; for a folder of images a folder, or for one image too.

    Raises:
        UserError: nothing there, or an output that does not fit.
    """
    if not image.exists():
        raise UserError(f"{image}: no such image; name a NIfTI file, a DICOM folder, or a folder of them")
    single = image.is_file() or not _members(image)
    if single:
        return (Source(image, out if _is_nifti(out) else out / f"{_stem(image)}.nii.gz"),)
    if _is_nifti(out):
        raise UserError(f"{out}: {image} holds several images; name a folder for their label maps")
    sources = tuple(Source(member, out / f"{_stem(member)}.nii.gz") for member in _members(image))
    for one, other in pairwise(sorted(sources, key=lambda source: source.out)):
        if one.out == other.out:
            raise UserError(f"{one.path} and {other.path}: would become the same {one.out}; rename one")
    return sources


def _members(folder: Path) -> Sequence[Path]:
    found = sorted(folder.iterdir())
    return [one for one in found if one.is_dir() or _is_nifti(one)]


def _is_nifti(path: Path) -> bool:
    return path.name.lower().endswith(NIFTI)


def _stem(path: Path) -> str:
    name = path.name
    for ending in NIFTI:
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return name


def write_prediction(prediction: Prediction, source: Source, *, preview: bool) -> None:
    """Write the label map, whole or not at all, and its preview beside it.

    Raises:
        UserError: the label map would replace its image, or cannot be written.
    """
    out = source.out
    if out.resolve() == source.path.resolve():
        raise UserError(f"{out}: is the image itself; name another file for the label map")
    partial = out.with_name(f".partial-{out.name}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        nib.save(prediction.image, partial)
        partial.replace(out)
        if preview:
            Image.fromarray(prediction.preview).save(out.with_name(f"{_stem(out)}.png"))
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(
            f"{out}: cannot be written ({error.strerror}); make room or name another place"
        ) from error


Rows = Sequence[tuple[Source, dict[str, OrganStats]]]


def write_stats(rows: Rows, folder: Path) -> Path:
    """Write a row an image and organ: volume in millilitres and mean intensity.

    Raises:
        UserError: the file cannot be written.
    """
    path = folder / STATS_FILE
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["image", "organ", "millilitres", "mean_intensity"])
    for source, organs in rows:
        for name, one in organs.items():
            writer.writerow([source.out.name, name, one.millilitres, one.mean_intensity])  # None is empty
    try:
        path.write_text(text.getvalue(), encoding="utf-8", newline="")
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); make room for it") from error
    return path


def stats_json(rows: Rows) -> str:
    """The same for a program."""
    return json.dumps(list(_entries(rows)), indent=2)


def _entries(rows: Rows) -> Iterator[dict[str, object]]:
    for source, organs in rows:
        yield {"image": str(source.out), "organs": {name: asdict(one) for name, one in organs.items()}}
