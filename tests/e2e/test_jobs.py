"""Every job of the repository in FLARE's own simulator, two rounds on small phantoms."""

import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from fedmodal.flare.jobs import JOBS
from fedmodal.networks import SegmentationNetwork
from fedmodal.normlocal import NormLocal, read_norm_sets
from fedmodal.report.record import find_record, read_record
from fedmodal.report.scores import BEST_GLOBAL, LAST_GLOBAL
from fedmodal.tasks import HEART
from fedmodal.training.config import settings_of
from tests.conftest import write_sites
from tests.e2e.conftest import NETWORK, Run, call, person

Small = Callable[..., Path]
RunSmall = Callable[[str], Path]
NORMLOCAL_JOB = "abdomen_normlocal"


@pytest.fixture(scope="session")
def heart_sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `phantom_sites`, for the heart."""
    return write_sites(tmp_path_factory.mktemp("hearts"), HEART, train=1)


@pytest.fixture(scope="session")
def run_small(
    request: pytest.FixtureRequest,
    small_job: Small,
    heart_sites: Path,
    phantom_sites: Path,
    cache: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Callable[[str], Path]]:
    """`run_small(name)`: the run folder at the server of one of our jobs, small, after two rounds.

    The jobs that the chosen tests need run two at a time, as a simulator mostly waits.
    """

    def simulate(name: str) -> subprocess.CompletedProcess[str]:
        sites = heart_sites if name.startswith("heart") else phantom_sites
        environment = person(folders[name] / "home", sites, cache)
        job = ("fedmodal", "simulate", small_job(2, name), "-w", "ws", "-t", "2")
        return call(*job, cwd=folders[name], environment=environment)

    wanted = {item.callspec.params["name"] for item in request.session.items if _names_a_job(item)}
    folders = {name: tmp_path_factory.mktemp(name) for name in sorted(wanted | {NORMLOCAL_JOB})}
    with ThreadPoolExecutor(max_workers=2) as pool:
        running = {name: pool.submit(simulate, name) for name in folders}

        def folder_of(name: str) -> Path:
            result = running[name].result()
            assert result.returncode == 0, result.stdout
            return folders[name] / "ws/server/simulate_job"

        yield folder_of


def _names_a_job(item: pytest.Item) -> bool:
    return item.name.startswith("test_job_trains") and hasattr(item, "callspec")


def global_weights(folder: Path, name: str = "FL_global_model.pt") -> dict[str, torch.Tensor]:
    content = torch.load(folder / "app_server" / name, weights_only=True)
    return {name: torch.as_tensor(values) for name, values in content["model"].items()}


def start_weights(name: str) -> dict[str, torch.Tensor]:
    training = JOBS[name].training
    return SegmentationNetwork(
        training.task, training.seed, NETWORK | {"norm": training.network.norm}
    ).state_dict()


@pytest.mark.parametrize("name", [name for name in JOBS if name not in ("abdomen_gin", NORMLOCAL_JOB)])
def test_job_trains_and_is_evaluated(name: str, run_small: RunSmall) -> None:
    folder = run_small(name)
    record = read_record(find_record(folder))
    assert (record.job, record.arm, len(record.rounds)) == (name, JOBS[name].training.arm, 2)
    assert all(len(done.sites) == 2 for done in record.rounds.values())
    for models in record.evaluation.values():
        assert set(models) == {BEST_GLOBAL, LAST_GLOBAL, "site-1", "site-2"}
    start, end = start_weights(name), global_weights(folder)
    assert any(not torch.equal(end[weight], start[weight]) for weight in start)


def test_norm_layers_stay_at_the_sites(run_small: RunSmall) -> None:
    """The server's stay as they began; each site's own is its own, and saved with the result."""
    folder = run_small(NORMLOCAL_JOB)
    start, end, sets = start_weights(NORMLOCAL_JOB), global_weights(folder), read_norm_sets(folder)
    local = NormLocal().local_names(
        SegmentationNetwork("abdomen", 0, NETWORK | settings_of("normlocal")["network"])  # type: ignore[operator]
    )
    for name, tensor in end.items():
        assert torch.equal(tensor, start[name]) == (name in local), name
    assert {site: one.modality for site, one in sets.items()} == {"site-1": "CT", "site-2": "MRI"}
    one, other = (sets[site].weights for site in ("site-1", "site-2"))
    assert set(one) == set(other) == local
    for name in local:
        if "num_batches" not in name:
            assert not torch.equal(one[name], other[name]), name
            assert not torch.equal(one[name], start[name]), name


@pytest.mark.slow
def test_norm_layers_survive_the_end_of_their_process(
    run: Run, run_small: RunSmall, small_job: Small, tmp_path: Path
) -> None:
    """With one thread FLARE starts a client's process anew for every task."""
    resident = run_small(NORMLOCAL_JOB)
    result = run("fedmodal", "simulate", small_job(2, NORMLOCAL_JOB), "-w", "ws1", "-t", "1")
    assert result.returncode == 0, result.stdout
    restarted = tmp_path / "ws1/server/simulate_job"
    for site, one in read_norm_sets(resident).items():
        for name, tensor in read_norm_sets(restarted)[site].weights.items():
            torch.testing.assert_close(tensor, one.weights[name], atol=1e-5, rtol=1e-5)
    before, after = (read_record(find_record(folder)).evaluation for folder in (resident, restarted))
    assert before["site-2"][LAST_GLOBAL].mean == pytest.approx(after["site-2"][LAST_GLOBAL].mean, abs=1e-3)


def test_a_site_without_batch_norm_says_so(run: Run, small_job: Small) -> None:
    job = small_job(1, NORMLOCAL_JOB)
    path = job / "app/config/config_fed_client.json"
    path.write_text(path.read_text().replace('"norm": "batch"', '"norm": "instance"'))
    result = run("fedmodal", "simulate", job, "-w", "ws", "-t", "2")
    assert result.returncode == 1
    assert "needs a network with it" in result.stdout
    assert "Traceback" not in result.stdout
