"""The table of one global model's test beyond the mean Dice: how spread, how far off, how often missed."""

from rich.console import Console
from rich.table import Table

from fedmodal.report.record import EvaluationRecord, OrganRecord, RunRecord
from fedmodal.report.table import BEST_GLOBAL, LAST_GLOBAL

_TITLES = {
    "dice": "Dice\nmean, quartiles",
    "surface_dice": "surface Dice, 3 mm\nmean, 95 %",
    "hd95_mm": "HD95, mm\nmean, 95 %",
    "volume_error_ml": "volume error, ml\nmean, 95 %",
}


def render_measures(record: RunRecord, console: Console) -> None:
    """Print a table a site of the best global model, or of the last one; nothing for runs without these."""
    for site, models in sorted(record.evaluation.items()):
        name = next((one for one in (BEST_GLOBAL, LAST_GLOBAL) if one in models), None)
        if name and any(organ.spreads for organ in models[name].organs.values()):
            console.print(_table(site, "best" if name == BEST_GLOBAL else "last", models[name]))


def _table(site: str, which: str, result: EvaluationRecord) -> Table:
    title = f"{site} ({result.modality}): global, {which}, {result.patients} {result.split} patients"
    table = Table(title=title, title_justify="left")
    table.add_column("organ")
    table.add_column("found")
    for heading in _TITLES.values():
        table.add_column(heading, justify="right")
    for organ, one in result.organs.items():
        found = f"{one.n - one.missed} of {one.n}"
        table.add_row(organ, found, *(_cell(one, measure) for measure in _TITLES))
    return table


def _cell(organ: OrganRecord, measure: str) -> str:
    spread = organ.spreads.get(measure)
    if spread is None:
        return "-"
    digits = 1 if measure in {"hd95_mm", "volume_error_ml"} else 2
    low, high = (spread.q1, spread.q3) if measure == "dice" else (spread.low, spread.high)
    ends = "" if low is None or high is None else f"\n{low:.{digits}f}..{high:.{digits}f}"
    return f"{spread.mean:.{digits}f}{ends}"
