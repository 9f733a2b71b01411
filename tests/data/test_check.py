"""Every rule of `fedmodal check`: what breaks it is named, what keeps it passes."""

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from rich.console import Console

from fedmodal.data.check import check_dataset, render
from fedmodal.data.dataset import Dataset
from fedmodal.tasks import Modality

Maker = Callable[..., Dataset]
AFFINE = np.diag([-3.0, -3.0, 3.0, 1.0])


def loaded(path: Path) -> np.ndarray:
    return np.asanyarray(nib.load(path).dataobj).copy()


def replaced(
    dataset: Dataset, image: object = None, label: object = None, affine: np.ndarray = AFFINE
) -> Dataset:
    """The data set with the arrays of its first case replaced (by a function of them, or by an array)."""
    for path, change in (
        (dataset.image_path(dataset.cases[0]), image),
        (dataset.label_path(dataset.cases[0]), label),
    ):
        if change is not None:
            array = change(loaded(path)) if callable(change) else change
            nib.save(nib.Nifti1Image(array, affine), path)
    return dataset


def problems(dataset: Dataset) -> str:
    """All problems; each one line."""
    report = check_dataset(dataset)
    assert all("\n" not in problem for problem in report.all_problems)
    assert report.ok == (not report.all_problems)
    return " | ".join(report.all_problems)


@pytest.mark.parametrize("modality", list(Modality))
def test_a_good_data_set_passes(make_dataset: Maker, modality: Modality) -> None:
    calls: list[tuple[int, int]] = []
    report = check_dataset(make_dataset(modality), lambda *call: calls.append(call))
    assert report.ok
    assert report.warnings == ()
    assert calls == [(1, 3), (2, 3), (3, 3)]
    row = report.rows[0]
    assert (row.shape, row.spacing, row.orientation) == ((30, 28, 12), (3, 3, 3), "LPS")
    assert row.labels == ("spleen", "right kidney", "left kidney", "gallbladder", "liver", "pancreas")


def test_modality_swapped_is_refused(make_dataset: Maker) -> None:
    ct, mri = make_dataset(Modality.CT, name="ct"), make_dataset(Modality.MRI, name="mri")
    assert "declared MRI, but" in problems(ct.model_copy(update={"modality": Modality.MRI}))
    assert "declared CT, but its intensities" in problems(mri.model_copy(update={"modality": Modality.CT}))


def test_unshifted_ct_is_told_to_add_the_offset(make_dataset: Maker) -> None:
    dataset = replaced(make_dataset(), image=lambda array: (array + 1024).clip(0))
    assert "add the offset -1024" in problems(dataset)


def test_unshifted_ct_with_padding_is_told_too(make_dataset: Maker) -> None:
    def shift(array: np.ndarray) -> np.ndarray:
        shifted = (array + 1024).clip(0)
        shifted[:4] = -2000
        return shifted

    assert "add the offset -1024" in problems(replaced(make_dataset(), image=shift))


@pytest.mark.parametrize(
    "change",
    [
        lambda array: array[8:22, 8:20],  # no air, little fat
        lambda array: np.where(array < -900, -3024, array).astype(np.int16),  # padded with a low value
        lambda array: array.clip(-1000, 400),
        lambda array: array.clip(-160, 240),  # windowed
        lambda array: array.astype(np.float32),
    ],
    ids=["crop", "padded", "clipped", "windowed", "float"],
)
def test_ct_in_other_forms_passes(make_dataset: Maker, change: Callable[[np.ndarray], np.ndarray]) -> None:
    def both(array: np.ndarray) -> np.ndarray:
        crop = array[8:22, 8:20] if change(array).shape != array.shape else array
        return np.ascontiguousarray(crop)

    dataset = make_dataset(splits=("train",))
    with_fat = lambda array: change(np.where(np.indices(array.shape)[0] == 8, -90, array).astype(np.int16))  # noqa: E731
    assert problems(replaced(dataset, image=with_fat, label=both)) == ""


