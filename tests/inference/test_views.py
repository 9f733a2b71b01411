"""Test-time augmentation, and the map of what the network is not sure of."""

import csv
import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from torch import Tensor
from typer.testing import CliRunner

from fedmodal.cli import app
from fedmodal.data.nifti import read_nifti
from fedmodal.data.preprocess import preprocess, restore_values
from fedmodal.errors import UserError
from fedmodal.inference.files import find_sources
from fedmodal.inference.model import Model
from fedmodal.inference.predict import NOT_LOOKED_AT, Prediction, organ_stats, predict
from fedmodal.inference.views import View, Views, entropy_percent, views_of
from fedmodal.tasks import ABDOMEN, Modality

TURNED = (View(degrees=-7.5), View(degrees=7.5), View(zoom=0.93), View(zoom=1.08))


class ByIntensity(torch.nn.Module):
    """Two classes, the second where a voxel is bright: a function of each voxel alone."""

    def forward(self, slices: Tensor) -> Tensor:
        return torch.cat([0.5 - slices, slices - 0.5], 1) * 8


def smooth_slice(size: int = 64) -> Tensor:
    """A blob in the middle, (1, 1, size, size)."""
    place = torch.linspace(-2, 2, size)
    return torch.exp(-(place[:, None] ** 2) - (place[None] - 0.4) ** 2)[None, None]


@pytest.mark.parametrize("view", TURNED)
def test_what_is_seen_turned_is_turned_back(view: View) -> None:
    slices = smooth_slice()
    plain = ByIntensity()(slices).softmax(1)
    seen = Views(ByIntensity(), (view,))(slices).softmax(1)
    inside = (..., slice(12, 52), slice(12, 52))
    assert (seen[inside] - plain[inside]).abs().max() < 0.03  # two interpolations


class Watching(ByIntensity):
    """Remembers what it was shown."""

    def forward(self, slices: Tensor) -> Tensor:
        self.seen = slices
        return super().forward(slices)


@pytest.mark.parametrize("view", TURNED)
def test_a_view_looks_at_something_else(view: View) -> None:
    """What the network sees differs, so that the test above is not one of the identity."""
    network = Watching()
    Views(network, (view,))(smooth_slice())
    assert (network.seen - smooth_slice()).abs().max() > 0.02


def test_a_voxel_goes_where_a_turn_by_a_quarter_takes_it() -> None:
    slices = torch.zeros(1, 1, 5, 5)
    slices[0, 0, 1, 2] = 1  # above the middle
    network = Watching()
    back = Views(network, (View(degrees=90),))(slices).softmax(1)
    assert network.seen[0, 0].round().nonzero().tolist() in ([[2, 1]], [[2, 3]])
    assert back[0, 1].round().nonzero().tolist() == [[1, 2]]


def test_a_slice_that_is_not_square_is_turned_and_not_sheared() -> None:
    slices = torch.zeros(1, 1, 5, 9)
    slices[0, 0, 2, 6] = 1  # two to the right of the middle
    back = Views(ByIntensity(), (View(degrees=90),))(slices).softmax(1)
    assert back[0, 1].round().nan_to_num().nonzero().tolist() == [[2, 6]]


def test_places_that_a_view_does_not_show_are_left_to_the_others() -> None:
    """Bright all over: a zoomed view sees air beyond the edge, and must not say background there."""
    slices = torch.ones(1, 1, 32, 32)
    plain = ByIntensity()(slices).softmax(1)
    mean = Views(ByIntensity(), (View(), View(zoom=1.25)))(slices).softmax(1)
    assert torch.allclose(mean, plain, atol=1e-5)
    assert torch.allclose(mean.sum(1), torch.ones(1, 32, 32))


class Constant(torch.nn.Module):
    """The same scores everywhere."""

    def forward(self, slices: Tensor) -> Tensor:
        return torch.tensor([0.0, 1.0, 3.0])[None, :, None, None].expand(len(slices), 3, *slices.shape[2:])


