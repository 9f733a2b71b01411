"""Draw docs/img/phantoms.png: a phantom of each CT phase and MRI sequence, with and without their labels.

Run: python benchmarks/phantom_picture.py
"""

from collections.abc import Iterator
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
from matplotlib.colors import to_rgb
from PIL import Image

from fedmodal.data.contrast import Phase, Sequence
from fedmodal.data.phantom import Phantom, make_phantom
from fedmodal.tasks import ABDOMEN, Modality

OUT = Path(__file__).parents[1] / "docs" / "img" / "phantoms.png"
SEED = 2026
KINDS = {Modality.CT: len(Phase), Modality.MRI: len(Sequence)}

Picture = npt.NDArray[np.float32]


def different_patients(modality: Modality) -> list[Phantom]:
    found: dict[str, Phantom] = {}
    for index in range(12):
        patient = make_phantom(ABDOMEN, modality, SEED, index)
        if patient.label.max() == 6 and len(np.unique(patient.label)) == 7:
            found.setdefault(patient.acquisition, patient)
        if len(found) == KINDS[modality]:
            break
    return list(found.values())


def grey(patient: Phantom, modality: Modality) -> Picture:
    rule = ABDOMEN.ct if modality is Modality.CT else ABDOMEN.mri
    low, high = rule.low, rule.high
    if modality is Modality.MRI:
        low, high = np.percentile(patient.image, (rule.low, rule.high))
    return np.clip((patient.image - low) / (high - low), 0, 1).astype(np.float32)


def views(patient: Phantom, modality: Modality) -> Iterator[tuple[Picture, Picture, float]]:
    """Two axial slices and a coronal one: grey values, labels, height of a pixel to its width."""
    image, label = grey(patient, modality), patient.label
    step, rows, _ = patient.grid.spacing
    for name in ("spleen", "pancreas"):
        area = (label == ABDOMEN.labels[name]).sum((1, 2))
        chosen = int(area.argmax())
        yield image[chosen], label[chosen], 1.0
    row = int(np.nonzero(np.isin(label, (2, 3)))[1].mean()) - 4
    yield image[::-1, row], label[::-1, row], step / rows


def overlaid(image: Picture, label: Picture) -> Picture:
    colours = np.repeat(image[..., None], 3, axis=-1)
    for organ in ABDOMEN.organs:
        colours[label == organ.id] = 0.55 * colours[label == organ.id] + 0.45 * np.array(to_rgb(organ.colour))
    return colours


def main() -> None:
    figure, axes = plt.subplots(sum(KINDS.values()), 6, figsize=(10.4, 7.4))
    rows = iter(axes)
    for modality in Modality:
        for patient in different_patients(modality):
            row = next(rows)
            for number, (image, label, aspect) in enumerate(views(patient, modality)):
                for axis, picture in (
                    (row[2 * number], image),
                    (row[2 * number + 1], overlaid(image, label)),
                ):
                    axis.imshow(picture, cmap="gray", vmin=0, vmax=1, aspect=aspect, interpolation="bilinear")
                    axis.axis("off")
            row[0].set_title(f"synthetic {modality}, {patient.acquisition}", fontsize=8, loc="left", pad=2)
    for number, organ in enumerate(ABDOMEN.organs):
        figure.text(0.02 + 0.16 * number, 0.008, f"\u25a0 {organ.name}", color=organ.colour, fontsize=9)
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.03, top=0.98, wspace=0.02, hspace=0.12)
    OUT.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(OUT, dpi=92)
    with Image.open(OUT) as drawn:
        few = drawn.convert("RGB").quantize(
            160, Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE
        )  # a third of the size
    few.save(OUT, optimize=True)


if __name__ == "__main__":
    main()
