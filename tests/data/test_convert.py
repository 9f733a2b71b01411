"""Bringing data in: label mappings, image and label pairs, and the TotalSegmentator data sets."""

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fedmodal.data.check import check_dataset
from fedmodal.data.convert import totalsegmentator
from fedmodal.data.convert.labels import map_labels, parse_labels
from fedmodal.data.convert.pair import add_pair
from fedmodal.data.convert.totalsegmentator import convert_totalsegmentator
from fedmodal.data.dataset import Dataset, Split, read_dataset
from fedmodal.data.store import open_store
from fedmodal.errors import UserError
from fedmodal.tasks import ABDOMEN, HEART, TASKS, Modality, Task

Volumes = Callable[..., tuple[np.ndarray, np.ndarray]]
AFFINE = np.diag([-3.0, -3.0, 3.0, 1.0])
TOTAL = parse_labels("total", ABDOMEN)
STRUCTURES = {
    "spleen": 1,
    "kidney_right": 2,
    "kidney_left": 3,
    "gallbladder": 4,
    "liver": 5,
    "pancreas": 6,
}


def saved(array: np.ndarray, path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, AFFINE), path)
    return path


def loaded(path: Path) -> np.ndarray:
    return np.asanyarray(nib.load(path).dataobj)


# --- label mappings


def test_known_tables() -> None:
    assert parse_labels("total", ABDOMEN) == {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 7: 6}
    assert parse_labels("total_mr", ABDOMEN) == parse_labels("total", ABDOMEN)
    assert parse_labels("total", HEART) == {51: 1}
    assert parse_labels("total_mr", HEART) == {22: 1}


