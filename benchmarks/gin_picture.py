"""A picture of what GIN and IPA do: one slice of each volume, as the network sees it, and under draws.

Each picture's grey scale runs from the 1st to the 99th percentile of the body.

Run: python benchmarks/gin_picture.py --ct CT.nii.gz --mri MRI.nii.gz --out docs/img/gin.png
docs/img/gin.png shows phantoms (`fedmodal phantom`); pictures of patients stay with the patients' data.
"""

import argparse
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import torch
from torch import Tensor

from fedmodal.augment.gin import GIN
from fedmodal.augment.ipa import IPA
from fedmodal.data.nifti import read_nifti
from fedmodal.data.preprocess import preprocess
from fedmodal.networks import standardize
from fedmodal.tasks import Modality, get_task

ARMS = {"GIN": GIN, "IPA": IPA}
DRAWS = 3  # of each


def slice_of(path: Path, modality: Modality, task: str, height: float) -> Tensor:
    volume = preprocess(read_nifti(path), None, get_task(task), modality).image
    return torch.from_numpy(volume[int(height * (len(volume) - 1))]).float()


def draw_picture(slices: list[tuple[str, Tensor]], seed: int, out: Path) -> None:
    columns = 1 + DRAWS * len(ARMS)
    figure, axes = plt.subplots(
        len(slices), columns, figsize=(1.4 * columns, 1.5 * len(slices)), squeeze=False
    )
    for row, (name, image) in zip(axes, slices, strict=True):
        generator = torch.Generator().manual_seed(seed)
        copies = standardize(image.repeat(DRAWS, 1, 1, 1))
        changed = [picture for make in ARMS.values() for picture in make()(copies, generator)[:, 0]]
        titles = [name, *[f"{arm} {number}" for arm in ARMS for number in range(1, DRAWS + 1)]]
        for axis, title, picture in zip(row, titles, [image, *changed], strict=True):
            low, high = np.percentile(picture[image > 0.05], [1, 99])
            axis.imshow(picture, cmap="gray", vmin=low, vmax=high, interpolation="bilinear")
            axis.set_title(title, fontsize=8, pad=2)
            axis.axis("off")
    figure.subplots_adjust(left=0.005, right=0.995, bottom=0.01, top=0.92, wspace=0.03, hspace=0.15)
    figure.savefig(out, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--ct", type=Path, action="append", default=[], help="CT volume, NIfTI")
    parser.add_argument("--mri", type=Path, action="append", default=[], help="MRI volume, NIfTI")
    parser.add_argument("--task", default="abdomen", help="its spacing and intensity rules")
    parser.add_argument("--height", type=float, default=0.5, help="0 is the lowest slice, 1 the highest")
    parser.add_argument("--seed", type=int, default=6)
    parser.add_argument("--out", type=Path, required=True, help="the picture, PNG")
    arguments = parser.parse_args()
    paths = [(Modality.CT, path) for path in arguments.ct] + [(Modality.MRI, path) for path in arguments.mri]
    if not paths:
        parser.error("name a volume with --ct or --mri")
    slices = [
        (str(modality), slice_of(path, modality, arguments.task, arguments.height))
        for modality, path in paths
    ]
    draw_picture(slices, arguments.seed, arguments.out)


if __name__ == "__main__":
    main()
