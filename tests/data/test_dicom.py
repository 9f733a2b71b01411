"""Reading a DICOM series: geometry, values, and a line for everything that is wrong with it."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from convert_samples import refused
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.encaps import encapsulate

from fedmodal.data.dicom import read_series, series_files, stack_slices
from fedmodal.tasks import Modality
from tests.dicom_files import change, write_series, write_slice

NAMES = [f"{number}.dcm" for number in range(5)]
CORNERS = ((0, 0, 0), (6, 0, 0), (0, 3, 0), (0, 0, 4), (6, 3, 4))


@pytest.fixture
def voxels() -> np.ndarray:
    """(7 columns, 4 rows, 5 slices), every value once."""
    return np.arange(7 * 4 * 5, dtype=np.int16).reshape(7, 4, 5) - 40


@pytest.fixture
def series(tmp_path: Path, voxels: np.ndarray) -> Path:
    write_series(tmp_path / "series", voxels, NAMES, origin=(-10, -20, 30))
    return tmp_path / "series"


def value_at(image: nib.Nifti1Image, mm: np.ndarray) -> float:
    """The value at a point, mm in RAS."""
    place = nib.affines.apply_affine(np.linalg.inv(image.affine), mm)
    assert np.abs(place - place.round()).max() < 1e-3
    return float(np.asanyarray(image.dataobj)[tuple(place.round().astype(int))])


def test_axial_slices_lie_where_their_headers_say(series: Path, voxels: np.ndarray) -> None:
    image = read_series(series).image
    assert image.shape == (7, 4, 5)
    assert image.get_data_dtype() == np.int16
    assert nib.aff2axcodes(image.affine) == ("L", "P", "S")
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), voxels)
    # DICOM counts to the left and to the back from (-10, -20, 30), NIfTI to the right and to the front
    assert value_at(image, np.array([10 - 3 * 6, 20 - 3 * 3, 30 + 3 * 4])) == voxels[6, 3, 4]
    assert int(image.header["sform_code"]) > 0


@given(
    angles=st.tuples(*[st.floats(-3, 3)] * 3),
    steps=st.tuples(*[st.floats(0.5, 5)] * 3),
    order=st.permutations(range(5)),
    flipped=st.booleans(),
)
@settings(max_examples=20, deadline=None)
def test_any_direction_and_any_order_of_files(
    tmp_path_factory: pytest.TempPathFactory,
    angles: tuple[float, float, float],
    steps: tuple[float, float, float],
    order: list[int],
    flipped: bool,
) -> None:
    folder = tmp_path_factory.mktemp("series")
    voxels = np.arange(7 * 4 * 5, dtype=np.int16).reshape(7, 4, 5)
    right, down, along = _rotation(angles)
    origin, stack = np.array([5.0, -7.0, 11.0]), -along if flipped else along
    for name, k in zip(NAMES, order, strict=True):
        write_slice(
            folder / name,
            voxels[:, :, k].T,
            origin + stack * steps[2] * k,
            ImageOrientationPatient=[round(float(x), 9) for x in (*right, *down)],
            PixelSpacing=[steps[1], steps[0]],  # between rows first
        )
    image = read_series(folder).image
    for i, j, k in CORNERS:
        lps = origin + right * steps[0] * i + down * steps[1] * j + stack * steps[2] * k
        assert value_at(image, lps * (-1, -1, 1)) == voxels[i, j, k]


def _rotation(angles: tuple[float, float, float]) -> np.ndarray:
    """Rows: three orthogonal unit vectors, right-handed."""
    a, b, c = angles
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return np.asarray(about_x @ about_y @ about_z)


def test_whole_rescaling_gives_integers_and_another_one_floats(series: Path, voxels: np.ndarray) -> None:
    for path in series.iterdir():
        change(path, RescaleSlope=2, RescaleIntercept=-1024)
    image = read_series(series).image
    assert image.get_data_dtype() == np.int16
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), 2 * voxels - 1024)
    change(series / "2.dcm", RescaleSlope=0.5, RescaleIntercept=0.25)
    image = read_series(series).image
    assert image.get_data_dtype() == np.float32
    np.testing.assert_array_equal(np.asanyarray(image.dataobj)[:, :, 2], 0.5 * voxels[:, :, 2] + 0.25)
    np.testing.assert_array_equal(np.asanyarray(image.dataobj)[:, :, 3], 2 * voxels[:, :, 3] - 1024)


def test_values_beyond_16_bits_are_kept(series: Path, voxels: np.ndarray) -> None:
    change(series / "4.dcm", RescaleSlope=1000, RescaleIntercept=0)
    values = np.asanyarray(read_series(series).image.dataobj)
    np.testing.assert_array_equal(values[:, :, 4], 1000 * voxels[:, :, 4].astype(int))


def test_files_are_named_in_the_order_of_slices(series: Path) -> None:
    (series / "0.dcm").rename(series / "9.dcm")
    stack = stack_slices(series_files(series))
    assert [path.name for path in stack.files] == ["9.dcm", "1.dcm", "2.dcm", "3.dcm", "4.dcm"]


def test_documents_beside_the_slices_are_left_out(series: Path) -> None:
    for name in ("DICOMDIR", ".DS_Store", "readme.txt", "preview.png"):
        (series / name).write_bytes(b"no slice")
    assert read_series(series).image.shape == (7, 4, 5)


@pytest.mark.parametrize(
    ("tags", "words"),
    [
        ({"SeriesInstanceUID": "1.2.4"}, "holds 2 DICOM series: "),
        ({"NumberOfFrames": 3}, "holds many frames"),
        ({"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB"}, "a colour image"),
        ({"ImagePositionPatient": None}, "lacks ImagePositionPatient"),
        ({"PixelSpacing": None}, "lacks PixelSpacing"),
        ({"PixelSpacing": [0.0, 3.0]}, "no usable geometry"),
        ({"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "no usable geometry"),
        ({"ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}, "in another direction than 0.dcm"),
        ({"PixelSpacing": [3.0, 2.0]}, "another size or pixel spacing"),
        ({"ImagePositionPatient": [-10, -20, 36]}, "1.dcm and 2.dcm lie in the same place"),
        ({"PixelData": bytes(10)}, "cannot be decoded"),
        ({"PixelData": None}, "holds no image"),
    ],
)
def test_a_slice_that_does_not_fit_is_named(series: Path, tags: dict[str, object], words: str) -> None:
    change(series / "1.dcm", **tags)
    refused(lambda: read_series(series), words)


def test_one_of_two_series_is_chosen_by_the_end_of_its_uid(series: Path) -> None:
    for name in ("3.dcm", "4.dcm"):
        change(series / name, SeriesInstanceUID="1.2.77", Modality="MR")
    refused(lambda: read_series(series), "...1.2.77 (MR, 2 files of 7 x 4)")
    found = read_series(series, "77")
    assert (found.image.shape[2], found.modality) == (2, Modality.MRI)
    refused(lambda: read_series(series, "78"), "no series ends in '78'")


def test_a_slice_that_is_no_dicom_file_is_named(series: Path) -> None:
    whole = (series / "1.dcm").read_bytes()
    for content, words in (
        (b"", "not a DICOM file"),
        (b"x" * 500, "not a DICOM file"),
        (whole[:400], "1.dcm"),
    ):
        (series / "1.dcm").write_bytes(content)
        refused(lambda: read_series(series), words)


def test_a_missing_slice_is_named_by_the_one_before(series: Path) -> None:
    (series / "2.dcm").unlink()
    refused(lambda: read_series(series), "uneven distance between slices after 1.dcm")
    (series / "3.dcm").unlink()
    (series / "4.dcm").unlink()
    assert read_series(series).image.shape == (7, 4, 2)
    (series / "1.dcm").unlink()
    refused(lambda: read_series(series), "one slice is no volume")


def test_rounded_positions_are_no_gap(tmp_path: Path, voxels: np.ndarray) -> None:
    for k, name in enumerate(NAMES):
        write_slice(tmp_path / name, voxels[:, :, k].T, (0, 0, round(0.625 * k, 2)))
    assert read_series(tmp_path).image.affine[2, 2] == pytest.approx(0.625)


def test_a_tilted_gantry_is_refused(tmp_path: Path, voxels: np.ndarray) -> None:
    for k, name in enumerate(NAMES):
        write_slice(tmp_path / name, voxels[:, :, k].T, (0, 0.8 * k, 3 * k))  # 15 degrees
    refused(lambda: read_series(tmp_path), "tilted gantry")


def test_a_compression_without_decoder_is_named(series: Path) -> None:
    change(series / "3.dcm", PixelData=encapsulate([b"\xff\xd8 no picture"]))
    raw = (series / "3.dcm").read_bytes()
    syntax = b"1.2.840.10008.1.2.1\x00", b"1.2.840.10008.1.2.4.94"  # JPIP: no decoder anywhere
    (series / "3.dcm").write_bytes(_with_syntax(raw, *syntax))
    refused(lambda: read_series(series), "3.dcm: compressed as JPIP Referenced, without a decoder here")


def _with_syntax(raw: bytes, old: bytes, new: bytes) -> bytes:
    """Another transfer syntax in the file's head, with the lengths that go with it."""
    element = b"\x02\x00\x10\x00UI"
    raw = raw.replace(
        element + len(old).to_bytes(2, "little") + old, element + len(new).to_bytes(2, "little") + new
    )
    group = raw.index(b"\x02\x00\x00\x00UL\x04\x00") + 8
    length = int.from_bytes(raw[group : group + 4], "little") + len(new) - len(old)
    return raw[:group] + length.to_bytes(4, "little") + raw[group + 4 :]


def test_a_folder_without_slices_is_named(tmp_path: Path) -> None:
    refused(lambda: read_series(tmp_path), "no DICOM files here")
    refused(lambda: read_series(tmp_path / "none"), "no such folder")


def test_the_real_series_lies_on_the_grid_of_its_labels(realdata: Path) -> None:
    image = nib.as_closest_canonical(read_series(realdata / "abdomen" / "ct_dicom").image)
    label = nib.as_closest_canonical(nib.load(realdata / "abdomen" / "ct_dicom_label_total.nii.gz"))
    assert image.shape == label.shape
    np.testing.assert_allclose(image.affine, label.affine, atol=1e-6)
    values, organs = np.asanyarray(image.dataobj), np.asanyarray(label.dataobj)
    assert 40 < values[organs == 1].mean() < 140  # spleen and liver, HU; a flip would bring in air and fat
    assert 40 < values[organs == 5].mean() < 140
    assert values[organs == 5].std() < 60
