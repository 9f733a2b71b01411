"""Real DICOM files of one slice each, small."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def write_slice(path: Path, pixels: np.ndarray, position: Sequence[float], **tags: object) -> Path:
    """A DICOM file of one slice; `pixels` are int16 (rows, columns), `position` is mm in LPS."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    file = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    file.SOPClassUID, file.SOPInstanceUID = CTImageStorage, meta.MediaStorageSOPInstanceUID
    file.SeriesInstanceUID = "1.2.3"
    file.ImagePositionPatient = [round(float(value), 6) for value in position]
    file.ImageOrientationPatient = list(AXIAL)
    file.PixelSpacing = [3.0, 3.0]
    file.Rows, file.Columns = pixels.shape
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated = file.BitsStored = 16
    file.HighBit, file.PixelRepresentation = 15, 1
    file.PixelData = pixels.astype(np.int16).tobytes()
    for name, value in tags.items():
        if value is None:
            delattr(file, name)
        else:
            setattr(file, name, value)
    path.parent.mkdir(parents=True, exist_ok=True)
    file.save_as(path, enforce_file_format=True)
    return path


def write_series(
    folder: Path, voxels: np.ndarray, names: Sequence[str], origin: Sequence[float] = (0, 0, 0)
) -> list[Path]:
    """Axial slices, 3 mm apart, of an array (column, row, slice) that runs left, back and up."""
    return [
        write_slice(folder / name, voxels[:, :, k].T, (origin[0], origin[1], origin[2] + 3.0 * k))
        for k, name in enumerate(names)
    ]


def change(path: Path, **tags: object) -> None:
    """Set some tags of a DICOM file, or delete those that are None."""
    file = pydicom.dcmread(path)
    for name, value in tags.items():
        if value is None:
            delattr(file, name)
        else:
            setattr(file, name, value)
    file.save_as(path, enforce_file_format=True)
