"""Reading NIfTI files: types, scaling, and a clear error for each kind of damage."""

import gzip
import tracemalloc
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fedmodal.data import nifti
from fedmodal.data.nifti import read_nifti, spacing_of
from fedmodal.errors import UserError

AFFINE = np.diag([-2.0, 3.0, 4.0, 1.0])
ARRAY = np.arange(24, dtype=np.int16).reshape(2, 3, 4)


def saved(path: Path, array: np.ndarray = ARRAY, kind: type = nib.Nifti1Image) -> Path:
    nib.save(kind(array, AFFINE), path)
    return path


def with_scale(path: Path, slope: float, offset: float) -> Path:
    header = bytearray(path.read_bytes())
    header[112:120] = np.array([slope, offset], "<f4").tobytes()  # scl_slope, scl_inter
    path.write_bytes(header)
    return path


@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_values_type_and_place_are_kept(tmp_path: Path, name: str, kind: type) -> None:
    image = read_nifti(saved(tmp_path / name, kind=kind))
    values = np.asanyarray(image.dataobj)
    assert values.dtype == np.int16
    np.testing.assert_array_equal(values, ARRAY)
    np.testing.assert_array_equal(image.affine, AFFINE)
    assert spacing_of(image.affine) == (2.0, 3.0, 4.0)


def test_an_offset_becomes_hounsfield_units(tmp_path: Path) -> None:
    path = with_scale(saved(tmp_path / "a.nii"), 1, -1024)
    values = np.asanyarray(read_nifti(path).dataobj)
    assert values.dtype == np.float32
    np.testing.assert_array_equal(values, ARRAY - 1024.0)


@pytest.mark.parametrize("kind", [np.uint8, np.int16, np.int32, np.float32, np.float64])
@pytest.mark.parametrize("shape", [(5, 6, 7), (5, 6, 7, 1)])
def test_scaled_slab_by_slab_is_what_nibabel_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type, shape: tuple[int, ...]
) -> None:
    monkeypatch.setattr(nifti, "_SLAB_VOXELS", 60)  # two slices
    stored = np.random.default_rng(0).integers(0, 255, shape).astype(kind)
    path = with_scale(saved(tmp_path / "a.nii", stored), 0.3, -1024.7)
    values = np.asanyarray(read_nifti(path).dataobj)
    np.testing.assert_array_equal(values, np.asarray(nib.load(path).dataobj, np.float32).reshape(5, 6, 7))


def test_a_truncated_file_with_a_scale_is_refused(tmp_path: Path) -> None:
    path = with_scale(saved(tmp_path / "a.nii"), 2, 1)
    path.write_bytes(path.read_bytes()[:-2])
    refused(path, "ends before its last voxel")


def test_reading_a_scaled_file_needs_little_more_than_file_and_result(tmp_path: Path) -> None:
    stored = np.zeros((128, 128, 400), np.int16)
    path = with_scale(saved(tmp_path / "a.nii", stored), 1, -1024)
    tracemalloc.start()
    read_nifti(path)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < (2 + 4 + 3) * stored.size  # bytes a voxel: file, result, and a slab of 16


def test_a_fourth_axis_of_one_is_dropped(tmp_path: Path) -> None:
    image = read_nifti(saved(tmp_path / "a.nii.gz", ARRAY[..., None]))
    np.testing.assert_array_equal(np.asanyarray(image.dataobj), ARRAY)


def refused(path: Path, words: str) -> None:
    with pytest.raises(UserError) as caught:
        read_nifti(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert words in message
    assert "\n" not in message


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4, 2), (2, 3, 4, 1, 3)])
def test_other_dimensions_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    refused(saved(tmp_path / "a.nii.gz", np.zeros(shape, np.int16)), "is not a 3D volume")


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "none.nii.gz", "no such file")


def test_a_folder_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, "cannot be read")


@pytest.mark.parametrize("cut", [5, 40])
def test_a_truncated_gzip_file_is_refused(tmp_path: Path, cut: int) -> None:
    path = saved(tmp_path / "a.nii.gz")
    path.write_bytes(path.read_bytes()[:-cut])
    refused(path, "truncated or damaged gzip")


def test_a_flipped_bit_in_a_gzip_file_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.nii.gz")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    refused(path, "truncated or damaged gzip")


def test_a_truncated_plain_file_is_refused(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.nii")
    path.write_bytes(path.read_bytes()[:-2])
    refused(path, "ends before its last voxel")


@pytest.mark.parametrize("content", [b"", b"hello", b"\0" * 400, b"DICM" * 200])
@pytest.mark.parametrize("packed", [True, False])
def test_other_files_are_refused(tmp_path: Path, content: bytes, packed: bool) -> None:
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(content) if packed else content)
    refused(path, "not a NIfTI file")


def test_colours_are_refused(tmp_path: Path) -> None:
    rgb = np.zeros((2, 3, 4), np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    refused(saved(tmp_path / "a.nii.gz", rgb), "not grey values")


def test_an_image_without_orientation_is_refused(tmp_path: Path) -> None:
    image = nib.Nifti1Image(ARRAY, None)
    image.header.set_sform(None, 0)
    nib.save(image, tmp_path / "a.nii.gz")
    refused(tmp_path / "a.nii.gz", "left and right are unknown")


@pytest.mark.parametrize("step", [0.0, np.nan])
def test_a_degenerate_grid_is_refused(tmp_path: Path, step: float) -> None:
    path = saved(tmp_path / "a.nii")
    header = bytearray(path.read_bytes())
    header[320:324] = np.array(step, "<f4").tobytes()  # the third entry of srow_z
    path.write_bytes(header)
    refused(path, "voxel spacing")
