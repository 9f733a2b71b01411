"""Provisioned kits over TLS on this machine: a job from submission to report, and all that is refused."""

import json
import os
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fedmodal.flare.learner import PRIVATE_REASON
from fedmodal.report.record import find_record, read_record
from fedmodal.report.scores import BEST_GLOBAL, LAST_GLOBAL
from tests.e2e.conftest import Run
from tests.e2e.federation import Federation, wait_for
from tests.kits import ORG_ADMIN, SERVER, local_project, provision

Small = Callable[..., Path]
ROUNDS = 2


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    own = {"HOME": str(tmp_path_factory.mktemp("home")), "FEDMODAL_THREADS": "1"}
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"]))
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("FEDMODAL_")}
    return inherited | own | {"PATH": path}


@pytest.fixture(scope="module")
def federation(
    tmp_path_factory: pytest.TempPathFactory, environment: dict[str, str], phantom_sites: Path, cache: Path
) -> Iterator[Federation]:
    """A server and two sites, connected; site-3's kit is there, without data and not started."""
    folder = tmp_path_factory.mktemp("federation")
    kits = provision(local_project(folder), folder)
    for name in ("site-1", "site-2"):
        content = {"data": str(phantom_sites / name), "cache": str(cache)}
        (kits / name / "local" / "fedmodal.json").write_text(json.dumps(content))
    running = Federation(kits, environment)
    try:
        running.start_all(SERVER, "site-1", "site-2")
        yield running
    finally:
        running.kill()


@pytest.fixture
def changed_job(
    small_job: Small, tmp_path: Path
) -> Callable[[str, Callable[[dict[str, object]], None]], Path]:
    """`changed_job(file, change)`: the small job with one of its JSON files changed."""

    def make(name: str, change: Callable[[dict[str, object]], None]) -> Path:
        job = shutil.copytree(small_job(ROUNDS), tmp_path / "abdomen_gin")
        (path,) = job.rglob(name)
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
        return job

    return make


