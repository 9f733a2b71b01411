"""AMOS22, BTCV, MM-WHS and nnU-Net folders: which files are cases, and what becomes of their labels."""

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from convert_samples import centre, in_ids, loaded, refused, saved

from fedmodal.data.check import check_dataset
from fedmodal.data.convert.amos22 import amos22
from fedmodal.data.convert.btcv import btcv
from fedmodal.data.convert.mmwhs import mmwhs
from fedmodal.data.convert.nnunet import nnunet
from fedmodal.data.convert.report import Conversion
from fedmodal.data.convert.run import convert_set
from fedmodal.data.convert.source import Source
from fedmodal.data.convert.splits import Splits
from fedmodal.data.dataset import Dataset, Split, read_dataset
from fedmodal.tasks import ABDOMEN, HEART, Modality

Volumes = Callable[..., tuple[np.ndarray, np.ndarray]]
AMOS = (1, 2, 3, 4, 6, 10)
BTCV = (1, 2, 3, 4, 6, 11)
TURNED = np.array([[0, 3.0, 0, 5], [0, 0, -3.0, -9], [-3.0, 0, 0, 20], [0, 0, 0, 1]])


def converted(source: Source, out: Path) -> tuple[Conversion, Dataset]:
    record = convert_set(source, out)
    dataset = read_dataset(out)
    assert check_dataset(dataset).ok
    return record, dataset


def reasons(record: Conversion) -> dict[str, str]:
    return {each.case: each.why for each in record.left}


# --- AMOS22


def amos_case(src: Path, part: str, number: int, arrays: tuple[np.ndarray, np.ndarray]) -> None:
    saved(arrays[0], src / f"images{part}" / f"amos_{number:04}.nii.gz")
    saved(in_ids(arrays[1], AMOS), src / f"labels{part}" / f"amos_{number:04}.nii.gz")


@pytest.fixture
def amos(tmp_path: Path, volume: Volumes) -> Path:
    src = tmp_path / "amos22"
    amos_case(src, "Tr", 1, volume(Modality.CT, 0))
    amos_case(src, "Va", 500, volume(Modality.CT, 1))
    amos_case(src, "Tr", 507, volume(Modality.MRI, 2))
    saved(volume(Modality.CT, 3)[0], src / "imagesTs" / "amos_0200.nii.gz")
    return src


def test_amos_is_divided_by_number_and_keeps_its_validation_part_for_the_test(
    amos: Path, tmp_path: Path
) -> None:
    record, dataset = converted(amos22(amos, Modality.CT), tmp_path / "ct")
    assert [(case.patient, case.split) for case in dataset.cases] == [
        ("amos_0001", Split.TRAIN),
        ("amos_0500", Split.TEST),
    ]
    assert reasons(record) == {"amos_0200": "no labelsTs/amos_0200.nii.gz"}
    assert not record.unexpected
    assert record.notes == ("1 cases of the other modality: convert them into a folder of their own",)
    record, dataset = converted(amos22(amos.parent, Modality.MRI), tmp_path / "mri")
    assert [case.patient for case in dataset.cases] == ["amos_0507"]
    assert dataset.modality is Modality.MRI


def test_amos_labels_become_the_tasks(amos: Path, tmp_path: Path, volume: Volumes) -> None:
    path = amos / "labelsTr" / "amos_0001.nii.gz"
    label = volume(Modality.CT, 0)[1]
    saved(np.where((label == 0) & (np.indices(label.shape)[2] == 0), 8, in_ids(label, AMOS)), path)  # aorta
    _, dataset = converted(amos22(amos, Modality.CT), tmp_path / "out")
    np.testing.assert_array_equal(loaded(dataset.label_path(dataset.cases[0])), label)


