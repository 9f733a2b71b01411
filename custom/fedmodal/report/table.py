"""The table at the end of a run: Dice per organ, modality and site, global against local models."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from fedmodal.report.record import EvaluationRecord, RunRecord

if TYPE_CHECKING:
    from fedmodal.training.pooled import TestResult

BEST_GLOBAL = "SRV_best_FL_global_model.pt"
LAST_GLOBAL = "SRV_FL_global_model.pt"
"""Names that FLARE gives to the server's models in a cross-site evaluation."""


def render_text(record: RunRecord, path: Path) -> str:
    """The report as plain text, for a log."""
    console = Console(file=io.StringIO(), width=110, color_system=None, highlight=False)
    console.print()
    render(record, path, console)
    output: io.StringIO = console.file  # type: ignore[assignment]
    return output.getvalue().rstrip()


def render(record: RunRecord, path: Path, console: Console) -> None:
    """Print the report: the run, a table a site, who took part, where the files are, warnings."""
    console.print(f"[bold]{record.job}[/bold]: {_headline(record)}")
    for site, models in sorted(record.evaluation.items()):
        console.print(_site_table(site, models))
    if not record.evaluation:
        console.print("no model was evaluated at the end of this run")
    console.print(_participation(record))
    console.print(f"files: {path.parent}", soft_wrap=True)
    for name in _model_files(path.parent):
        console.print(f"  {name}", soft_wrap=True)
    for warning in warnings_of(record):
        console.print(f"[bold]WARNING[/bold] {warning}", soft_wrap=True)


def _headline(record: RunRecord) -> str:
    best = (
        "no best global model"
        if record.best_round is None
        else f"best global model after round {record.best_round} (val_dice {record.best_dice:.3f})"
    )
    return (
        f"task {record.task}, augmentation {record.arm}, "
        f"{len(record.rounds)} of {record.num_rounds} rounds, {best}"
    )


def _site_table(site: str, models: dict[str, EvaluationRecord]) -> Table:
    first = next(iter(models.values()))
    title = f"{site} ({first.modality}): 3D Dice on {first.patients} {first.split} patients"
    columns = _columns(site, models)
    table = Table(title=title, title_justify="left")
    table.add_column("organ")
    table.add_column("n", justify="right")
    for heading in columns:
        table.add_column(heading, justify="right")
    for organ, result in first.organs.items():
        means = (_mean(model.organs[organ].dice for model in group) for group in columns.values())
        table.add_row(organ, str(result.n), *(_dice(value) for value in means))
    table.add_section()
    means = (_mean(model.mean for model in group) for group in columns.values())
    table.add_row("mean over organs", "", *(_dice(value) for value in means), style="bold")
    return table


def _columns(site: str, models: dict[str, EvaluationRecord]) -> dict[str, list[EvaluationRecord]]:
    """Heading to models: best and last global, the site's own, and the other sites' on average."""
    named = [("global, best", BEST_GLOBAL), ("global, last", LAST_GLOBAL), (f"local {site}", site)]
    columns = {heading: [models[name]] for heading, name in named if name in models}
    others = sorted(set(models) - {BEST_GLOBAL, LAST_GLOBAL, site})
    if others:
        heading = f"local {others[0]}" if len(others) == 1 else f"local, other {len(others)} sites"
        columns[heading] = [models[name] for name in others]
    return columns


def _participation(record: RunRecord) -> str:
    lines = []
    for site, description in sorted(record.sites.items()):
        rounds = [done for done in record.rounds.values() if site in done.sites]
        slices = sum(done.sites[site].slices for done in rounds)
        patients = ", ".join(f"{count} {split}" for split, count in description.patients.items())
        kind = "phantoms" if description.phantoms else "patients"
        lines.append(
            f"{site} ({description.modality}): {kind} {patients}; in {len(rounds)} of "
            f"{len(record.rounds)} rounds, {slices} slices"
        )
    return "\n".join(lines)


def test_table(results: Sequence["TestResult"]) -> Table:
    """Dice per organ of one model, a column a data set."""
    table = Table(title="3D Dice (patients)", title_justify="left")
    table.add_column("organ")
    for result in results:
        table.add_column(f"{result.name}\n{result.modality}, {result.split.value}", justify="right")
    for organ in results[0].summary.organs:
        found = [result.summary.organs[organ] for result in results]
        table.add_row(organ, *(f"{_dice(one.dice)} ({one.n})" for one in found))
    table.add_section()
    table.add_row("mean over organs", *(_dice(result.summary.mean) for result in results), style="bold")
    return table


def warnings_of(record: RunRecord) -> list[str]:
    """What a reader must know before trusting the table."""
    found = list(record.refusals)
    if record.problem:
        found.append(f"the run ended early: {record.problem}")
    if record.rounds and record.best_round is None:
        found.append("no best global model: no site scored a global model on its validation patients")
    for number, done in sorted(record.rounds.items()):
        absent = sorted(set(record.sites) - {site for site, part in done.sites.items() if part.accepted})
        if absent:
            found.append(f"round {number + 1} went without {', '.join(absent)}")
    for site, models in sorted(record.evaluation.items()):
        split = next(iter(models.values())).split
        if split != "test":
            found.append(f"{site} has no test patients: its Dice is from {split} patients")
        found += _doubtful_organs(site, models)
    if any(site.phantoms for site in record.sites.values()):
        found.append("trained on phantoms (synthetic patients): the network is not for people")
    return found


def _doubtful_organs(site: str, models: dict[str, EvaluationRecord]) -> Iterable[str]:
    shown = models.get(BEST_GLOBAL) or next(iter(models.values()))
    for organ, result in shown.organs.items():
        if result.n == 0:
            yield f"{site}: no label map holds the {organ}; it is left out of the mean"
        if result.invented:
            yield f"{site}: {organ} predicted in {result.invented} of {result.absent} patients without it"


def _model_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.pt") if "cross" not in str(path))


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _dice(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
