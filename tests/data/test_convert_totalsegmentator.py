"""The TotalSegmentator data sets: a mask per structure, the set's own splits, patients left out."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from convert_samples import loaded, refused, saved

from fedmodal.data.check import check_dataset
from fedmodal.data.convert import totalsegmentator as module
from fedmodal.data.convert.run import convert_set
from fedmodal.data.convert.source import Left
from fedmodal.data.convert.totalsegmentator import totalsegmentator
from fedmodal.data.dataset import Dataset, Split, read_dataset
from fedmodal.tasks import ABDOMEN, HEART, TASKS, Modality, Task

Volumes = Callable[..., tuple[np.ndarray, np.ndarray]]
STRUCTURES = ("spleen", "kidney_right", "kidney_left", "gallbladder", "liver", "pancreas")


def patient_folder(
    src: Path, name: str, arrays: tuple[np.ndarray, np.ndarray], image: str = "ct.nii.gz"
) -> Path:
    """A patient as TotalSegmentator stores it: an image and a mask per structure."""
    values, label = arrays
    saved(values, src / name / image)
    for organ, structure in enumerate(STRUCTURES, 1):
        saved((label == organ).astype(np.uint8), src / name / "segmentations" / f"{structure}.nii.gz")
    return src / name


def converted(src: Path, out: Path, task: Task = ABDOMEN, modality: Modality = Modality.CT) -> Dataset:
    convert_set(totalsegmentator(src, task, modality), out)
    return read_dataset(out)


@pytest.fixture
def src(tmp_path: Path, volume: Volumes) -> Path:
    """Five CT patients: one good, one without organs, one lacking a mask, a broken and a missing image."""
    src = tmp_path / "totalseg"
    patient_folder(src, "s0000", volume(Modality.CT, 0))
    image, label = volume(Modality.CT, 1)
    patient_folder(src, "s0001", (image, np.zeros_like(label)))
    (patient_folder(src, "s0002", volume(Modality.CT, 2)) / "segmentations" / "liver.nii.gz").unlink()
    broken = patient_folder(src, "s0003", volume(Modality.CT, 3)) / "ct.nii.gz"
    broken.write_bytes(broken.read_bytes()[:-40])
    (patient_folder(src, "s0004", volume(Modality.CT, 4)) / "ct.nii.gz").unlink()
    return src


def test_what_is_whole_is_taken_and_the_rest_has_a_reason(src: Path, tmp_path: Path, volume: Volumes) -> None:
    record = convert_set(totalsegmentator(src, ABDOMEN, Modality.CT), tmp_path / "out")
    assert [each.case for each in record.taken] == ["s0000"]
    left = {each.case: each for each in record.left}
    assert left["s0001"] == Left("s0001", "no organ of the task in the volume", expected=True)
    assert "liver.nii.gz: no such file" in left["s0002"].why
    assert "truncated or damaged" in left["s0003"].why
    assert left["s0004"] == Left("s0004", "no ct.nii.gz")
    assert {each.case for each in record.unexpected} == {"s0002", "s0003", "s0004"}
    dataset = read_dataset(tmp_path / "out")
    assert check_dataset(dataset).ok
    case = dataset.cases[0]
    np.testing.assert_array_equal(loaded(dataset.label_path(case)), volume(Modality.CT, 0)[1])
    assert dataset.image_path(case).read_bytes() == (src / "s0000" / "ct.nii.gz").read_bytes()


def test_a_voxel_in_two_masks_keeps_its_first_organ(tmp_path: Path, volume: Volumes) -> None:
    image, label = volume(Modality.CT, 0)
    masks = patient_folder(tmp_path / "src", "s0", (image, label)) / "segmentations"
    saved(np.isin(label, (1, 5)).astype(np.uint8), masks / "liver.nii.gz")
    dataset = converted(tmp_path / "src", tmp_path / "out")
    np.testing.assert_array_equal(loaded(dataset.label_path(dataset.cases[0])), label)


def test_a_mask_on_another_grid_is_left(src: Path, tmp_path: Path) -> None:
    mask = src / "s0002" / "segmentations" / "spleen.nii.gz"
    saved(loaded(mask)[:-1], mask)
    record = convert_set(totalsegmentator(src, ABDOMEN, Modality.CT), tmp_path / "out")
    assert "spleen.nii.gz: 29x28x12 voxels where its image" in {e.case: e.why for e in record.left}["s0002"]


def test_the_heart_is_one_mask_or_the_sum_of_its_parts(tmp_path: Path, volume: Volumes) -> None:
    src = tmp_path / "src"
    image, label = volume(Modality.CT, 0)
    parts = ["myocardium", "atrium_left", "ventricle_left", "atrium_right", "ventricle_right"]
    for number, part in enumerate(parts, 1):
        mask = (label == number).astype(np.uint8)
        saved(mask, src / "old" / "segmentations" / f"heart_{part}.nii.gz")
    saved(image, src / "old" / "ct.nii.gz")
    saved((label == 6).astype(np.uint8), src / "new" / "segmentations" / "heart.nii.gz")
    saved(volume(Modality.CT, 1)[0], src / "new" / "ct.nii.gz")
    dataset = converted(src, tmp_path / "out", HEART)
    new, old = (loaded(dataset.label_path(case)) for case in dataset.cases)
    np.testing.assert_array_equal(new, label == 6)
    np.testing.assert_array_equal(old, (label > 0) & (label < 6))


def test_published_splits_are_kept(tmp_path: Path, volume: Volumes) -> None:
    src = tmp_path / "src"
    for seed in range(3):
        patient_folder(src, f"s{seed}", volume(Modality.MRI, seed), "mri.nii.gz")
    (src / "meta.csv").write_text("\ufeffimage_id;age;split\ns0;50;test\ns1;;val\ns2;61;train\n")
    dataset = converted(src, tmp_path / "out", modality=Modality.MRI)
    assert [case.split for case in dataset.cases] == [Split.TEST, Split.VALIDATION, Split.TRAIN]


def test_a_split_file_that_is_no_text_is_named(src: Path) -> None:
    (src / "meta.csv").write_bytes(b"\xff\xfe\xff")
    refused(lambda: totalsegmentator(src, ABDOMEN, Modality.CT), "meta.csv: not readable as CSV")


def test_every_organ_of_every_task_has_its_structures() -> None:
    organs = {organ.name for task in TASKS.values() for organ in task.organs}
    assert organs == set(module._STRUCTURES)


def test_a_wrong_folder_is_named_with_what_it_holds(src: Path, tmp_path: Path) -> None:
    refused(lambda: totalsegmentator(tmp_path / "none", ABDOMEN, Modality.CT), "no such folder")
    refused(lambda: totalsegmentator(src / "s0000", ABDOMEN, Modality.CT), "found ct.nii.gz, segmentations")
    refused(
        lambda: totalsegmentator(src, ABDOMEN, Modality.MRI),
        "looked for <patient>/mri.nii.gz, found <patient>/ct.nii.gz; use --modality CT",
    )


def test_images_of_the_other_modality_are_mentioned(src: Path, volume: Volumes) -> None:
    patient_folder(src, "s0100", volume(Modality.MRI, 5), "mri.nii.gz")
    source = totalsegmentator(src, ABDOMEN, Modality.CT)
    assert "s0100" not in {case.name for case in source.cases}
    assert source.notes == ("1 images of the other modality: convert them into a folder of their own",)
