"""Real data sets, good and bad; nothing printed names a patient."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from shlex import quote
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from fedmodal.data.dataset import Dataset, Split
from fedmodal.data.phantom import write_phantoms
from fedmodal.data.store import Store
from fedmodal.flare.preflight import (
    as_json,
)
from fedmodal.flare.preflight.data import data
from fedmodal.flare.preflight.finding import Status, open_kit
from fedmodal.tasks import ABDOMEN, Modality
from tests.flare.preflight import found, use_data


def test_no_data_says_what_to_set(kit: Path) -> None:
    finding = found(data, kit)["data"]
    assert finding.status is Status.FAIL
    assert "site 'site-2' has no data: set FEDMODAL_DATA" in finding.message
    step = found(data, kit)["training step"]
    assert (step.status, step.message.startswith("SKIP")) == (Status.WARN, True)


def test_phantoms_are_a_warning(kit: Path) -> None:
    (kit / "local" / "fedmodal.json").write_text('{"phantoms": true}')
    assert found(data, kit)["data"].status is Status.WARN


def test_good_data_train_one_real_step(kit: Path, phantom_sites: Path) -> None:
    use_data(kit, phantom_sites / "site-2")
    findings = found(data, kit)
    assert findings["data"].message == "4 synthetic MRI cases for task abdomen, no problems"
    assert findings["training step"].status is Status.PASS
    assert float(findings["training step"].message.split()[1].strip(",")) > 0
    assert " s a step, " in findings["training step"].message


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set whose files have a patient's name, in a folder with a colon in its own."""
    folder = tmp_path_factory.mktemp("named") / "set: 1"
    write_phantoms(folder, ABDOMEN, Modality.MRI, {Split.TRAIN: 2, Split.VALIDATION: 1}, seed=3)
    content = json.loads((folder / "dataset.json").read_text())
    for case in content["training"]:
        for key in ("image", "label"):
            new = case[key].replace("phantom", NAME)
            (folder / case[key]).rename(folder / new)
            case[key] = new
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


NAME = "O'Neil, Mary; 1950"


def change_set(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder / "dataset.json").read_text())
    change(content)
    (folder / "dataset.json").write_text(json.dumps(content))


def label_of(folder: Path, number: int) -> Path:
    content = json.loads((folder / "dataset.json").read_text())
    return folder / str(content["training"][number]["label"])


def no_nifti(folder: Path) -> None:
    label_of(folder, 0).write_bytes(b"no image")
    label_of(folder, 1).write_bytes(b"no image")


def another_grid(folder: Path) -> None:
    path = label_of(folder, 0)
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[:-1], image.affine), path)


def same_image(folder: Path) -> None:
    content = json.loads((folder / "dataset.json").read_text())
    first, second, _ = (folder / case["image"] for case in content["training"])
    shutil.copy(first, second)


def two_splits(folder: Path) -> None:
    change_set(
        folder, lambda content: content["training"][0].update(patient=content["training"][2]["patient"])
    )


def outside(folder: Path) -> None:
    change_set(folder, lambda content: content["training"][0].update(image=f"../{NAME}.nii.gz"))


def wrong_modality(folder: Path) -> None:
    change_set(folder, lambda content: content.update(modality="CT"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_nifti, "2 x not a NIfTI file"),
        (another_grid, "voxels where its image [file] has"),
        (same_image, "1 x [file] and [file]: the same image"),
        (two_splits, "one patient in several splits (train, validation): [file], [file]"),
        (outside, "training.0: Value error, [file] must be a path inside"),
        (wrong_modality, "3 x declared CT, but its values are not in Hounsfield units"),
    ],
)
def test_what_is_wrong_with_the_data_is_said_without_a_name(
    kit: Path, tmp_path: Path, named: Path, spoil: Callable[[Path], None], message: str
) -> None:
    folder = Path(shutil.copytree(named, tmp_path / named.name))
    spoil(folder)
    use_data(kit, folder)
    findings = list(data(open_kit(kit)))
    assert findings[0].status is Status.FAIL
    assert message in "\n".join(one.message for one in findings)
    assert findings[0].remedy.startswith(f"fedmodal check {quote(str(folder))}")
    assert (findings[-1].check, findings[-1].message[:4]) == ("training step", "SKIP")
    assert not [word for word in ("Neil", "Mary", "1950") if word in as_json(findings)]


def test_a_check_that_breaks_on_a_file_does_not_name_it(
    kit: Path, tmp_path: Path, named: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(named, tmp_path / named.name))
    use_data(kit, folder)

    def breaks(dataset: Dataset, cache: Path) -> Store:  # noqa: ARG001
        raise PermissionError(13, "Permission denied", str(dataset.image_path(dataset.cases[0])))

    monkeypatch.setattr("fedmodal.flare.preflight.data.open_store", breaks)
    step = found(data, kit)["training step"]
    assert (step.status, "PermissionError" in step.message) == (Status.FAIL, True)
    assert "Mary" not in as_json([step])
