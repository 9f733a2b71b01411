import json
import shutil
from pathlib import Path

import pytest
import torch

from fedmodal.errors import UserError
from fedmodal.inference.model import load_model
from fedmodal.networks import SegmentationNetwork
from fedmodal.normlocal import NormSet, write_norm_sets
from fedmodal.report.record import RECORD_FILE
from fedmodal.tasks import Modality


def test_a_trained_model_by_its_file_and_by_its_folder(model_file: Path) -> None:
    by_file, by_folder = load_model(model_file), load_model(model_file.parent)
    assert by_file.fingerprint == by_folder.fingerprint
    assert by_file.task.name == "abdomen"
    assert not by_file.network(Modality.CT).training


def write_run(folder: Path, models: dict[str, int], **network: object) -> Path:
    """What FLARE and our summary leave of a run: models with the job's config beside them, and a record."""
    server = folder / "app_server"
    (server / "config").mkdir(parents=True)
    (folder / RECORD_FILE).write_text("{}")
    args = {"task": "abdomen", "seed": 1, "network": network}
    part = {"id": "network", "path": "fedmodal.networks.SegmentationNetwork", "args": args}
    (server / "config" / "config_fed_server.json").write_text(json.dumps({"components": [part]}))
    for name, seed in models.items():
        weights = SegmentationNetwork("abdomen", seed, network).state_dict()
        torch.save({"model": weights, "train_conf": {}}, server / name)
    return folder


def test_of_a_run_the_best_global_model_is_taken_else_the_last(tmp_path: Path) -> None:
    both = {"best_FL_global_model.pt": 5, "FL_global_model.pt": 6}
    run = write_run(tmp_path / "run", both, channels=[4, 8])
    assert load_model(run).path.name == "best_FL_global_model.pt"
    last = load_model(run / "app_server" / "FL_global_model.pt")
    assert last.fingerprint != load_model(run).fingerprint
    (run / "app_server" / "best_FL_global_model.pt").unlink()
    assert load_model(run).fingerprint == last.fingerprint


def test_norm_layers_of_a_modality_are_put_in(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"FL_global_model.pt": 1}, channels=[4, 8], norm="batch")
    network = SegmentationNetwork("abdomen", 1, {"channels": [4, 8], "norm": "batch"})
    (name,) = [name for name in network.state_dict() if name.endswith("running_mean")][:1]
    values = torch.arange(len(network.state_dict()[name]), dtype=torch.float32)
    write_norm_sets({"site-2": NormSet("MRI", {name: values})}, run)
    model = load_model(run)
    assert torch.equal(model.network(Modality.MRI).state_dict()[name], values)
    with pytest.raises(UserError, match="has norm layers for MRI only, not for CT"):
        model.network(Modality.CT)


def test_a_site_that_took_part_gets_its_own_norm_layers(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"FL_global_model.pt": 1}, channels=[4, 8], norm="batch")
    network = SegmentationNetwork("abdomen", 1, {"channels": [4, 8], "norm": "batch"})
    name = next(name for name in network.state_dict() if name.endswith("running_mean"))
    shape = network.state_dict()[name].shape
    write_norm_sets({f"site-{n}": NormSet("MRI", {name: torch.full(shape, float(n))}) for n in (1, 2)}, run)
    model = load_model(run)
    for site, value in (("", 1), ("site-2", 2), ("site-9", 1)):
        assert (model.network(Modality.MRI, site).state_dict()[name] == value).all()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:1000]), "not a model, or damaged"),
        (lambda path: path.write_text("hello"), "not a model, or damaged"),
        (lambda path: torch.save({"weights": 1}, path), "not a model of this package"),
        (lambda path: path.unlink(), "no such model"),
    ],
)
def test_a_damaged_model_is_one_clear_line(
    model_file: Path, tmp_path: Path, spoil: object, message: str
) -> None:
    path = Path(shutil.copy(model_file, tmp_path))
    spoil(path)  # type: ignore[operator]
    with pytest.raises(UserError, match=message) as caught:
        load_model(path)
    assert "\n" not in str(caught.value)


def test_altered_weights_are_refused(model_file: Path, tmp_path: Path) -> None:
    content = torch.load(model_file, weights_only=True)
    first = next(iter(content["model"]))
    content["model"][first] = content["model"][first] + 1
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(UserError, match="the weights are not those that were saved"):
        load_model(tmp_path / "model.pt")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"FL_global_model.pt": 1}, channels=[4, 8])
    config = run / "app_server" / "config" / "config_fed_server.json"
    config.write_text(config.read_text().replace("[4, 8]", "[4, 16]"))
    with pytest.raises(UserError, match="another network"):
        load_model(run)


def test_a_global_model_without_its_config_says_so(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"FL_global_model.pt": 1}, channels=[4, 8])
    moved = Path(shutil.move(run / "app_server" / "FL_global_model.pt", tmp_path))
    with pytest.raises(UserError, match=r"config_fed_server.json is not beside it"):
        load_model(moved)
