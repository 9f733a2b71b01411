import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from nvflare.app_common.default_component_policy import DEFAULT_CLASS_ALLOW_LIST

from fedmodal.augment import ARMS
from fedmodal.flare.jobs import JOBS, outdated_files, repository_files, write_files
from fedmodal.flare.policy import OUR_CLASSES, simulator_resources
from fedmodal.networks import NetworkConfig
from fedmodal.tasks import TASKS
from fedmodal.training.config import KEY_METRIC, training_config

ROOT = Path(__file__).parents[2]


def classes_in(config: object) -> set[str]:
    """Every class that a job's configuration names."""
    if isinstance(config, dict):
        own = {config["path"]} if "path" in config else set()
        return own.union(*map(classes_in, config.values()))
    return set().union(*map(classes_in, config)) if isinstance(config, list) else set()


def load(job: str, name: str) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((ROOT / "jobs" / job / name).read_text())
    return content


def test_checked_in_files_are_as_defined() -> None:
    assert outdated_files(ROOT) == []


def test_jobs_hold_nothing_but_config() -> None:
    defined = {ROOT / path for path in repository_files()}
    found = {path for path in (ROOT / "jobs").rglob("*") if path.is_file()}
    assert found == {path for path in defined if (ROOT / "jobs") in path.parents}


def test_a_changed_file_is_found(tmp_path: Path) -> None:
    write_files(tmp_path)
    assert outdated_files(tmp_path) == []
    path = tmp_path / "jobs/abdomen_gin/meta.json"
    path.write_text(path.read_text().replace("2", "3"))
    assert outdated_files(tmp_path) == [path]


def test_policy_is_flare_s_list_and_exactly_what_the_jobs_add() -> None:
    used: set[str] = set()
    for job in JOBS:
        for side in ("server", "client"):
            used |= classes_in(load(job, f"app/config/config_fed_{side}.json"))
    allowed = simulator_resources()["class_allow_list"]
    assert set(allowed) == set(DEFAULT_CLASS_ALLOW_LIST) | set(OUR_CLASSES)
    assert used - set(DEFAULT_CLASS_ALLOW_LIST) == set(OUR_CLASSES)


@pytest.mark.parametrize("name", OUR_CLASSES)
def test_listed_classes_exist(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    assert isinstance(getattr(import_module(module), attribute), type)


@pytest.mark.parametrize("job", JOBS)
def test_server_and_sites_build_the_same_network(job: str) -> None:
    server = {part["id"]: part for part in load(job, "app/config/config_fed_server.json")["components"]}
    client = {part["id"]: part for part in load(job, "app/config/config_fed_client.json")["components"]}
    assert server["persistor"]["args"]["model"] == "network"
    network = server["network"]["args"]
    training = training_config(client["learner"]["args"]["training"])
    assert training == JOBS[job].training
    assert (network["task"], network["seed"]) == (training.task, training.seed)
    assert network["network"] == training.network.model_dump(mode="json", exclude_defaults=True)


@pytest.mark.parametrize("job", JOBS)
def test_selector_looks_for_the_key_metric(job: str) -> None:
    server = {part["id"]: part for part in load(job, "app/config/config_fed_server.json")["components"]}
    assert server["model_selector"]["args"]["key_metric"] == KEY_METRIC


def test_jobs_are_every_arm_of_every_task_and_two_variants() -> None:
    every = {f"{task}_{arm}" for task in TASKS for arm in ARMS}
    assert set(JOBS) == every | {"abdomen_gin_fedprox", "abdomen_gin_fedopt"}


@pytest.mark.parametrize("task", TASKS)
def test_arms_differ_in_nothing_but_the_arm(task: str) -> None:
    for arm in ARMS:
        job = JOBS[f"{task}_{arm}"]
        given = job.training.model_dump(exclude={"arm", "network"})
        assert given == JOBS[f"{task}_gin"].training.model_dump(exclude={"arm", "network"})
        assert job.training.network.model_dump(exclude={"norm"}) == NetworkConfig().model_dump(
            exclude={"norm"}
        )


def test_norm_layers_that_stay_are_named_in_the_job() -> None:
    (check,) = load("abdomen_normlocal", "app/config/config_fed_server.json")["task_result_filters"]
    names = check["filters"][0]["args"]["local"]
    assert "model.0.adn.N.running_mean" in names
    assert len(names) == 5 * 8  # weight, bias and three statistics of eight layers
