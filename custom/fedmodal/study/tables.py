"""The tables of a study, in Markdown, as CSV and on the terminal."""

import csv
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table

from fedmodal.study.plan import ARMS, POOLED, REFERENCE_ARM, REGIMES
from fedmodal.study.results import Row
from fedmodal.study.statistics import (
    MEAN,
    Estimate,
    Group,
    Scores,
    dice_of,
    difference,
    group_scores,
    ratios_to_pooled,
)
from fedmodal.tasks import TASKS, Modality, get_task
from fedmodal.training.metrics import RESAMPLES


@dataclass(frozen=True)
class Result:
    """One group: its scores, Dice per organ, and paired differences to the reference arm."""

    scores: Scores
    dice: dict[str, Estimate]
    less_reference: dict[str, Estimate]

    @property
    def columns(self) -> dict[str, Estimate]:
        """Dice per organ and their mean, which is left out where there is one organ only."""
        return self.dice if len(self.scores.organs) > 1 else {self.scores.organs[0]: self.dice[MEAN]}


@dataclass(frozen=True)
class Comparison:
    """What the tables and figures of one task show; groups in the order of the study."""

    task: str
    results: dict[Group, Result]
    ratios: dict[Group, Estimate]

    @property
    def arms(self) -> list[str]:
        """Arms with results, in the order of tables."""
        return [arm for arm in ARMS if any(group.arm == arm for group in self.results)]

    @property
    def settings(self) -> list[tuple[str, str]]:
        """Regime and test modality of each table, in order."""
        return list(dict.fromkeys((group.regime, group.modality) for group in self.results))

    def arms_in(self, regime: str, modality: str) -> dict[str, Result]:
        """Arm to result."""
        return {
            group.arm: result
            for group, result in self.results.items()
            if (group.regime, group.modality) == (regime, modality)
        }


def compare(rows: Sequence[Row]) -> list[Comparison]:
    """Group and estimate, a comparison a task."""
    return [_compare(task, [row for row in rows if row.task == task]) for task in TASKS if _has(rows, task)]


def _has(rows: Sequence[Row], task: str) -> bool:
    return any(row.task == task for row in rows)


def _compare(task: str, rows: Sequence[Row]) -> Comparison:
    scores = group_scores(rows, [organ.name for organ in get_task(task).organs])
    results = {}
    for group in sorted(scores, key=_rank):
        reference = scores.get(group._replace(arm=REFERENCE_ARM))
        less = difference(scores[group], reference) if reference and group.arm != REFERENCE_ARM else {}
        results[group] = Result(scores[group], dice_of(scores[group]), less)
    return Comparison(task, results, ratios_to_pooled(scores, POOLED))


def _rank(group: Group) -> tuple[int, ...]:
    order: tuple[tuple[Sequence[str], str], ...] = (
        (list(REGIMES), group.regime),
        (list(Modality), group.modality),
        (ARMS, group.arm),
    )
    return tuple(names.index(name) for names, name in order)


def write_tables(comparisons: Sequence[Comparison], name: str, out: Path) -> list[Path]:
    """Write `tables.md`, `summary.csv` (an organ of an arm a row) and `ratios.csv`; returns the paths."""
    tables, summary, ratios = out / "tables.md", out / "summary.csv", out / "ratios.csv"
    tables.write_text(markdown(comparisons, name), encoding="utf-8")
    _write_csv(summary, (row for comparison in comparisons for row in _summary(comparison)))
    _write_csv(ratios, (row for comparison in comparisons for row in _ratio_rows(comparison)))
    return [tables, summary, ratios]


def markdown(comparisons: Sequence[Comparison], name: str) -> str:
    """All tables as one Markdown text."""
    lines = [
        f"# Study `{name}`",
        "",
        "3D Dice: mean over patients of each patient's mean over seeds, with the 95 % interval of a "
        f"bootstrap over patients ({RESAMPLES} resamples); of a single patient, with the lowest and the "
        "highest seed instead. The mean is that of the organs' means. The last column is the paired "
        f"difference of the mean to `{REFERENCE_ARM}`'s on the same patients, negative where "
        f"`{REFERENCE_ARM}` is better.",
    ]
    for comparison in comparisons:
        lines += ["", f"## {comparison.task}: mean over organs", "", *_overview(comparison)]
        if comparison.ratios:
            lines += ["", f"## {comparison.task}: federated relative to pooled training", ""]
            lines += _ratio_table(comparison)
        for regime, modality in comparison.settings:
            lines += ["", *_detail(comparison, regime, modality)]
    return "\n".join(lines) + "\n"


