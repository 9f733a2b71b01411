"""What a site lets a job build and a person do: class allow list, authorization, privacy, simulator files."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nvflare.app_common.default_component_policy import DEFAULT_CLASS_ALLOW_LIST

OUR_CLASSES = (
    "fedmodal.flare.console.SimulatorConsole",
    "fedmodal.flare.learner.SegmentationLearner",
    "fedmodal.flare.norm_sets.NormSets",
    "fedmodal.flare.payload.CheckUpdate",
    "fedmodal.flare.summary.RunSummary",
    "fedmodal.networks.SegmentationNetwork",
    "nvflare.app_common.executors.learner_executor.LearnerExecutor",
    "nvflare.app_opt.pt.file_model_persistor.PTFileModelPersistor",
    "torch.optim.SGD",
)
"""What our jobs build beyond FLARE's built-in list, each class by its full name."""


ROLES = ("project_admin", "org_admin", "lead", "member")
"""FLARE's roles, in the order of the table in docs/deployment.md."""

RIGHTS: Mapping[str, tuple[str, str, str, str]] = {
    "submit_job": ("any", "none", "any", "none"),
    "clone_job": ("any", "none", "n:submitter", "none"),
    "manage_job": ("any", "o:submitter", "n:submitter", "none"),
    "download_job": ("any", "o:submitter", "n:submitter", "none"),
    "download_job_components": ("any", "o:submitter", "n:submitter", "none"),
    "list_job": ("any", "o:submitter", "n:submitter", "none"),
    "get_job_log": ("any", "o:submitter", "n:submitter", "none"),
    "view": ("any", "any", "any", "any"),
    "report_version": ("any", "any", "any", "any"),
    "operate": ("any", "o:site", "none", "none"),
    "shell_commands": ("none", "o:site", "none", "none"),
    "byoc": ("none", "none", "none", "none"),
    "server-predeployed-flwr": ("none", "none", "none", "none"),
}
"""A right of FLARE's to who has it, in the order of `ROLES`.

Nobody may bring code. The shell commands (`cat`, `ls`, ...) read a site's workspace, so that they are
for the site's own organisation only. A right that is not named here nobody has: FLARE's `any` for a
whole role would take in `byoc`.
"""


def class_allow_list() -> list[str]:
    """FLARE's built-in list and our classes, nothing broader."""
    return [*DEFAULT_CLASS_ALLOW_LIST, *OUR_CLASSES]


def authorization() -> dict[str, Any]:
    """`local/authorization.json` of a kit: what each role may do at a site."""
    permissions = {
        role: {right: granted[place] for right, granted in RIGHTS.items()} for place, role in enumerate(ROLES)
    }
    return {"format_version": "1.0", "permissions": permissions}


def privacy() -> dict[str, Any]:
    """`local/privacy.json` of a kit: one scope, with room for the site's own filters on all that it sends."""
    scope = {"name": "site", "properties": {}, "task_result_filters": [], "task_data_filters": []}
    return {"scopes": [scope], "default_scope": scope["name"]}


def simulator_resources() -> dict[str, Any]:
    """`local/resources.json` of a simulator workspace: nothing may be built but what is listed."""
    return {"format_version": 2, "class_allow_list": class_allow_list()}


def simulator_log_config() -> dict[str, Any]:
    """`local/log_config.json` of a simulator workspace: our lines and all warnings on the console.

    Everything else goes to the run's `log.txt`.
    """
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "message": {"format": "%(message)s"},
            "full": {
                "()": "nvflare.fuel.utils.log_utils.BaseFormatter",
                "fmt": "%(asctime)s - %(name)s - %(levelname)s - %(fl_ctx)s - %(message)s",
            },
        },
        "filters": {"ours": {"()": "fedmodal.flare.console.ConsoleFilter"}},
        "handlers": {
            "console": {
                "class": "logging.StreamHandler",
                "formatter": "message",
                "filters": ["ours"],
                "stream": "ext://sys.stdout",
            },
            "file": {
                "class": "logging.handlers.RotatingFileHandler",
                "formatter": "full",
                "filename": "log.txt",
                "maxBytes": 20971520,
                "backupCount": 10,
            },
        },
        "root": {"level": "INFO", "handlers": ["console", "file"]},
    }


def simulator_files() -> dict[str, str]:
    """Name to text of the files in a simulator workspace's `local` folder."""
    contents = {"resources.json": simulator_resources(), "log_config.json": simulator_log_config()}
    return {name: json.dumps(content, indent=2) + "\n" for name, content in contents.items()}


def install_simulator_policy(workspace: Path) -> None:
    """Put the policy and the log configuration into a simulator workspace."""
    local = workspace / "local"
    local.mkdir(parents=True, exist_ok=True)
    for name, text in simulator_files().items():
        (local / name).write_text(text, encoding="utf-8")
