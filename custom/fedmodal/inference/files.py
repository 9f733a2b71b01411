"""The images that a person names, and where their label maps go."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from itertools import pairwise
from pathlib import Path

import nibabel as nib
from PIL import Image

from fedmodal.data.dicom import read_series
from fedmodal.data.nifti import read_nifti
from fedmodal.errors import UserError
from fedmodal.inference.predict import OrganStats, Prediction
from fedmodal.tasks import Modality
from fedmodal.writing import written_whole

NIFTI = (".nii.gz", ".nii")
DICOM_SEG = ".dcm"
STATS_FILE = "stats.csv"
UNCERTAINTY = "_uncertainty.nii.gz"


@dataclass(frozen=True, eq=False)
class Opened:
    """An image that was read.

    Attributes:
        image: the volume.
        declared: the modality that its header declares; NIfTI headers declare none.
        files: of a DICOM series, in the order of slices; else empty.
    """

    image: nib.Nifti1Image
    declared: Modality | None
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Source:
    """An image that is there: a NIfTI file, or a folder with a DICOM series.

    Attributes:
        path: the file or folder.
        out: the label map that it becomes.
    """

    path: Path
    out: Path

    def read(self, series: str = "") -> Opened:
        """Read it.

        Args:
            series: the end of the UID of the DICOM series to take, where the folder holds several.

        Raises:
            UserError: as `read_nifti` and `read_series` have it, or a NIfTI file that is to become
                a DICOM-SEG.
        """
        if self.path.is_dir():
            found = read_series(self.path, series)
            return Opened(found.image, found.modality, found.files)
        if self.is_dicom_seg:
            raise UserError(
                f"{self.path}: a DICOM-SEG needs the DICOM series; name {NIFTI[0]} for a NIfTI file"
            )
        return Opened(read_nifti(self.path), None, ())

    @property
    def uncertainty(self) -> Path:
        """Where its uncertainty map goes, beside the label map."""
        return self.out.with_name(f"{_stem(self.out)}{UNCERTAINTY}")

    def results(self, *, uncertainty: bool) -> tuple[Path, ...]:
        """What is written for it: the label map, and the map of uncertainty if it is asked for."""
        return (self.out, self.uncertainty) if uncertainty else (self.out,)

    @property
    def is_dicom_seg(self) -> bool:
        """Whether its label map becomes a DICOM Segmentation."""
        return self.out.suffix.lower() == DICOM_SEG


def find_sources(
    image: Path, out: Path, *, dicom_seg: bool = False, uncertainty: bool = False
) -> tuple[Source, ...]:
    """One image, or all in a folder: NIfTI files, or folders with a DICOM series each.

    Args:
        image: NIfTI file, DICOM folder, or a folder of either.
        out: NIfTI file or DICOM-SEG for one image; for a folder of images a folder, or for one image too.
        dicom_seg: in a folder, write DICOM-SEG and not NIfTI.
        uncertainty: whether maps of it are written too.

    Raises:
        UserError: nothing there, or an output that does not fit or would replace an image or another.
    """
    if not image.exists():
        raise UserError(f"{image}: no such image; name a NIfTI file, a DICOM folder, or a folder of them")
    single = image.is_file() or not _members(image)
    ending = DICOM_SEG if dicom_seg else NIFTI[0]
    if single:
        place = out if _is_file(out, dicom_seg) else out / f"{_stem(image)}{ending}"
        sources: tuple[Source, ...] = (Source(image, place),)
    elif _is_file(out, dicom_seg):
        raise UserError(f"{out}: {image} holds several images; name a folder for their label maps")
    else:
        sources = tuple(Source(member, out / f"{_stem(member)}{ending}") for member in _members(image))
    _refuse_replacing(sources, uncertainty=uncertainty)
    return sources


def _refuse_replacing(sources: Sequence[Source], *, uncertainty: bool) -> None:
    """Raise if a result would take the place of an image or of another result."""
    images = {source.path.resolve() for source in sources}
    places = sorted(
        (place, source.path) for source in sources for place in source.results(uncertainty=uncertainty)
    )
    for place, _ in places:
        if place.resolve() in images:
            raise UserError(f"{place}: is itself an image to segment; name another place for the results")
    for (place, one), (other_place, other) in pairwise(places):
        if place == other_place:
            raise UserError(f"{one} and {other}: would become the same {place}; rename one")


def _members(folder: Path) -> Sequence[Path]:
    found = sorted(folder.iterdir())
    return [one for one in found if one.is_dir() or _is_nifti(one)]


def _is_file(out: Path, dicom_seg: bool) -> bool:
    """Whether an output names a file, and no folder for files."""
    if dicom_seg and _is_nifti(out):
        raise UserError(f"{out}: is named as NIfTI, but --dicom-seg was given; name it {DICOM_SEG}")
    return _is_nifti(out) or (out.suffix.lower() == DICOM_SEG and not out.is_dir())


def _is_nifti(path: Path) -> bool:
    return path.name.lower().endswith(NIFTI)


def _stem(path: Path) -> str:
    name = path.name
    for ending in (*NIFTI, DICOM_SEG):
        if name.lower().endswith(ending):
            return name[: -len(ending)]
    return name


def write_prediction(
    prediction: Prediction, source: Source, *, preview: bool, dicom_seg: bytes = b""
) -> None:
    """Write the label map and any uncertainty map, each whole or not at all, and the preview beside them.

    Args:
        prediction: what to write.
        source: where to.
        preview: whether to write a picture too.
        dicom_seg: the label map as a DICOM Segmentation, where the source asks for one.

    Raises:
        UserError: something cannot be written.
    """
    out = source.out
    with written_whole(out) as partial:
        if source.is_dicom_seg:
            partial.write_bytes(dicom_seg)
        else:
            nib.save(prediction.image, partial)
    if prediction.uncertainty is not None:
        with written_whole(source.uncertainty) as partial:
            nib.save(prediction.uncertainty, partial)
    if preview:
        with written_whole(out.with_name(f"{_stem(out)}.png")) as partial:
            Image.fromarray(prediction.preview).save(partial)


Rows = Sequence[tuple[Source, dict[str, OrganStats]]]


def write_stats(rows: Rows, folder: Path) -> Path:
    """Write a row an image and organ: volume in millilitres, mean intensity, mean uncertainty.

    Raises:
        UserError: the file cannot be written.
    """
    path = folder / STATS_FILE
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["image", "organ", *(field.name for field in fields(OrganStats))])
    for source, organs in rows:
        for name, one in organs.items():
            writer.writerow([source.out.name, name, *astuple(one)])  # None is empty
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