def _overview(comparison: Comparison) -> list[str]:
    rows = []
    for regime, modality in comparison.settings:
        found = comparison.arms_in(regime, modality)
        cells = [show(found[arm].dice[MEAN]) if arm in found else "" for arm in comparison.arms]
        rows.append([regime, tested_on(modality, found), *cells])
    return _grid(["regime", "tested on", *comparison.arms], rows)


def _ratio_table(comparison: Comparison) -> list[str]:
    places = list(dict.fromkeys((group.regime, group.modality) for group in comparison.ratios))
    rows = []
    for regime, modality in sorted(places, key=comparison.settings.index):
        groups = [Group(comparison.task, regime, arm, modality) for arm in comparison.arms]
        ratios = [comparison.ratios.get(group) for group in groups]
        rows.append([regime, modality, *(show(one) if one else "" for one in ratios)])
    return _grid(["regime", "tested on", *comparison.arms], rows)


def _detail(comparison: Comparison, regime: str, modality: str) -> list[str]:
    found = comparison.arms_in(regime, modality)
    first = next(iter(found.values()))
    seeds = sorted({seed for result in found.values() for seed in result.scores.seeds})
    title = (
        f"### {comparison.task}, {regime}, tested on {tested_on(modality, found)}: "
        f"{patients(first)}, seed{'s' * (len(seeds) != 1)} {', '.join(map(str, seeds))}"
    )
    rows = []
    for arm, result in found.items():
        less = result.less_reference.get(MEAN)
        dice = [show(value) for value in result.columns.values()]
        rows.append([arm, *dice, show(less, signed=True) if less else ""])
    return [title, "", *_grid(["arm", *first.columns, f"less {REFERENCE_ARM}"], rows)]


def tested_on(modality: str, found: Mapping[str, Result]) -> str:
    """The test modality, marked where these arms' networks have never seen it."""
    trained_on = next(iter(found.values())).scores.trained_on.split("+")
    return modality if modality in trained_on else f"{modality} (unseen)"


def patients(result: Result) -> str:
    """How many patients a result is of, in words."""
    count = len(result.scores.patients)
    return f"{count} patient{'s' * (count != 1)}"


def _grid(header: list[str], rows: Iterable[list[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(cells)} |" for cells in lines]


def show(value: Estimate, *, signed: bool = False) -> str:
    """An estimate as text: `0.712 [0.650, 0.760]`; a dash where nobody has the organ."""
    if math.isnan(value.value):
        return "-"
    sign = "+" if signed else ""
    text = f"{value.value:{sign}.3f}"
    if value.low is None or value.high is None:
        return text
    return f"{text} [{value.low:{sign}.3f}, {value.high:{sign}.3f}]"


def _summary(comparison: Comparison) -> Iterable[dict[str, Any]]:
    for group, result in comparison.results.items():
        for organ, dice in result.dice.items():
            yield {
                **group._asdict(),
                "trained_on": result.scores.trained_on,
                "organ": organ,
                "patients": len(result.scores.patients),
                "seeds": len(result.scores.seeds),
                **_columns("dice", dice),
                **_columns(f"less_{REFERENCE_ARM}", result.less_reference.get(organ)),
            }


def _ratio_rows(comparison: Comparison) -> Iterable[dict[str, Any]]:
    for group, value in comparison.ratios.items():
        yield {**group._asdict(), **_columns("ratio", value)}


def _columns(name: str, value: Estimate | None) -> dict[str, str]:
    numbers = (value.value, value.low, value.high) if value else (None, None, None)
    shown = ("" if number is None or math.isnan(number) else f"{number:.5f}" for number in numbers)
    return dict(zip((name, f"{name}_low", f"{name}_high"), shown, strict=True))


def _write_csv(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    listed = list(rows)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(listed[0]) if listed else ["task"])
        writer.writeheader()
        writer.writerows(listed)


def overview_table(comparison: Comparison) -> Table:
    """The mean over organs of every arm, a row a regime and test modality, the best in bold."""
    table = Table(title=f"{comparison.task}: 3D Dice, mean over organs", title_justify="left")
    for heading in ("regime", "tested on"):
        table.add_column(heading)
    for arm in comparison.arms:
        table.add_column(arm, justify="right")
    for regime, modality in comparison.settings:
        found = comparison.arms_in(regime, modality)
        means = {arm: result.dice[MEAN].value for arm, result in found.items()}
        best = max(means.values())
        cells = [_marked(means[arm], best) if arm in means else "" for arm in comparison.arms]
        table.add_row(regime, tested_on(modality, found), *cells)
    return table


def _marked(value: float, best: float) -> str:
    return f"[bold]{value:.3f}[/bold]" if value == best else f"{value:.3f}"
