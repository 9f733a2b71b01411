"""The job folders in `jobs/`, written from one definition."""

import json
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from fedmodal.augment import ARMS, make_arm
from fedmodal.flare.policy import simulator_files
from fedmodal.networks import SegmentationNetwork
from fedmodal.normlocal import NORMLOCAL, NormLocal
from fedmodal.tasks import TASKS
from fedmodal.training.config import KEY_METRIC, TrainingConfig, settings_of, training_config


class JobDefinition(BaseModel):
    """A federated training as a FLARE job.

    Attributes:
        name: the job's folder, `<task>_<arm>`, and what else sets it apart.
        training: settings of the sites' training.
        num_rounds: rounds of federated averaging.
        min_clients: sites that must answer before a round can be averaged.
        wait_after_min: seconds to wait for the others then.
        train_timeout: seconds after which a round goes on without a site; 0 waits for ever.
        proximal_mu: weight of FedProx's term, which holds a site near the global model; 0 is FedAvg.
        server_momentum: momentum of FedOpt's optimizer at the server (SGD); None is FedAvg.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z]+(_[a-z]+)+$")]
    training: TrainingConfig
    num_rounds: Annotated[int, Field(ge=1)] = 6
    min_clients: Annotated[int, Field(ge=1)] = 2
    wait_after_min: Annotated[int, Field(ge=0)] = 60
    train_timeout: Annotated[int, Field(ge=0)] = 0
    proximal_mu: Annotated[float, Field(ge=0)] = 0.0
    server_momentum: Annotated[float, Field(ge=0, lt=1)] | None = None

    @property
    def local_names(self) -> list[str]:
        """Weights that stay at the sites: arm `normlocal`'s batch norm, else none."""
        training = self.training
        if training.arm != NORMLOCAL:
            return []
        network = SegmentationNetwork(training.task, training.seed, training.network.model_dump())
        arm = make_arm(training.arm, training.arm_options)
        return sorted(arm.local_names(network)) if isinstance(arm, NormLocal) else []


STEPS_PER_ROUND = 330


def _definitions() -> Iterator[JobDefinition]:
    for task, arm in product(TASKS, ARMS):
        settings = settings_of(arm) | {"task": task, "steps_per_round": STEPS_PER_ROUND}
        yield JobDefinition(name=f"{task}_{arm}", training=training_config(settings))


def _variants(base: JobDefinition) -> Iterator[JobDefinition]:
    """Other ways to average, as what they change in a job."""
    changes: dict[str, dict[str, Any]] = {
        "fedprox": {"proximal_mu": 0.01},
        "fedopt": {"server_momentum": 0.6},
    }
    for name, change in changes.items():
        yield base.model_copy(update=change | {"name": f"{base.name}_{name}"})


JOBS = {job.name: job for job in _definitions()}
JOBS |= {job.name: job for job in _variants(JOBS["abdomen_gin"])}


def meta(job: JobDefinition) -> dict[str, Any]:
    """`meta.json`: the same app everywhere, and how many sites it needs."""
    return {
        "name": job.name,
        "resource_spec": {},
        "deploy_map": {"app": ["@ALL"]},
        "min_clients": job.min_clients,
    }


def client_config(job: JobDefinition) -> dict[str, Any]:
    """`config_fed_client.json`: our learner in FLARE's executor, and the curves it streams."""
    return {
        "format_version": 2,
        "executors": [
            {
                "tasks": ["train", "submit_model", "validate"],
                "executor": {
                    "path": "nvflare.app_common.executors.learner_executor.LearnerExecutor",
                    "args": {"learner_id": "learner"},
                },
            }
        ],
        "task_result_filters": [],
        "task_data_filters": [],
        "components": [
            {
                "id": "learner",
                "path": "fedmodal.flare.learner.SegmentationLearner",
                "args": {"training": _differences(job.training)}
                | ({"proximal_mu": job.proximal_mu} if job.proximal_mu else {}),
            },
            {"id": "curves", "path": "nvflare.app_opt.tracking.tb.tb_writer.TBWriter", "args": {}},
            {
                "id": "curves_to_server",
                "path": "nvflare.app_common.widgets.convert_to_fed_event.ConvertToFedEvent",
                "args": {"events_to_convert": ["analytix_log_stats"]},
            },
            {"id": "console", "path": "fedmodal.flare.console.SimulatorConsole", "args": {}},
        ],
    }


