"""Real runs in FLARE's simulator, small enough for every test run."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fedmodal.flare.jobs import JOBS, JobDefinition, job_files

SMALL = {"steps_per_round": 4, "batch_size": 4}
NETWORK = {"channels": [4, 8, 16], "residual_units": 0}

Run = Callable[..., subprocess.CompletedProcess[str]]


def write_job(folder: Path, job: JobDefinition) -> Path:
    for path, text in job_files(job).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)
    return folder


@pytest.fixture(scope="session")
def small_job(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`small_job(rounds, name, **training)`: one of our jobs with a small network and few steps."""

    def make(rounds: int = 3, name: str = "abdomen_gin", **training: Any) -> Path:
        base = JOBS[name]
        network = NETWORK | {"norm": base.training.network.norm}
        changes = SMALL | {"network": network} | training
        settings = base.training.model_validate(base.training.model_dump() | changes)
        job = base.model_copy(update={"training": settings, "num_rounds": rounds})
        return write_job(tmp_path_factory.mktemp("jobs") / name, job)

    return make


def person(home: Path, data: Path, cache: Path) -> dict[str, str]:
    """A person's environment with a home of its own, data sets as given, and one thread."""
    home.mkdir(exist_ok=True)
    own = {"HOME": str(home), "FEDMODAL_DATA": str(data), "FEDMODAL_CACHE": str(cache)}
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    return os.environ | own | {"FEDMODAL_THREADS": "1", "PATH": path}


def call(*command: str | Path, cwd: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command; output and exit code."""
    return subprocess.run(  # noqa: S603 - our own commands
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=400,
        check=False,
    )


@pytest.fixture
def environment(phantom_sites: Path, cache: Path, tmp_path: Path) -> dict[str, str]:
    return person(tmp_path / "home", phantom_sites, cache)


@pytest.fixture
def run(environment: dict[str, str], tmp_path: Path) -> Run:
    """`run(*command, **environment)`: run a command in an empty folder; output and exit code."""

    def run_here(*command: str | Path, cwd: Path = tmp_path, **more: str) -> subprocess.CompletedProcess[str]:
        return call(*command, cwd=cwd, environment=environment | more)

    return run_here
