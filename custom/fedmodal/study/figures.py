"""The figures of a study: bars per organ and arm, and one slice of each modality under every arm."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from fedmodal.study.plan import ARMS, Cell
from fedmodal.study.statistics import MEAN
from fedmodal.study.tables import Comparison, Result, patients, tested_on
from fedmodal.tasks import Task, get_task

COLOURS = dict(zip(ARMS, ("#8c8c8c", "#e69f00", "#56b4e9", "#cc79a7", "#0072b2", "#009e73"), strict=True))
"""An arm's colour; Okabe and Ito's palette, which colour-blind people can tell apart."""

_FAINT = "#d9d9d9"
_BAR_ROOM = 0.84  # of the distance between two organs
_DPI = 90

Picture = Mapping[str, npt.NDArray[np.uint8]]


def draw_bars(comparison: Comparison, regime: str) -> Figure:
    """Dice per organ and arm with its interval, a panel a test modality."""
    modalities = [modality for name, modality in comparison.settings if name == regime]
    columns = max(len(_first(comparison.arms_in(regime, one)).columns) for one in modalities)
    wide = columns > 1
    size = (9.6, 2.9 * len(modalities) + 0.9) if wide else (3.1 * len(modalities) + 1.2, 3.6)
    figure = Figure(figsize=size, layout="constrained")
    shape = (len(modalities), 1) if wide else (1, len(modalities))
    panels = figure.subplots(*shape, sharey=True, squeeze=False).ravel()
    for panel, modality in zip(panels, modalities, strict=True):
        found = comparison.arms_in(regime, modality)
        _draw_panel(panel, found)
        panel.set_title(_panel_title(modality, found), loc="left", fontsize=10)
    for panel in panels if wide else panels[:1]:
        panel.set_ylabel("3D Dice")
    arms = [
        arm for arm in comparison.arms if any(arm in comparison.arms_in(regime, one) for one in modalities)
    ]
    handles = [Patch(color=COLOURS[arm], label=arm) for arm in arms]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(handles), frameon=False)
    figure.suptitle(f"{comparison.task}, {regime}", fontsize=12, fontweight="bold")
    return figure


def _panel_title(modality: str, found: Mapping[str, Result]) -> str:
    first = _first(found)
    alone = len(first.scores.patients) == 1 and len(first.scores.seeds) > 1
    line = "; line: lowest to highest seed" if alone else ""
    return f"tested on {tested_on(modality, found)}, {patients(first)}{line}"


def _first(found: Mapping[str, Result]) -> Result:
    return next(iter(found.values()))


def _draw_panel(panel: Axes, found: Mapping[str, Result]) -> None:
    names = list(_first(found).columns)
    width = _BAR_ROOM / len(found)
    for number, (arm, result) in enumerate(found.items()):
        places = np.arange(len(names)) + (number - (len(found) - 1) / 2) * width
        estimates = list(result.columns.values())
        values = np.array([one.value for one in estimates])
        panel.bar(places, np.nan_to_num(values), width * 0.92, color=COLOURS[arm], zorder=2)
        ends = [(one.value, one.low, one.high) for one in estimates]
        for place, (value, low, high) in zip(places, ends, strict=True):
            if low is not None and high is not None:
                reach = [[max(value - low, 0)], [max(high - value, 0)]]
                panel.errorbar(place, value, reach, color="#222222", lw=1, capsize=2, zorder=3)
    if MEAN in names:
        panel.axvline(len(names) - 1.5, color=_FAINT, lw=1)
    panel.set(xticks=range(len(names)), xticklabels=names, ylim=(0, 1), xlim=(-0.6, len(names) - 0.4))
    panel.grid(axis="y", color=_FAINT, lw=0.7, zorder=0)
    panel.spines[["top", "right"]].set_visible(False)
    panel.tick_params(axis="x", length=0)


def draw_slices(comparison: Comparison, regime: str, pictures: Mapping[str, Picture]) -> Figure:
    """The same slice of each modality: image, truth, and the prediction under every arm.

    Args:
        comparison: the task's results.
        regime: which networks predict.
        pictures: arm to the arrays that its cell kept, (rows, columns) each.
    """
    task = get_task(comparison.task)
    modalities = [
        modality for name, modality in comparison.settings
        if name == regime and all(f"image {modality}" in picture for picture in pictures.values())
    ]  # fmt: skip
    columns = 2 + len(pictures)
    rows = _body_rows([picture[f"image {one}"] for picture in pictures.values() for one in modalities])
    height = 1.75 * (rows.stop - rows.start) / task.slice_size[1] + 0.25
    figure = Figure(figsize=(1.75 * columns, height * len(modalities) + 0.85), layout="constrained")
    panels = figure.subplots(len(modalities), columns, squeeze=False)
    for row, modality in zip(panels, modalities, strict=True):
        found = comparison.arms_in(regime, modality)
        _draw_row(row, modality, pictures, task, rows)
        row[0].set_ylabel(tested_on(modality, found), fontsize=10)
        for panel, arm in zip(row[2:], pictures, strict=True):
            panel.set_title(f"{arm}  {found[arm].dice[MEAN].value:.2f}", fontsize=9)
    present = {value for picture in pictures.values() for value in np.unique(_labels(picture)).tolist()}
    handles = [Patch(color=organ.colour, label=organ.name) for organ in task.organs if organ.id in present]
    figure.legend(
        handles=handles, loc="outside lower center", ncols=max(len(handles), 1), frameon=False, fontsize=9
    )
    figure.suptitle(
        f"{task.name}, {regime}; beside each arm its mean Dice over all test patients", fontsize=11
    )
    return figure


def _labels(picture: Picture) -> npt.NDArray[np.uint8]:
    return np.concatenate([array.ravel() for name, array in picture.items() if not name.startswith("image")])


def _body_rows(images: Sequence[npt.NDArray[np.uint8]]) -> slice:
    """The rows where any of the images shows something, with a little air."""
    filled = np.flatnonzero(np.any([(image > 25).any(1) for image in images], axis=0))
    if not len(filled):
        return slice(0, len(images[0]))
    return slice(max(int(filled[0]) - 4, 0), min(int(filled[-1]) + 5, len(images[0])))


def _draw_row(
    row: Sequence[Axes], modality: str, pictures: Mapping[str, Picture], task: Task, rows: slice
) -> None:
    first = next(iter(pictures.values()))
    image = first[f"image {modality}"]
    shown = [None, first[f"truth {modality}"], *(one[f"prediction {modality}"] for one in pictures.values())]
    palette = ListedColormap([organ.colour for organ in task.organs])
    for panel, label in zip(row, shown, strict=True):
        panel.imshow(image[rows], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        if label is not None:
            over = np.ma.masked_equal(label[rows], 0)
            panel.imshow(
                over, cmap=palette, vmin=0.5, vmax=len(task.organs) + 0.5, alpha=0.7, interpolation="nearest"
            )
        panel.set(xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
    row[0].set_title("image", fontsize=9)
    row[1].set_title("truth", fontsize=9)


def save_png(figure: Figure, path: Path) -> Path:
    """Write a figure as a small file; pictures drawn without interpolation compress well."""
    figure.savefig(path, dpi=_DPI, pil_kwargs={"optimize": True})
    return path


def write_figures(comparisons: Sequence[Comparison], cells: Path, out: Path) -> list[Path]:
    """Write the bars and the slices of every task and regime; returns the paths.

    Args:
        comparisons: the tasks' results.
        cells: the study's folder of cells, with the pictures that they kept.
        out: the folder to write to; made if missing.
    """
    out.mkdir(parents=True, exist_ok=True)
    written = []
    for comparison in comparisons:
        for regime in dict.fromkeys(name for name, _ in comparison.settings):
            name = f"{comparison.task}_{regime}.png"
            written.append(save_png(draw_bars(comparison, regime), out / f"bars_{name}"))
            if pictures := _pictures(comparison, regime, cells):
                written.append(save_png(draw_slices(comparison, regime, pictures), out / f"slices_{name}"))
    return written


def _pictures(comparison: Comparison, regime: str, cells: Path) -> dict[str, Picture]:
    """Arm to what its cell of the first seed kept; arms without that seed are left out."""
    groups = {group: result for group, result in comparison.results.items() if group.regime == regime}
    seed = min(seed for result in groups.values() for seed in result.scores.seeds)
    found: dict[str, Picture] = {}
    for arm in dict.fromkeys(group.arm for group in groups):
        path = cells / Cell(comparison.task, arm, regime, seed).name / "example.npz"
        if path.is_file():
            with np.load(path) as arrays:
                found[arm] = dict(arrays)
    return found
