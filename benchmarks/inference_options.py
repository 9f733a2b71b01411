"""What the options of `fedmodal predict` change, and what its map of uncertainty is worth.

    python benchmarks/inference_options.py MODEL DATASET [DATASET ...]

For each data set the mean 3D Dice of its test patients, or of those that stand in for them, plain and
with each option; and how well the uncertainty tells wrong voxels from right ones around the organs: the
area under the ROC curve over the voxels within three voxels of a true or predicted organ (0.5 is chance).
"""

import argparse
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.table import Table
from scipy import ndimage
from scipy.stats import rankdata

from fedmodal.data.dataset import Split, read_dataset
from fedmodal.data.preprocess import restore, restore_values
from fedmodal.data.store import StoredCase, default_cache, open_store
from fedmodal.inference.model import Model, load_model
from fedmodal.inference.predict import NOT_LOOKED_AT, keep_largest
from fedmodal.inference.views import Views, entropy_percent, views_of
from fedmodal.tasks import Task
from fedmodal.training.evaluator import predict_scores
from fedmodal.training.metrics import score_patient, summarize
from fedmodal.training.session import FALLBACKS

CPU = torch.device("cpu")
MARGIN = 3


def auc(doubt: npt.NDArray[np.uint8], wrong: npt.NDArray[np.bool_]) -> float:
    """Area under the ROC curve, by ranks (Mann and Whitney)."""
    ranks, many = rankdata(doubt), int(wrong.sum())
    rest = len(wrong) - many
    if not many or not rest:
        return float("nan")
    return float((ranks[wrong].sum() - many * (many + 1) / 2) / (many * rest))


def doubt_of(scores: torch.Tensor, case: StoredCase, label: npt.NDArray[np.uint8]) -> float:
    """How well the uncertainty finds a case's wrong voxels."""
    doubt = restore_values(entropy_percent(scores), case.geometry, NOT_LOOKED_AT)
    near = ndimage.binary_dilation((label > 0) | (case.reference > 0), iterations=MARGIN)
    near &= doubt != NOT_LOOKED_AT
    return auc(doubt[near], (label != case.reference)[near])


def measure(model: Model, folder: Path, table: Table) -> None:
    dataset = read_dataset(folder)
    store = open_store(dataset, default_cache())
    split = next(one for one in FALLBACKS[Split.TEST] if store.split(one))
    network = model.network(store.modality)
    took = {}
    for name, asked in (("plain", network), ("--tta", Views(network, views_of(model.task)))):
        predictions, areas = [], []
        started = time.perf_counter()
        scores = [predict_scores(asked, case.image, CPU) for case in store.split(split)]
        took[name] = time.perf_counter() - started
        for case, found in zip(store.split(split), scores, strict=True):
            predictions.append((case, restore(found, case.geometry)))
            areas.append(doubt_of(found, case, predictions[-1][1]))
        kept = [(case, keep_largest(label, model.task)) for case, label in predictions]
        table.add_row(
            f"{dataset.name} ({store.modality}, {len(scores)} {split})", name,
            dice(predictions, model.task), dice(kept, model.task),
            f"{np.nanmean(areas):.3f}", f"{took[name] / took['plain']:.1f}",
        )  # fmt: skip


def dice(predictions: list[tuple[StoredCase, npt.NDArray[np.uint8]]], task: Task) -> str:
    scores = [
        score_patient(case.patient, label, case.reference, task, case.annotated)
        for case, label in predictions
    ]
    return f"{summarize(scores, task).mean or 0:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("datasets", type=Path, nargs="+")
    given = parser.parse_args()
    model = load_model(given.model)
    headings = ("data", "option", "Dice", "with --largest", "AUC of uncertainty", "network's time")
    table = Table(*headings, title=str(given.model), title_justify="left")
    for folder in given.datasets:
        measure(model, folder, table)
    Console().print(table)


if __name__ == "__main__":
    main()
