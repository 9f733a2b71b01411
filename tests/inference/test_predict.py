import csv
import json
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from nibabel import orientations
from typer.testing import CliRunner

from fedmodal.cli import app
from fedmodal.data.dicom import read_series
from fedmodal.data.nifti import read_nifti
from fedmodal.errors import UserError
from fedmodal.inference.files import find_sources
from fedmodal.inference.model import Model
from fedmodal.inference.predict import Prediction, estimate_modality, keep_largest, organ_stats, predict
from fedmodal.tasks import ABDOMEN, Modality


def values_of(image: nib.Nifti1Image) -> np.ndarray:
    return np.asanyarray(image.dataobj)


@pytest.mark.parametrize("modality", ["CT", "MRI"])
def test_the_label_map_lies_on_the_images_grid(model: Model, images: dict[str, Path], modality: str) -> None:
    image = read_nifti(images[modality])
    result = predict(model, image)
    assert result.image.shape == image.shape
    assert np.array_equal(result.image.affine, image.affine)
    assert result.image.get_data_dtype() == np.uint8
    assert set(np.unique(values_of(result.image))) <= set(range(7))
    assert result.modality == modality
    assert result.warning is None


@pytest.mark.parametrize("axes", ["LPS", "RAI", "SAR", "PIL"])
def test_any_orientation_gives_the_same_organs(model: Model, images: dict[str, Path], axes: str) -> None:
    image = read_nifti(images["CT"])
    turn = orientations.ornt_transform(
        orientations.io_orientation(image.affine), orientations.axcodes2ornt(tuple(axes))
    )
    straight, turned = predict(model, image).image, predict(model, image.as_reoriented(turn)).image
    assert np.unique(values_of(straight)).size > 1, "the network must find something"
    np.testing.assert_array_equal(values_of(turned), values_of(straight.as_reoriented(turn)))


def test_a_modality_that_the_values_deny_is_a_warning(model: Model, images: dict[str, Path]) -> None:
    result = predict(model, read_nifti(images["MRI"]), Modality.CT)
    assert result.modality is Modality.CT
    assert result.warning is not None
    assert "declared CT" in result.warning


def test_modality_by_the_values(images: dict[str, Path]) -> None:
    assert estimate_modality(values_of(read_nifti(images["CT"]))) is Modality.CT
    assert estimate_modality(values_of(read_nifti(images["MRI"]))) is Modality.MRI


def test_only_the_largest_part_of_each_organ_is_kept() -> None:
    label = np.zeros((6, 6, 6), np.uint8)
    label[0, 0, 0:3] = 1
    label[5, 5, 5] = 1  # a stray voxel
    label[2, 2, 2] = label[3, 3, 3] = 5  # touch at a corner: one part
    kept = keep_largest(label, ABDOMEN)
    expected = label.copy()
    expected[5, 5, 5] = 0
    np.testing.assert_array_equal(kept, expected)


def test_volume_and_mean_by_hand() -> None:
    """Voxels of 2 x 3 x 5 mm, in a grid that is turned: 30 mm3 each, 0.03 ml."""
    affine = np.array([[0, -3, 0, 0], [2, 0, 0, 0], [0, 0, 5, 0], [0, 0, 0, 1]], float)
    values, label = np.zeros((10, 10, 10), np.float32), np.zeros((10, 10, 10), np.uint8)
    label[:5, :10, 0], values[:5, :10, 0] = 5, 60
    values[0, 0, 0] = 10
    map_ = nib.Nifti1Image(label, affine, dtype=np.uint8)
    prediction = Prediction(map_, Modality.CT, None, np.zeros((1, 1, 3), np.uint8))
    stats = organ_stats(nib.Nifti1Image(values, affine), prediction, ABDOMEN)
    assert (stats["liver"].millilitres, stats["liver"].mean_intensity) == (1.5, 59.0)
    assert (stats["spleen"].millilitres, stats["spleen"].mean_intensity) == (0.0, None)


def call(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["predict", *map(str, arguments)])
    text = done.stdout + (str(done.exception) if isinstance(done.exception, UserError) else "")
    return done.exit_code, text


def test_the_command_writes_label_map_preview_and_stats(
    model_file: Path, images: dict[str, Path], tmp_path: Path
) -> None:
    out = tmp_path / "new" / "organs.nii.gz"
    code, shown = call(model_file, images["CT"], out, "--preview", "--stats", "--largest")
    assert code == 0
    assert "organs.nii.gz: CT" in shown
    assert sorted(path.name for path in out.parent.iterdir()) == ["organs.nii.gz", "organs.png", "stats.csv"]
    rows = list(csv.DictReader((out.parent / "stats.csv").open()))
    assert [row["organ"] for row in rows] == [organ.name for organ in ABDOMEN.organs]
    liver = next(row for row in rows if row["organ"] == "liver")
    voxel = abs(np.linalg.det(nib.load(out).affine)) / 1000
    assert float(liver["millilitres"]) == pytest.approx(
        (values_of(nib.load(out)) == 5).sum() * voxel, abs=0.06
    )


