"""Reading a DICOM series, one file a slice, into a volume; errors name the file and the way out.

Source of the geometry: DICOM PS3.3, C.7.6.2 (Image Plane Module). Patient coordinates run to the left,
to the back and to the head (LPS); the affine here, as in NIfTI, to the right, to the front and to the head.
"""

import struct
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.errors import InvalidDicomError
from pydicom.pixels.decoders.base import get_decoder
from pydicom.pixels.processing import apply_modality_lut

from fedmodal.data.nifti import Array
from fedmodal.errors import UserError
from fedmodal.tasks import Modality

_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])
_COMPANIONS = frozenset({".txt", ".xml", ".json", ".csv", ".md", ".html", ".pdf", ".jpg", ".png"})
_GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "Rows", "Columns")
_GAP_TOLERANCE = 0.1  # of the distance between slices: positions are rounded in many headers
_TILT_TOLERANCE = 0.01  # a hundredth of the way along the normal, 0.6 degrees
_SAME_DIRECTION = 1e-3
_UID_END = 10  # characters that tell the series of a folder apart
_MODALITIES = {"CT": Modality.CT, "MR": Modality.MRI}
_Vector = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Series:
    """A volume and where each of its slices came from.

    Attributes:
        image: voxels in the order (column, row, slice), with the affine to millimetres in RAS.
        files: the DICOM files; `files[k]` holds slice `k`.
        modality: what the header declares: CT or MRI, or None if it names neither.
    """

    image: nib.Nifti1Image
    files: tuple[Path, ...]
    modality: Modality | None


@dataclass(frozen=True)
class _Slice:
    path: Path
    position: _Vector  # centre of the first voxel, mm, LPS
    along_row: _Vector  # unit vector in which the column number grows
    down_column: _Vector  # unit vector in which the row number grows
    spacing: tuple[float, float]  # mm between rows, between columns
    shape: tuple[int, int]  # rows, columns
    series: str
    modality: str  # as the header has it
    whole: bool  # rescaling keeps whole numbers

    @property
    def normal(self) -> _Vector:
        return np.cross(self.along_row, self.down_column)


def read_series(folder: Path, wanted: str = "") -> Series:
    """Read one DICOM series of a folder.

    Args:
        folder: holds its files.
        wanted: its SeriesInstanceUID or the end of it; may be empty where there is only one.

    Returns:
        Hounsfield units for CT, the scanner's rescaled values otherwise; int16 or int32 if they are
        whole numbers, else float32; axes (column, row, slice), affine to millimetres in RAS.

    Raises:
        UserError: no DICOM images, several series of which none or more than one is wanted, or
            anything that `stack_slices` refuses.
    """
    slices = _headers(series_files(folder))
    found = sorted({each.series for each in slices if each.series.endswith(wanted)})
    if len(found) == 1:
        return _stacked([each for each in slices if each.series == found[0]])
    groups = [[each for each in slices if each.series == uid] for uid in sorted({s.series for s in slices})]
    offered = "; ".join(_describe(group) for group in groups)
    if not found:
        raise UserError(f"{folder}: no series ends in '{wanted}'; there are {offered}")
    raise UserError(
        f"{folder}: holds {len(groups)} DICOM series: {offered}; name one (--series takes the end of its "
        "UID), or put each into a folder of its own"
    )


def _describe(group: Sequence[_Slice]) -> str:
    """A series by what is no patient's: the end of its UID, kind, size."""
    rows, columns = group[0].shape
    return f"...{group[0].series[-_UID_END:]} ({group[0].modality}, {len(group)} files of {columns} x {rows})"


def series_files(folder: Path) -> tuple[Path, ...]:
    """The files of a folder that should be DICOM, sorted by name; documents beside them are left out.

    Raises:
        UserError: no such folder, or nothing in it.
    """
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name the folder that holds the DICOM files")
    found = tuple(path for path in sorted(folder.iterdir()) if path.is_file() and not _companion(path))
    if not found:
        raise UserError(f"{folder}: no DICOM files here; name the folder that holds them")
    return found


def stack_slices(files: Sequence[Path]) -> Series:
    """Stack DICOM files to a volume by their positions, whatever their names and series numbers.

    Raises:
        UserError: a file that is unreadable, not an image, in colour, multi-frame, compressed without a
            decoder or without geometry; slices of different size or direction; two slices in one
            place, a missing slice, or a tilted gantry.
    """
    return _stacked(_headers(files))


def _companion(path: Path) -> bool:
    return path.name.startswith(".") or path.name == "DICOMDIR" or path.suffix.lower() in _COMPANIONS


def _headers(files: Sequence[Path]) -> list[_Slice]:
    return [_slice(path, _dataset(path, pixels=False)) for path in files]


def _dataset(path: Path, *, pixels: bool) -> pydicom.Dataset:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they quote header fields
            return pydicom.dcmread(path, stop_before_pixels=not pixels)
    except InvalidDicomError as error:
        raise UserError(f"{path}: not a DICOM file; take it out of the folder or copy it again") from error
    except OSError as error:
        reason = error.strerror or "it ends too early"
        raise UserError(f"{path}: cannot be read ({reason}); copy it from its source again") from error
    except (ValueError, KeyError, NotImplementedError, AttributeError, struct.error) as error:
        raise UserError(f"{path}: damaged DICOM file; copy it from its source again") from error


def _slice(path: Path, header: pydicom.Dataset) -> _Slice:
    if int(header.get("NumberOfFrames") or 1) > 1:
        raise UserError(f"{path}: holds many frames; export the series as one file per slice")
    if int(header.get("SamplesPerPixel") or 1) != 1:
        raise UserError(f"{path}: a colour image; name a series of grey CT or MRI slices")
    for name in _GEOMETRY:
        if header.get(name) in (None, ""):
            raise UserError(f"{path}: its header lacks {name}; export the series as CT or MR images")
    try:
        return _geometry(path, header)
    except (TypeError, ValueError, IndexError) as error:
        raise UserError(f"{path}: its header holds no usable geometry; export the series again") from error


