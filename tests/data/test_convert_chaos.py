"""CHAOS: DICOM slices paired with PNG labels by name, three volumes a patient, organs it does not outline."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from convert_samples import centre, refused
from PIL import Image

from fedmodal.data.check import check_dataset
from fedmodal.data.convert.chaos import chaos
from fedmodal.data.convert.report import Conversion
from fedmodal.data.convert.run import convert_set
from fedmodal.data.dataset import Dataset, read_dataset
from fedmodal.tasks import Modality
from tests.dicom_files import change, write_series

Volumes = Callable[..., tuple[np.ndarray, np.ndarray]]
ORIGIN = (10.0, 20.0, -40.0)
GREY = np.array([0, 252, 126, 189, 0, 63, 0], np.uint8)  # by the task's id; no gallbladder, no pancreas
SLICES = 12


def write_labels(ground: Path, values: np.ndarray, names: list[str], mode: str = "L") -> None:
    """A PNG per slice of an array (column, row, slice)."""
    ground.mkdir(parents=True, exist_ok=True)
    for k, name in enumerate(names):
        Image.fromarray(np.ascontiguousarray(values[:, :, k].T)).convert(mode).save(ground / name)


def ct_patient(src: Path, number: int, arrays: tuple[np.ndarray, np.ndarray]) -> Path:
    """CT as CHAOS has it: files run from head to feet, label names do not repeat those of the slices."""
    folder = src / "Train_Sets" / "CT" / str(number)
    names = [f"i{SLICES - 1 - k:04},0000b.dcm" for k in range(SLICES)]
    files = write_series(folder / "DICOM_anon", arrays[0], names, ORIGIN)
    for k, path in enumerate(files):
        change(path, SeriesInstanceUID=f"1.2.{k}")  # as anonymization left them
    masks = [f"liver_GT_{SLICES - 1 - k:03}.png" for k in range(SLICES)]
    write_labels(folder / "Ground", np.where(arrays[1] == 5, 255, 0).astype(np.uint8), masks, mode="1")
    return folder


def mr_patient(src: Path, number: int, arrays: tuple[np.ndarray, np.ndarray]) -> Path:
    """MR as CHAOS has it: files out of phase and in phase take turns; PNG are named as the latter."""
    folder = src / "Train_Sets" / "MR" / str(number)
    image, label = arrays
    t1, t2 = folder / "T1DUAL", folder / "T2SPIR"
    odd, even = ([f"IMG-0004-{2 * k + start:05}.dcm" for k in range(SLICES)] for start in (1, 2))
    write_series(t1 / "DICOM_anon" / "InPhase", image, even, ORIGIN)
    write_series(t1 / "DICOM_anon" / "OutPhase", image // 2, odd, ORIGIN)
    write_labels(t1 / "Ground", GREY[label], [name.replace("dcm", "png") for name in even])
    names = [f"IMG-0002-{k + 1:05}.dcm" for k in range(SLICES)]
    write_series(t2 / "DICOM_anon", image * 2, names, ORIGIN)
    write_labels(t2 / "Ground", GREY[label] + (label == 5), [name.replace("dcm", "png") for name in names])
    return folder


def converted(src: Path, out: Path, modality: Modality) -> tuple[Conversion, Dataset]:
    record = convert_set(chaos(src, modality), out)
    dataset = read_dataset(out)
    assert check_dataset(dataset).ok
    return record, dataset


def where(voxel: tuple[float, float, float]) -> np.ndarray:
    """Where a voxel of the written series lies, mm in RAS, by hand from 3 mm and the origin."""
    x, y, z = (start + 3 * place for start, place in zip(ORIGIN, voxel, strict=True))
    return np.array([-x, -y, z])


def middle(label: np.ndarray, organ: int) -> np.ndarray:
    x, y, z = np.argwhere(label == organ).mean(axis=0)
    return where((x, y, z))


@pytest.fixture
def skewed(volume: Volumes) -> Callable[[Modality, int], tuple[np.ndarray, np.ndarray]]:
    """A volume whose liver lies in the upper slices only, so that a reversed order of slices shows."""

    def make(modality: Modality, seed: int) -> tuple[np.ndarray, np.ndarray]:
        image, label = volume(modality, seed)
        label[:, :, :6][label[:, :, :6] == 5] = 0
        return image, label

    return make


def test_ct_masks_follow_the_names_not_the_positions(tmp_path: Path, skewed: Volumes) -> None:
    image, label = skewed(Modality.CT, 0)
    ct_patient(tmp_path / "src", 16, (image, label))
    record, dataset = converted(tmp_path / "src", tmp_path / "out", Modality.CT)
    case = dataset.cases[0]
    assert (case.patient, case.image.name) == ("chaos-ct-16", "chaos-ct-16.nii.gz")
    written = nib.load(dataset.label_path(case))
    np.testing.assert_array_equal(np.asanyarray(written.dataobj), 5 * (label == 5))
    np.testing.assert_allclose(centre(written, 5), middle(label, 5))
    np.testing.assert_array_equal(np.asanyarray(nib.load(dataset.image_path(case)).dataobj), image)
    assert dataset.annotated == ("liver",)
    assert record.not_annotated == ("spleen", "right kidney", "left kidney", "gallbladder", "pancreas")


def test_mr_gives_three_volumes_of_one_patient_in_one_split(tmp_path: Path, skewed: Volumes) -> None:
    volumes = {number: skewed(Modality.MRI, number) for number in (1, 2, 10)}
    for number, arrays in volumes.items():
        mr_patient(tmp_path / "src", number, arrays)
    _, dataset = converted(tmp_path / "src" / "Train_Sets", tmp_path / "out", Modality.MRI)
    names = [case.image.name.removesuffix(".nii.gz") for case in dataset.cases]
    assert names == [
        f"chaos-mr-{number}{end}" for number in (1, 2, 10) for end in ("-t1-in", "-t1-out", "-t2")
    ]
    patients = {(case.patient, case.split) for case in dataset.cases}
    assert len(patients) == len({case.patient for case in dataset.cases}) == 3
    assert dataset.annotated == ("spleen", "right kidney", "left kidney", "liver")
    image, label = volumes[1]
    outlined = np.where(np.isin(label, (1, 2, 3, 5)), label, 0)
    for case, factor in zip(dataset.cases[:3], (1, 0.5, 2), strict=True):
        np.testing.assert_array_equal(np.asanyarray(nib.load(dataset.label_path(case)).dataobj), outlined)
        values = np.asanyarray(nib.load(dataset.image_path(case)).dataobj)
        np.testing.assert_array_equal(values, (image * factor).astype(int))


def test_kidneys_stay_on_their_side(tmp_path: Path, skewed: Volumes) -> None:
    image, label = skewed(Modality.MRI, 0)
    mr_patient(tmp_path / "src", 1, (image, label))
    _, dataset = converted(tmp_path / "src", tmp_path / "out", Modality.MRI)
    for case in dataset.cases:
        written = nib.load(dataset.label_path(case))
        assert centre(written, 2)[0] > centre(written, 3)[0]  # RAS: the right is the greater x
        for organ in (1, 2, 3, 5):
            np.testing.assert_allclose(centre(written, organ), middle(label, organ))


def test_slices_are_paired_where_numbers_have_no_zeros(tmp_path: Path, skewed: Volumes) -> None:
    """2 comes before 10, in the names of both."""
    image, label = skewed(Modality.CT, 0)
    folder = tmp_path / "src" / "CT" / "1"
    write_series(folder / "DICOM_anon", image, [f"i{k}.dcm" for k in range(SLICES)], ORIGIN)
    write_labels(folder / "Ground", (label == 5).astype(np.uint8), [f"GT_{k}.png" for k in range(SLICES)])
    _, dataset = converted(tmp_path / "src", tmp_path / "out", Modality.CT)
    np.testing.assert_allclose(centre(nib.load(dataset.label_path(dataset.cases[0])), 5), middle(label, 5))


@pytest.fixture
def patient(tmp_path: Path, skewed: Volumes) -> Path:
    """The MR patient to be spoiled; its neighbour is fine."""
    mr_patient(tmp_path / "src", 1, skewed(Modality.MRI, 1))
    return mr_patient(tmp_path / "src", 2, skewed(Modality.MRI, 2))


Spoil = Callable[[Path], object]


def _label(patient: Path) -> Path:
    return patient / "T2SPIR" / "Ground" / "IMG-0002-00005.png"


SPOILT: dict[str, tuple[Spoil, str]] = {
    "one PNG is missing": (lambda at: _label(at).unlink(), "11 PNG for 12 DICOM slices"),
    "an unknown grey": (
        lambda at: Image.fromarray(np.full((28, 30), 99, np.uint8)).save(_label(at)),
        "unknown label value 99",
    ),
    "another size": (
        lambda at: Image.fromarray(np.zeros((28, 31), np.uint8)).save(_label(at)),
        "another size than its DICOM slice",
    ),
    "a colour PNG": (
        lambda at: Image.fromarray(np.zeros((28, 30, 3), np.uint8)).save(_label(at)),
        "a colour picture",
    ),
    "a broken PNG": (
        lambda at: _label(at).write_bytes(_label(at).read_bytes()[:60]),
        "not readable as PNG",
    ),
    "a slice is missing": (
        lambda at: [path.unlink() for path in at.glob("T2SPIR/*/IMG-0002-00005.*")],
        "uneven distance",
    ),
    "no PNG folder": (lambda at: _label(at).parent.rename(at / "gone"), "no 2/T2SPIR/Ground"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_a_spoilt_volume_is_left_with_its_reason(patient: Path, tmp_path: Path, what: str) -> None:
    spoil, words = SPOILT[what]
    spoil(patient)
    record, dataset = converted(tmp_path / "src", tmp_path / "out", Modality.MRI)
    assert len(dataset.cases) == 5
    (left,) = record.unexpected
    assert left.case == "chaos-mr-2-t2"
    assert words in left.why


def test_out_of_phase_elsewhere_is_left(patient: Path, tmp_path: Path) -> None:
    for path in (patient / "T1DUAL" / "DICOM_anon" / "OutPhase").iterdir():
        change(path, PixelSpacing=[3.1, 3.1])
    record, _ = converted(tmp_path / "src", tmp_path / "out", Modality.MRI)
    assert [each.case for each in record.unexpected] == ["chaos-mr-2-t1-out"]
    assert "the affines differ" in record.left[0].why


def test_a_folder_that_is_not_chaos_is_named(patient: Path, tmp_path: Path) -> None:
    refused(lambda: chaos(patient, Modality.MRI), "looked for Train_Sets/MR/, found T1DUAL, T2SPIR")
    refused(lambda: chaos(tmp_path / "src", Modality.CT), "looked for Train_Sets/CT/, found Train_Sets")