def server_config(job: JobDefinition) -> dict[str, Any]:
    """`config_fed_server.json`: FedAvg by ScatterAndGather, then the evaluation across sites."""
    names = job.local_names
    return {
        "format_version": 2,
        "server": {"task_request_interval": 0.2},
        "task_data_filters": [],
        "task_result_filters": [
            {
                "tasks": ["train"],
                "filters": [
                    {"path": "fedmodal.flare.payload.CheckUpdate", "args": {"local": names} if names else {}}
                ],
            }
        ],
        "components": _server_components(job),
        "workflows": [
            {
                "id": "scatter_and_gather",
                "path": "nvflare.app_common.workflows.scatter_and_gather.ScatterAndGather",
                "args": {
                    "min_clients": job.min_clients,
                    "num_rounds": job.num_rounds,
                    "wait_time_after_min_received": job.wait_after_min,
                    "train_timeout": job.train_timeout,
                    "aggregator_id": "aggregator",
                    "persistor_id": "persistor",
                    "shareable_generator_id": "shareable_generator",
                    "task_check_period": 0.1,
                },
            },
            {
                "id": "cross_site_evaluation",
                "path": "nvflare.app_common.workflows.cross_site_model_eval.CrossSiteModelEval",
                "args": {"model_locator_id": "model_locator", "task_check_period": 0.1},
            },
        ],
    }


def _server_components(job: JobDefinition) -> list[dict[str, Any]]:
    training = job.training
    network = {
        "task": training.task,
        "seed": training.seed,
        "network": training.network.model_dump(mode="json", exclude_defaults=True),
    }
    paths: list[tuple[str, str, dict[str, Any]]] = [
        ("network", "fedmodal.networks.SegmentationNetwork", network),
        (
            "persistor",
            "nvflare.app_opt.pt.file_model_persistor.PTFileModelPersistor",
            {"model": "network"},
        ),
        _shareable_generator(job),
        (
            "aggregator",
            "nvflare.app_common.aggregators.intime_accumulate_model_aggregator."
            "InTimeAccumulateWeightedAggregator",
            {"expected_data_kind": "WEIGHT_DIFF"},
        ),
        (
            "model_selector",
            "nvflare.app_common.widgets.intime_model_selector.IntimeModelSelector",
            {"key_metric": KEY_METRIC},
        ),
        (
            "model_locator",
            "nvflare.app_opt.pt.file_model_locator.PTFileModelLocator",
            {"pt_persistor_id": "persistor"},
        ),
        (
            "cross_site_results",
            "nvflare.app_common.widgets.validation_json_generator.ValidationJsonGenerator",
            {},
        ),
        (
            "curves",
            "nvflare.app_opt.tracking.tb.tb_receiver.TBAnalyticsReceiver",
            {"events": ["fed.analytix_log_stats"]},
        ),
        ("summary", "fedmodal.flare.summary.RunSummary", {"task": training.task, "arm": training.arm}),
        ("console", "fedmodal.flare.console.SimulatorConsole", {}),
    ]
    if job.local_names:
        paths.append(("norm_sets", "fedmodal.flare.norm_sets.NormSets", {}))
    return [{"id": name, "path": path, "args": args} for name, path, args in paths]


def _shareable_generator(job: JobDefinition) -> tuple[str, str, dict[str, Any]]:
    """What makes the next global model of the average update: adds it, or lets an optimizer step."""
    if job.server_momentum is None:
        package = "nvflare.app_common.shareablegenerators.full_model_shareable_generator"
        return "shareable_generator", f"{package}.FullModelShareableGenerator", {}
    settings = {"lr": 1.0, "momentum": job.server_momentum}
    # FLARE builds every nested component at once; this one it builds itself, when it has the weights.
    optimizer = {"path": "torch.optim.SGD", "args": settings, "config_type": "dict"}
    path = "nvflare.app_opt.pt.fedopt.PTFedOptModelShareableGenerator"
    return "shareable_generator", path, {"optimizer_args": optimizer, "source_model": "network"}


def _differences(training: TrainingConfig) -> dict[str, Any]:
    """The settings that differ from the defaults, and always the task, the arm and the seed."""
    named = {"task": training.task, "arm": training.arm, "seed": training.seed}
    return named | training.model_dump(mode="json", exclude_defaults=True)


def job_files(job: JobDefinition) -> dict[Path, str]:
    """Path within the job's folder to text."""
    contents = {
        "meta.json": meta(job),
        "app/config/config_fed_server.json": server_config(job),
        "app/config/config_fed_client.json": client_config(job),
    }
    return {Path(name): json.dumps(content, indent=2) + "\n" for name, content in contents.items()}


def repository_files() -> dict[Path, str]:
    """Every file that is written from a definition, by its path in the repository."""
    files = {
        Path("jobs") / name / path: text
        for name, job in JOBS.items()
        for path, text in job_files(job).items()
    }
    policy = {Path("simulator_workspace/local") / name: text for name, text in simulator_files().items()}
    return files | policy


def write_files(root: Path) -> list[Path]:
    """Write them all below `root`; returns the paths."""
    files = repository_files()
    for path, text in files.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text, encoding="utf-8")
    return [root / path for path in files]


def outdated_files(root: Path) -> list[Path]:
    """Those below `root` that are missing or differ from their definition."""
    return [
        root / path
        for path, text in repository_files().items()
        if not (root / path).is_file() or (root / path).read_text(encoding="utf-8") != text
    ]
