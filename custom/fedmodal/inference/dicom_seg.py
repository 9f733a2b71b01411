"""A label map as a DICOM Segmentation, by highdicom, for the series that it was made from."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
from highdicom.color import CIELabColor
from highdicom.content import AlgorithmIdentificationSequence
from highdicom.seg import Segmentation, SegmentationTypeValues, SegmentDescription
from highdicom.sr.coding import CodedConcept
from pydicom.sr.codedict import codes
from pydicom.uid import generate_uid

from fedmodal import __version__
from fedmodal.data.nifti import spacing_of
from fedmodal.errors import UserError
from fedmodal.inference.model import Model
from fedmodal.inference.predict import Prediction
from fedmodal.tasks import Code, Organ

_SERIES_NUMBER = 900
"""Above the numbers that scanners give; PACS sort by it."""

_BLANKED = ("StudyInstanceUID", "SeriesInstanceUID")
"""What some anonymizers empty; a Segmentation must name a study and the series that it is of."""

_MAY_BE_EMPTY = (
    "PatientName", "PatientID", "PatientBirthDate", "PatientSex",
    "StudyID", "StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName",
)  # fmt: skip
"""What must be there, though it may be empty (type 2 in DICOM PS3.3); some anonymizers delete it."""


def dicom_segmentation(
    prediction: Prediction, files: Sequence[Path], model: Model
) -> tuple[bytes, str | None]:
    """A binary Segmentation object (DICOM PS3.3, A.51) with a segment for each organ of the task.

    Patient and study are the series' own, so that a PACS files it there; each frame names the
    instance that it was made from. Organs that were not found keep their segment, without a frame.

    Args:
        prediction: its label map has axes (column, row, slice).
        files: the series' files; `files[k]` holds slice `k`.
        model: named with its fingerprint as the algorithm.

    Returns:
        The file's content, and what a person must know of it, or None.

    Raises:
        UserError: the series' headers lack what a Segmentation must carry over.
    """
    folder = files[0].parent
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they quote header fields, and so do some errors' texts
            return _content(prediction, files, model)
    except AttributeError as error:
        raise UserError(f"{folder}: its headers lack {error.name}; write NIfTI instead") from error
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            f"{folder}: its headers hold a value that DICOM does not allow, and a DICOM-SEG would have to "
            "carry it over; write NIfTI instead"
        ) from error


def _content(prediction: Prediction, files: Sequence[Path], model: Model) -> tuple[bytes, str | None]:
    distance = spacing_of(prediction.image.affine)[2]
    sources = [_header(file, distance) for file in files]
    if not sources[0].get("FrameOfReferenceUID"):
        raise UserError(
            f"{files[0].parent}: its headers name no frame of reference, which a DICOM-SEG needs; "
            "write NIfTI instead"
        )
    invented = _fill_blanks(sources)
    label = np.asanyarray(prediction.image.dataobj).transpose(2, 1, 0)
    content = io.BytesIO()
    _segmentation(label, sources, model).save_as(content)
    return content.getvalue(), invented


def _header(file: Path, distance: float) -> pydicom.Dataset:
    """A header without pixels; where it is blank, UIDs from the file's head, and slices without gaps."""
    header = pydicom.dcmread(file, stop_before_pixels=True)
    for name in ("SOPClassUID", "SOPInstanceUID"):
        if not header.get(name):
            setattr(header, name, header.file_meta[f"MediaStorage{name}"].value)
    if not header.get("SliceThickness"):
        header.SliceThickness = round(distance, 6)
    for name in _MAY_BE_EMPTY:
        if name not in header:
            setattr(header, name, "")
    return header


def _fill_blanks(headers: Sequence[pydicom.Dataset]) -> str | None:
    """Where the headers name no study or series, give them one, always the same for the same instances."""
    blank = [name for name in _BLANKED if not headers[0].get(name)]
    for name in blank:
        uid = generate_uid(entropy_srcs=[name, headers[0].SOPInstanceUID])
        for header in headers:
            setattr(header, name, uid)
    return f"its headers hold no {' and '.join(blank)}, so the DICOM-SEG got new ones" if blank else None


def _segmentation(label: np.ndarray, sources: Sequence[pydicom.Dataset], model: Model) -> Segmentation:
    return Segmentation(
        source_images=sources,
        pixel_array=label,
        segmentation_type=SegmentationTypeValues.BINARY,
        segment_descriptions=[_describe(organ, model) for organ in model.task.organs],
        series_instance_uid=hd.UID(),
        series_number=_SERIES_NUMBER,
        sop_instance_uid=hd.UID(),
        instance_number=1,
        manufacturer="fedmodal",
        manufacturer_model_name=f"fedmodal {model.task.name}",
        software_versions=__version__,
        device_serial_number=model.fingerprint,
        content_label=model.task.name.upper(),
        content_description="Automatic outlines, not reviewed by a person",
    )


def _describe(organ: Organ, model: Model) -> SegmentDescription:
    description = SegmentDescription(
        segment_number=organ.id,
        segment_label=organ.name,
        segmented_property_category=codes.SCT.AnatomicalStructure,
        segmented_property_type=_concept(organ.code),
        algorithm_type="AUTOMATIC",
        algorithm_identification=AlgorithmIdentificationSequence(
            name="fedmodal",
            family=codes.DCM.ArtificialIntelligence,
            version=f"{__version__}, weights {model.fingerprint}",
        ),
        display_color=CIELabColor.from_rgb(*(int(organ.colour[at : at + 2], 16) for at in (1, 3, 5))),
    )
    if organ.side:
        kind = description.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [_concept(organ.side)]
    return description


def _concept(code: Code) -> CodedConcept:
    return CodedConcept(code.value, "SCT", code.meaning)