@pytest.mark.parametrize(
    "change",
    [
        lambda array: array / array.max(),
        lambda array: (array - array.mean()) / array.std(),
        lambda array: array - 40,
        lambda array: array * 90.0,
        lambda array: (array * (255 / array.max())).astype(np.uint8),
    ],
    ids=["unit", "z-score", "slightly negative", "large", "8 bit"],
)
def test_mri_in_other_scales_passes_as_mri_only(
    make_dataset: Maker, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    dataset = replaced(make_dataset(Modality.MRI, splits=("train",)), image=change)
    assert problems(dataset) == ""
    assert "declared CT" in problems(dataset.model_copy(update={"modality": Modality.CT}))


def some_nan(array: np.ndarray) -> np.ndarray:
    values = array.astype(np.float32)
    values[1, 2, 3] = np.nan
    return values


@pytest.mark.parametrize(
    ("image", "label", "words"),
    [
        (some_nan, None, "not numbers (NaN or infinite)"),
        (np.zeros_like, None, "every voxel has the same value"),
        (lambda array: array[:-1], None, "30x28x12 voxels where its image image0.nii.gz has 29x28x12"),
        (lambda array: np.stack([array, array], -1), None, "is not a 3D volume"),
        (None, lambda array: array + 3, "label ids 7, 8, 9 are not of task 'abdomen' (0 to 6)"),
        (None, lambda array: array.astype(np.int16) - 1, "label ids -1 are not of task"),
        (None, lambda array: array * np.float32(0.5), "holds fractions"),
        (None, np.zeros_like, "no organ is labelled"),
    ],
)
def test_each_broken_file_is_named(make_dataset: Maker, image: object, label: object, words: str) -> None:
    dataset = replaced(make_dataset(), image=image, label=label)
    report = check_dataset(dataset)
    assert words in problems(dataset)
    assert len(report.all_problems) == 1
    assert str(dataset.folder) in report.all_problems[0]
    assert [bool(row.problems) for row in report.rows] == [True, False, False]


@pytest.mark.parametrize(("moved", "fine"), [(0.001, True), (3.0, False)])
def test_image_and_label_share_their_place(make_dataset: Maker, moved: float, fine: bool) -> None:
    affine = AFFINE.copy()
    affine[0, 3] = moved
    found = problems(replaced(make_dataset(), label=np.array, affine=affine))
    assert found == "" if fine else "lies elsewhere in space" in found


def test_a_mirrored_label_is_refused(make_dataset: Maker) -> None:
    mirrored = np.diag([3.0, -3.0, 3.0, 1.0])
    assert "the affines differ" in problems(replaced(make_dataset(), label=np.array, affine=mirrored))


def test_whole_label_ids_may_be_floats(make_dataset: Maker) -> None:
    assert problems(replaced(make_dataset(), label=lambda array: array.astype(np.float64))) == ""


def test_a_missing_file_is_named_and_the_others_are_checked(make_dataset: Maker) -> None:
    dataset = make_dataset()
    dataset.label_path(dataset.cases[1]).unlink()
    report = check_dataset(dataset)
    assert "label1.nii.gz: no such file" in problems(dataset)
    assert [row.shape is None for row in report.rows] == [False, True, False]


def test_a_truncated_file_is_named(make_dataset: Maker) -> None:
    dataset = make_dataset()
    path = dataset.image_path(dataset.cases[2])
    path.write_bytes(path.read_bytes()[:-100])
    assert "image2.nii.gz: truncated" in problems(dataset)


def test_a_patient_in_two_splits_is_refused(make_dataset: Maker) -> None:
    dataset = make_dataset()
    first, second, third = dataset.cases
    leaking = dataset.model_copy(
        update={"cases": (first, second, third.model_copy(update={"patient": "p0"}))}
    )
    found = problems(leaking)
    assert "one patient in several splits (test, train): image0.nii.gz, image2.nii.gz" in found
    assert "p0" not in found


def test_two_cases_of_a_patient_in_one_split_pass(make_dataset: Maker) -> None:
    dataset = make_dataset(splits=("train", "train", "test"))
    cases = [dataset.cases[0], dataset.cases[1].model_copy(update={"patient": "p0"}), dataset.cases[2]]
    assert problems(dataset.model_copy(update={"cases": tuple(cases)})) == ""


def test_the_same_image_twice_is_refused_even_when_packed_anew(make_dataset: Maker) -> None:
    dataset = make_dataset()
    nib.save(
        nib.Nifti1Image(loaded(dataset.image_path(dataset.cases[0])), AFFINE),
        dataset.folder / "again.nii",
    )
    shutil.copy(dataset.label_path(dataset.cases[0]), dataset.label_path(dataset.cases[1]))
    again = dataset.cases[1].model_copy(update={"image": Path("again.nii")})
    found = problems(dataset.model_copy(update={"cases": (dataset.cases[0], again)}))
    assert "the same image" in found


def test_fewer_cases_than_promised_is_refused(make_dataset: Maker) -> None:
    dataset = make_dataset()
    assert "lists 3 cases where numTraining says 9" in problems(
        dataset.model_copy(update={"num_training": 9})
    )
    assert "lists no case;" in problems(dataset.model_copy(update={"cases": (), "num_training": 0}))


def test_an_organ_that_no_case_has_and_an_empty_split_are_warnings(make_dataset: Maker) -> None:
    dataset = make_dataset(splits=("train",))
    report = check_dataset(replaced(dataset, label=lambda array: np.where(array == 4, 0, array)))
    assert report.ok
    assert report.warnings == (
        "no case holds the organ 'gallbladder': this site cannot teach or measure it",
        "no case in split 'validation'",
        "no case in split 'test'",
    )


def test_the_report_is_json(make_dataset: Maker) -> None:
    content = json.loads(check_dataset(make_dataset()).to_json())
    assert content["ok"] is True
    assert content["rows"][0]["split"] == "train"
    assert content["rows"][0]["shape"] == [30, 28, 12]
    assert set(content) == {"ok", "rows", "problems", "warnings"}


def printed(dataset: Dataset) -> str:
    text = io.StringIO()
    render(check_dataset(dataset), Console(file=text, width=160))
    return text.getvalue()


def test_words_stay_whole_on_a_terminal_of_80_columns(make_dataset: Maker) -> None:
    text = io.StringIO()
    render(check_dataset(make_dataset()), Console(file=text, width=80))
    words = text.getvalue().replace(",", " ").split()
    assert {"modality", "intensities", "pancreas", "30x28x12", "train"} <= set(words)
    assert max(len(line.rstrip()) for line in text.getvalue().splitlines() if "train" in line) <= 80


def test_organs_that_the_set_does_not_outline_are_said_once(make_dataset: Maker) -> None:
    dataset = make_dataset().model_copy(update={"annotated": ("liver", "spleen")})
    warnings = check_dataset(dataset).warnings
    assert "only spleen, liver outlined here (`annotated`)" in warnings
    assert not any("'pancreas'" in warning for warning in warnings)


def test_the_table_ends_with_a_count(make_dataset: Maker) -> None:
    dataset = make_dataset()
    assert printed(dataset).splitlines()[-1] == "3 cases, 0 problems"
    broken = printed(replaced(dataset, label=np.zeros_like))
    assert broken.splitlines()[-1] == "3 cases, 1 problems"
    assert f"problem: {dataset.folder / 'label0.nii.gz'}: no organ is labelled" in broken
