"""A study from its preset to its tables: prepare, run what is not finished, report."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import Progress

from fedmodal.data.dataset import Dataset, Split
from fedmodal.data.phantom import PHANTOM_VERSION
from fedmodal.data.store import default_cache
from fedmodal.errors import UserError
from fedmodal.study.cost import estimate_cost
from fedmodal.study.data import Sets, link_sites, phantom_sets, read_sets, refuse_shared_images, sample_sets
from fedmodal.study.figures import write_figures
from fedmodal.study.job import write_job
from fedmodal.study.order import make_order, write_order
from fedmodal.study.plan import EVERYTHING, REGIMES, Cell, Choice, Preset, plan_cells
from fedmodal.study.results import collect, write_results
from fedmodal.study.runner import Job, default_parallel, run_jobs
from fedmodal.study.tables import compare, overview_table, write_tables
from fedmodal.study.watch import Watch
from fedmodal.tasks import get_task
from fedmodal.training.config import TrainingConfig

CELLS, DATA, SITES = "cells", "data", "sites"
STUDY_FILE = "study.json"


@dataclass(frozen=True)
class Study:
    """What to run and where.

    Attributes:
        preset: the study's size.
        out: its folder; a study is taken up again from it.
        choice: what to run of the preset.
        data: the user's data sets or sample images, where the preset brings none of its own.
        parallel: cells at the same time; None for as many as there are cores, two at most.
        agreed: whether the user has agreed to a costly study.
    """

    preset: Preset
    out: Path
    choice: Choice = EVERYTHING
    data: Path | None = None
    parallel: int | None = None
    agreed: bool = False


def run_study(study: Study, console: Console) -> list[Job]:
    """Run the cells that are not finished, then write results, tables and figures of all that are.

    Returns:
        The jobs that failed.

    Raises:
        UserError: a choice that does not exist, data that are missing or not fit, a folder of a
            study with other settings, or a costly study that the user has not agreed to.
    """
    cells = plan_cells(study.preset, study.choice)
    if (study.preset.phantoms is None) != (study.data is not None):
        raise UserError(_data_problem(study.preset))
    jobs = prepare(study, cells, console)
    waiting = [job for job in jobs if not job.finished]
    parallel = study.parallel or default_parallel()
    if study.preset.costly and waiting:
        _agree(study, waiting, parallel, console)
    _run(jobs, waiting, parallel, console)
    report(study.preset.name, study.out, console)
    failed = [job for job in waiting if not job.finished]
    for job in failed:
        console.print(f"[bold]FAILED[/bold] {job.folder.name}: see {job.log}", soft_wrap=True)
    return failed


def _data_problem(preset: Preset) -> str:
    if preset.phantoms is not None:
        return f"study '{preset.name}' makes its own phantoms; leave out --data"
    what = "the sample pairs" if preset.pairs else "one data set folder a site"
    return f"study '{preset.name}' needs images: name the folder that holds {what} with --data"


def prepare(study: Study, cells: Sequence[Cell], console: Console) -> list[Job]:
    """Make or find the data, and write a folder a cell; nothing is trained.

    Raises:
        UserError: data that are missing or not fit, or a folder of another study.
    """
    _claim_folder(study)
    jobs = []
    for task, regime in dict.fromkeys((cell.task, cell.regime) for cell in cells):
        sets = _open_sets(study, task, cells, console)
        root = study.out / SITES / task / regime
        sites = link_sites(sets, regime, get_task(task), root)
        tests = _tests(study.preset, sets, regime)
        refuse_shared_images(sites, tests, default_cache())
        paths = {site.folder.name: site.folder.relative_to(study.out) for site in sites}
        for cell in cells:
            if (cell.task, cell.regime) == (task, regime):
                order = make_order(
                    study.preset, cell, paths, tuple(_below(one.folder, study.out) for one in tests)
                )
                jobs.append(Job(order, study.out / CELLS / cell.name))
    for job in jobs:
        if not job.finished:
            write_order(job.order, job.folder)
            if job.order.federated:
                write_job(job.order, job.folder)
    return sorted(jobs, key=lambda job: [cell.name for cell in cells].index(job.folder.name))


def _claim_folder(study: Study) -> None:
    """Write what the study is into its folder, or see that the folder is of the same study.

    Raises:
        UserError: it holds another study or other files.
    """
    content = {
        "preset": vars(study.preset),
        "defaults": TrainingConfig().model_dump(mode="json"),
        "data": str(study.data.resolve()) if study.data else f"phantoms, version {PHANTOM_VERSION}",
    }
    text = json.dumps(content, default=dict, indent=2) + "\n"
    path = study.out / STUDY_FILE
    study.out.mkdir(parents=True, exist_ok=True)
    before = path.read_text(encoding="utf-8") if path.is_file() else ""
    if before == text:
        return
    if before and (study.out / CELLS).exists():
        what = _first_difference(json.loads(before), json.loads(text))
        raise UserError(
            f"{study.out}: holds another study, with another {what}; name another folder with --out"
        )
    if not before and any(study.out.iterdir()):
        raise UserError(f"{study.out}: holds other files and no {STUDY_FILE}; name another folder with --out")
    shutil.rmtree(study.out / DATA, ignore_errors=True)  # of a study that never came to its first cell
    path.write_text(text, encoding="utf-8")


def _first_difference(before: dict[str, Any], now: dict[str, Any]) -> str:
    """Where two contents first differ, as in "preset.steps (8, now 360)"."""
    for name, value in now.items():
        old = before.get(name)
        if isinstance(old, dict) and isinstance(value, dict) and old != value:
            return f"{name}.{_first_difference(old, value)}"
        if old != value:
            return f"{name} ({old}, now {value})"
    return "version of fedmodal"


def _open_sets(study: Study, task: str, cells: Sequence[Cell], console: Console) -> Sets:
    """The task's data sets; phantoms and sample sets are made if they are not there yet."""
    counts = study.preset.phantoms
    if study.data is not None and not study.preset.pairs:
        return read_sets(study.data, get_task(task))
    folder = study.out / DATA / task
    if counts is None and study.data is not None:
        sample_sets(study.data, folder)
    elif counts is not None:
        regimes = [cell.regime for cell in cells if cell.task == task]
        with Progress(console=console, transient=True) as bar:
            line = bar.add_task(f"phantoms, {task}")
            phantom_sets(
                get_task(task), counts, regimes, folder,
                lambda done, total: bar.update(line, completed=done, total=total),
            )  # fmt: skip
    return read_sets(folder, get_task(task))