def test_a_folder_of_images_goes_on_past_a_damaged_one(
    model_file: Path, images: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    shutil.copy(images["CT"], folder / "a.nii.gz")
    (folder / "b.nii.gz").write_bytes(images["CT"].read_bytes()[:2000])
    shutil.copy(images["MRI"], folder / "c.nii.gz")
    code, shown = call(model_file, folder, tmp_path / "out")
    assert code == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.nii.gz", "c.nii.gz"]
    assert "b.nii.gz: truncated or damaged" in shown


def test_json_for_a_program(model_file: Path, images: dict[str, Path], tmp_path: Path) -> None:
    code, shown = call(model_file, images["CT"], tmp_path / "x.nii.gz", "--json")
    assert code == 0
    (entry,) = json.loads(shown)
    assert entry["image"] == str(tmp_path / "x.nii.gz")
    assert set(entry["organs"]["liver"]) == {"millilitres", "mean_intensity", "mean_uncertainty"}


def test_bad_input_is_one_line(model_file: Path, images: dict[str, Path], tmp_path: Path) -> None:
    four = tmp_path / "four.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4, 3), np.int16), np.eye(4)), four)
    (tmp_path / "empty").mkdir()
    copied = Path(shutil.copy(images["CT"], tmp_path / "image.nii.gz"))
    for image, out, message in (
        (four, "x.nii.gz", "not a 3D volume"),
        (tmp_path / "nothing", "x.nii.gz", "no such image"),
        (tmp_path / "empty", "x.nii.gz", "no DICOM files here"),
        (copied, "image.nii.gz", "is itself an image to segment"),
        (tmp_path, "x.nii.gz", "holds several images"),
    ):
        code, shown = call(model_file, image, tmp_path / out)
        assert code == 1
        assert message in shown
        assert not (tmp_path / "x.nii.gz").exists()
    assert nib.load(copied).shape == nib.load(images["CT"]).shape


def test_two_images_that_would_become_one_label_map_are_refused(
    images: dict[str, Path], tmp_path: Path
) -> None:
    for name in ("a.nii.gz", "a.nii"):
        shutil.copy(images["CT"], tmp_path / name)
    with pytest.raises(UserError, match="would become the same"):
        find_sources(tmp_path, tmp_path / "out")


def test_stats_that_cannot_be_written_are_one_line(
    model_file: Path, images: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "stats.csv").mkdir()
    code, shown = call(model_file, images["CT"], tmp_path / "x.nii.gz", "--stats")
    assert code == 1
    assert "stats.csv: cannot be written" in shown


def test_several_images_become_several_label_maps(images: dict[str, Path], tmp_path: Path) -> None:
    sources = find_sources(images["CT"].parent, tmp_path / "out")
    assert len(sources) > 1
    assert {source.out.parent for source in sources} == {tmp_path / "out"}


@pytest.mark.parametrize("name", ["ct_image.nii.gz", "mri_image.nii.gz", "ct_dicom"])
def test_real_images(model_file: Path, realdata: Path, tmp_path: Path, name: str) -> None:
    source, out = realdata / "abdomen" / name, tmp_path / "out.nii.gz"
    code, shown = call(model_file, source, out)
    assert code == 0
    image = read_series(source).image if source.is_dir() else read_nifti(source)
    assert nib.load(out).shape == image.shape
    np.testing.assert_allclose(nib.load(out).affine, image.affine, atol=1e-4)
    assert ("MRI" if "mri" in name else "CT") in shown


def test_a_series_declares_its_modality(model_file: Path, realdata: Path, tmp_path: Path) -> None:
    code, shown = call(
        model_file, realdata / "abdomen" / "ct_dicom", tmp_path / "out.nii.gz", "--modality", "MRI"
    )
    assert code == 0
    assert "MRI was given, its header says CT" in shown


def test_a_label_map_given_as_an_image_is_said(
    model_file: Path, phantom_sites: Path, images: dict[str, Path], tmp_path: Path
) -> None:
    label = next((phantom_sites / "site-1" / "labelsTr").iterdir())
    _, shown = call(model_file, label, tmp_path / "x.nii.gz")
    assert "a label map, not an image?" in shown.replace("\n", " ")
    for image in images.values():
        assert "a label map" not in call(model_file, image, tmp_path / "y.nii.gz")[1]


def test_an_image_without_any_of_the_organs_is_said(model_file: Path, tmp_path: Path) -> None:
    air = nib.Nifti1Image(np.full((30, 30, 10), -1000, np.int16), np.diag([3.0, 3, 3, 1]))
    air.dataobj[10:20, 10:20] = 40
    nib.save(air, tmp_path / "leg.nii.gz")
    content = torch.load(model_file, weights_only=True)
    name = list(content["model"])[-1]  # the class scores' bias: background everywhere
    content["model"][name] += torch.tensor([100.0] + [0.0] * 6)
    del content["fedmodal"]["hash"]
    torch.save(content, tmp_path / "model.pt")
    code, shown = call(tmp_path / "model.pt", tmp_path / "leg.nii.gz", tmp_path / "out.nii.gz")
    assert code == 0
    assert "NOTHING FOUND: the model is for task 'abdomen' (spleen, right kidney," in shown
