"""Checks of the site's data, and one real step of training on them."""

import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from fedmodal.data.check import check_dataset
from fedmodal.data.dataset import Dataset, read_dataset
from fedmodal.data.site import SITE_FILE, cache_of, configured_folder, no_data, read_site_file
from fedmodal.data.store import open_store
from fedmodal.errors import UserError
from fedmodal.flare.jobs import JOBS
from fedmodal.flare.preflight.finding import Finding, Kit, failed, passed, warned
from fedmodal.training.session import Session
from fedmodal.training.state import TrainingState


def data(kit: Kit) -> Iterator[Finding]:
    """The data set by the rules of `fedmodal check`, then a step of training on it.

    What is printed may be sent to the project's admins, so that it names no file and no patient.
    """
    if kit.role != "site":
        return
    site_file = read_site_file(kit.local)
    folder = configured_folder(kit.name, site_file)
    if folder is None:
        if site_file.phantoms:
            yield warned(
                "data", "synthetic patients", f'set "data" in local/{SITE_FILE} to train on real ones'
            )
        else:
            yield failed("data", no_data(kit.name), f"cp local/{SITE_FILE}.sample local/{SITE_FILE}; edit it")
        return
    dataset = read_dataset(folder)
    problems = check_dataset(dataset).all_problems
    cases = f"{len(dataset.cases)} {dataset.modality} cases for task {dataset.task}"
    if problems:
        kinds = sorted({_kind(problem) for problem in problems})
        message = f"{cases}, {len(problems)} problems: {'; '.join(kinds)}"
        yield failed("data", message, f"fedmodal check {folder}  # names the files")
        return
    yield passed("data", f"{cases}, no problems")
    yield _step(dataset, cache_of(site_file))


def _kind(problem: str) -> str:
    """A problem without the file that it begins with, and without the remedy."""
    _, _, rest = problem.partition(": ")
    return (rest or "the same image twice").partition(";")[0]


def _step(dataset: Dataset, cache: Path) -> Finding:
    """One step of the task's GIN job on the site's own slices."""
    config = JOBS[f"{dataset.task}_gin"].training.model_copy(update={"steps_per_round": 1})
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    store = open_store(dataset, cache)
    with tempfile.TemporaryDirectory() as name:
        session = Session(config, store.cases, TrainingState(Path(name)), name="preflight", device=device)
        started = time.monotonic()
        loss = session.train(0, 1).loss
    seconds = time.monotonic() - started
    if not math.isfinite(loss):
        raise UserError(f"the loss of a first step is {loss}")
    return passed("training step", f"loss {loss:.2f} in {seconds:.1f} s on the {device.type.upper()}")