def test_of_a_network_that_always_says_the_same_every_view_is_the_plain_answer() -> None:
    """The corners too, which the turned and the enlarged views do not show."""
    slices = torch.rand(2, 1, 128, 128)
    mean = Views(Constant(), views_of(ABDOMEN))(slices).softmax(1)
    assert torch.allclose(mean, Constant()(slices).softmax(1), atol=1e-5)


def test_the_mean_is_over_probabilities() -> None:
    slices = torch.full((1, 1, 4, 4), 0.25)
    views = (View(), View(gamma=0.5))  # the network sees 0.25 and 0.5
    expected = (1 / (1 + math.exp(16 * 0.25)) + 0.5) / 2
    mean = Views(ByIntensity(), views)(slices).softmax(1)
    assert mean[0, 1].numpy() == pytest.approx(np.full((4, 4), expected), abs=1e-6)


def test_mirrored_only_where_a_mirrored_patient_is_one() -> None:
    assert all(view.mirrored is None for view in views_of(ABDOMEN))
    symmetric = ABDOMEN.model_copy(update={"mirror_axes": (0, 1, 2)})
    assert [view.mirrored for view in views_of(symmetric)[-2:]] == [1, 2]


@pytest.mark.parametrize("axis", [1, 2])
def test_a_mirrored_view_is_mirrored_back(axis: int) -> None:
    slices, network = torch.rand(1, 1, 8, 12), Watching()
    seen = Views(network, (View(mirrored=axis),))(slices).softmax(1)
    assert torch.allclose(network.seen, slices.flip(axis + 1), atol=1e-5)
    assert torch.allclose(seen, ByIntensity()(slices).softmax(1), atol=1e-4)


def test_entropy_by_hand() -> None:
    one_hot, even = torch.tensor([1.0, 0, 0, 0]), torch.full((4,), 0.25)
    half = torch.tensor([0.5, 0.5, 0, 0])
    found = entropy_percent(torch.stack([one_hot, even, half], 1))
    assert found.tolist() == pytest.approx([0, 100, 50])


def test_values_come_back_to_a_turned_grid_and_stay_out_of_where_nobody_looked() -> None:
    """600 mm wide: the stored slice of 384 mm shows the middle. Flipped axes; a ramp along the patient."""
    affine = np.array([[0, 0, -6, 0], [-6, 0, 0, 0], [0, 5, 0, 0], [0, 0, 0, 1]], float)
    image = nib.Nifti1Image(np.full((100, 12, 100), 40, np.int16), affine)
    geometry = preprocess(image, None, ABDOMEN, Modality.CT).geometry
    ramp = torch.arange(geometry.stored[0]).float()[:, None, None].expand(geometry.stored) * 5
    values = restore_values(ramp, geometry, 255)
    assert values.shape == image.shape
    seen = values != 255
    assert seen[50, :, 50].all()
    assert not seen[0].any()
    assert seen[50, 0].sum() == 64  # 384 mm of 6 mm
    assert values[50, :, 50].tolist() == (np.arange(12) * 5).tolist()


def test_the_map_lies_on_the_images_grid(model: Model, images: dict[str, Path]) -> None:
    image = read_nifti(images["MRI"])
    found = predict(model, image, views=True, uncertainty=True)
    assert found.uncertainty is not None
    assert found.uncertainty.shape == image.shape
    assert np.array_equal(found.uncertainty.affine, image.affine)
    doubt, label = np.asarray(found.uncertainty.dataobj), np.asarray(found.image.dataobj)
    looked_at = doubt != NOT_LOOKED_AT
    assert doubt[looked_at].max() <= 100
    assert not label[~looked_at].any()
    assert predict(model, image).uncertainty is None


def test_where_the_network_does_not_look_the_map_is_255(model: Model) -> None:
    """600 mm wide, of which it sees the middle 384."""
    image = nib.Nifti1Image(np.full((100, 100, 4), 40, np.int16), np.diag([6.0, 6, 5, 1]))
    found = predict(model, image, Modality.CT, uncertainty=True).uncertainty
    assert found is not None
    doubt = np.asarray(found.dataobj)
    assert (doubt[:18] == 255).all()
    assert (doubt[18:82, 18:82] <= 100).all()


