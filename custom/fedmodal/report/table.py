"""The table at the end of a run: Dice per organ, modality and site, global against local models."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from fedmodal.report import document
from fedmodal.report.record import RunRecord, share_of
from fedmodal.report.scores import dice, dice_table
from fedmodal.report.warnings import warnings_of

if TYPE_CHECKING:
    from fedmodal.training.pooled import TestResult


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
        console.print(_printed(dice_table(site, models)))
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


def _printed(table: document.Table) -> Table:
    printed = Table(title=table.caption, title_justify="left")
    for number, heading in enumerate(table.headings):
        printed.add_column(heading, justify="right" if number else "left")
    for row in table.rows[:-1]:
        printed.add_row(*row)
    printed.add_section()
    printed.add_row(*table.rows[-1], style="bold")
    return printed


def _participation(record: RunRecord) -> str:
    lines = []
    for site, description in sorted(record.sites.items()):
        share = share_of(record, site)
        patients = ", ".join(f"{count} {split}" for split, count in description.patients.items())
        kind = "phantoms" if description.phantoms else "patients"
        lines.append(
            f"{site} ({description.modality}): {kind} {patients}; in {share.rounds} of "
            f"{len(record.rounds)} rounds, {share.slices} slices"
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
        table.add_row(organ, *(f"{dice(one.dice)} ({one.n})" for one in found))
    table.add_section()
    table.add_row("mean over organs", *(dice(result.summary.mean) for result in results), style="bold")
    return table


def _model_files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*.pt") if "cross" not in str(path))
