"""The site's side: decode a message, let the training session work, encode the answer."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from nvflare.apis.dxo import DXO, DataKind, MetaKey, from_shareable
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable, make_reply
from nvflare.apis.signal import Signal
from nvflare.app_common.abstract.learner_spec import Learner
from nvflare.app_common.app_constant import AppConstants, ValidateType

import fedmodal.flare.lean_monai  # noqa: F401 - before anything else that imports MONAI
from fedmodal.data.dataset import Split
from fedmodal.errors import UserError
from fedmodal.flare.console import in_simulator
from fedmodal.flare.fedprox import ProximalLoss
from fedmodal.flare.payload import NORM_SET, REASON, SITE_REPORT, check_weights
from fedmodal.flare.site import open_site, threads_for_this_process
from fedmodal.report.record import EvaluationRecord, SiteRecord
from fedmodal.training.config import KEY_METRIC, training_config
from fedmodal.training.evaluator import Stopped
from fedmodal.training.memory import keep_freed_memory
from fedmodal.training.metrics import summarize
from fedmodal.training.session import Scores, Session, unchanged
from fedmodal.training.state import TrainingState
from fedmodal.training.trainer import LossOf

SERVER_MODEL = "SRV_"
"""How FLARE begins the names of the server's models in a cross-site evaluation."""

PRIVATE_REASON = "could not use its data or disk; its own log.txt says why"
"""What the server learns of a problem whose text may hold paths, and so the names of patients."""

CURVE_EVERY = 10
"""Steps between two points of the loss curve."""


