"""The server's side of the story: who took part, what it reached, and the table at the end."""

import datetime
import json
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from nvflare.apis.dxo import MetaKey, from_shareable
from nvflare.apis.event_type import EventType
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.job_def import JobMetaKey
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType
from nvflare.widgets.widget import Widget

from fedmodal.errors import UserError
from fedmodal.flare.payload import REASON, SITE_REPORT
from fedmodal.inference.model import SERVER_CONFIG, SERVER_FOLDER, global_models, hash_of_model
from fedmodal.report.progress import describe_contribution, describe_round
from fedmodal.report.record import (
    RECORD_FILE,
    ContributionRecord,
    EvaluationRecord,
    RoundRecord,
    RunRecord,
    SiteRecord,
    read_record,
    write_record,
)
from fedmodal.report.table import render_text
from fedmodal.training.config import KEY_METRIC

PACKAGES = ("fedmodal", "nvflare", "monai", "torch", "numpy")


class RunSummary(Widget):  # type: ignore[misc]
    """Keeps `fedmodal_run.json` in the server's run folder and prints progress and the final table.

    The file is written after every round, and read again when a restarted server takes the run up.

    Args:
        task: the task's name.
        arm: the intensity augmentation's name.
    """

    def __init__(self, task: str, arm: str) -> None:
        super().__init__()
        self.task = task
        self.arm = arm
        self.record: RunRecord
        self.folder: Path
        self._round_started = 0.0
        self._handlers = {
            EventType.START_RUN: self._start,
            AppEventType.ROUND_STARTED: self._start_round,
            EventType.BEFORE_PROCESS_SUBMISSION: self._note_refusal,
            AppEventType.AFTER_CONTRIBUTION_ACCEPT: self._note_contribution,
            AppEventType.GLOBAL_BEST_MODEL_AVAILABLE: self._note_best,
            AppEventType.ROUND_DONE: self._finish_round,
            AppEventType.VALIDATION_RESULT_RECEIVED: self._note_evaluation,
            EventType.FATAL_SYSTEM_ERROR: self._note_problem,
            EventType.END_RUN: self._finish,
        }

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Pass the events of a run to what notes them."""
        if handler := self._handlers.get(event_type):
            handler(fl_ctx)

    def _start(self, fl_ctx: FLContext) -> None:
        self.folder = Path(fl_ctx.get_engine().get_workspace().get_run_dir(fl_ctx.get_job_id()))
        if (self.folder / RECORD_FILE).exists():
            self.record = read_record(self.folder / RECORD_FILE)
            return
        meta = fl_ctx.get_prop(FLContextKey.JOB_META) or {}
        self.record = RunRecord(
            job=meta.get(JobMetaKey.JOB_NAME.value) or self.task + "_" + self.arm,
            task=self.task,
            arm=self.arm,
            num_rounds=0,
            started=_now(),
            versions={package: version(package) for package in PACKAGES},
            submitter=meta.get(JobMetaKey.SUBMITTER_NAME.value) or "",
            quorum=self._quorum(),
        )

    def _quorum(self) -> int:
        """The sites that a round waits for, by the job's configuration; 0 if it does not say."""
        path = self.folder / SERVER_FOLDER / SERVER_CONFIG
        if not path.is_file():  # FLARE reads other formats too
            return 0
        config = json.loads(path.read_text(encoding="utf-8"))
        found = (flow.get("args", {}).get("min_clients") for flow in config.get("workflows", ()))
        return next((number for number in found if number is not None), 0)

    def _start_round(self, fl_ctx: FLContext) -> None:
        self._round_started = time.monotonic()
        self.record.num_rounds = fl_ctx.get_prop(AppConstants.NUM_ROUNDS) or self.record.num_rounds
        number = fl_ctx.get_prop(AppConstants.CURRENT_ROUND)
        self.record.rounds[number] = RoundRecord()

    def _note_refusal(self, fl_ctx: FLContext) -> None:
        result = fl_ctx.get_prop(FLContextKey.TASK_RESULT)
        reason = result.get_header(REASON) if result is not None else None
        if reason and reason not in self.record.refusals:
            self.record.refusals.append(reason)
            self.logger.error(reason)

    def _note_contribution(self, fl_ctx: FLContext) -> None:
        number = fl_ctx.get_prop(AppConstants.CURRENT_ROUND)
        site = fl_ctx.get_peer_context().get_identity_name()
        dxo = from_shareable(fl_ctx.get_prop(AppConstants.TRAINING_RESULT))
        report: dict[str, Any] = dxo.get_meta_prop(SITE_REPORT) or {}
        metrics = dxo.get_meta_prop(MetaKey.INITIAL_METRICS) or {}
        contribution = ContributionRecord(
            accepted=bool(fl_ctx.get_prop(AppConstants.AGGREGATION_ACCEPTED)),
            slices=dxo.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND),
            loss=report["loss"],
            seconds=report["seconds"],
            global_dice=metrics.get(KEY_METRIC),
            local_dice=report["local_dice"],
            startup=report["startup"],
        )
        self.record.sites[site] = SiteRecord.model_validate(report["site"])
        self.record.rounds[number].sites[site] = contribution
        self.logger.info(describe_contribution(self.record, number, site))

    def _note_best(self, fl_ctx: FLContext) -> None:
        self.record.best_round = fl_ctx.get_prop(AppConstants.CURRENT_ROUND)
        self.record.best_dice = float(fl_ctx.get_prop(AppConstants.VALIDATION_RESULT))

    def _finish_round(self, fl_ctx: FLContext) -> None:
        number = fl_ctx.get_prop(AppConstants.CURRENT_ROUND)
        self.record.rounds[number].seconds = time.monotonic() - self._round_started
        write_record(self.record, self.folder)
        self.logger.info(describe_round(self.record, number))

    def _note_evaluation(self, fl_ctx: FLContext) -> None:
        result = fl_ctx.get_prop(AppConstants.VALIDATION_RESULT)
        if result is None or result.get_header(REASON):
            return
        site = fl_ctx.get_prop(AppConstants.DATA_CLIENT)
        model = fl_ctx.get_prop(AppConstants.MODEL_OWNER)
        evaluation = EvaluationRecord.model_validate(from_shareable(result).data)
        self.record.evaluation.setdefault(site, {})[model] = evaluation

    def _note_problem(self, fl_ctx: FLContext) -> None:
        self.record.problem = str(fl_ctx.get_prop(FLContextKey.EVENT_DATA) or "the run was ended early")

    def _finish(self, fl_ctx: FLContext) -> None:  # noqa: ARG002 - the shape of a handler
        self.record.finished = _now()
        for file in global_models(self.folder):
            try:
                self.record.models[file.name] = hash_of_model(file)
            except UserError as error:  # the table must not be lost with a model
                self.logger.error(str(error))
        path = write_record(self.record, self.folder)
        self.logger.info(render_text(self.record, path))


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
