"""Checks of the site's data, and one real step of training on them.

What is printed may be sent to the project's admins, so that no finding names a file or a patient.
"""

import math
import re
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

import torch

from fedmodal.data.check import Report, check_dataset
from fedmodal.data.dataset import Dataset, read_dataset
from fedmodal.data.site import SITE_FILE, cache_of, configured_folder, no_data, read_site_file
from fedmodal.data.store import open_store
from fedmodal.errors import UserError
from fedmodal.flare.jobs import JOBS
from fedmodal.flare.preflight.finding import Finding, Kit, failed, passed, warned
from fedmodal.training.session import Session
from fedmodal.training.state import TrainingState

DATA, STEP = "data", "training step"
NAMELESS = "[file]"


def data(kit: Kit) -> Iterator[Finding]:
    """The data set by the rules of `fedmodal check`, then a step of training on it."""
    if kit.role != "site":
        return
    site_file = read_site_file(kit.local)
    folder = configured_folder(kit.name, site_file)
    if folder is None:
        yield _none(kit, phantoms=site_file.phantoms)
        yield _skipped()
        return
    try:
        dataset = read_dataset(folder)
    except UserError as error:
        yield failed(DATA, _nameless_entries(str(error)), f"fedmodal check {quote(str(folder))}")
        yield _skipped()
        return
    yield from _guarded(dataset, cache_of(site_file))


def _none(kit: Kit, *, phantoms: bool) -> Finding:
    if phantoms:
        message = "none: the site would train on synthetic patients, as its site file allows"
        return warned(DATA, message, f'set "data" in local/{SITE_FILE} to train on real ones')
    return failed(DATA, no_data(kit.name), f"cp local/{SITE_FILE}.sample local/{SITE_FILE}; edit it")


def _skipped() -> Finding:
    return warned(STEP, "SKIP: there are no data that passed", "mend the data first")


def _guarded(dataset: Dataset, cache: Path) -> Iterator[Finding]:
    """Check and train; what breaks is a finding without the names in its text."""
    remedy = f"fedmodal check {quote(str(dataset.folder))}"
    check = DATA
    try:
        report = check_dataset(dataset)
        yield from _report(dataset, report, remedy)
        check = STEP
        yield _step(dataset, cache) if report.ok else _skipped()
    except Exception as error:  # the runner would print the names
        kind = "" if isinstance(error, UserError) else f"{type(error).__name__}: "
        yield failed(check, kind + nameless(str(error), dataset), remedy)


def _report(dataset: Dataset, report: Report, remedy: str) -> Iterator[Finding]:
    """A line for the whole, then one a kind of problem and one for all warnings."""
    synthetic = "synthetic " if dataset.synthetic else ""
    cases = f"{len(dataset.cases)} {synthetic}{dataset.modality} cases for task {dataset.task}"
    kinds = Counter(_kind(problem, dataset) for problem in report.all_problems)
    if kinds:
        yield failed(DATA, f"{cases}; problems: {kinds.total()}", f"{remedy}  # names the files")
    else:
        yield passed(DATA, f"{cases}, no problems")
    for kind, count in sorted(kinds.items()):
        yield failed(DATA, f"{count} x {kind}", remedy)
    if report.warnings:
        yield warned(DATA, "; ".join(report.warnings), "leave it so if that is how the data are")


def _kind(problem: str, dataset: Dataset) -> str:
    """A problem without the names in it, the file that it begins with, and the remedy."""
    return nameless(problem, dataset).removeprefix(f"{NAMELESS}: ").partition(";")[0]


def nameless(text: str, dataset: Dataset) -> str:
    """A text without the paths and names of the data set's files."""
    names = {str(dataset.folder / "dataset.json")}
    for case in dataset.cases:
        for path in (case.image, case.label):
            names |= {
                str(dataset.folder / path),
                str((dataset.folder / path).resolve()),
                str(path),
                path.name,
            }
    for name in sorted(names, key=len, reverse=True):
        text = text.replace(name, NAMELESS)
    return text


def _nameless_entries(text: str) -> str:
    """The complaint about `dataset.json`; what it quotes of a case's entry is left out."""
    return re.sub(r"'.*'(?!\w)", NAMELESS, text) if "training" in text else text


def _step(dataset: Dataset, cache: Path) -> Finding:
    """One step of the task's GIN job on the site's own slices, whose cache the first job finds."""
    config = JOBS[f"{dataset.task}_gin"].training.model_copy(update={"steps_per_round": 1})
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    store = open_store(dataset, cache)
    with tempfile.TemporaryDirectory(prefix="fedmodal-preflight-") as name:
        session = Session(config, store.cases, TrainingState(Path(name)), name="preflight", device=device)
        started = time.monotonic()
        loss = session.train(0, 1).loss
    seconds = time.monotonic() - started
    if not math.isfinite(loss):
        return failed(STEP, f"the loss of a first step is {loss}", "send this to the project's admins")
    where = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"CPU, {torch.get_num_threads()} threads"
    )
    return passed(STEP, f"loss {loss:.2f}, {seconds:.1f} s a step, {where}")
