"""Bringing data in: label mappings, and image and label pairs."""

import gzip
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from convert_samples import loaded, refused, saved

from fedmodal.data.check import check_dataset
from fedmodal.data.convert.labels import map_labels, parse_labels
from fedmodal.data.convert.pair import add_pair
from fedmodal.data.dataset import Dataset, Split, read_dataset
from fedmodal.data.store import open_store
from fedmodal.errors import UserError
from fedmodal.tasks import ABDOMEN, HEART, Modality, Task

Volumes = Callable[..., tuple[np.ndarray, np.ndarray]]
TOTAL = parse_labels("total", ABDOMEN)


# --- label mappings


def test_known_tables() -> None:
    assert parse_labels("total", ABDOMEN) == {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 7: 6}
    assert parse_labels("total_mr", ABDOMEN) == parse_labels("total", ABDOMEN)
    assert parse_labels("total", HEART) == {51: 1}
    assert parse_labels("total_mr", HEART) == {22: 1}
    assert parse_labels("task", ABDOMEN) == {1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 6}


def test_some_organs_are_enough_where_a_set_outlines_no_more() -> None:
    assert parse_labels("7=liver", ABDOMEN, partly=True) == {7: 5}


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
