"""Reading NIfTI files, with errors that name the file and the way out."""

import gzip
import math
import zlib
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from nibabel.arrayproxy import ArrayProxy
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from nibabel.wrapstruct import WrapStructError

from fedmodal.errors import UserError

Array = npt.NDArray[Any]

_CUBIC_MM_A_MILLILITRE = 1000.0
GZIP_MAGIC = b"\x1f\x8b"
_SLAB_VOXELS = 1 << 20  # scaled at once
_NIFTI2_HEADER = (540).to_bytes(4, "little"), (540).to_bytes(4, "big")


def read_nifti(path: Path) -> nib.Nifti1Image:
    """Read a 3D NIfTI file (`.nii`, `.nii.gz`, NIfTI-1 or NIfTI-2) into memory.

    A fourth axis of size 1 is dropped. Voxels keep the file's type unless its header scales them,
    then they are float32.

    Raises:
        UserError: missing, truncated or damaged file, not NIfTI, not 3D, or a header that says
            nothing usable about where the voxels lie.
    """
    image = _parse(_payload(path), path)
    array = _voxels(image, path)
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    if array.ndim != 3 or 0 in array.shape:
        raise UserError(f"{path}: shape {array.shape} is not a 3D volume; split it into one file per volume")
    if array.dtype.kind not in "iuf":
        raise UserError(f"{path}: voxels of type {array.dtype} are not grey values; export it again")
    _refuse_affine(image, path)
    return nib.Nifti1Image(array, image.affine, dtype=array.dtype)


def spacing_of(affine: npt.NDArray[np.floating]) -> tuple[float, float, float]:
    """Millimetres between voxels along each axis of an affine's grid."""
    x, y, z = (float(step) for step in np.linalg.norm(affine[:3, :3], axis=0))
    return x, y, z


def millilitres_a_voxel(affine: npt.NDArray[np.floating]) -> float:
    """Volume of one voxel of an affine's grid."""
    return abs(float(np.linalg.det(affine[:3, :3]))) / _CUBIC_MM_A_MILLILITRE


def _payload(path: Path) -> bytes:
    """The file's bytes, decompressed."""
    try:
        data = path.read_bytes()
        return gzip.decompress(data) if data.startswith(GZIP_MAGIC) else data
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; put it there or take the case out of dataset.json") from error
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"{path}: truncated or damaged gzip file; copy it from its source again") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); mend its permissions or disk") from error


def _parse(payload: bytes, path: Path) -> nib.Nifti1Image:
    kind = nib.Nifti2Image if payload[:4] in _NIFTI2_HEADER else nib.Nifti1Image
    try:
        return kind.from_bytes(payload)
    except (ImageFileError, HeaderDataError, WrapStructError, ValueError, OSError) as error:
        raise UserError(f"{path}: not a NIfTI file; convert it to .nii.gz") from error


def _voxels(image: nib.Nifti1Image, path: Path) -> Array:
    scaled = (image.dataobj.slope, image.dataobj.inter) != (1.0, 0.0)
    try:
        array: Array = _scaled(image.dataobj) if scaled else np.asarray(image.dataobj)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path}: ends before its last voxel; copy it from its source again") from error
    return array


def _scaled(stored: ArrayProxy) -> Array:
    """The values by the header's slope and offset, a slab at a time: nibabel takes 8 bytes a voxel."""
    array = np.empty(stored.shape, np.float32, order="F")
    axis = min(2, stored.ndim - 1)
    step = max(1, _SLAB_VOXELS // max(1, math.prod(stored.shape[:axis])))
    for first in range(0, stored.shape[axis], step):
        slab = (*[slice(None)] * axis, slice(first, first + step))
        array[slab] = stored[slab]
    return array


def _refuse_affine(image: nib.Nifti1Image, path: Path) -> None:
    header, affine = image.header, image.affine
    if not int(header["sform_code"]) and not int(header["qform_code"]):
        raise UserError(
            f"{path}: the header states no orientation (sform and qform codes are 0), so left and right are "
            "unknown; export the image again with its orientation"
        )
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise UserError(f"{path}: zero or undefined voxel spacing; export the image again with its spacing")
