"""`dataset.json`: what is written is read again, and every mistake in it is named."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from fedmodal.data.dataset import DATASET_FILE, Case, Dataset, Split, new_dataset, read_dataset, write_dataset
from fedmodal.errors import UserError
from fedmodal.tasks import ABDOMEN, Modality


def a_case(patient: str = "p1", split: Split = Split.TRAIN) -> Case:
    return Case(image=Path("a.nii.gz"), label=Path("b.nii.gz"), patient=patient, split=split)


def written(folder: Path, **changes: object) -> Path:
    """A valid dataset.json with some entries changed."""
    write_dataset(new_dataset(folder, ABDOMEN, Modality.CT, (a_case(),), name="site"))
    path = folder / DATASET_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def test_what_is_written_is_read(tmp_path: Path) -> None:
    cases = (a_case(), a_case("p2", Split.TEST))
    dataset = new_dataset(tmp_path, ABDOMEN, Modality.MRI, cases, name="site", description="ours")
    write_dataset(dataset)
    assert read_dataset(tmp_path) == dataset
    assert dataset.num_training == 2
    assert dataset.split(Split.TEST) == (cases[1],)
    assert dataset.image_path(cases[0]) == tmp_path / "a.nii.gz"


def test_the_file_uses_the_decathlon_keys(tmp_path: Path) -> None:
    content = json.loads((written(tmp_path) / DATASET_FILE).read_text())
    assert content["numTraining"] == 1
    assert content["labels"]["liver"] == 5
    assert content["training"] == [
        {"image": "a.nii.gz", "label": "b.nii.gz", "patient": "p1", "split": "train"}
    ]
    assert "folder" not in content


def test_unknown_entries_of_other_tools_are_ignored(tmp_path: Path) -> None:
    assert isinstance(read_dataset(written(tmp_path, tensorImageSize="3D", numTest=0)), Dataset)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"modality": "PET"}, "modality: Input should be 'CT' or 'MRI'"),
        ({"task": "knee"}, "unknown task 'knee': choose one of abdomen, heart"),
        ({"labels": {"background": 0, "liver": 1}}, "are not those of task 'abdomen'"),
        ({"training": [{"image": "a", "label": "b", "patient": "p", "split": "dev"}]}, "training.0.split"),
        ({"training": [{"image": "a", "label": "b", "split": "test"}]}, "training.0.patient: Field required"),
        ({"training": [{"image": "../a", "label": "b", "patient": "p", "split": "test"}]}, "inside the data"),
        ({"numTraining": -1}, "numTraining"),
    ],
)
def test_each_mistake_is_named(tmp_path: Path, changes: dict[str, object], words: str) -> None:
    with pytest.raises(UserError) as caught:
        read_dataset(written(tmp_path, **changes))
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["{", "[1]", "\ufeff"])
def test_a_file_that_is_not_json_is_named(tmp_path: Path, content: str) -> None:
    (tmp_path / DATASET_FILE).write_text(content)
    with pytest.raises(UserError, match=r"dataset\.json"):
        read_dataset(tmp_path)


def test_a_folder_without_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no dataset\.json here"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("path", ["/etc/passwd", "../other/a.nii.gz"])
def test_a_case_stays_inside_its_folder(path: str) -> None:
    with pytest.raises(ValidationError, match="inside the data set's folder"):
        Case(image=Path(path), label=Path("b"), patient="p", split=Split.TRAIN)