def _tests(preset: Preset, sets: Sets, regime: str) -> list[Dataset]:
    """The data sets whose test patients the regime is scored on."""
    trained = REGIMES[regime].modalities if preset.unseen_only else ()
    found = [dataset for modality, tests in sets.test.items() if modality not in trained for dataset in tests]
    if not found:
        raise UserError(f"regime '{regime}': no test patients; give a data set with split '{Split.TEST}'")
    return found


def _below(path: Path, root: Path) -> Path:
    """Relative to the study's folder where it lies in it, else absolute."""
    return path.relative_to(root) if path.is_relative_to(root) else path.resolve()


def _agree(study: Study, waiting: Sequence[Job], parallel: int, console: Console) -> None:
    """Print what the waiting cells will cost.

    Raises:
        UserError: the user has not agreed to it.
    """
    cost = estimate_cost(waiting, study.out)
    console.print(
        f"{len(waiting)} cells, {cost.steps:,} optimizer steps; measured {cost.seconds_a_step:.3f} s a step "
        f"here ({cost.device}): {cost.hours:,.0f} hours of training one after the other, at best "
        f"{cost.hours / parallel:,.0f} with {parallel} at a time; scoring comes on top",
        soft_wrap=True,
    )
    if not study.agreed:
        raise UserError(
            "nothing was started; add --yes to start it, or narrow it with --tasks, --arms, --regimes"
        )


def _run(jobs: Sequence[Job], waiting: Sequence[Job], parallel: int, console: Console) -> None:
    watch = Watch(jobs, waiting, parallel, console)
    with watch.bar:
        run_jobs(waiting, parallel, watch.on_done)


def report(name: str, out: Path, console: Console) -> None:
    """Write results, tables and figures of all finished cells, and print the main table."""
    rows = collect(out / CELLS)
    if not rows:
        return
    results = out / "results.csv"
    write_results(rows, results)
    comparisons = compare(rows)
    tables = write_tables(comparisons, name, out)
    figures = write_figures(comparisons, out / CELLS, out / "figures")
    for comparison in comparisons:
        console.print(overview_table(comparison))
    for path in (results, *tables):
        console.print(f"written: {path}", soft_wrap=True)
    console.print(f"written: {len(figures)} figures in {out / 'figures'}", soft_wrap=True)
