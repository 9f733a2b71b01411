"""The drawings of a written report: matplotlib's SVG, in colours that follow the page's theme."""

import io
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle
from matplotlib.ticker import MaxNLocator

from fedmodal.report.document import Chart
from fedmodal.report.record import EvaluationRecord, OrganRecord, RunRecord
from fedmodal.training.measures import DICE

_WIDTH = 9.0
_INK, _FAINT = "#0a0a01", "#0a0a02"
_SERIES = tuple(f"#0a0b{number:02x}" for number in range(7))
"""Stand-ins: each becomes a CSS variable of the page, `--ink`, `--faint`, `--series-0` and so on."""

_MARKERS = "osD^vPX"
_XLINK = "http://www.w3.org/1999/xlink"
_VARIABLES = {_INK: "--ink", _FAINT: "--faint"} | {
    colour: f"--series-{number}" for number, colour in enumerate(_SERIES)
}
_RULES = {
    "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9,
    "text.color": _INK, "axes.labelcolor": _INK, "axes.edgecolor": _INK, "axes.titlecolor": _INK,
    "xtick.color": _INK, "ytick.color": _INK, "axes.spines.top": False, "axes.spines.right": False,
    "axes.titlesize": 10, "axes.titlelocation": "left",
}  # fmt: skip


def curves(record: RunRecord) -> Chart:
    """A site's loss in each round, and the Dice of the global model before and of its own after training."""
    with mpl.rc_context(_RULES):
        figure = Figure(figsize=(_WIDTH, 3.0), layout="constrained")
        loss, score = figure.subplots(1, 2)
        for number, site in enumerate(sorted(record.sites)):
            _draw_curves(loss, score, record, site, _SERIES[number % 7], _MARKERS[number % 7])
        loss.set(title="mean training loss", xlabel="round", ylim=(0, None))
        score.set(title="Dice on validation patients", xlabel="after round", ylim=(0, 1))
        for panel in (loss, score):
            panel.xaxis.set_major_locator(MaxNLocator(integer=True))
        _rule(loss, score)
        _legend(figure, sorted(record.sites), lines=True)
        best = _mark_best(score, record)
    return _chart(
        figure,
        "Training. Left: mean loss of each site. Right: Dice of the global model (solid) and of the site's "
        f"own model after its training (dotted), both on the site's validation patients{best}.",
    )


