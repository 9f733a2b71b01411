"""POC: poc/poc.py with real kits, from provisioning to report, and what it leaves behind."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.e2e.conftest import Run
from tests.e2e.federation import wait_for

POC = Path(__file__).parents[2] / "poc" / "poc.py"
Small = Callable[..., Path]


@pytest.fixture
def data(phantom_sites: Path, tmp_path: Path) -> Path:
    """A data set for each of the three sites of project.yml."""
    for site, source in (("site-1", "site-1"), ("site-2", "site-2"), ("site-3", "site-1")):
        shutil.copytree(phantom_sites / source, tmp_path / "data" / site)
    return tmp_path / "data"


def processes_of(folder: Path) -> list[psutil.Process]:
    every = psutil.process_iter(["cmdline"])
    return [one for one in every if f"{folder}/workspace" in " ".join(one.info["cmdline"] or [])]


def test_a_job_runs_from_prepare_to_report_and_all_ends(
    run: Run, small_job: Small, data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "poc"
    done = run(sys.executable, POC, "run", small_job(1), "--folder", folder, "--data", data)
    assert done.returncode == 0, done.stdout
    assert "round 1/1 done" in done.stdout
    assert "with 3 sites" in done.stdout
    assert "site-3 (CT): 3D Dice on 1 test patients" in done.stdout
    assert not processes_of(folder)


@pytest.mark.slow
def test_ctrl_c_stops_every_participant(
    environment: dict[str, str], small_job: Small, data: Path, tmp_path: Path
) -> None:
    folder, output = tmp_path / "poc", tmp_path / "output.txt"
    call = [sys.executable, POC, "run", small_job(50), "--folder", folder, "--data", data]
    with output.open("w") as file:
        running = subprocess.Popen(  # noqa: S603 - our own command
            list(map(str, call)), env=environment, stdout=file, stderr=file, start_new_session=True
        )
    wait_for(output, "round 2/50 done", seconds=200)
    assert processes_of(folder)
    os.killpg(running.pid, signal.SIGINT)
    running.wait(timeout=120)
    assert not processes_of(folder)


@pytest.mark.parametrize("step", ["start", "follow", "report", "stop"])
def test_a_step_before_prepare_says_what_is_first(run: Run, tmp_path: Path, step: str) -> None:
    done = run(sys.executable, POC, step, "--folder", tmp_path / "nothing")
    assert done.returncode == 1
    assert "first `poc.py prepare`" in done.stdout
    assert "Traceback" not in done.stdout


def test_a_folder_with_other_files_is_left_alone(run: Run, tmp_path: Path) -> None:
    (tmp_path / "project.yml").write_text("name: mine\n")
    done = run(sys.executable, POC, "prepare", "--folder", tmp_path)
    assert done.returncode == 1
    assert "holds other files" in done.stdout
    assert (tmp_path / "project.yml").read_text() == "name: mine\n"


def test_a_site_without_a_data_set_is_named(run: Run, data: Path, tmp_path: Path) -> None:
    (data / "site-3" / "dataset.json").unlink()
    done = run(sys.executable, POC, "prepare", "--folder", tmp_path / "poc", "--data", data)
    assert done.returncode == 1
    assert f"{data / 'site-3'}: no dataset.json in it" in done.stdout
