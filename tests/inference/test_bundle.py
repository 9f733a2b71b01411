"""The bundle under MONAI alone: processes in which this package cannot be imported."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser, ConfigWorkflow
from nibabel import orientations

from fedmodal.data.nifti import read_nifti
from fedmodal.inference.bundle import write_bundle
from fedmodal.inference.model import Model
from fedmodal.inference.predict import predict
from fedmodal.tasks import Modality

STRINGS = ("schema", "version", "monai_version", "pytorch_version", "numpy_version", "task", "description")
SCHEMA = {
    "type": "object",
    "required": [*STRINGS, "required_packages_version", "authors", "copyright", "network_data_format"],
    "properties": {name: {"type": "string"} for name in STRINGS}
    | {"required_packages_version": {"type": "object"}, "eval_metrics": {"type": "object"}},
}
"""The rules of MONAI's schema of 2024-07-25 that matter here; the file itself is on the net only."""


@pytest.fixture(scope="module")
def bundle(model: Model, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "organs"
    write_bundle(model, folder)
    return folder


def alone(*arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Python without this package: no `site`, so no editable installation, and its folder off the path."""
    path = [place for place in sys.path if place and not (Path(place) / "fedmodal").exists()]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path), "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-S", *map(str, arguments)]
    return subprocess.run(  # noqa: S603
        command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def monai(*arguments: object, cwd: Path) -> str:
    done = alone("-m", "monai.bundle", *arguments, cwd=cwd)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout + done.stderr


def same(found: np.ndarray, image: Path, model: Model, modality: Modality) -> None:
    """Equal to `predict`, but for scores that tie to float32's last digit."""
    expected = np.asanyarray(predict(model, read_nifti(image), modality).image.dataobj)
    assert expected.any(), "the network must find something"
    assert found.shape == expected.shape
    assert (found != expected).sum() <= max(1, 1e-4 * (expected > 0).sum())


def test_monai_verifies_it_without_this_package(bundle: Path, tmp_path: Path) -> None:
    imported = alone("-c", "import fedmodal", cwd=bundle)
    assert "No module named 'fedmodal'" in imported.stderr
    schema = tmp_path / "schema.json"
    schema.write_text(json.dumps(SCHEMA))
    files = "--meta_file", "configs/metadata.json"
    assert "verified with no error" in monai("verify_metadata", *files, "--filepath", schema, cwd=bundle)
    files = *files, "--config_file", "configs/inference.json"
    assert "verified with no error" in monai("verify_net_in_out", "network_def", *files, cwd=bundle)


def test_monai_alone_gives_what_predict_gives(
    model: Model, bundle: Path, images: dict[str, Path], tmp_path: Path
) -> None:
    moved = Path(shutil.copytree(bundle, tmp_path / "elsewhere"))
    for name, path in images.items():
        folder, out = tmp_path / name, tmp_path / "out" / name
        folder.mkdir()
        straight = read_nifti(path)
        axes = orientations.axcodes2ornt(("S", "A", "R"))
        turn = orientations.ornt_transform(orientations.io_orientation(straight.affine), axes)
        nib.save(straight, folder / "straight.nii.gz")
        nib.save(straight.as_reoriented(turn), folder / "turned.nii.gz")
        given = "--modality", name, "--dataset_dir", folder, "--output_dir", out
        monai("run", "--config_file", "configs/inference.json", *given, cwd=moved)
        for image in folder.iterdir():
            written = nib.load(out / image.name.replace(".nii", "_organs.nii"))
            np.testing.assert_allclose(written.affine, nib.load(image).affine, atol=1e-4)
            assert written.get_data_dtype() == np.uint8
            same(np.asanyarray(written.dataobj), image, model, Modality(name))


def here(config: dict[str, Any], network: torch.nn.Module, image: Path, modality: str) -> np.ndarray:
    """The workflow's parts, as MONAI Label and MONAI Deploy use them: no evaluator, no `run`."""
    parser = ConfigParser(config | {"modality": modality})
    parts = ("preprocessing", "inferer", "postprocessing")
    before, infer, after = (parser.get_parsed_content(name) for name in parts)
    after.transforms = after.transforms[:-1]  # SaveImaged: both leave it out
    data = before({"image": str(image)})
    with torch.no_grad():
        data["pred"] = infer(data["image"][None], network)[0]
    return np.asarray(after(data)["pred"][0])


def geometry(image: nib.Nifti1Image, kind: str) -> nib.Nifti1Image:
    """A grid that needs a cut, an average over area, thick slices, or an oblique affine."""
    array, affine = np.asanyarray(image.dataobj), image.affine.copy()
    if kind == "wide":  # beyond 384 mm, the body off the middle
        padding = [(0, int(250 / step)) for step in nib.affines.voxel_sizes(affine)]
        padding[int(np.argmax(np.abs(affine[2, :3])))] = (0, 0)
        return nib.Nifti1Image(np.pad(array, padding, mode="minimum"), affine)
    if kind == "thick":  # slices of 4 times the thickness
        axis = int(np.argmax(np.abs(affine[2, :3])))
        affine[:, axis] *= 4
        return nib.Nifti1Image(array.take(range(0, array.shape[axis], 4), axis), affine)
    angle = np.deg2rad(15)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    affine[:3, :3] *= 0.37  # 8 voxels of the image in one of the network's, and no integer number
    return nib.Nifti1Image(array, turn @ affine)


@pytest.mark.parametrize("kind", ["wide", "thick", "fine and oblique"])
@pytest.mark.parametrize("modality", ["CT", "MRI"])
def test_any_grid(
    model: Model, bundle: Path, images: dict[str, Path], tmp_path: Path, kind: str, modality: str
) -> None:
    path = tmp_path / "image.nii.gz"
    nib.save(geometry(read_nifti(images[modality]), kind), path)
    config = json.loads((bundle / "configs" / "inference.json").read_text())
    network = torch.jit.load(bundle / "models" / "model.ts")
    same(here(config, network, path, modality), path, model, Modality(modality))


@pytest.mark.parametrize("modality", ["CT", "MRI"])
def test_real_images(model: Model, bundle: Path, realdata: Path, modality: str) -> None:
    image = realdata / "abdomen" / f"{modality.lower()}_image.nii.gz"
    config = json.loads((bundle / "configs" / "inference.json").read_text())
    same(
        here(config, torch.jit.load(bundle / "models" / "model.ts"), image, modality),
        image,
        model,
        Modality(modality),
    )


def test_the_torchscript_file_is_enough(
    model: Model, bundle: Path, images: dict[str, Path], tmp_path: Path
) -> None:
    """MONAI Deploy takes `model.ts` alone and reads `extra/` under the file's own name in it."""
    script = Path(shutil.copy(bundle / "models" / "model.ts", tmp_path))
    with zipfile.ZipFile(script) as archive:
        config = json.loads(archive.read("model/extra/inference.json"))
        assert json.loads(archive.read("model/extra/metadata.json"))["training"]
    same(here(config, torch.jit.load(script), images["MRI"], "MRI"), images["MRI"], model, Modality.MRI)


def test_monai_label_can_put_the_weights_in(model: Model, bundle: Path) -> None:
    """It builds `network_def` and loads `model.pt` into it."""
    workflow = ConfigWorkflow(
        str(bundle / "configs" / "inference.json"),
        workflow_type="infer",
        bundle_root=str(bundle),
        dataset_dir=str(bundle / "docs"),
    )
    workflow.initialize()
    assert workflow.check_properties() == [], "MONAI's required properties"
    network = workflow.network_def.cpu()
    slices = torch.rand(3, 1, 64, 96)
    with torch.no_grad():
        expected = model.network(Modality.CT)(slices)
        assert torch.equal(network(slices), expected)
        for parameter in network.parameters():
            parameter.zero_()
        network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
        assert torch.equal(network(slices), expected)


def test_no_path_and_no_patient_is_in_it(bundle: Path, model: Model) -> None:
    contents = [path.read_bytes() for path in bundle.rglob("*") if path.is_file()]
    with zipfile.ZipFile(bundle / "models" / "model.ts") as archive:
        contents += [archive.read(name) for name in archive.namelist()]
    assert sorted(path.name for path in bundle.iterdir()) == ["LICENSE", "configs", "docs", "models"]
    for secret in (str(Path.cwd()), str(model.path.parent), sys.prefix, "site-packages", "phantom-ct-"):
        assert not any(secret.encode() in content for content in contents)
