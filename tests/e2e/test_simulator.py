"""The main job in FLARE's own simulator: its result, its restarts, its refusals."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fedmodal.flare.policy import install_simulator_policy
from fedmodal.inference.model import load_model
from fedmodal.report.record import RunRecord, find_record, read_record
from fedmodal.report.scores import BEST_GLOBAL, LAST_GLOBAL
from tests.e2e.conftest import Run

ROUNDS = 3
ROOT = Path(__file__).parents[2]
Small = Callable[..., Path]


@pytest.fixture(scope="module")
def job(small_job: Small) -> Path:
    return small_job(ROUNDS)


@pytest.fixture(scope="module")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The workspace of one run with two resident client processes, which several tests look at."""
    return tmp_path_factory.mktemp("resident") / "ws"


@pytest.fixture
def resident(run: Run, job: Path, workspace: Path) -> Path:
    if not workspace.exists():
        result = run("fedmodal", "simulate", job, "-w", workspace, "-t", "2")
        assert result.returncode == 0, result.stdout
        (workspace.parent / "output.txt").write_text(result.stdout)
    return workspace


def record(workspace: Path) -> RunRecord:
    return read_record(find_record(workspace))


def weights(workspace: Path, name: str = "FL_global_model.pt") -> dict[str, torch.Tensor]:
    content = torch.load(workspace / "server/simulate_job/app_server" / name, weights_only=True)
    model: dict[str, torch.Tensor] = content["model"]
    return model


def distance(one: Path, other: Path) -> float:
    a, b = weights(one), weights(other)
    assert a.keys() == b.keys()
    return max(float((a[name] - b[name]).abs().max()) for name in a)


def test_every_round_has_both_sites_weighted_by_slices(resident: Path) -> None:
    rounds = record(resident).rounds
    assert list(rounds) == list(range(ROUNDS))
    for done in rounds.values():
        assert {site: (part.accepted, part.slices) for site, part in done.sites.items()} == {
            "site-1": (True, 16),
            "site-2": (True, 16),
        }


def test_best_model_is_the_one_with_the_best_validation(resident: Path) -> None:
    run_record = record(resident)
    means = {
        number: sum(part.global_dice for part in done.sites.values()) / 2
        for number, done in run_record.rounds.items()
        if number > 0
    }
    assert run_record.best_round == max(means, key=means.__getitem__)
    assert run_record.best_dice == pytest.approx(means[run_record.best_round])
    best, last = weights(resident, "best_FL_global_model.pt"), weights(resident)
    assert any(not torch.equal(best[name], last[name]) for name in last)


def test_global_model_is_the_mean_of_the_sites_weighted_by_slices(
    run: Run, small_job: Small, tmp_path: Path
) -> None:
    """After one round of one pass each, from the sites' own files and written out here."""
    result = run("fedmodal", "simulate", small_job(1, steps_per_round=None), "-w", "ws", "-t", "2")
    assert result.returncode == 0, result.stdout
    slices = {site: part.slices for site, part in record(tmp_path / "ws").rounds[0].sites.items()}
    assert slices["site-1"] != slices["site-2"]
    local = {
        site: torch.load(tmp_path / "ws" / site / "simulate_job/fedmodal/best_local.pt", weights_only=True)
        for site in slices
    }
    for name, tensor in weights(tmp_path / "ws").items():
        mean = sum(slices[site] * local[site]["model"][name] for site in slices) / sum(slices.values())
        torch.testing.assert_close(torch.as_tensor(tensor), mean, atol=1e-6, rtol=1e-5)


def test_models_are_evaluated_on_both_sites_test_patients(resident: Path) -> None:
    evaluation = record(resident).evaluation
    assert set(evaluation) == {"site-1", "site-2"}
    for models in evaluation.values():
        assert set(models) == {BEST_GLOBAL, LAST_GLOBAL, "site-1", "site-2"}
        assert {model.split for model in models.values()} == {"test"}
        assert all(
            organ.n + organ.absent == 1 for model in models.values() for organ in model.organs.values()
        )
    assert {site: models[site].modality for site, models in evaluation.items()} == {
        "site-1": "CT",
        "site-2": "MRI",
    }


def test_sites_send_every_measure_as_an_aggregate(resident: Path) -> None:
    for models in record(resident).evaluation.values():
        for organ in models[LAST_GLOBAL].organs.values():
            if organ.n:
                assert {"dice", "surface_dice", "volume_error_ml"} <= set(organ.spreads)
                assert organ.spreads["dice"].mean == pytest.approx(organ.dice)
            if organ.n > organ.missed:
                assert organ.spreads["hd95_mm"].n >= organ.n - organ.missed


def test_record_names_quorum_and_models(resident: Path) -> None:
    kept = record(resident)
    assert kept.quorum == 2
    assert set(kept.models) == {"best_FL_global_model.pt", "FL_global_model.pt"}
    last = resident / "server/simulate_job/app_server/FL_global_model.pt"
    assert kept.models[last.name] == load_model(last).fingerprint


def test_output_is_for_a_person(resident: Path) -> None:
    lines = (resident.parent / "output.txt").read_text().splitlines()
    before = lines[: next(number for number, line in enumerate(lines) if "global, best" in line)]
    assert sum("done in" in line and "left" in line for line in before) == ROUNDS
    assert sum("loss" in line for line in before) == 2 * ROUNDS
    assert len(before) < 40, "a wall of framework lines"
    assert not [line for line in lines if "Traceback" in line]