@pytest.fixture(scope="module")
def downloaded(federation: Federation, small_job: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A job's result, as the lead who submitted it downloads it."""
    job_id = federation.submit(small_job(ROUNDS))
    assert federation.outcome(job_id) == "FINISHED:COMPLETED"
    folder = tmp_path_factory.mktemp("downloaded")
    federation.nvflare("job", "download", job_id, "-o", folder)
    return folder


def test_the_result_has_both_models_every_round_and_the_table_across_sites(downloaded: Path) -> None:
    record = read_record(find_record(downloaded))
    assert [sorted(done.sites) for done in record.rounds.values()] == [["site-1", "site-2"]] * ROUNDS
    assert record.best_round is not None
    for site in ("site-1", "site-2"):
        assert {BEST_GLOBAL, LAST_GLOBAL, "site-1", "site-2"} == set(record.evaluation[site])
    models = {path.name for path in downloaded.rglob("app_server/*.pt")}
    assert models == {"FL_global_model.pt", "best_FL_global_model.pt"}


def test_the_report_reads_the_downloaded_job(downloaded: Path, run: Run) -> None:
    shown = run("fedmodal", "report", downloaded)
    assert shown.returncode == 0
    assert "site-2 (MRI): phantoms 2 train, 1 validation, 1 test; in 2 of 2 rounds" in shown.stdout


def test_what_reaches_the_server_names_no_file_of_a_site(downloaded: Path, phantom_sites: Path) -> None:
    logs = [path.read_text(errors="replace") for path in downloaded.rglob("log*")]
    assert any("in 2 of 2 rounds" in text for text in logs)
    assert not [text for text in logs if str(phantom_sites) in text or "phantom-" in text]


def test_a_job_with_code_is_refused(federation: Federation, small_job: Small, tmp_path: Path) -> None:
    job = shutil.copytree(small_job(ROUNDS), tmp_path / "with_code")
    (job / "app" / "custom").mkdir()
    (job / "app" / "custom" / "mine.py").write_text("print('run at a hospital')\n")
    job_id = federation.submit(job)
    assert federation.outcome(job_id).startswith("FINISHED:")
    assert "BYOC not permitted" in (federation.kits / SERVER / "log.txt").read_text()


def test_a_class_outside_the_list_is_not_built(
    federation: Federation, changed_job: Callable[..., Path]
) -> None:
    def change(config: dict[str, object]) -> None:
        components = config["components"]
        assert isinstance(components, list)
        components.append({"id": "shell", "path": "subprocess.Popen", "args": {"args": ["true"]}})

    job_id = federation.submit(changed_job("config_fed_client.json", change))
    assert federation.outcome(job_id) != "FINISHED:COMPLETED"
    log = (federation.kits / "site-1" / job_id / "log.txt").read_text()
    assert "subprocess.Popen" in log
    assert "is not in allow_list" in log


def test_a_role_without_the_right_may_not_submit(federation: Federation, small_job: Small) -> None:
    answer = federation.nvflare("job", "submit", "-j", small_job(ROUNDS), who=ORG_ADMIN)
    assert answer["status"] != "ok"
    assert "not authorized" in json.dumps(answer).lower()


def test_a_kit_whose_startup_was_altered_does_not_start(federation: Federation) -> None:
    kit = shutil.copytree(federation.kits / "site-3", federation.kits / "altered")
    config = kit / "startup" / "fed_client.json"
    config.write_text(
        config.read_text().replace('"require_signed_jobs": true', '"require_signed_jobs": false')
    )
    output = federation.start(kit)
    shown = wait_for(output, "not secure content")
    assert "fed_client.json" in shown
    assert not (kit / "log.txt").exists() or "Successfully registered" not in (kit / "log.txt").read_text()
    (kit / "shutdown.fl").touch()


def test_a_site_with_a_certificate_of_another_authority_stays_outside(
    federation: Federation, tmp_path: Path
) -> None:
    kit = shutil.copytree(federation.kits / "site-3", federation.kits / "stranger")
    other = provision(local_project(tmp_path), tmp_path) / "site-3" / "startup"
    config = (kit / "startup" / "fed_client.json").read_text()
    shutil.rmtree(kit / "startup")
    shutil.copytree(other, kit / "startup")
    (kit / "startup" / "fed_client.json").write_text(config)
    (kit / "startup" / "signature.json").unlink()  # a stranger does not check himself
    output = federation.start(kit)
    shown = wait_for(output, "CERTIFICATE_VERIFY_FAILED")
    assert "Successfully registered" not in shown
    (kit / "shutdown.fl").touch()


def test_an_altered_job_is_refused_and_a_site_without_data_says_what_to_set(
    federation: Federation, changed_job: Callable[..., Path], small_job: Small, tmp_path: Path
) -> None:
    def wait_for_a_third_site(meta: dict[str, object]) -> None:
        meta["min_clients"] = 3

    altered = federation.submit(changed_job("meta.json", wait_for_a_third_site))
    alter(federation.kits.parents[1] / "storage" / "jobs" / altered / "data")
    federation.start_all("site-3")
    assert federation.outcome(altered) != "FINISHED:COMPLETED"
    assert "signature" in (federation.kits / SERVER / "log.txt").read_text()

    job_id = federation.submit(small_job(ROUNDS))
    assert federation.outcome(job_id) == "FINISHED:COMPLETED"
    log = (federation.kits / "site-3" / job_id / "log.txt").read_text()
    assert "site 'site-3' has no data: set FEDMODAL_DATA" in log
    federation.nvflare("job", "download", job_id, "-o", tmp_path)
    record = read_record(find_record(tmp_path))
    assert record.refusals == [f"site-3: {PRIVATE_REASON}"]
    assert sorted(record.rounds[ROUNDS - 1].sites) == ["site-1", "site-2"]


def alter(stored: Path) -> None:
    """Change one number in the sites' config of a stored job."""
    with zipfile.ZipFile(stored) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    (config,) = (name for name in files if name.endswith("config_fed_client.json"))
    steps = b'"steps_per_round": 4'
    assert steps in files[config]
    files[config] = files[config].replace(steps, b'"steps_per_round": 5')
    with zipfile.ZipFile(stored, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


def test_all_processes_end_when_the_admin_shuts_down(federation: Federation) -> None:
    assert federation.processes()
    federation.shut_down()
    assert not federation.processes()
