"""The heavy part of a cell: train if it is not federated, then score the result on every test set."""

import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

import fedmodal.flare.lean_monai  # noqa: F401 - before anything else that imports MONAI
from fedmodal.data.dataset import Split, read_dataset
from fedmodal.data.store import Store, StoredCase, default_cache, open_store
from fedmodal.errors import UserError
from fedmodal.networks import SegmentationNetwork
from fedmodal.normlocal import (
    NORM_SETS_FILE,
    NORMLOCAL,
    NormSet,
    choose_set,
    read_norm_sets,
    select_domain,
    split_domains,
)
from fedmodal.report.record import RECORD_FILE, find_record, read_record
from fedmodal.study.cell import ROWS_FILE, RUN_FOLDER
from fedmodal.study.data import only_tests
from fedmodal.study.order import Order, read_order
from fedmodal.study.results import Row, rows_of, write_rows
from fedmodal.training.evaluator import evaluate, predict_scores
from fedmodal.training.pooled import MODEL_FILE, train_pooled, with_own_statistics

EXAMPLE_FILE = "example.npz"
_LAST_GLOBAL = Path("server/simulate_job/app_server/FL_global_model.pt")


def load_scorable(folder: Path, store: Store) -> torch.nn.Module:
    """The network that a finished training in a cell's folder has for a test data set.

    Of arm `normlocal` that is the network with the norm layers of the data set's modality; where
    none were trained, with the first set and the statistics of the data set's own images.
    """
    order = read_order(folder)
    training = order.training
    network = SegmentationNetwork(training.task, training.seed, training.network.model_dump())
    saved = torch.load(folder / MODEL_FILE, map_location="cpu", weights_only=True)
    weights = {name: torch.as_tensor(values) for name, values in saved["model"].items()}
    if training.arm == NORMLOCAL:
        return _with_norm_layers(network, weights, read_norm_sets(folder), order.trained_on.split("+"), store)
    network.load_state_dict(weights)
    network.eval()
    return network


def _with_norm_layers(
    network: torch.nn.Module,
    weights: dict[str, torch.Tensor],
    sets: dict[str, NormSet],
    trained: list[str],
    store: Store,
) -> torch.nn.Module:
    """As `load_scorable`: federated with a set a site, pooled with one a modality, alone with one."""
    if sets:
        weights |= choose_set(sets, store.name, store.modality.value).weights
    elif len(trained) > 1:
        split_domains(network, trained)
        select_domain(network, store.modality.value)
    network.load_state_dict(weights)
    network.eval()
    if store.modality.value in trained:
        return network
    return with_own_statistics(network, store.cases, torch.device("cpu"))


def work(folder: Path, started: float) -> None:
    """Train, score, and leave `rows.json`, written last and as a whole.

    Args:
        folder: the cell's folder.
        started: when the cell's process began, seconds since 1970.

    Raises:
        UserError: the data are not fit, or a federated run went without a site.
    """
    order = read_order(folder)
    if order.federated:
        _keep_federated(order, folder)
    else:
        _train(order, folder)
    rows = _score(order, folder)
    shutil.rmtree(folder / RUN_FOLDER, ignore_errors=True)
    write_rows(rows, time.time() - started, folder / ROWS_FILE)


def _train(order: Order, folder: Path) -> None:
    """Train without a federation, for as many rounds; without validation, so that the last weights stay."""
    stores = [
        open_store(read_dataset(folder.parents[1] / site), default_cache()) for site in order.sites.values()
    ]
    trained = [replace(store, cases=store.split(Split.TRAIN)) for store in stores]
    train_pooled(order.training, trained, order.rounds, folder / RUN_FOLDER)
    shutil.copyfile(folder / RUN_FOLDER / MODEL_FILE, folder / MODEL_FILE)


def _keep_federated(order: Order, folder: Path) -> None:
    """Take the last global model, any norm sets and the run's record out of the simulator's workspace."""
    run = folder / RUN_FOLDER
    path = find_record(run)
    for number, done in read_record(path).rounds.items():
        missing = [site for site in order.sites if site not in done.sites or not done.sites[site].accepted]
        if missing:
            raise UserError(
                f"{run}: round {number + 1} went without {', '.join(missing)}; run the study again"
            )
    if (path.parent / NORM_SETS_FILE).is_file():
        shutil.copyfile(path.parent / NORM_SETS_FILE, folder / NORM_SETS_FILE)
    shutil.copyfile(path, folder / RECORD_FILE)
    shutil.copyfile(run / _LAST_GLOBAL, folder / MODEL_FILE)


def _score(order: Order, folder: Path) -> list[Row]:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    rows: list[Row] = []
    examples: dict[str, npt.NDArray[np.uint8]] = {}
    for test in order.tests:
        dataset = only_tests(read_dataset(folder.parents[1] / test))
        store = open_store(dataset, default_cache())
        network = load_scorable(folder, store).to(device)
        rows += rows_of(order, dataset, evaluate(network, store.cases, store.task, device))
        if f"image {store.modality}" not in examples:
            examples |= _example(network, store.cases[0], device)
    np.savez_compressed(folder / EXAMPLE_FILE, allow_pickle=False, **examples)
    return rows


def _example(
    network: torch.nn.Module, case: StoredCase, device: torch.device
) -> dict[str, npt.NDArray[np.uint8]]:
    """The picture of a cell: the slice of a patient with the most organs, its label and the prediction."""
    position = slice_with_most(case.voxels)
    image = case.image[position]
    scores = predict_scores(network, image[None], device)[:, 0]
    return {
        f"image {case.modality}": np.rint(image.astype(np.float32) * 255).astype(np.uint8),
        f"truth {case.modality}": np.array(case.label[position]),
        f"prediction {case.modality}": scores.argmax(0).numpy().astype(np.uint8),
    }


def slice_with_most(voxels: npt.NDArray[np.int64]) -> int:
    """The slice of (S, classes) voxel counts with the most organs; of several, whose rarest is largest."""
    organs = voxels[:, 1:]
    present = organs > 0
    rarest = np.where(present, organs, organs.max() + 1).min(1)
    return int(np.lexsort((rarest, present.sum(1)))[-1])


def main() -> None:
    """`python -m fedmodal.study.work FOLDER STARTED`."""
    try:
        work(Path(sys.argv[1]), float(sys.argv[2]))
    except UserError as error:
        sys.exit(f"fedmodal: {error}")


if __name__ == "__main__":
    main()
