"""Who does what in a federation, and what crosses the line between them.

python benchmarks/deployment_picture.py docs/img/deployment.png
"""

import argparse
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch

INK, LINE = "#1b1b1b", "#0072b2"
STAYS, SHARED = "#fdeee0", "#e4f0f8"

Box = tuple[float, float, float, float]


def box(axes: Axes, place: Box, title: str, lines: list[str], colour: str) -> None:
    left, bottom, width, height = place
    shape = FancyBboxPatch((left, bottom), width, height, boxstyle="round,pad=0.08", fc=colour, ec=INK)
    axes.add_patch(shape)
    axes.text(left + width / 2, bottom + height - 0.12, title, ha="center", va="top", weight="bold", size=11)
    axes.text(left + 0.1, bottom + height - 0.47, "\n".join(lines), va="top", size=9.5, linespacing=1.4)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    axes.annotate("", end, start, arrowprops={"arrowstyle": "-|>", "color": LINE, "lw": 1.8})


def site(axes: Axes, bottom: float, name: str, modality: str) -> None:
    lines = [
        f"{modality} images, label maps, patients: stay here",
        "training with GIN, validation, test",
        "logs, checkpoints: stay here",
        "site IT: install, preflight, start, stop",
    ]
    box(axes, (0.2, bottom, 4.1, 1.75), name, lines, STAYS)


def draw(axes: Axes) -> None:
    site(axes, 2.75, "Hospital A, site-1", "CT")
    site(axes, 0.35, "Hospital B, site-2", "MRI")
    server = [
        "averages what the sites learnt",
        "best and last global model",
        "Dice per site and organ",
        "opens one port; sees no image",
    ]
    box(axes, (7.9, 1.4, 2.8, 1.75), "Server", server, SHARED)
    people = ["provision the kits (once)", "submit signed jobs", "follow, download, report"]
    box(axes, (7.9, 4.1, 2.8, 1.5), "Project admin, lead", people, SHARED)
    for height in (3.55, 1.5):
        arrow(axes, (4.45, height), (7.75, 1.75 + height * 0.3))
        arrow(axes, (7.75, 1.4 + height * 0.3), (4.45, height - 0.4))
    arrow(axes, (9.3, 4.0), (9.3, 3.3))
    told = "to the server: weight differences,\nnumbers of slices and patients,\nloss, mean Dice"
    axes.text(5.15, 3.85, told, size=9, color=LINE)
    axes.text(5.15, 0.75, "to the sites: job config, global weights", size=9, color=LINE)
    axes.plot([5.0, 5.0], [0.1, 5.7], ls="--", color=INK, lw=1)
    axes.text(5.15, 0.2, "the hospital's line: outbound TLS only, certificates on both sides", size=9)
    axes.text(2.25, 5.1, "startup kits are handed over\nby a channel of their own", ha="center", size=9)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("out", type=Path)
    out: Path = parser.parse_args().out
    figure, axes = plt.subplots(figsize=(10.9, 5.8), layout="constrained")
    axes.set(xlim=(0, 10.9), ylim=(0, 5.8))
    axes.axis("off")
    draw(axes)
    figure.savefig(out, dpi=110)


if __name__ == "__main__":
    main()
