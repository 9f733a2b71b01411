"""The organs that a data set outlines, where they are not all of its task."""

import json
from pathlib import Path

import pytest
from convert_samples import refused

from fedmodal.data.dataset import DATASET_FILE, Dataset, new_dataset, read_dataset, write_dataset
from fedmodal.tasks import ABDOMEN, Modality


def written(folder: Path, annotated: tuple[str, ...] | None) -> Dataset:
    dataset = new_dataset(folder, ABDOMEN, Modality.CT, (), name="site", annotated=annotated)
    write_dataset(dataset)
    return dataset


def test_outlined_organs_are_written_and_read(tmp_path: Path) -> None:
    dataset = written(tmp_path, ("spleen", "liver"))
    assert read_dataset(tmp_path) == dataset
    assert json.loads((tmp_path / DATASET_FILE).read_text())["annotated"] == ["spleen", "liver"]
    assert [organ.id for organ in dataset.annotated_organs] == [1, 5]


def test_without_the_entry_all_organs_are_outlined(tmp_path: Path) -> None:
    written(tmp_path, None)
    assert "annotated" not in json.loads((tmp_path / DATASET_FILE).read_text())
    dataset = read_dataset(tmp_path)
    assert dataset.annotated is None
    assert dataset.annotated_organs == ABDOMEN.organs


@pytest.mark.parametrize(
    ("value", "words"),
    [(["brain"], "'brain' is no organ of task 'abdomen'"), ([], "annotated"), ("liver", "annotated")],
)
def test_a_mistake_in_the_entry_is_named(tmp_path: Path, value: object, words: str) -> None:
    written(tmp_path, None)
    path = tmp_path / DATASET_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {"annotated": value}))
    refused(lambda: read_dataset(tmp_path), words)