def test_amos_files_that_do_not_fit_are_left_with_a_reason(
    amos: Path, tmp_path: Path, volume: Volumes
) -> None:
    image, label = volume(Modality.CT, 4)
    for number, wrong in ((10, label * 0), (11, label * 0 + 8), (12, np.where(label == 6, 17, 0))):
        saved(image, amos / "imagesTr" / f"amos_{number:04}.nii.gz")
        saved(wrong.astype(np.int16), amos / "labelsTr" / f"amos_{number:04}.nii.gz")
    amos_case(amos, "Tr", 13, (image[:-1], label))
    saved(image, amos / "imagesTr" / "amos_0014.nii.gz")
    saved(label, amos / "labelsTr" / "amos_0015.nii.gz")
    saved(image, amos / "imagesTr" / "scan.nii.gz")
    amos_case(amos, "Tr", 16, (image, label))
    saved(label * 0.5, amos / "labelsTr" / "amos_0016.nii.gz")
    amos_case(amos, "Tr", 17, volume(Modality.MRI, 5))
    amos_case(amos, "Tr", 18, (image, label))
    saved(in_ids(label, AMOS), amos / "labelsTr" / "amos_0018.nii.gz", TURNED)
    record, _ = converted(amos22(amos, Modality.CT), tmp_path / "out")
    words = {
        "amos_0010": "empty label map",
        "amos_0011": "no organ of the task",
        "amos_0012": "unknown label value 17",
        "amos_0013": "voxels where its image",
        "amos_0014": "no labelsTr/amos_0014.nii.gz",
        "amos_0015": "no imagesTr/amos_0015.nii.gz",
        "amos_0016": "holds fractions",
        "amos_0017": "declared CT, but",
        "amos_0018": "the affines differ",
        "scan": "not named amos_<number>",
    }
    found = reasons(record)
    assert {case: words[case] in found[case] for case in words} == dict.fromkeys(words, True)
    assert {each.case for each in record.left if each.expected} == {"amos_0011", "amos_0200"}


def test_amos_without_the_modality_says_so(tmp_path: Path, volume: Volumes) -> None:
    amos_case(tmp_path, "Tr", 507, volume(Modality.MRI, 0))
    refused(lambda: amos22(tmp_path, Modality.CT), "no CT among its 1 cases")
    refused(
        lambda: amos22(tmp_path / "imagesTr", Modality.CT), "looked for imagesTr/ and labelsTr/, found amos"
    )


# --- BTCV


@pytest.mark.parametrize(
    ("root", "folders"),
    [
        (".", ("img", "label")),
        ("RawData/Training", ("img", "label")),
        (".", ("imagesTr", "labelsTr")),
    ],
)
def test_btcv_layouts(tmp_path: Path, volume: Volumes, root: str, folders: tuple[str, str]) -> None:
    image, label = volume(Modality.CT, 0)
    saved(image, tmp_path / "src" / root / folders[0] / "img0001.nii.gz")
    saved(in_ids(label, BTCV), tmp_path / "src" / root / folders[1] / "label0001.nii.gz")
    saved(image, tmp_path / "src" / root / folders[0] / "img0002.nii.gz")
    saved(label, tmp_path / "src" / root / folders[1] / "label0003.nii.gz")
    record, dataset = converted(btcv(tmp_path / "src"), tmp_path / "out")
    np.testing.assert_array_equal(loaded(dataset.label_path(dataset.cases[0])), label)
    assert dataset.cases[0].patient == "img0001"
    assert reasons(record) == {
        "img0002": "no label0002.nii.gz",
        "img0003": "no img0003.nii.gz for label0003.nii.gz",
    }
    assert len(record.unexpected) == 2


def test_a_turned_volume_keeps_its_kidneys_apart(tmp_path: Path, volume: Volumes) -> None:
    """Axes up, right and back instead of left, back and up: the same patient at the same place."""
    image, label = volume(Modality.CT, 0)
    saved(image, tmp_path / "src" / "img" / "img0001.nii.gz", TURNED)
    source = saved(in_ids(label, BTCV), tmp_path / "src" / "label" / "label0001.nii.gz", TURNED)
    _, dataset = converted(btcv(tmp_path / "src"), tmp_path / "out")
    written = nib.load(dataset.label_path(dataset.cases[0]))
    for organ, old in enumerate(BTCV, 1):
        np.testing.assert_allclose(centre(written, organ), centre(nib.load(source), old))
    # by hand: the spleen's block starts at voxel (7, 8, 3) and is 4 x 5 x 6 long, centre (8.5, 10, 5.5)
    np.testing.assert_allclose(centre(written, 1), (3 * 10 + 5, -3 * 5.5 - 9, -3 * 8.5 + 20))


