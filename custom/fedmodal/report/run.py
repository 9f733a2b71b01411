"""`fedmodal report`: a run on the terminal, and as pages."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import Progress, TaskID

from fedmodal.errors import UserError
from fedmodal.report.measures import render_measures
from fedmodal.report.record import EvaluationRecord, RunRecord, find_record, read_record, read_results
from fedmodal.report.table import render

if TYPE_CHECKING:
    from fedmodal.report.cases import CaseResults


@dataclass(frozen=True)
class Request:
    """What to report; see the command's options."""

    run: Path
    out: Path | None = None
    cases: Sequence[Path] = ()
    pooled: Path | None = None

    @property
    def folder(self) -> Path:
        """The run's folder, also where its record was named."""
        return self.run if self.run.is_dir() else self.run.parent


def show(request: Request, console: Console) -> None:
    """Print the tables of a run.

    Raises:
        UserError: no run there, or a damaged record.
    """
    path = find_record(request.run)
    record = read_record(path)
    render(record, path, console)
    render_measures(record, console)


def write_pages(request: Request, console: Console) -> None:
    """Write `report.html` and `report.md`, and print where they are.

    Raises:
        UserError: no run, data set or results where they are said to be, or no room for the pages.
    """
    from fedmodal.report.page import Material, write_report  # noqa: PLC0415 - matplotlib takes a second

    record = read_record(find_record(request.run))
    pooled = _pooled(request.pooled, record)
    tested = tuple(_tested(request, record, console))
    page, text = write_report(Material(record, tested, pooled), request.out or request.folder)
    console.print(f"report: {page} (and {text.name})", soft_wrap=True)


def _pooled(path: Path | None, record: RunRecord) -> list[tuple[str, EvaluationRecord]]:
    if path is None:
        return []
    task, results = read_results(path)
    if task != record.task:
        raise UserError(f"{path}: was trained for task '{task}', the run for '{record.task}'")
    return results


def _tested(request: Request, record: RunRecord, console: Console) -> Iterator["CaseResults"]:
    """The run's global model on the reader's data sets, and on the run's phantoms where they are kept."""
    if not record.evaluation or not (request.cases or any(site.phantoms for site in record.sites.values())):
        return
    from fedmodal.inference.model import load_model  # noqa: PLC0415 - torch and MONAI take seconds
    from fedmodal.report.cases import as_recorded, evaluate_on, find_phantoms_of, read_data  # noqa: PLC0415

    try:
        model = load_model(request.folder)
    except UserError:
        if request.cases:
            raise
        return
    data = [("", dataset) for dataset in read_data(request.cases, model.task)]
    data += find_phantoms_of(record, model.task).items()
    with Progress(console=console, transient=True) as progress:
        for site, dataset in data:
            line = progress.add_task(f"cases of {site or dataset.name}")
            tested = evaluate_on(model, dataset, site, partial(_advance, progress, line))
            if not site or as_recorded(record, tested):
                yield tested


def _advance(progress: Progress, line: TaskID, done: int, total: int) -> None:
    progress.update(line, completed=done, total=total)