def test_pairs_name_organs_by_id_or_name() -> None:
    text = "1=1, 2=right kidney,3=3,4=4,6=liver,10=pancreas,11=pancreas"
    assert parse_labels(text, ABDOMEN) == {1: 1, 2: 2, 3: 3, 4: 4, 6: 5, 10: 6, 11: 6}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("totl", "'totl' is neither source=organ"),
        ("1=", "'1=' is neither"),
        ("-1=1", "'-1=1' is neither"),
        ("1=brain", "'brain' is no organ of task 'abdomen'"),
        ("1=9", "'9' is no organ"),
        ("1=1,1=2", "listed twice"),
        ("1=1,2=2,3=3,4=4,5=5", "no source for pancreas"),
        ("1=1,2=2,3=3,4=4,5=5,0=6", "ids above 0"),
    ],
)
def test_mistakes_in_a_mapping_are_named(text: str, words: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_labels(text, ABDOMEN)
    assert words in str(caught.value)


def test_ids_not_listed_become_background() -> None:
    labels = np.array([0, 1, 6, 7, 117, 5], np.int32)
    assert map_labels(labels, TOTAL).tolist() == [0, 1, 0, 6, 0, 5]


# --- pairs


class Pair:
    """An image and a label map in `total` ids on disk, and a short way to add them."""

    def __init__(self, folder: Path, volume: Volumes, modality: Modality, seed: int = 0) -> None:
        image, label = volume(modality, seed)
        self.label_array = np.where(label == 6, 7, label).astype(np.uint8)
        self.image = saved(image, folder / f"image{seed}.nii.gz")
        self.label = saved(self.label_array, folder / f"label{seed}.nii.gz")
        self.modality = modality

    def add(
        self, out: Path, patient: str = "p1", split: Split = Split.TRAIN, task: Task = ABDOMEN
    ) -> Dataset:
        return add_pair(
            out,
            task,
            self.modality,
            image=self.image,
            label=self.label,
            patient=patient,
            split=split,
            mapping=parse_labels("total", task),
        )


@pytest.fixture
def pair(tmp_path: Path, volume: Volumes) -> Callable[..., Pair]:
    return lambda modality=Modality.CT, seed=0: Pair(tmp_path / "source", volume, modality, seed)


def test_a_pair_becomes_a_data_set_that_passes_the_check(pair: Callable[..., Pair], tmp_path: Path) -> None:
    source, out = pair(), tmp_path / "out"
    dataset = source.add(out)
    assert read_dataset(out) == dataset
    assert check_dataset(dataset).ok
    case = dataset.cases[0]
    assert dataset.image_path(case).read_bytes() == source.image.read_bytes()
    np.testing.assert_array_equal(
        loaded(dataset.label_path(case)), np.where(source.label_array == 7, 6, source.label_array)
    )


def test_pairs_are_added_one_by_one(pair: Callable[..., Pair], tmp_path: Path) -> None:
    out = tmp_path / "out"
    pair(seed=0).add(out, "p1", Split.TRAIN)
    pair(seed=1).add(out, "p1", Split.TRAIN)
    dataset = pair(seed=2).add(out, "p2", Split.TEST)
    assert [case.image.name for case in dataset.cases] == ["p1.nii.gz", "p1_2.nii.gz", "p2.nii.gz"]
    assert dataset.num_training == 3
    assert check_dataset(dataset).ok


def test_a_plain_image_is_compressed_and_keeps_its_bytes(pair: Callable[..., Pair], tmp_path: Path) -> None:
    source = pair()
    plain = gzip.decompress(source.image.read_bytes())
    source.image = source.image.with_suffix("")
    source.image.write_bytes(plain)
    dataset = source.add(tmp_path / "out")
    assert gzip.decompress(dataset.image_path(dataset.cases[0]).read_bytes()) == plain


def refused(act: Callable[[], object], words: str) -> None:
    with pytest.raises(UserError) as caught:
        act()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_pair_that_does_not_fit_is_refused(pair: Callable[..., Pair], tmp_path: Path) -> None:
    out = tmp_path / "out"
    first, second = pair(seed=0), pair(seed=1)
    first.add(out)
    before = sorted(path.name for path in out.rglob("*"))
    refused(lambda: second.add(out, "p1", Split.TEST), "patient 'p1' is in another split")
    refused(lambda: first.add(out, "p2", Split.TEST), "already in the data set as images/p1.nii.gz")
    refused(lambda: second.add(out, "../p", Split.TEST), "--patient")
    refused(lambda: pair(Modality.MRI, 3).add(out, "p3"), "holds CT of task 'abdomen', not MRI")
    refused(lambda: second.add(out, "p4", task=HEART), "not CT of 'heart'")
    second.modality = Modality.MRI
    refused(lambda: second.add(tmp_path / "other"), "declared MRI, but")
    assert sorted(path.name for path in out.rglob("*")) == before
    assert not (tmp_path / "other").exists()


def test_a_label_with_fractions_is_refused_before_it_is_mapped(
    pair: Callable[..., Pair], tmp_path: Path
) -> None:
    source = pair()
    saved(source.label_array * np.float32(0.5), source.label)
    refused(lambda: source.add(tmp_path / "out"), "holds fractions")


def test_a_label_elsewhere_in_space_is_refused(pair: Callable[..., Pair], tmp_path: Path) -> None:
    source = pair()
    nib.save(nib.Nifti1Image(source.label_array, np.diag([3.0, -3.0, 3.0, 1.0])), source.label)
    refused(lambda: source.add(tmp_path / "out"), "the affines differ")


# --- real images


@pytest.mark.parametrize(
    ("task", "modality", "image", "label", "table", "organs"),
    [
        (ABDOMEN, Modality.CT, "abdomen/ct_image", "abdomen/ct_label_total", "total", 6),
        (ABDOMEN, Modality.MRI, "abdomen/mri_image", "abdomen/mri_label_total_mr", "total_mr", 6),
        (HEART, Modality.CT, "heart/ct_image", "heart/ct_label_heart", "1=heart", 1),
    ],
    ids=["CT", "MRI", "heart CT"],
)
def test_real_images_pass_and_fail_with_the_modality_swapped(
    realdata: Path,
    tmp_path: Path,
    task: Task,
    modality: Modality,
    image: str,
    label: str,
    table: str,
    organs: int,
) -> None:
    dataset = add_pair(
        tmp_path / "out",
        task,
        modality,
        image=realdata / f"{image}.nii.gz",
        label=realdata / f"{label}.nii.gz",
        patient="one",
        split=Split.TRAIN,
        mapping=parse_labels(table, task),
    )
    report = check_dataset(dataset)
    assert report.ok
    assert len(report.rows[0].labels) == organs
    case = open_store(dataset, tmp_path / "cache").cases[0]
    assert (case.voxels.sum(0) > 0).all()
    assert 0.02 < case.image.astype(np.float32).mean() < 0.3
    (other,) = set(Modality) - {modality}
    swapped = check_dataset(dataset.model_copy(update={"modality": other}))
    assert f"declared {other}, but" in swapped.all_problems[0]


# --- TotalSegmentator


def patient_folder(
    src: Path, name: str, arrays: tuple[np.ndarray, np.ndarray], image: str = "ct.nii.gz"
) -> Path:
    """A patient as TotalSegmentator stores it: an image and a mask per structure."""
    values, label = arrays
    saved(values, src / name / image)
    for structure, organ in STRUCTURES.items():
        saved((label == organ).astype(np.uint8), src / name / "segmentations" / f"{structure}.nii.gz")
    return src / name


@pytest.fixture
def totalseg(tmp_path: Path, volume: Volumes) -> Path:
    """Four CT patients: one good, one without organs, one lacking a mask, one with a broken image."""
    src = tmp_path / "totalseg"
    patient_folder(src, "s0000", volume(Modality.CT, 0))
    image, label = volume(Modality.CT, 1)
    patient_folder(src, "s0001", (image, np.zeros_like(label)))
    (patient_folder(src, "s0002", volume(Modality.CT, 2)) / "segmentations" / "liver.nii.gz").unlink()
    broken = patient_folder(src, "s0003", volume(Modality.CT, 3)) / "ct.nii.gz"
    broken.write_bytes(broken.read_bytes()[:-40])
    return src


def test_totalsegmentator_takes_what_is_whole_and_says_why_not(
    totalseg: Path, tmp_path: Path, volume: Volumes
) -> None:
    calls: list[tuple[int, int]] = []
    out = tmp_path / "out"
    report = convert_totalsegmentator(
        totalseg, out, ABDOMEN, Modality.CT, progress=lambda *call: calls.append(call)
    )
    assert report.taken == ("s0000",)
    assert report.left["s0001"] == "no organ of the task in the volume"
    assert "no segmentations/liver.nii.gz" in report.left["s0002"]
    assert "truncated or damaged" in report.left["s0003"]
    assert calls == [(1, 4), (2, 4), (3, 4), (4, 4)]
    dataset = read_dataset(out)
    assert dataset == report.dataset
    assert check_dataset(dataset).ok
    case = dataset.cases[0]
    np.testing.assert_array_equal(loaded(dataset.label_path(case)), volume(Modality.CT, 0)[1])
    assert dataset.image_path(case).read_bytes() == (totalseg / "s0000" / "ct.nii.gz").read_bytes()


def test_a_conversion_started_again_keeps_what_is_finished(
    totalseg: Path, tmp_path: Path, volume: Volumes
) -> None:
    out = tmp_path / "out"
    first = convert_totalsegmentator(totalseg, out, ABDOMEN, Modality.CT)
    stamp = (out / "images" / "s0000.nii.gz").stat().st_mtime_ns
    (out / "images" / ".partial-s0004.nii.gz").write_bytes(b"half")
    patient_folder(totalseg, "s0004", volume(Modality.CT, 4))
    second = convert_totalsegmentator(totalseg, out, ABDOMEN, Modality.CT)
    assert second.taken == ("s0000", "s0004")
    assert second.dataset.cases[0] == first.dataset.cases[0]
    assert (out / "images" / "s0000.nii.gz").stat().st_mtime_ns == stamp
    assert not list(out.rglob(".partial*"))


def test_an_interrupted_conversion_of_another_kind_is_not_continued(totalseg: Path, tmp_path: Path) -> None:
    convert_totalsegmentator(totalseg, tmp_path / "out", ABDOMEN, Modality.CT)
    refused(
        lambda: convert_totalsegmentator(totalseg, tmp_path / "out", HEART, Modality.CT),
        "holds CT of task 'abdomen'",
    )


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
    dataset = convert_totalsegmentator(src, tmp_path / "out", HEART, Modality.CT).dataset
    new, old = (loaded(dataset.label_path(case)) for case in dataset.cases)
    np.testing.assert_array_equal(new, label == 6)
    np.testing.assert_array_equal(old, (label > 0) & (label < 6))


def test_published_splits_are_kept(tmp_path: Path, volume: Volumes) -> None:
    src = tmp_path / "src"
    for seed in range(3):
        patient_folder(src, f"s{seed}", volume(Modality.MRI, seed), "mri.nii.gz")
    (src / "meta.csv").write_text("\ufeffimage_id;age;split\ns0;50;test\ns1;;val\ns2;61;train\n")
    dataset = convert_totalsegmentator(src, tmp_path / "out", ABDOMEN, Modality.MRI).dataset
    assert [case.split for case in dataset.cases] == [Split.TEST, Split.VALIDATION, Split.TRAIN]


def test_drawn_splits_depend_on_seed_and_patient_only() -> None:
    def draw(seed: int) -> list[Split]:
        return [
            totalsegmentator._drawn_split(seed, f"s{number:04}", (0.7, 0.15, 0.15)) for number in range(2000)
        ]

    first = draw(0)
    assert first == draw(0)
    assert first != draw(1)
    assert [round(first.count(split) / 2000, 1) for split in Split] == pytest.approx(
        [0.7, 0.15, 0.15], abs=0.06
    )


def test_every_organ_of_every_task_has_its_structures() -> None:
    organs = {organ.name for task in TASKS.values() for organ in task.organs}
    assert organs == set(totalsegmentator._STRUCTURES)


def test_a_wrong_folder_is_named_with_what_it_holds(totalseg: Path, tmp_path: Path) -> None:
    def convert(src: Path, modality: Modality = Modality.CT) -> Callable[[], object]:
        return lambda: convert_totalsegmentator(src, tmp_path / "out", ABDOMEN, modality)

    refused(convert(tmp_path / "none"), "no such folder")
    refused(convert(totalseg / "s0000"), "found ct.nii.gz, segmentations")
    refused(convert(totalseg, Modality.MRI), "looked for <patient>/mri.nii.gz, found <patient>/ct.nii.gz")
    assert not (tmp_path / "out").exists()


def test_fractions_must_add_up(totalseg: Path, tmp_path: Path) -> None:
    refused(
        lambda: convert_totalsegmentator(
            totalseg, tmp_path / "out", ABDOMEN, Modality.CT, fractions=(0.7, 0.2, 0.2)
        ),
        "add up to 1",
    )