def test_curves_reach_the_server(resident: Path) -> None:
    curves = EventAccumulator(str(resident / "server/simulate_job/tb_events/site-2")).Reload()
    assert {"loss", "val_dice_local", "val_dice_global", "step_loss"} <= set(curves.Tags()["scalars"])
    expected = record(resident).rounds[1].sites["site-2"].loss
    found = {event.step: event.value for event in curves.Scalars("loss")}
    assert found[1] == pytest.approx(expected, rel=1e-5)


def test_report_reads_the_run(run: Run, resident: Path) -> None:
    shown = run("fedmodal", "report", resident)
    assert shown.returncode == 0
    assert "pancreas" in shown.stdout
    as_json = json.loads(run("fedmodal", "report", resident, "--json").stdout)
    assert as_json["evaluation"]["site-1"][LAST_GLOBAL]["modality"] == "CT"


def test_a_simulation_ends_with_its_page_and_a_reader_adds_cases(
    run: Run, resident: Path, phantom_sites: Path, tmp_path: Path
) -> None:
    """The data are named by FEDMODAL_DATA, not the simulator's phantoms: no case is shown unasked."""
    page = (resident / "report.html").read_text()
    assert "Mean Dice over organs" in page
    assert "Slice viewer" not in page
    shown = run(
        "fedmodal", "report", resident, "--cases", phantom_sites / "site-2", "--out", tmp_path / "mine"
    )
    assert shown.returncode == 0, shown.stdout
    assert f"report: {tmp_path / 'mine' / 'report.html'} (and report.md)" in shown.stdout
    assert "Slice viewer" in (tmp_path / "mine" / "report.html").read_text()


def test_bare_command_from_a_clone_gives_the_same_weights(
    run: Run, job: Path, resident: Path, tmp_path: Path
) -> None:
    """`nvflare simulator JOB`, nothing else, where the clone's policy and log config lie.

    With its one thread FLARE ends and starts a client's process anew for every task.
    """
    shutil.copytree(ROOT / "simulator_workspace/local", tmp_path / "simulator_workspace/local")
    result = run("nvflare", "simulator", job)
    assert result.returncode == 0, result.stdout
    assert "global, best" in result.stdout
    assert "pancreas" in result.stdout
    assert distance(resident, tmp_path / "simulator_workspace") < 1e-5


def test_processes_killed_between_rounds_give_the_same_weights(
    run: Run, job: Path, resident: Path, tmp_path: Path
) -> None:
    mortal = shutil.copytree(job, tmp_path / "mortal")
    path = mortal / "app/config/config_fed_client.json"
    config = json.loads(path.read_text())
    config["components"].append({"id": "killer", "path": "tests.e2e.killer.KillBetweenRounds", "args": {}})
    path.write_text(json.dumps(config))
    install_simulator_policy(tmp_path / "ws")
    policy = tmp_path / "ws/local/resources.json"
    content = json.loads(policy.read_text())
    content["class_allow_list"].append("tests.e2e.killer.KillBetweenRounds")
    policy.write_text(json.dumps(content))
    result = run("nvflare", "simulator", mortal, "-w", "ws", "-n", "2", "-t", "1", PYTHONPATH=str(ROOT))
    assert len(record(tmp_path / "ws").rounds) == ROUNDS, result.stdout
    assert distance(resident, tmp_path / "ws") < 1e-5


def test_a_class_that_no_site_allows_is_refused(run: Run, job: Path, tmp_path: Path) -> None:
    altered = shutil.copytree(job, tmp_path / "altered")
    path = altered / "app/config/config_fed_client.json"
    path.write_text(
        path.read_text().replace("fedmodal.flare.learner.SegmentationLearner", "subprocess.Popen")
    )
    result = run("fedmodal", "simulate", altered, "-w", "ws", "-t", "2")
    assert result.returncode == 1
    assert "subprocess.Popen" in result.stdout
    assert "allow" in result.stdout


def test_site_with_the_wrong_modality_stops_with_the_reason(
    run: Run, small_job: Small, phantom_sites: Path, tmp_path: Path
) -> None:
    sites = shutil.copytree(phantom_sites, tmp_path / "sites")
    path = sites / "site-2/dataset.json"
    path.write_text(path.read_text().replace('"MRI"', '"CT"'))
    result = run("fedmodal", "simulate", small_job(1), "-w", "ws", "-t", "2", FEDMODAL_DATA=str(sites))
    assert result.returncode == 1
    lines = [line for line in result.stdout.splitlines() if "site-2" in line and "CT" in line]
    assert lines, result.stdout
    assert "Traceback" not in result.stdout


def test_the_runs_best_model_predicts(resident: Path, run: Run, phantom_sites: Path, tmp_path: Path) -> None:
    image = next((phantom_sites / "site-2").rglob("imagesTr/*.nii.gz"))
    done = run("fedmodal", "predict", resident, image, tmp_path / "organs.nii.gz")
    assert done.returncode == 0, done.stdout
    assert "organs.nii.gz: MRI" in done.stdout
    assert (tmp_path / "organs.nii.gz").is_file()
