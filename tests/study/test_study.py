"""A real study on small phantoms: killed, taken up again, and with one cell under FLARE's simulator."""

import io
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch
from rich.console import Console
from typer.testing import CliRunner

from fedmodal.cli import app
from fedmodal.data.dataset import Split, read_dataset
from fedmodal.data.store import Store, default_cache, open_store
from fedmodal.errors import UserError
from fedmodal.normlocal import DomainNorm, read_norm_sets
from fedmodal.study.data import only_tests
from fedmodal.study.order import read_order
from fedmodal.study.plan import PAPER, REAL, SMOKE, Choice
from fedmodal.study.results import collect, read_rows
from fedmodal.study.study import Study, run_study
from fedmodal.study.work import load_scorable

POOLED = Choice(tasks=("heart",), arms=("none", "gin"), regimes=("pooled",))
FEDERATED = Choice(tasks=("heart",), arms=("gin",), regimes=("federated",))


def quiet() -> Console:
    return Console(quiet=True)


def wait_for(path: Path, seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        assert time.monotonic() < end, f"{path} did not come"
        time.sleep(0.05)


def processes_of(folder: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter(["cmdline", "status"]):
        command = process.info["cmdline"] or []
        if process.info["status"] != psutil.STATUS_ZOMBIE and any(str(folder) in part for part in command):
            found.append(process)
    return found


def store_of_tests(folder: Path, number: int) -> Store:
    """A cell's test data set, prepared."""
    dataset = only_tests(read_dataset(folder.parents[1] / read_order(folder).tests[number]))
    return open_store(dataset, default_cache())


def stamps(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir()}


@pytest.fixture(scope="module")
def environment(cache: Path) -> Iterator[pytest.MonkeyPatch]:
    """One thread, and a cache that the tests share; cells inherit it."""
    patch = pytest.MonkeyPatch()
    patch.setenv("FEDMODAL_CACHE", str(cache))
    patch.setenv("FEDMODAL_THREADS", "1")
    yield patch
    patch.undo()


@pytest.fixture(scope="module")
def killed(
    environment: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, int]]:
    """A study killed while its second cell trains, and the first cell's files as they were then."""
    environment.setenv("COLUMNS", "120")
    out = tmp_path_factory.mktemp("killed") / "study"
    options = ("--tasks", "heart", "--arms", "none,gin", "--regimes", "pooled", "--parallel", "1")
    command = ("-c", "from fedmodal.cli import main; main()", "study", "smoke", "--out", str(out), *options)
    process = subprocess.Popen([sys.executable, *command], stdout=subprocess.DEVNULL)  # noqa: S603
    wait_for(out / "cells/heart-pooled-gin-42/run")
    process.send_signal(signal.SIGKILL)
    process.wait()
    return out, stamps(out / "cells/heart-pooled-none-42")


@pytest.fixture(scope="module")
def resumed(killed: tuple[Path, dict[str, int]]) -> Path:
    out, _ = killed
    assert run_study(Study(SMOKE, out, POOLED), quiet()) == []
    return out


def test_a_killed_study_takes_its_cells_with_it_and_leaves_the_finished_one(
    killed: tuple[Path, dict[str, int]],
) -> None:
    out, _ = killed
    end = time.monotonic() + 10
    while processes_of(out) and time.monotonic() < end:
        time.sleep(0.1)
    assert not processes_of(out)
    assert (out / "cells/heart-pooled-none-42/rows.json").exists()


def test_a_killed_study_goes_on_without_touching_finished_cells(
    killed: tuple[Path, dict[str, int]], resumed: Path
) -> None:
    assert stamps(resumed / "cells/heart-pooled-none-42") == killed[1]
    assert (resumed / "cells/heart-pooled-gin-42/rows.json").exists()


def test_a_resumed_study_has_the_results_of_an_unbroken_one(resumed: Path) -> None:
    """The cell that was killed and taken up again, against the same cell from nothing in one go."""
    folder = resumed / "cells/heart-pooled-gin-42"
    before = read_rows(folder)[0]
    assert len(before) == 4  # two patients of each modality
    shutil.rmtree(folder)
    assert run_study(Study(SMOKE, resumed, POOLED), quiet()) == []
    assert read_rows(folder)[0] == before


def test_federated_cell_runs_in_the_simulator_and_is_scored_on_every_test_patient(resumed: Path) -> None:
    assert run_study(Study(SMOKE, resumed, FEDERATED), quiet()) == []
    rows = [row for row in collect(resumed / "cells") if row.regime == "federated"]
    pooled = [row for row in collect(resumed / "cells") if row.arm == "gin" and row.regime == "pooled"]
    assert [(row.patient, row.organ) for row in rows] == [(row.patient, row.organ) for row in pooled]
    folder = resumed / "cells/heart-federated-gin-42"
    record = json.loads((folder / "fedmodal_run.json").read_text())
    assert {site: record["sites"][site]["modality"] for site in record["sites"]} == {
        "ct-1": "CT",
        "mri-1": "MRI",
    }
    assert [sorted(done["sites"]) for done in record["rounds"].values()] == [["ct-1", "mri-1"]] * SMOKE.rounds
    assert not (folder / "run").exists()
    check_reports(resumed)


def check_reports(out: Path) -> None:
    text = (out / "tables.md").read_text()
    for regime in ("pooled", "federated"):
        assert f"### heart, {regime}, tested on MRI: 2 patients, seed 42" in text
    lines = (out / "results.csv").read_text().splitlines()
    assert lines[0] == "seed,task,arm,regime,trained_on,modality,patient,organ,dice,invented"
    assert len(lines) == 1 + 3 * 4
    ratios = (out / "ratios.csv").read_text().splitlines()
    assert [line.split(",")[:4] for line in ratios[1:]] == [
        ["heart", "federated", "gin", modality] for modality in ("CT", "MRI")
    ]
    names = {
        f"{kind}_heart_{regime}.png" for kind in ("bars", "slices") for regime in ("pooled", "federated")
    }
    assert {path.name for path in (out / "figures").iterdir()} == names


def test_scored_network_is_the_trained_one(resumed: Path) -> None:
    folder = resumed / "cells/heart-pooled-gin-42"
    network = load_scorable(folder, store_of_tests(folder, 0))
    weights = torch.load(folder / "model.pt", weights_only=True)["model"]
    assert not network.training
    assert all(torch.equal(tensor, weights[name]) for name, tensor in network.state_dict().items())


def test_normlocal_is_scored_with_the_norm_layers_of_the_modality(resumed: Path) -> None:
    choice = Choice(("heart",), ("normlocal",), ("pooled", "federated"))
    assert run_study(Study(SMOKE, resumed, choice), quiet()) == []
    federated, pooled = (resumed / f"cells/heart-{name}-normlocal-42" for name in ("federated", "pooled"))
    assert len(read_rows(federated)[0]) == len(read_rows(pooled)[0]) == 4
    sets = {one.modality: one.weights for one in read_norm_sets(federated).values()}
    for number, modality in enumerate(("CT", "MRI")):
        store = store_of_tests(federated, number)
        assert store.modality == modality
        state = load_scorable(federated, store).state_dict()
        assert all(torch.equal(state[name], tensor) for name, tensor in sets[modality].items())
        layers = [layer for layer in load_scorable(pooled, store).modules() if isinstance(layer, DomainNorm)]
        assert {layer.selected for layer in layers} == {modality}


def test_another_study_s_folder_is_refused(resumed: Path) -> None:
    with pytest.raises(UserError, match=r"^[^\n]*another preset\.steps \(8, now 16\)[^\n]*$"):
        run_study(Study(replace(SMOKE, steps=16), resumed, POOLED), quiet())


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(UserError, match="holds other files"):
        run_study(Study(SMOKE, tmp_path, POOLED), quiet())


def test_a_study_of_given_images_asks_for_them(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="sample pairs with --data"):
        run_study(Study(REAL, tmp_path / "out"), quiet())
    with pytest.raises(UserError, match="leave out --data"):
        run_study(Study(SMOKE, tmp_path / "out", data=tmp_path), quiet())


def test_a_failed_cell_is_reported_and_the_exit_code_says_so(
    resumed: Path, environment: pytest.MonkeyPatch
) -> None:
    """Its cache cannot be written: the cell ends with the reason in its log; the tables come all the same."""
    folder = resumed / "cells/heart-pooled-none-7"
    (resumed / "tables.md").unlink()
    options = ("--tasks", "heart", "--arms", "none", "--regimes", "pooled", "--seeds", "7")
    with environment.context() as broken:
        broken.setenv("FEDMODAL_CACHE", "/proc/nowhere")
        broken.setenv("COLUMNS", "400")
        result = CliRunner().invoke(app, ["study", "smoke", "--out", str(resumed), *options])
    assert result.exit_code == 1
    assert f"FAILED heart-pooled-none-7: see {folder / 'log.txt'}" in result.output
    assert "cache" in (folder / "log.txt").read_text().splitlines()[-1]
    assert not (folder / "rows.json").exists()
    assert (resumed / "tables.md").exists()


def test_a_mistaken_data_folder_does_not_spoil_the_study_s(tmp_path: Path) -> None:
    """Nothing was trained yet: the same --out may be given again with other data."""
    (tmp_path / "empty").mkdir()
    for name in ("empty", "elsewhere"):
        with pytest.raises(UserError, match=rf"{name}: no ct_image\.nii\.gz here"):
            run_study(Study(REAL, tmp_path / "out", data=tmp_path / name), quiet())


@pytest.mark.usefixtures("environment")
def test_a_costly_study_says_what_it_costs_and_waits(
    phantom_sites: Path,
    tmp_path: Path,
) -> None:
    """Two passes of 100 rounds over the CT site's slices, in batches of 8."""
    console = Console(record=True, width=300, file=io.StringIO())
    choice = Choice(("abdomen",), ("none", "gin"), ("alone_ct",), (1,))
    small = replace(PAPER, training={**PAPER.training, "network": {"channels": (4, 8)}})
    with pytest.raises(UserError, match="--yes"):
        run_study(Study(small, tmp_path / "out", choice, phantom_sites), console)
    shown = console.export_text()
    store = open_store(read_dataset(phantom_sites / "site-1"), tmp_path / "cache")
    slices = sum(len(case.image) for case in store.split(Split.TRAIN))
    assert f"2 cells, {2 * 100 * (slices // 8):,} optimizer steps" in shown
    assert "hours" in shown
