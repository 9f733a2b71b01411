"""DICOM-SEG: read again by highdicom, it is the label map, and it names its slices."""

from collections.abc import Callable
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.uid import generate_uid
from typer.testing import CliRunner

from fedmodal.cli import app
from fedmodal.data.dicom import read_series
from fedmodal.errors import UserError
from fedmodal.inference.dicom_seg import dicom_segmentation
from fedmodal.inference.model import Model
from fedmodal.inference.predict import Prediction
from fedmodal.tasks import ABDOMEN, Modality
from tests.dicom_files import change, write_slice

STUDY = {
    "StudyInstanceUID": "1.2.840.1",
    "FrameOfReferenceUID": "1.2.840.2",
    "PatientID": "id-of-the-sample",
    "Modality": "CT",
}
"""Without patient's name, dates and numbers, as an anonymizer leaves it."""

TURNED = (0.0, 1.0, 0.0, -1.0, 0.0, 0.0)
"""A quarter turn in the plane of the slice."""


@pytest.fixture
def series(images: dict[str, Path], tmp_path: Path) -> Path:
    """A CT phantom as a DICOM series whose file names run against its slices."""
    image = nib.as_closest_canonical(nib.load(images["CT"]))
    values = np.asanyarray(image.dataobj).astype(np.int16)
    step = image.header.get_zooms()
    slices = range(values.shape[2])
    for k in slices:
        pixels = values[::-1, ::-1, k].T
        place = (0.0, 0.0, float(step[2]) * k)
        name = f"{len(slices) - k:03}.dcm"
        spacing = [float(step[1]), float(step[0])]
        write_slice(tmp_path / "series" / name, pixels, place, **STUDY, PixelSpacing=spacing)
    return tmp_path / "series"


def call(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["predict", *map(str, arguments)])
    return done.exit_code, done.stdout + (
        str(done.exception) if isinstance(done.exception, UserError) else ""
    )


def mask_by_slices(segmentation: Path, series: Path) -> np.ndarray:
    """The label map (column, row, slice) by the instances that the segmentation names."""
    found = hd.seg.segread(segmentation)
    headers = [pydicom.dcmread(file, stop_before_pixels=True) for file in read_series(series).files]
    pixels = found.get_pixels_by_source_instance(
        [header.file_meta.MediaStorageSOPInstanceUID for header in headers],
        combine_segments=True,
        assert_missing_frames_are_empty=True,
    )
    label: np.ndarray = pixels.transpose(2, 1, 0)
    return label


def both(model_file: Path, series: Path) -> tuple[np.ndarray, np.ndarray, str]:
    """Label maps of the same series from the DICOM-SEG and from NIfTI, and what was printed."""
    code, shown = call(model_file, series, series.parent / "out.dcm")
    assert code == 0, shown
    assert call(model_file, series, series.parent / "out.nii.gz")[0] == 0
    label = np.asanyarray(nib.load(series.parent / "out.nii.gz").dataobj)
    return mask_by_slices(series.parent / "out.dcm", series), label, shown


def test_read_again_it_is_the_label_map(model_file: Path, series: Path) -> None:
    mask, label, shown = both(model_file, series)
    assert label.any()
    np.testing.assert_array_equal(mask, label)
    assert STUDY["PatientID"] not in shown


def test_it_lies_where_the_series_lies_in_any_direction(model_file: Path, series: Path) -> None:
    for file in series.iterdir():
        change(file, ImageOrientationPatient=list(TURNED))
    mask, label, _ = both(model_file, series)
    np.testing.assert_array_equal(mask, label)
    volume = hd.seg.segread(series.parent / "out.dcm").get_volume(combine_segments=True)
    ras = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine
    for voxel in np.argwhere(volume.array)[::500]:
        place = np.linalg.inv(read_series(series).image.affine) @ ras @ [*voxel, 1]
        assert label[tuple(np.rint(place[:3]).astype(int))] == volume.array[tuple(voxel)]


def test_segments_have_standard_codes_and_the_study_is_the_series_own(model_file: Path, series: Path) -> None:
    assert call(model_file, series, series.parent / "out.dcm")[0] == 0
    found = hd.seg.segread(series.parent / "out.dcm")
    assert (found.StudyInstanceUID, found.PatientID) == (STUDY["StudyInstanceUID"], STUDY["PatientID"])
    assert found.FrameOfReferenceUID == STUDY["FrameOfReferenceUID"]
    kinds = {}
    for item in found.SegmentSequence:
        kind = item.SegmentedPropertyTypeCodeSequence[0]
        sides = kind.get("SegmentedPropertyTypeModifierCodeSequence") or []
        kinds[item.SegmentLabel] = (kind.CodeValue, [side.CodeMeaning for side in sides])
        assert item.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "91723000"
    assert list(kinds) == [organ.name for organ in ABDOMEN.organs]
    assert kinds["right kidney"] == ("64033007", ["Right"])
    assert kinds["left kidney"] == ("64033007", ["Left"])
    assert kinds["liver"] == ("10200004", [])