def test_a_folder_that_is_not_btcv_is_named(tmp_path: Path) -> None:
    refused(lambda: btcv(tmp_path), "looked for img/img0001.nii.gz and label/label0001.nii.gz, found nothing")


# --- MM-WHS


def test_mmwhs_merges_seven_structures(tmp_path: Path, volume: Volumes) -> None:
    src, values = tmp_path / "src", (500, 600, 420, 550, 205, 820)
    for seed, folder, prefix in ((0, "ct_train", "ct_train_1001"), (1, "mr_train", "mr_train_1001")):
        image, label = volume(Modality.CT if prefix[0] == "c" else Modality.MRI, seed)
        mapped = in_ids(label, values)
        mapped[0, 0, 0], mapped[1, 0, 0] = 850, 421
        saved(image, src / folder / f"{prefix}_image.nii.gz")
        saved(mapped, src / folder / f"{prefix}_label.nii.gz")
    saved(image, src / "mr_test" / "mr_test_2001_image.nii.gz")
    label = volume(Modality.CT, 0)[1] > 0
    label[0, 0, 0] = label[1, 0, 0] = True
    record, dataset = converted(mmwhs(src, Modality.CT), tmp_path / "ct")
    assert dataset.task == "heart"
    np.testing.assert_array_equal(loaded(dataset.label_path(dataset.cases[0])), label)
    assert record.notes == ("2 cases of the other modality: convert them into a folder of their own",)
    record, dataset = converted(mmwhs(src, Modality.MRI), tmp_path / "mr")
    assert [case.patient for case in dataset.cases] == ["mr_train_1001"]
    assert reasons(record) == {"mr_test_2001": "no mr_test_2001_label.nii.gz"}
    assert not record.unexpected


def test_mmwhs_copies_and_unknown_values_are_left(tmp_path: Path, volume: Volumes) -> None:
    image, label = volume(Modality.CT, 0)
    for number, folders, value in ((1001, ("a",), 500), (1002, ("a", "b"), 500), (1003, ("a",), 999)):
        for folder in folders:
            saved(image, tmp_path / "src" / folder / f"ct_train_{number}_image.nii.gz")
            saved(in_ids(label, [value] * 6), tmp_path / "src" / folder / f"ct_train_{number}_label.nii.gz")
    record, _ = converted(mmwhs(tmp_path / "src", Modality.CT), tmp_path / "out")
    assert "keep one copy" in reasons(record)["ct_train_1002"]
    assert "unknown label value 999" in reasons(record)["ct_train_1003"]
    refused(lambda: mmwhs(tmp_path / "src", Modality.MRI), "looked for mr_train_1001_image.nii.gz")


# --- nnU-Net and the Decathlon


def nnunet_folder(src: Path, arrays: tuple[np.ndarray, np.ndarray], suffix: str, **content: object) -> Path:
    saved(arrays[0], src / "imagesTr" / f"case_0001{suffix}.nii.gz")
    saved(arrays[1].astype(np.int16), src / "labelsTr" / "case_0001.nii.gz")
    (src / "dataset.json").write_text(json.dumps({"numTraining": 1, "file_ending": ".nii.gz"} | content))
    return src


def test_nnunet_finds_organs_by_name(tmp_path: Path, volume: Volumes) -> None:
    image, label = volume(Modality.CT, 0)
    names = ("kidney_left", "Kidney-Right", "spleen", "pancreas", "liver", "gallbladder", "aorta")
    labels: dict[str, object] = {"background": 0} | {name: number for number, name in enumerate(names, 1)}
    labels["liver"] = [5, 9]  # a region of nnU-Net v2
    mapped = in_ids(label, (3, 2, 1, 6, 5, 4))
    mapped[0, 0, :2] = 7, 9
    src = nnunet_folder(tmp_path / "src", (image, mapped), "_0000", channel_names={"0": "CT"}, labels=labels)
    saved(image, src / "imagesTs" / "case_0002_0000.nii.gz")
    record, dataset = converted(nnunet(src, ABDOMEN, Modality.CT), tmp_path / "out")
    label[0, 0, 1] = 5
    np.testing.assert_array_equal(loaded(dataset.label_path(dataset.cases[0])), label)
    assert dataset.annotated is None
    assert reasons(record) == {"case_0002_0000": "in imagesTs, which has no labels"}
    assert not record.unexpected


