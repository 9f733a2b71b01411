"""What a bundle says of its model, and how writing one fails."""

import json
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from fedmodal.cli import app
from fedmodal.data.dataset import Split
from fedmodal.errors import UserError
from fedmodal.inference.bundle import write_bundle
from fedmodal.inference.model import load_model
from fedmodal.networks import SegmentationNetwork
from fedmodal.normlocal import NormSet, write_norm_sets
from fedmodal.report.record import RunRecord, write_record
from fedmodal.tasks import ABDOMEN, Modality
from fedmodal.training import pooled
from fedmodal.training.config import training_config
from fedmodal.training.metrics import summarize
from tests.inference.test_model import write_run


def record(**more: object) -> RunRecord:
    part = {"accepted": True, "slices": 100, "loss": 1.0, "seconds": 1.0}
    organ = {"dice": 0.5, "n": 5, "missed": 0, "absent": 0, "invented": 0}
    score = {
        "split": "test",
        "modality": "CT",
        "patients": 5,
        "mean": 0.75,
        "organs": {"liver": organ, "spleen": organ | {"dice": None}},
    }
    content = {
        "job": "abdomen_gin",
        "task": "abdomen",
        "arm": "gin",
        "num_rounds": 2,
        "started": "",
        "best_round": 1,
        "sites": {"site-1": {"modality": "CT", "patients": {"train": 7}, "phantoms": False}},
        "rounds": {0: {"sites": {"site-1": part}}, 1: {"sites": {"site-1": part | {"accepted": False}}}},
        "refusals": ["secret: /data/mueller"],
        "submitter": "admin@hospital",
        "evaluation": {"site-1": {"SRV_best_FL_global_model.pt": score}},
    }
    return RunRecord.model_validate(content | more)


def test_the_card_of_a_federated_run(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"best_FL_global_model.pt": 5}, channels=[4, 8])
    write_record(record(), run)
    write_bundle(load_model(run), tmp_path / "out")
    card = (tmp_path / "out" / "docs" / "README.md").read_text()
    assert "Job `abdomen_gin`, augmentation `gin`, 2 rounds; this is the best global model" in card
    assert "| site-1 | CT | 7 | 1 of 2 | 100 |" in card
    assert "| organ | site-1 (CT, 5 test) |\n|---|---|\n| spleen | - |" in card
    assert "| liver | 0.500 |" in card
    assert "PHANTOMS" not in card
    metadata = json.loads((tmp_path / "out" / "configs" / "metadata.json").read_text())
    assert metadata["eval_metrics"] == {"mean_dice": {"site-1": 0.75}}
    assert metadata["training"]["dice"]["site-1"]["organs"]["liver"] == 0.5
    assert not any(word in card + json.dumps(metadata) for word in ("mueller", "admin@", str(tmp_path)))


def test_phantoms_are_said_first(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"best_FL_global_model.pt": 5}, channels=[4, 8])
    write_record(
        record(sites={"site-1": {"modality": "MRI", "patients": {"train": 7}, "phantoms": True}}), run
    )
    code, shown = call(run, tmp_path / "out")
    assert code == 0
    assert "trained on phantoms" in shown
    assert (tmp_path / "out" / "docs" / "README.md").read_text().splitlines()[2].startswith("**TRAINED ON PH")
    metadata = json.loads((tmp_path / "out" / "configs" / "metadata.json").read_text())
    assert metadata["description"].startswith("Trained on phantoms")
    assert json.loads((tmp_path / "out" / "configs" / "inference.json").read_text())["modality"] == "MRI"


def test_the_card_of_a_training_alone_with_and_without_results(model_file: Path, tmp_path: Path) -> None:
    shutil.copy(model_file, tmp_path / "model.pt")
    assert write_bundle(load_model(tmp_path), tmp_path / "one").phantoms is True
    card = (tmp_path / "one" / "docs" / "README.md").read_text()
    assert "TRAINED ON PHANTOMS" in card
    assert "No test results came with this model" in card
    result = pooled.TestResult("ours", "CT", Split.TEST, summarize([], ABDOMEN))
    pooled.write_results([result], training_config({}), tmp_path)
    assert write_bundle(load_model(tmp_path), tmp_path / "two").scores[0].data == "ours"
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(UserError, match=r"results.json: not the results of a training"):
        write_bundle(load_model(tmp_path), tmp_path / "three")


def test_a_model_that_does_not_say_what_it_was_trained_on(model_file: Path, tmp_path: Path) -> None:
    content = torch.load(model_file, weights_only=True)
    del content["fedmodal"]["phantoms"]
    torch.save(content, tmp_path / "model.pt")
    assert write_bundle(load_model(tmp_path), tmp_path / "one").phantoms is None
    card = (tmp_path / "one" / "docs" / "README.md").read_text()
    assert "Whether the training patients were real or phantoms" in card


def test_norm_layers_of_one_modality_make_a_bundle_of_one_modality(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", {"FL_global_model.pt": 1}, channels=[4, 8], norm="batch")
    network = SegmentationNetwork("abdomen", 1, {"channels": [4, 8], "norm": "batch"})
    name = next(name for name in network.state_dict() if name.endswith("running_mean"))
    values = torch.arange(len(network.state_dict()[name]), dtype=torch.float32)
    write_norm_sets({"site-1": NormSet("CT", {}), "site-2": NormSet("MRI", {name: values})}, run)
    write_record(record(), run)
    with pytest.raises(UserError, match="add --modality CT or --modality MRI"):
        write_bundle(load_model(run), tmp_path / "out")
    write_bundle(load_model(run), tmp_path / "out", Modality.MRI)
    script = torch.jit.load(tmp_path / "out" / "models" / "model.ts")
    assert torch.equal(script.state_dict()[name], values)
    assert list(json.loads((tmp_path / "out/configs/inference.json").read_text())["intensity"]) == ["MRI"]


def call(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(app, ["bundle", *map(str, arguments)])
    return done.exit_code, done.stdout + (str(done.exception) if done.exception else "")


@contextmanager
def full_disk() -> Iterator[None]:
    """No file may grow beyond 20 kB, as on a disk that is full."""
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, old[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)


def test_bad_input_is_one_line_and_leaves_nothing(model_file: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    for model, out, modality, message in (
        (model_file, "full", "CT", "exists and is not empty"),
        (tmp_path / "none", "out", "CT", "no such model"),
        (model_file, "out", "PET", "PET"),
        (model_file, "full/file/out", "CT", "cannot be written"),
    ):
        code, shown = call(model, tmp_path / out, "--modality", modality)
        assert code == 1
        assert message in shown
        assert "\n" not in shown.strip()
    with full_disk():
        code, shown = call(model_file, tmp_path / "out")
    assert code == 1
    assert "cannot be written (File too large); make room" in shown
    assert [path.name for path in tmp_path.iterdir()] == ["full"]