class SegmentationLearner(Learner):  # type: ignore[misc]
    """Trains and evaluates at one site; see FLARE's `Learner` for when each method is called.

    Args:
        training: the settings of `TrainingConfig`, the same at every site.
        proximal_mu: weight of FedProx's term; 0 leaves it out.
        curves: id of the component that streams curves to the server.
    """

    def __init__(self, training: dict[str, object], proximal_mu: float = 0.0, curves: str = "curves") -> None:
        super().__init__()
        self.training = training
        self.proximal_mu = proximal_mu
        self.proximal: ProximalLoss | None = None
        self.curves = curves
        self.problem: str | None = None
        self.session: Session
        self.report: SiteRecord
        self.writer: Any = None
        self.startup: float | None = None

    def initialize(self, parts: dict[str, Any], fl_ctx: FLContext) -> None:
        """Open the site's data and prepare the network; a problem is kept and answered to each task."""
        self.site = fl_ctx.get_identity_name()
        self.writer = parts.get(self.curves)
        try:
            self._open(fl_ctx)
        except (UserError, OSError) as error:
            self.problem = f"{self.site}: {error}"
            self.log_error(fl_ctx, self.problem, fire_event=False)

    def _open(self, fl_ctx: FLContext) -> None:
        threads = threads_for_this_process()
        torch.set_num_threads(threads)
        keep_freed_memory()
        config = training_config(self.training)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        store, self.report = open_site(fl_ctx, config.task, self.logger)
        run_folder = fl_ctx.get_engine().get_workspace().get_run_dir(fl_ctx.get_job_id())
        state = TrainingState(Path(run_folder) / "fedmodal")
        wrap = self._hold_near if self.proximal_mu else unchanged
        self.session = Session(config, store.cases, state, name=self.site, device=device, wrap_loss=wrap)
        where = f"{threads} threads" if device.type == "cpu" else torch.cuda.get_device_name(device)
        self.logger.debug(f"{self.site} ready on {where}")

    def _hold_near(self, loss_of: LossOf) -> LossOf:
        self.proximal = ProximalLoss(loss_of, self.proximal_mu)
        return self.proximal

    def train(self, data: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """Train one round from the global weights; answers with the difference and its weight."""
        number = data.get_header(AppConstants.CURRENT_ROUND)
        total = data.get_header(AppConstants.NUM_ROUNDS)
        started = time.monotonic()
        first = self.startup is None
        try:
            received = self._load(data, number)
            if self.proximal:
                self.proximal.start_round(self.session.network)
            if first:
                self.startup = time.time() - psutil.Process().create_time()
            result = self.session.train(number, total, lambda: abort_signal.triggered, self._curve)
            weights = self.session.weights()
            local = self.session.evaluate(Split.VALIDATION, lambda: abort_signal.triggered)
        except Stopped:
            return make_reply(ReturnCode.TASK_ABORTED)
        except (UserError, OSError, FloatingPointError) as error:
            return self._refuse(error, fl_ctx)
        summary = summarize(local.patients, self.session.task)
        if summary.mean is not None:
            self.session.state.offer_best(weights, summary.mean, number)
        difference = {name: (weights[name] - received[name]).numpy() for name in received}
        report = {
            "site": self.report.model_dump(mode="json"),
            "loss": result.loss,
            "seconds": time.monotonic() - started,
            "local_dice": summary.mean,
            "startup": self.startup if first else None,
        }
        self._scalars({"loss": result.loss, "val_dice_local": summary.mean}, number)
        meta = {MetaKey.NUM_STEPS_CURRENT_ROUND: result.slices, SITE_REPORT: report}
        return DXO(DataKind.WEIGHT_DIFF, difference, meta).to_shareable()

    def validate(self, data: Shareable, fl_ctx: FLContext, abort_signal: Signal) -> Shareable:
        """Score received weights: on validation patients before a round, on test patients at the end."""
        before_round = data.get_header(AppConstants.VALIDATE_TYPE) == ValidateType.BEFORE_TRAIN_VALIDATE
        number = data.get_header(AppConstants.CURRENT_ROUND)
        if before_round and number == 0:
            return make_reply(ReturnCode.OK)  # untrained weights: their score would select nothing
        try:
            self._load(data, number if before_round else None)
            split = Split.VALIDATION if before_round else Split.TEST
            scores = self.session.evaluate(split, lambda: abort_signal.triggered)
        except Stopped:
            return make_reply(ReturnCode.TASK_ABORTED)
        except (UserError, OSError) as error:
            return self._refuse(error, fl_ctx)
        record = self._record(scores)
        if not before_round:
            return DXO(DataKind.METRICS, record.model_dump(mode="json")).to_shareable()
        self._scalars({"val_dice_global": record.mean}, number)
        metrics = {} if record.mean is None else {KEY_METRIC: record.mean}
        return DXO(DataKind.METRICS, {MetaKey.INITIAL_METRICS: metrics}).to_shareable()

    def get_model_for_validation(self, model_name: str, fl_ctx: FLContext) -> Shareable:
        """Answer with the site's own best model, or the last one if none could be scored."""
        try:
            if self.problem:
                raise UserError(self.problem)
            best = self.session.state.best()
            if best is None:
                raise UserError(f"{self.site}: no model '{model_name}': the site has not finished a round")
        except (UserError, OSError) as error:
            return self._refuse(error, fl_ctx)
        reply = DXO(DataKind.WEIGHTS, _arrays(best.weights), {SITE_REPORT: {"round": best.round_number}})
        if self.session.local_names:
            norms = {"modality": self.report.modality, "weights": _arrays(self.session.local_weights())}
            reply.set_meta_prop(NORM_SET, norms)
        return reply.to_shareable()

    def _load(self, data: Shareable, number: int | None) -> dict[str, torch.Tensor]:
        """Check the received weights and put them into the network; returns those that the site shares.

        Weights that stay at a site are passed over, but for another site's own model, which is
        scored as it is.
        """
        if self.problem:
            raise UserError(self.problem)
        weights = from_shareable(data).data
        present = self.session.network.state_dict()
        owner = data.get_header(AppConstants.MODEL_OWNER)  # in the evaluation across sites only
        shapes = {name: tuple(tensor.shape) for name, tensor in present.items()}
        check_weights(weights, shapes, owner or "the server")
        tensors = {name: torch.as_tensor(weights[name]).to(tensor.dtype) for name, tensor in present.items()}
        if owner and not owner.startswith(SERVER_MODEL):
            self.session.network.load_state_dict(tensors)
        else:
            self.session.load_global(tensors, number)
        return {name: tensors[name] for name in self.session.shared_names()}

    def _record(self, scores: Scores) -> EvaluationRecord:
        summary = summarize(scores.patients, self.session.task)
        organs = {name: asdict(organ) for name, organ in summary.organs.items()}
        return EvaluationRecord.model_validate(
            {
                "split": scores.split.value,
                "modality": self.report.modality,
                "patients": summary.patients,
                "mean": summary.mean,
                "organs": organs,
            }
        )

    def _refuse(self, error: Exception, fl_ctx: FLContext) -> Shareable:
        """An answer that carries its reason to the server, but for what may name the site's files."""
        reason = str(error) if str(error).startswith(self.site) else f"{self.site}: {error}"
        if self.problem is None:
            self.log_error(fl_ctx, reason, fire_event=False)
        reply = make_reply(ReturnCode.EXECUTION_EXCEPTION)
        names_files = self.problem is not None or isinstance(error, OSError)
        private = names_files and not in_simulator(fl_ctx)
        reply.set_header(REASON, f"{self.site}: {PRIVATE_REASON}" if private else reason)
        return reply

    def _curve(self, step: int, loss: float) -> None:
        if step % CURVE_EVERY == 0:
            self._scalars({"step_loss": loss}, step)

    def _scalars(self, values: dict[str, float | None], step: int) -> None:
        if self.writer is not None:
            for tag, value in values.items():
                if value is not None:
                    self.writer.add_scalar(tag, value, step)


def _arrays(weights: dict[str, torch.Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in weights.items()}
