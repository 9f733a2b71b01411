"""The effect itself on real images: train on the one CT, test on the one MRI, with and without GIN.

    python benchmarks/cross_modality.py                # CT -> MRI
    python benchmarks/cross_modality.py --reverse      # MRI -> CT

The images are one person each, so nothing is held out of the training modality: its column is of a
seen patient, the other column of an unseen patient in an unseen modality.
"""

import argparse
import tempfile
import time
from pathlib import Path

from rich.console import Console

from fedmodal.data.convert.labels import parse_labels
from fedmodal.data.convert.pair import add_pair
from fedmodal.data.dataset import Split
from fedmodal.data.store import Store, open_store
from fedmodal.report.table import test_table
from fedmodal.tasks import ABDOMEN, Modality
from fedmodal.training.config import training_config
from fedmodal.training.pooled import score_data_sets, train_pooled

PAIRS = {
    Modality.CT: ("ct_image.nii.gz", "ct_label_total.nii.gz", "total"),
    Modality.MRI: ("mri_image.nii.gz", "mri_label_total_mr.nii.gz", "total_mr"),
}
REALDATA = Path(__file__).parents[2] / "shared" / "realdata"


def open_pair(modality: Modality, split: Split, folder: Path, scratch: Path) -> Store:
    image, label, labels = PAIRS[modality]
    dataset = add_pair(
        scratch / modality.lower(),
        ABDOMEN,
        modality,
        image=folder / image,
        label=folder / label,
        patient=modality.lower(),
        split=split,
        mapping=parse_labels(labels, ABDOMEN),
    )
    return open_store(dataset, scratch / "cache")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--data", type=Path, default=REALDATA / "abdomen", help="folder of the image pairs")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=42)
    parser.add_argument("--arms", nargs="+", default=["none", "gin"])
    parser.add_argument("--reverse", action="store_true", help="train on the MRI, test on the CT")
    given = parser.parse_args()
    console = Console()
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        modalities = reversed(Modality) if given.reverse else Modality
        splits = (Split.TRAIN, Split.TEST)
        stores = [
            open_pair(modality, split, given.data, scratch)
            for modality, split in zip(modalities, splits, strict=True)
        ]
        for arm in given.arms:
            settings = {"task": "abdomen", "arm": arm, "steps_per_round": given.steps, "seed": given.seed}
            started = time.monotonic()
            session = train_pooled(training_config(settings), stores[:1], 1, scratch / arm)
            seconds = time.monotonic() - started
            console.print(f"\n[bold]{arm}[/bold]: {given.steps} steps in {seconds:.0f} s")
            console.print(test_table(score_data_sets(session, stores)))


if __name__ == "__main__":
    main()
