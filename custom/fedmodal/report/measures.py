"""The table of one global model's test beyond the mean Dice: how spread, how far off, how often missed."""

from rich.console import Console
from rich.table import Table

from fedmodal.report.record import EvaluationRecord, OrganRecord, RunRecord
from fedmodal.report.scores import BEST_GLOBAL, LAST_GLOBAL, shown_model, shown_name, which
from fedmodal.training.measures import DICE, HD95, SURFACE_DICE, VOLUME_ERROR

TITLES = {
    DICE: "Dice\nmean, quartiles",
    SURFACE_DICE: "surface Dice, 3 mm\nmean, 95 %",
    HD95: "HD95, mm\nmean, 95 %",
    VOLUME_ERROR: "volume error, ml\nmean, 95 %",
}


def render_measures(record: RunRecord, console: Console) -> None:
    """Print a table a site of the best global model, or of the last one; nothing for runs without these."""
    for site, models in sorted(record.evaluation.items()):
        name = shown_name(models)
        if name in {BEST_GLOBAL, LAST_GLOBAL} and has_spreads(shown_model(models)):
            console.print(_table(site, which(name), models[name]))


def has_spreads(result: EvaluationRecord) -> bool:
    """Whether anything beyond the mean Dice was measured."""
    return any(organ.spreads for organ in result.organs.values())


def _table(site: str, which: str, result: EvaluationRecord) -> Table:
    title = f"{site} ({result.modality}): {which}, {result.patients} {result.split} patients"
    table = Table(title=title, title_justify="left")
    table.add_column("organ")
    table.add_column("found")
    for heading in TITLES.values():
        table.add_column(heading, justify="right")
    for organ, one in result.organs.items():
        table.add_row(organ, found(one), *(_cell(one, measure) for measure in TITLES))
    return table


def found(organ: OrganRecord) -> str:
    """In how many of the patients who have it."""
    return f"{organ.n - organ.missed} of {organ.n}"


def figures(organ: OrganRecord, measure: str) -> tuple[str, str, str]:
    """The mean, and from where to where the quartiles of Dice or the mean's interval reach.

    A dash for what was not measured, empty ends where there are too few patients.
    """
    spread = organ.spreads.get(measure)
    if spread is None:
        return "-", "", ""
    digits = 1 if measure in {HD95, VOLUME_ERROR} else 2
    low, high = (spread.q1, spread.q3) if measure == DICE else (spread.low, spread.high)
    ends = ("", "") if low is None or high is None else (f"{low:.{digits}f}", f"{high:.{digits}f}")
    return f"{spread.mean:.{digits}f}", *ends


def _cell(organ: OrganRecord, measure: str) -> str:
    mean, low, high = figures(organ, measure)
    return f"{mean}\n{low}..{high}" if low else mean
