"""A model on patients that the reader has, in the page and in the browser."""

import base64
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedmodal.data.dataset import read_dataset
from fedmodal.errors import UserError
from fedmodal.inference.model import load_model
from fedmodal.report.cases import (
    CaseResults,
    as_recorded,
    evaluate_on,
    invented,
    mean_dice,
    missed,
    read_data,
)
from fedmodal.report.page import Material, write_report
from fedmodal.report.pictures import mosaic
from fedmodal.report.record import RunRecord
from fedmodal.tasks import ABDOMEN, HEART
from fedmodal.training.metrics import PatientScore

CHROMIUM = next((found for name in ("chromium", "google-chrome") if (found := shutil.which(name))), None)


@pytest.fixture(autouse=True)
def cached(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDMODAL_CACHE", str(cache))


@pytest.fixture
def tested(model_file: Path, phantom_sites: Path) -> CaseResults:
    return evaluate_on(load_model(model_file), read_dataset(phantom_sites / "site-1"), "site-1")


def pixels(url: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))))


def test_the_viewer_gets_every_voxel_of_both_label_maps(tested: CaseResults) -> None:
    shown = tested.shown[0]
    packed = mosaic(shown)
    slices, rows, columns = packed.shape
    assert slices == len(shown.case.image)
    labels = pixels(packed.labels)
    for channel, label in enumerate((shown.case.label, shown.found)):
        for number in (0, packed.first, slices - 1):
            top, left = number // packed.across * rows, number % packed.across * columns
            part = labels[top : top + rows, left : left + columns, channel]
            inside = np.flatnonzero(label[number].any(0)), np.flatnonzero(label[number].any(1))
            assert np.array_equal(part[part > 0], label[number][label[number] > 0])
            assert [len(np.flatnonzero(part.any(axis))) for axis in (0, 1)] == [len(one) for one in inside]
    assert pixels(packed.image).shape == labels.shape[:2]


def test_the_first_slice_shown_is_the_one_with_the_most_wrong_voxels(tested: CaseResults) -> None:
    shown = tested.shown[0]
    wrong = (shown.found != shown.case.label).sum((1, 2))
    assert wrong[mosaic(shown).first] == wrong.max() > 0


def test_a_single_case_is_the_worst(tested: CaseResults) -> None:
    assert [one.role for one in tested.shown] == ["worst"]
    assert tested.split.value == "test"
    assert tested.summary.patients == len(tested.scores) == 1


def test_of_several_the_worst_comes_first_and_the_median_is_shown(
    model_file: Path, phantom_sites: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "all"
    shutil.copytree(phantom_sites / "site-1", folder)
    content = json.loads((folder / "dataset.json").read_text())
    text = json.dumps(content).replace('"split": "train"', '"split": "test"')
    (folder / "dataset.json").write_text(text.replace('"split": "validation"', '"split": "test"'))
    tested = evaluate_on(load_model(model_file), read_dataset(folder))
    means = [mean_dice(score) for score in tested.scores]
    assert len(means) == 4
    assert means == sorted(means)
    assert [one.role for one in tested.shown] == ["worst", "median"]
    assert [mean_dice(one.score) for one in tested.shown] == [means[0], means[1]]


def test_missed_and_invented_organs_are_named() -> None:
    dice = np.array([0.5, 0.0, np.nan, np.nan, 0.9, 0.1])
    score = PatientScore("p", dice, np.array([False, False, True, False, False, False]))
    assert missed(score, ABDOMEN) == ["right kidney"]
    assert invented(score, ABDOMEN) == ["left kidney"]
    assert mean_dice(score) == pytest.approx(1.5 / 4)


def test_phantoms_count_as_the_sites_only_where_their_dice_is_the_recorded_one(
    tested: CaseResults, record: RunRecord
) -> None:
    assert not as_recorded(record, tested)
    for result in record.evaluation["site-1"].values():
        result.mean = tested.summary.mean
    assert as_recorded(record, tested)


def test_data_of_another_task(phantom_sites: Path) -> None:
    with pytest.raises(UserError, match="is for task 'abdomen', the run for 'heart'; name another one"):
        read_data([phantom_sites / "site-1"], HEART)


def page_of(tested: CaseResults, record: RunRecord, out: Path) -> Path:
    return write_report(Material(record, (tested,), []), out)[0]


def test_the_page_lists_every_patient_and_says_whose_images_it_holds(
    tested: CaseResults, record: RunRecord, tmp_path: Path
) -> None:
    text = page_of(tested, record, tmp_path).read_text()
    assert tested.scores[0].patient in text
    assert "images of patients" not in text
    assert tested.scores[0].patient in (tmp_path / "report.md").read_text()
    real = CaseResults(**{**vars(tested), "synthetic": False})
    assert "This page holds images of patients." in page_of(real, record, tmp_path).read_text()


COUNT_WRONG = """<script>setTimeout(() => {
  const errors = document.querySelector("input[value=errors]");
  errors.checked = true;
  errors.dispatchEvent(new Event("change"));
  const slider = document.querySelector(".axial-slider");
  slider.value = Number(slider.value) - 1;
  slider.dispatchEvent(new Event("input"));
  const canvas = document.querySelector(".axial canvas");
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let wrong = 0;
  for (let at = 0; at < data.length; at += 4) wrong += data[at] - data[at + 1] > 100;
  document.title = `${wrong} wrong`;
}, 1500);</script></body>"""


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium here")
def test_a_browser_shows_the_slices(tested: CaseResults, record: RunRecord, tmp_path: Path) -> None:
    """The status line of the first slice, then the wrong voxels of the one below, as the canvas has them."""
    page, shown = page_of(tested, record, tmp_path), tested.shown[0]
    packed = mosaic(shown)
    assert f"Axial slice {packed.first + 1} of {packed.shape[0]} from the feet; " in browse(page)
    page.write_text(page.read_text().replace("</body>", COUNT_WRONG))
    wrong = shown.found[packed.first - 1] != shown.case.label[packed.first - 1]
    found = browse(page)
    assert f"Axial slice {packed.first} of {packed.shape[0]} from the feet; " in found
    crossed = packed.shape[1] + packed.shape[2]  # the crosshair's lines lie over them
    count = int(re.search(r"<title>(\d+) wrong</title>", found).group(1))
    assert wrong.sum() - crossed <= count <= wrong.sum()
    assert count > 0.8 * wrong.sum()


def browse(page: Path) -> str:
    """The page's elements after its scripts ran."""
    command = (
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={page.parent / 'profile'}",
        "--virtual-time-budget=5000", "--dump-dom", f"file://{page}",
    )  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout  # noqa: S603