def test_decathlon_labels_and_a_set_of_one_organ(tmp_path: Path, volume: Volumes) -> None:
    image, label = volume(Modality.CT, 0)
    labels = {"0": "background", "1": "liver", "2": "cancer"}
    src = nnunet_folder(
        tmp_path / "src", (image, np.where(label == 5, 1, np.where(label == 1, 2, 0))), "", labels=labels
    )
    (src / "imagesTr" / "._case_0001.nii.gz").write_bytes(b"macOS")
    refused(lambda: nnunet(src, ABDOMEN, Modality.CT), "names no label spleen, right kidney, left kidney,")
    _, dataset = converted(nnunet(src, ABDOMEN, Modality.CT, partly=True), tmp_path / "by-name")
    np.testing.assert_array_equal(loaded(dataset.label_path(dataset.cases[0])), 5 * (label == 5))
    assert dataset.annotated == ("liver",)
    source = nnunet(src, ABDOMEN, Modality.CT, labels="1=liver,2=liver", partly=True)
    _, dataset = converted(source, tmp_path / "given")
    np.testing.assert_array_equal(
        loaded(dataset.label_path(dataset.cases[0])), 5 * ((label == 5) | (label == 1))
    )
    refused(lambda: convert_set(source, tmp_path / "by-name"), "holds another conversion")


def test_nnunet_channels(tmp_path: Path, volume: Volumes) -> None:
    image, label = volume(Modality.MRI, 0)
    src = nnunet_folder(
        tmp_path / "src",
        (image, label > 0),
        "_0000",
        channel_names={"0": "T1", "1": "T2"},
        labels={"background": 0, "heart": 1},
    )
    second = saved(volume(Modality.MRI, 1)[0], src / "imagesTr" / "case_0001_0001.nii.gz")
    record, dataset = converted(nnunet(src, HEART, Modality.MRI, channel=1), tmp_path / "out")
    assert dataset.image_path(dataset.cases[0]).read_bytes() == second.read_bytes()
    assert "only channel 1 of 2 was looked at" in record.notes
    refused(lambda: nnunet(src, HEART, Modality.MRI, channel=2), "has channels 0 to 1")


def test_a_label_to_be_ignored_is_no_background(tmp_path: Path, volume: Volumes) -> None:
    image, label = volume(Modality.CT, 0)
    labels = {"background": 0, "heart": 1, "ignore": 2}
    src = nnunet_folder(tmp_path / "src", (image, np.minimum(label, 2)), "_0000", labels=labels)
    refused(lambda: convert_set(nnunet(src, HEART, Modality.CT), tmp_path / "out"), "unknown label value 2")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "not an nnU-Net v2 or Decathlon dataset.json"),
        ("[]", "not an nnU-Net v2 or Decathlon dataset.json"),
        ('{"labels": {"liver": "x"}}', "not an nnU-Net v2 or Decathlon dataset.json"),
        ('{"labels": {"heart": 1}, "file_ending": ".png"}', "files are not NIfTI"),
    ],
)
def test_a_description_that_is_not_understood_is_named(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "imagesTr").mkdir()
    refused(lambda: nnunet(tmp_path, HEART, Modality.CT), "dataset.json: cannot be read")
    (tmp_path / "dataset.json").write_text(content)
    refused(lambda: nnunet(tmp_path, HEART, Modality.CT), words)


def test_shares_override_the_sets_own_division(amos: Path, tmp_path: Path) -> None:
    record = convert_set(amos22(amos, Modality.CT), tmp_path / "out", Splits(test=1))
    assert {each.split for each in record.taken} == {Split.TEST}