def _geometry(path: Path, header: pydicom.Dataset) -> _Slice:
    cosines = np.array([float(value) for value in header.ImageOrientationPatient]).reshape(2, 3)
    rows, columns = (float(value) for value in header.PixelSpacing)
    position = np.array([float(value) for value in header.ImagePositionPatient]).reshape(3)
    orthonormal = np.allclose(cosines @ cosines.T, np.eye(2), atol=1e-3)
    if not (orthonormal and min(rows, columns) > 0 and np.isfinite(position).all()):
        raise ValueError
    scale = float(header.get("RescaleSlope") or 1), float(header.get("RescaleIntercept") or 0)
    return _Slice(
        path=path,
        position=position,
        along_row=cosines[0],
        down_column=cosines[1],
        spacing=(rows, columns),
        shape=(int(header.Rows), int(header.Columns)),
        series=str(header.get("SeriesInstanceUID", "")),
        modality=str(header.get("Modality", "")).upper(),
        whole=all(value.is_integer() for value in scale),
    )


def _stacked(slices: Sequence[_Slice]) -> Series:
    folder = slices[0].path.parent
    if len(slices) < 2:
        raise UserError(f"{folder}: one slice is no volume; name a folder with a whole series")
    for each in slices[1:]:
        _refuse_other_grid(slices[0], each)
    ordered = sorted(slices, key=lambda each: float(each.position @ slices[0].normal))
    step = _step(ordered, folder)
    voxels = np.stack([_values(each) for each in ordered], axis=-1)
    image = nib.Nifti1Image(voxels, _affine(ordered[0], step), dtype=voxels.dtype)
    files = tuple(each.path for each in ordered)
    return Series(image, files, _MODALITIES.get(ordered[0].modality))


def _refuse_other_grid(first: _Slice, other: _Slice) -> None:
    turned = max(
        np.abs(first.along_row - other.along_row).max(), np.abs(first.down_column - other.down_column).max()
    )
    if turned > _SAME_DIRECTION:
        raise UserError(
            f"{other.path}: lies in another direction than {first.path.name}; keep only slices of one stack"
        )
    if first.shape != other.shape or not np.allclose(first.spacing, other.spacing, rtol=1e-3):
        raise UserError(
            f"{other.path}: has another size or pixel spacing than {first.path.name}; keep one series"
        )


def _step(ordered: Sequence[_Slice], folder: Path) -> _Vector:
    """The way from one slice to the next, mm, LPS."""
    normal = ordered[0].normal
    places = np.array([each.position for each in ordered])
    gaps = np.diff(places @ normal)
    usual = float(np.median(gaps))
    if gaps.min() < _GAP_TOLERANCE * max(usual, 0.01):
        twins = [ordered[int(np.argmin(gaps)) + offset].path.name for offset in (0, 1)]
        raise UserError(
            f"{folder}: {twins[0]} and {twins[1]} lie in the same place; keep one image per position"
        )
    if (np.abs(gaps - usual) > _GAP_TOLERANCE * usual).any():
        after = ordered[int(np.argmax(np.abs(gaps - usual)))].path.name
        raise UserError(
            f"{folder}: uneven distance between slices after {after}; put the missing slices there"
        )
    step: _Vector = (places[-1] - places[0]) / (len(ordered) - 1)
    aside = np.linalg.norm(step - (step @ normal) * normal)
    if aside > _TILT_TOLERANCE * abs(step @ normal):
        raise UserError(f"{folder}: slices are sheared (tilted gantry); export a series without tilt")
    return step


def _affine(first: _Slice, step: _Vector) -> _Vector:
    affine = np.eye(4)
    affine[:3, 0] = first.along_row * first.spacing[1]
    affine[:3, 1] = first.down_column * first.spacing[0]
    affine[:3, 2] = step
    affine[:3, 3] = first.position
    ras: _Vector = _LPS_TO_RAS @ affine
    return ras


def _values(piece: _Slice) -> Array:
    """Rescaled values of one slice, (columns, rows)."""
    header = _dataset(piece.path, pixels=True)
    if "PixelData" not in header:
        raise UserError(f"{piece.path}: holds no image; take it out of the folder")
    values = np.asarray(apply_modality_lut(_pixels(header, piece.path), header)).T
    if values.shape != piece.shape[::-1]:
        raise UserError(f"{piece.path}: image and header differ in size; copy it from its source again")
    return values.astype(_type_for(values) if piece.whole else np.float32)


def _pixels(header: pydicom.Dataset, path: Path) -> Array:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return np.asarray(header.pixel_array)
    except (RuntimeError, NotImplementedError, ValueError, AttributeError, OSError, struct.error) as error:
        syntax = header.file_meta.get("TransferSyntaxUID")
        if syntax is not None and syntax.is_compressed and not _decodable(syntax):
            raise UserError(
                f"{path}: compressed as {syntax.name}, without a decoder here; "
                "`pip install python-gdcm` or export it uncompressed"
            ) from error
        raise UserError(f"{path}: its image cannot be decoded; copy it from its source again") from error


def _decodable(syntax: pydicom.uid.UID) -> bool:
    try:
        return get_decoder(syntax).is_available
    except NotImplementedError:
        return False


def _type_for(values: Array) -> type[np.signedinteger[Any]]:
    fits = np.iinfo(np.int16).min <= values.min() and values.max() <= np.iinfo(np.int16).max
    return np.int16 if fits else np.int32