def test_views_give_the_same_answer_every_time(model: Model, images: dict[str, Path]) -> None:
    image = read_nifti(images["CT"])
    once, again, plain = (
        np.asarray(predict(model, image, views=views).image.dataobj) for views in (True, True, False)
    )
    assert np.array_equal(once, again)
    assert not np.array_equal(once, plain)


def test_mean_uncertainty_by_hand() -> None:
    label, doubt = np.zeros((4, 4, 4), np.uint8), np.full((4, 4, 4), 90, np.uint8)
    label[0, 0, :2], doubt[0, 0, :2] = 5, (10, 21)
    label[0, 1, 0], doubt[0, 1, 0] = 5, 5  # the fourth place of the box is not the organ's
    maps = [nib.Nifti1Image(values, np.eye(4), dtype=np.uint8) for values in (label, doubt)]
    prediction = Prediction(maps[0], Modality.CT, None, np.zeros((1, 1, 3), np.uint8), maps[1])
    stats = organ_stats(nib.Nifti1Image(np.zeros((4, 4, 4)), np.eye(4)), prediction, ABDOMEN)
    assert stats["liver"].mean_uncertainty == 12.0
    assert stats["spleen"].mean_uncertainty is None


def test_the_command_writes_the_map_beside_the_label_map(
    model_file: Path, images: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "organs.nii.gz"
    arguments = ("predict", model_file, images["CT"], out, "--tta", "--uncertainty", "--stats")
    assert CliRunner().invoke(app, [*map(str, arguments)]).exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "organs.nii.gz", "organs_uncertainty.nii.gz", "stats.csv",
    }  # fmt: skip
    rows = list(csv.DictReader((tmp_path / "stats.csv").open()))
    for row in rows:
        assert (row["mean_uncertainty"] == "") == (float(row["millilitres"]) == 0)
    assert any(0 < float(row["mean_uncertainty"]) <= 100 for row in rows if row["mean_uncertainty"])


def test_beside_a_dicom_seg_the_map_is_nifti(model_file: Path, realdata: Path, tmp_path: Path) -> None:
    series = realdata / "abdomen" / "ct_dicom"
    arguments = ("predict", model_file, series, tmp_path / "organs.dcm", "--uncertainty")
    assert CliRunner().invoke(app, [*map(str, arguments)]).exit_code == 0
    assert {path.name for path in tmp_path.iterdir()} == {"organs.dcm", "organs_uncertainty.nii.gz"}
    assert nib.load(tmp_path / "organs_uncertainty.nii.gz").shape == (512, 512, 20)


def test_a_map_that_cannot_be_written_is_one_line_and_leaves_no_part(
    model_file: Path, images: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "organs_uncertainty.nii.gz").mkdir()
    arguments = ("predict", model_file, images["CT"], tmp_path / "organs.nii.gz", "--uncertainty")
    done = CliRunner().invoke(app, [*map(str, arguments)])
    assert isinstance(done.exception, UserError)
    assert "organs_uncertainty.nii.gz: cannot be written" in str(done.exception)
    assert not list(tmp_path.glob(".partial*"))


def test_a_map_never_takes_the_place_of_an_image(tmp_path: Path) -> None:
    """Not of its own one, and not of another's."""
    image, series = tmp_path / "a_uncertainty.nii.gz", tmp_path / "a"
    image.write_bytes(b"an image")
    with pytest.raises(UserError, match="is itself an image to segment"):
        find_sources(image, tmp_path / "a.nii.gz", uncertainty=True)
    assert len(find_sources(image, tmp_path / "a.nii.gz")) == 1
    series.mkdir()
    with pytest.raises(UserError, match="is itself an image to segment"):
        find_sources(tmp_path, tmp_path, dicom_seg=True, uncertainty=True)


def test_a_map_and_a_label_map_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("a.nii.gz", "a_uncertainty.nii.gz"):
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=r"would become the same .*a_uncertainty.nii.gz; rename one"):
        find_sources(tmp_path, tmp_path / "out", uncertainty=True)
    assert len(find_sources(tmp_path, tmp_path / "out")) == 2
