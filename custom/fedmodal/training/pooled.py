"""Training without a federation: one site alone, or several sites' data sets pooled."""

import copy
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from fedmodal.data.dataset import Split
from fedmodal.data.sampling import all_slices
from fedmodal.data.store import Store, StoredCase
from fedmodal.errors import UserError
from fedmodal.networks import weights_hash
from fedmodal.normlocal import NORMLOCAL, recompute_statistics
from fedmodal.training.config import KEY_METRIC, TrainingConfig
from fedmodal.training.evaluator import evaluate
from fedmodal.training.measures import RESULTS_FILE
from fedmodal.training.memory import keep_freed_memory
from fedmodal.training.metrics import Summary, summarize
from fedmodal.training.session import FALLBACKS, Session
from fedmodal.training.state import TrainingState

MODEL_FILE = "model.pt"


@dataclass(frozen=True)
class TestResult:
    """A trained model on one data set: its name, modality, the split used and the summary."""

    name: str
    modality: str
    split: Split
    summary: Summary


@dataclass(frozen=True)
class Progress:
    """A finished round: mean loss and, where there are validation patients, the key metric."""

    number: int
    loss: float
    val_dice: float | None


def train_pooled(
    config: TrainingConfig,
    stores: Sequence[Store],
    rounds: int,
    out: Path,
    on_step: Callable[[int, float], None] | None = None,
    on_round: Callable[[Progress], None] | None = None,
) -> Session:
    """Train on the pooled training patients for `rounds` rounds and leave the chosen weights in place.

    With validation patients the best round's weights are chosen, else the last ones. The chosen
    model is written to `out/model.pt` with its task, network, seed and hash.

    Raises:
        UserError: the data sets are for another task than the configuration's.
    """
    for store in stores:
        if store.task.name != config.task:
            raise UserError(f"data set '{store.name}' is for task '{store.task.name}', not '{config.task}'")
    keep_freed_memory()
    out.mkdir(parents=True, exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    cases = [case for store in stores for case in store.cases]
    session = Session(config, cases, TrainingState(out / "state"), name="pooled", device=device)
    validates = any(case.split == Split.VALIDATION for case in cases)
    for number in range(rounds):
        result = session.train(number, rounds, on_step=on_step)
        val_dice = _offer(session, number) if validates else None
        if on_round is not None:
            on_round(Progress(number, result.loss, val_dice))
    if validates and (best := session.state.best()):
        session.network.load_state_dict(best.weights)
    _save(session, out, synthetic=any(store.synthetic for store in stores))
    return session


def _offer(session: Session, number: int) -> float | None:
    mean = summarize(session.evaluate(Split.VALIDATION).patients, session.task).mean
    if mean is not None:
        session.state.offer_best(session.weights(), mean, number)
    return mean


def score_data_sets(session: Session, stores: Sequence[Store]) -> list[TestResult]:
    """Score the session's weights on each data set's test patients, or on what stands in for them.

    A network of arm `normlocal` gets the statistics of the data set's own images first, where it
    was trained on no data of their modality.
    """
    seen = {case.modality for case in session.cases}
    results = []
    for store in stores:
        network = session.network
        if session.config.arm == NORMLOCAL and store.modality not in seen:
            network = with_own_statistics(network, store.cases, session.device)
        split = next((choice for choice in FALLBACKS[Split.TEST] if store.split(choice)), Split.TEST)
        scores = evaluate(network, store.split(split), session.task, session.device, thorough=True)
        results.append(TestResult(store.name, store.modality.value, split, summarize(scores, session.task)))
    return results


def with_own_statistics(
    network: torch.nn.Module, cases: Sequence[StoredCase], device: torch.device
) -> torch.nn.Module:
    """A copy of a network with batch norm whose statistics are those of these images; no label is read."""
    adapted = copy.deepcopy(network)
    recompute_statistics(adapted, (images.to(device) for images in all_slices(cases)))
    return adapted


def write_results(results: Sequence[TestResult], config: TrainingConfig, out: Path) -> Path:
    """Write the scores and the settings that led to them."""
    content = {
        "training": config.model_dump(mode="json"),
        "results": [
            {
                "data": result.name,
                "modality": result.modality,
                "split": result.split.value,
                "patients": result.summary.patients,
                "mean": result.summary.mean,
                "organs": {name: asdict(organ) for name, organ in result.summary.organs.items()},
            }
            for result in results
        ],
    }
    path = out / RESULTS_FILE
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    return path


def _save(session: Session, out: Path, *, synthetic: bool) -> None:
    weights = session.weights()
    about = {
        "task": session.task.name,
        "labels": session.task.labels,
        "network": session.config.network.model_dump(mode="json"),
        "arm": session.config.arm,
        "phantoms": synthetic,
        "modalities": sorted({case.modality.value for case in session.cases}),
        "seed": session.config.seed,
        "key_metric": KEY_METRIC,
        "hash": weights_hash(weights),
    }
    partial = out / (MODEL_FILE + ".partial")
    torch.save({"model": weights, "fedmodal": about}, partial)
    partial.replace(out / MODEL_FILE)