def _draw_curves(loss: Axes, score: Axes, record: RunRecord, site: str, colour: str, marker: str) -> None:
    parts = {at: done.sites[site] for at, done in sorted(record.rounds.items()) if site in done.sites}
    few = max(1, len(parts) // 12)
    style: dict[str, Any] = {"color": colour, "marker": marker, "ms": 3.5, "lw": 1.3, "markevery": few}
    loss.plot([at + 1 for at in parts], [part.loss for part in parts.values()], **style)
    before = [(at, part.global_dice) for at, part in parts.items() if part.global_dice is not None]
    after = [(at + 1, part.local_dice) for at, part in parts.items() if part.local_dice is not None]
    for points, line in ((before, "-"), (after, ":")):
        score.plot([at for at, _ in points], [value for _, value in points], ls=line, **style)


def _mark_best(panel: Axes, record: RunRecord) -> str:
    if record.best_round is None:
        return ""
    panel.axvline(record.best_round, color=_INK, lw=0.8, ls=(0, (4, 3)))
    return f"; dashed: the best global model, after round {record.best_round}"


def participation(record: RunRecord) -> Chart:
    """A row a site, a column a round: its part of the round's average."""
    sites, rounds = sorted(record.sites), sorted(record.rounds)
    with mpl.rc_context(_RULES):
        figure = Figure(figsize=(_WIDTH, 0.32 * len(sites) + 0.75), layout="constrained")
        panel = figure.subplots()
        for column, number in enumerate(rounds):
            parts = record.rounds[number].sites
            total = sum(part.slices for part in parts.values() if part.accepted)
            for row, site in enumerate(sites):
                part = parts.get(site)
                share = part.slices / total if part and part.accepted and total else None
                _draw_share(panel, (column, row), share, colour=_SERIES[row % 7], wide=len(rounds) > 24)
        panel.set(xlim=(-0.5, len(rounds) - 0.5), ylim=(len(sites) - 0.5, -0.5), xlabel="round")
        panel.set_yticks(range(len(sites)), sites)
        step = max(1, len(rounds) // 20)
        panel.set_xticks(range(0, len(rounds), step), [str(number + 1) for number in rounds[::step]])
        panel.tick_params(length=0)
        panel.spines[:].set_visible(False)
    return _chart(
        figure,
        "Participation: each site's weight in the average of each round; a cross where it is not in it.",
    )


def _draw_share(panel: Axes, place: tuple[int, int], share: float | None, *, colour: str, wide: bool) -> None:
    column, row = place
    box = (column - 0.46, row - 0.42), 0.92, 0.84
    if share is None:
        panel.add_patch(Rectangle(*box, fill=False, ec=_FAINT, lw=0.8))
        panel.text(column, row, "\u00d7", ha="center", va="center", color=_INK)
        return
    panel.add_patch(Rectangle(*box, color=to_rgba(colour, 0.15 + 0.6 * share), lw=0))
    if not wide:
        panel.text(column, row, f"{100 * share:.0f} %", ha="center", va="center", fontsize=8)


def boxes(results: Mapping[str, EvaluationRecord], title: str) -> Chart:
    """Dice per organ as boxes, a panel a modality.

    Args:
        results: site to what one model reached there.
        title: names the model.
    """
    sites = sorted(results)
    modalities = sorted({result.modality for result in results.values()})
    with mpl.rc_context(_RULES):
        figure = Figure(figsize=(_WIDTH, 2.5 * len(modalities) + 0.4), layout="constrained")
        panels = figure.subplots(len(modalities), 1, squeeze=False)[:, 0]
        for panel, modality in zip(panels, modalities, strict=True):
            here = {site: results[site] for site in sites if results[site].modality == modality}
            _draw_boxes(panel, here, {site: _SERIES[sites.index(site) % 7] for site in here})
            panel.set(title=modality, ylabel="Dice")
        _rule(*panels)
        _legend(figure, sites)
    return _chart(
        figure,
        f"{title}: 3D Dice of each organ over a site's patients. Box: first to third quartile; line: median; "
        "dot: mean. Of fewer than five patients the mean alone, and never a whisker: the worst and the best "
        "patient's figures stay at the site.",
    )


def _draw_boxes(panel: Axes, here: Mapping[str, EvaluationRecord], colours: Mapping[str, str]) -> None:
    width = 0.8 / len(here)
    for number, (site, result) in enumerate(here.items()):
        for at, organ in enumerate(result.organs.values()):
            place = at + (number - (len(here) - 1) / 2) * width
            _draw_box(panel, organ, place, 0.8 * width, colours[site])
    organs = list(next(iter(here.values())).organs)
    panel.set_xticks(range(len(organs)), organs)
    panel.set(ylim=(0, 1.02), xlim=(-0.6, len(organs) - 0.4))


def _draw_box(panel: Axes, organ: OrganRecord, place: float, width: float, colour: str) -> None:
    if organ.dice is None:
        return
    spread = organ.spreads.get(DICE)
    panel.plot(place, organ.dice, "o", color=_INK, ms=3.5, zorder=4)
    if spread is None or spread.q1 is None:
        return
    stats = {"med": spread.median, "q1": spread.q1, "q3": spread.q3, "whislo": spread.q1, "whishi": spread.q3}
    panel.bxp(
        [stats], positions=[place], widths=width, showfliers=False, showcaps=False, patch_artist=True,
        manage_ticks=False, boxprops={"facecolor": to_rgba(colour, 0.45), "edgecolor": colour},
        medianprops={"color": colour, "lw": 1.8}, whiskerprops={"lw": 0},
    )  # fmt: skip


def dots(rows: Sequence[str], columns: Mapping[str, Sequence[float | None]]) -> Chart:
    """A line a site and a mark a model: its mean Dice there."""
    with mpl.rc_context(_RULES):
        figure = Figure(figsize=(_WIDTH, 0.36 * len(rows) + 1.0), layout="constrained")
        panel = figure.subplots()
        for number, (name, values) in enumerate(columns.items()):
            known = [(value, at) for at, value in enumerate(values) if value is not None]
            across, places = zip(*known, strict=True) if known else ((), ())
            panel.plot(
                across, places, _MARKERS[number % 7], color=_SERIES[number % 7], ms=7, alpha=0.85, label=name
            )
        panel.set_yticks(range(len(rows)), rows)
        panel.set(xlim=(0, 1), ylim=(len(rows) - 0.5, -0.5), xlabel="mean Dice over organs")
        panel.grid(axis="both", color=_FAINT, lw=0.7)
        panel.spines[:].set_visible(False)
        panel.tick_params(length=0)
        handles = panel.get_legend_handles_labels()[0]
        figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    return _chart(figure, "Mean Dice on each site's test patients, a mark a model.")


def _rule(*panels: Axes) -> None:
    for panel in panels:
        panel.grid(axis="y", color=_FAINT, lw=0.7)
        panel.set_axisbelow(True)


def _legend(figure: Figure, names: Sequence[str], *, lines: bool = False) -> None:
    colours = [_SERIES[number % 7] for number in range(len(names))]
    handles: list[Line2D | Patch] = [
        Line2D([], [], color=colour, marker=_MARKERS[number % 7], ms=4, label=name)
        if lines
        else Patch(color=to_rgba(colour, 0.45), label=name)
        for number, (name, colour) in enumerate(zip(names, colours, strict=True))
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(names), 8), frameon=False)


def _chart(figure: Figure, caption: str) -> Chart:
    """The figure as one SVG element whose colours are the page's variables."""
    out = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": caption}):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None})
    text = out.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :].strip(), flags=re.DOTALL)
    text = re.sub(r' id="[a-z0-9.]+_\d+"', "", text)  # nothing refers to them, and two figures share them
    for colour, variable in _VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    box = re.search(r'viewBox="[^"]*"', text)
    words = f'role="img" aria-label="{escape(caption)}" {box.group() if box else ""}'
    return Chart(caption, re.sub(r"^<svg [^>]*>", f'<svg {words} xmlns:xlink="{_XLINK}">', text))
