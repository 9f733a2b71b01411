"""What predicting a CT of 512 x 512 x 300 costs beside the bare network.

    python benchmarks/predict.py MODEL [--threads 2]

The CT is a phantom stretched to that grid, 0.8 x 0.8 x 1.5 mm. The bare network is timed on the slices
that it is given here (128 x 128, 3 mm), and on the CT's own 300 slices of 512 x 512.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from scipy import ndimage

from fedmodal.data.nifti import read_nifti
from fedmodal.data.phantom import make_phantom
from fedmodal.data.preprocess import preprocess
from fedmodal.inference.files import Source, write_prediction
from fedmodal.inference.model import load_model
from fedmodal.inference.predict import predict
from fedmodal.tasks import ABDOMEN, Modality
from fedmodal.training.evaluator import predict_scores

SHAPE = (512, 512, 300)
SPACING = (0.8, 0.8, 1.5)
CPU = torch.device("cpu")


def write_ct(path: Path) -> None:
    phantom = make_phantom(ABDOMEN, Modality.CT, seed=0, index=0)
    values = np.asanyarray(phantom.image, dtype=np.float32).transpose(2, 1, 0)
    factors = [new / old for new, old in zip(SHAPE, values.shape, strict=True)]
    stretched = ndimage.zoom(values, factors, order=1).astype(np.int16)
    nib.save(nib.Nifti1Image(stretched, np.diag([-SPACING[0], -SPACING[1], SPACING[2], 1.0])), path)


def seconds(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("--threads", type=int, default=2)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model = load_model(given.model)
    network = model.network(Modality.CT)
    with tempfile.TemporaryDirectory() as name:
        source = Source(Path(name) / "ct.nii", Path(name) / "organs.nii.gz")
        write_ct(source.path)
        image = read_nifti(source.path)
        slices = preprocess(image, None, model.task, Modality.CT).image
        predict_scores(network, slices[:16], CPU)
        small = seconds(lambda: predict_scores(network, slices, CPU))
        large = seconds(lambda: bare(network, SHAPE[2]))
        found = []
        whole = seconds(lambda: found.append(predict(model, read_nifti(source.path), Modality.CT)))
        saving = seconds(lambda: write_prediction(found[0], source, preview=False))
        memory = most_memory(given.model, source)
    print(f"network on {len(slices)} slices of 128 x 128: {small:.1f} s; on 300 of 512 x 512: {large:.1f} s")
    print(
        f"predict, reading included: {whole:.1f} s, {whole / small:.2f} and {whole / large:.2f} times these"
    )
    print(f"writing .nii.gz: {saving:.1f} s")
    print(f"most memory of `fedmodal predict`: {memory:.0f} MiB")


def most_memory(model: Path, source: Source) -> float:
    """MiB that the command needs in a process of its own."""
    command = [sys.executable, "-c", "from fedmodal.cli import main; main()", "predict"]
    subprocess.run(
        [*command, str(model), str(source.path), str(source.out)], check=True, stdout=subprocess.DEVNULL
    )
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def bare(network: torch.nn.Module, count: int) -> None:
    """The network and its most likely class on slices of 512 x 512, four at a time."""
    with torch.inference_mode():
        for _ in range(0, count, 4):
            network(torch.rand(4, 1, *SHAPE[:2])).argmax(1)


if __name__ == "__main__":
    main()
