"""The effect itself on real images: train on the one CT, test on the one MRI, arm by arm.

    python benchmarks/cross_modality.py                # CT -> MRI
    python benchmarks/cross_modality.py --reverse      # MRI -> CT

The settings are those of `fedmodal study real`, which runs every arm, both ways, with three seeds.
The images are one person each, so nothing is held out of the training modality: its column is of a
seen patient, the other column of an unseen patient in an unseen modality.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from fedmodal.data.dataset import Split
from fedmodal.data.store import Store, open_store
from fedmodal.report.table import test_table
from fedmodal.study.data import sample_set
from fedmodal.study.plan import REAL, Cell, training_of
from fedmodal.tasks import Modality
from fedmodal.training.pooled import score_data_sets, train_pooled

REALDATA = Path(__file__).parents[2] / "shared" / "realdata"


def open_pair(modality: Modality, split: Split, folder: Path, scratch: Path) -> Store:
    dataset = sample_set(folder, modality, split, scratch / modality.lower())
    return open_store(dataset, scratch / "cache")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=REALDATA / "abdomen", help="folder of the image pairs")
    parser.add_argument("--steps", type=int, default=REAL.steps, help="a round")
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--arms", nargs="+", default=["none", "gin", "ipa"])
    parser.add_argument("--reverse", action="store_true", help="train on the MRI, test on the CT")
    given = parser.parse_args()
    console = Console()
    preset = replace(REAL, steps=given.steps)
    regime = "alone_mri" if given.reverse else "alone_ct"
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        modalities = reversed(Modality) if given.reverse else Modality
        splits = (Split.TRAIN, Split.TEST)
        stores = [
            open_pair(modality, split, given.data, scratch)
            for modality, split in zip(modalities, splits, strict=True)
        ]
        for arm in given.arms:
            cell = Cell("abdomen", arm, regime, given.seed)
            started = time.monotonic()
            session = train_pooled(training_of(preset, cell), stores[:1], preset.rounds, scratch / arm)
            seconds = time.monotonic() - started
            console.print(f"\n[bold]{arm}[/bold]: {preset.rounds} x {given.steps} steps in {seconds:.0f} s")
            console.print(test_table(score_data_sets(session, stores)))


if __name__ == "__main__":
    main()