def test_without_any_organ_it_is_empty(model: Model, series: Path, tmp_path: Path) -> None:
    found = read_series(series)
    none = nib.Nifti1Image(np.zeros(found.image.shape, np.uint8), found.image.affine)
    picture = np.zeros((1, 1, 3), np.uint8)
    content, doubt = dicom_segmentation(Prediction(none, Modality.CT, None, picture), found.files, model)
    (tmp_path / "out.dcm").write_bytes(content)
    assert doubt is None
    assert not mask_by_slices(tmp_path / "out.dcm", series).any()


def test_a_series_without_study_gets_one_and_says_so(model_file: Path, series: Path) -> None:
    for file in series.iterdir():
        change(file, StudyInstanceUID="")
    mask, label, shown = both(model_file, series)
    np.testing.assert_array_equal(mask, label)
    assert "hold no StudyInstanceUID" in shown


def test_bad_input_is_one_line(model_file: Path, series: Path, images: dict[str, Path]) -> None:
    out = series.parent / "out.dcm"
    code, shown = call(model_file, images["CT"], out)
    assert (code, "needs the DICOM series" in shown) == (1, True)
    code, shown = call(model_file, series, series.parent / "out.nii.gz", "--dicom-seg")
    assert (code, "is named as NIfTI" in shown) == (1, True)
    for file in series.iterdir():
        change(file, FrameOfReferenceUID=None)
    code, shown = call(model_file, series, out)
    assert (code, "no frame of reference" in shown, "\n" in shown) == (1, True, False)
    assert not out.exists()


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda file: file.unlink(), "uneven distance between slices"),
        (lambda file: file.write_bytes(file.read_bytes()[:900]), "its image cannot be decoded"),
        (lambda file: change(file, SamplesPerPixel=3, PhotometricInterpretation="RGB"), "a colour image"),
        (lambda file: change(file, PixelSpacing=None), "lacks PixelSpacing"),
    ],
)
def test_a_series_with_one_bad_file_is_one_line(
    model_file: Path, series: Path, spoil: Callable[[Path], object], words: str
) -> None:
    spoil(sorted(series.iterdir())[5])
    code, shown = call(model_file, series, series.parent / "out.dcm")
    assert (code, words in shown, "\n" in shown) == (1, True, False), shown
    assert not (series.parent / "out.dcm").exists()


def test_a_tilted_gantry_is_one_line(model_file: Path, series: Path) -> None:
    for file in series.iterdir():
        x, y, z = pydicom.dcmread(file).ImagePositionPatient
        change(file, ImagePositionPatient=[x, y + 0.2 * z, z])
    code, shown = call(model_file, series, series.parent / "out.dcm")
    assert (code, "tilted gantry" in shown, "\n" in shown) == (1, True, False)


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
def test_a_header_that_does_not_do_is_one_line_and_not_quoted(
    model_file: Path, series: Path, recwarn: pytest.WarningsRecorder
) -> None:
    for file in series.iterdir():
        change(file, PatientBirthDate="no date at all")
    recwarn.clear()
    code, shown = call(model_file, series, series.parent / "out.dcm")
    assert (code, "a value that DICOM does not allow" in shown, "\n" in shown) == (1, True, False)
    assert "no date" not in shown
    assert not [one for one in recwarn if "no date" in str(one.message)]


def test_the_wanted_one_of_two_series_in_a_folder_of_series(model_file: Path, series: Path) -> None:
    other = generate_uid()
    for file in sorted(series.iterdir())[:4]:
        change(file, SeriesInstanceUID=other)
    folder = series.parent / "out"
    code, shown = call(model_file, series, folder, "--dicom-seg")
    assert code == 1
    assert "holds 2 DICOM series" in shown
    assert other[-10:] in shown
    code, shown = call(model_file, series, folder, "--dicom-seg", "--series", other[-10:])
    assert code == 0, shown
    assert [path.name for path in folder.iterdir()] == ["series.dcm"]


def test_the_real_series(model_file: Path, realdata: Path, tmp_path: Path) -> None:
    series = realdata / "abdomen" / "ct_dicom"
    assert call(model_file, series, tmp_path / "out.dcm")[0] == 0
    assert call(model_file, series, tmp_path / "out.nii.gz")[0] == 0
    label = np.asanyarray(nib.load(tmp_path / "out.nii.gz").dataobj)
    np.testing.assert_array_equal(mask_by_slices(tmp_path / "out.dcm", series), label)
