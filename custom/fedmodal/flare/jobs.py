"""The job folders in `jobs/`, written from one definition."""

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from fedmodal.flare.policy import simulator_files
from fedmodal.training.config import KEY_METRIC, TrainingConfig


class JobDefinition(BaseModel):
    """A federated training as a FLARE job.

    Attributes:
        name: the job's folder, `<task>_<arm>`.
        training: settings of the sites' training.
        num_rounds: rounds of federated averaging.
        min_clients: sites that must answer before a round can be averaged.
        wait_after_min: seconds to wait for the others then.
        train_timeout: seconds after which a round goes on without a site; 0 waits for ever.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, Field(pattern=r"^[a-z]+_[a-z]+$")]
    training: TrainingConfig
    num_rounds: Annotated[int, Field(ge=1)] = 6
    min_clients: Annotated[int, Field(ge=1)] = 2
    wait_after_min: Annotated[int, Field(ge=0)] = 60
    train_timeout: Annotated[int, Field(ge=0)] = 0


JOBS = {
    job.name: job
    for job in (
        JobDefinition(
            name="abdomen_gin", training=TrainingConfig(task="abdomen", arm="gin", steps_per_round=330)
        ),
    )
}


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
                "args": {"training": _differences(job.training)},
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
    return {
        "format_version": 2,
        "server": {"task_request_interval": 0.2},
        "task_data_filters": [],
        "task_result_filters": [
            {"tasks": ["train"], "filters": [{"path": "fedmodal.flare.payload.CheckUpdate", "args": {}}]}
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
        "path": "fedmodal.networks.SegmentationNetwork",
        "args": {
            "task": training.task,
            "seed": training.seed,
            "network": training.network.model_dump(mode="json", exclude_defaults=True),
        },
    }
    paths: list[tuple[str, str, dict[str, Any]]] = [
        ("persistor", "nvflare.app_opt.pt.file_model_persistor.PTFileModelPersistor", {"model": network}),
        (
            "shareable_generator",
            "nvflare.app_common.shareablegenerators.full_model_shareable_generator."
            "FullModelShareableGenerator",
            {},
        ),
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
    return [{"id": name, "path": path, "args": args} for name, path, args in paths]


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
