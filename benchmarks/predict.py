"""What predicting a CT of 512 x 512 x 300 costs beside the bare network.

    python benchmarks/predict.py MODEL [--threads 2] [--slices 300] [--offset]

The CT is a phantom stretched to that grid, 0.8 x 0.8 mm and 450 mm long. The bare network is timed on the
slices that it is given here (128 x 128, 3 mm), and on the CT's own slices of 512 x 512. With `--offset`
its header holds the offset of -1024, as many converters write it: then it is read as float32, in twice
the memory.
"""

import argparse
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

SIDE = 512
SPACING = 0.8
LENGTH = 450
CPU = torch.device("cpu")
# Not ru_maxrss: a child starts with its parent's.
MEASURED = """
from fedmodal.cli import main
try:
    main()
finally:
    print(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1])
"""


def write_ct(path: Path, count: int, *, offset: bool = False) -> None:
    phantom = make_phantom(ABDOMEN, Modality.CT, seed=0, index=0)
    values = np.asanyarray(phantom.image, dtype=np.float32).transpose(2, 1, 0)
    factors = [new / old for new, old in zip((SIDE, SIDE, count), values.shape, strict=True)]
    stretched = ndimage.zoom(values, factors, order=1).astype(np.int16)
    # nibabel writes values as they are and the offset beside them
    stored = stretched + np.int16(1024) if offset else stretched
    image = nib.Nifti1Image(stored, np.diag([-SPACING, -SPACING, LENGTH / count, 1.0]))
    if offset:
        image.header.set_slope_inter(1, -1024)
    nib.save(image, path)


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
    parser.add_argument("--slices", type=int, default=300)
    parser.add_argument("--offset", action="store_true")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    model = load_model(given.model)
    network = model.network(Modality.CT)
    with tempfile.TemporaryDirectory() as name:
        source = Source(Path(name) / "ct.nii", Path(name) / "organs.nii.gz")
        write_ct(source.path, given.slices, offset=given.offset)
        image = read_nifti(source.path)
        slices = preprocess(image, None, model.task, Modality.CT).image
        predict_scores(network, slices[:16], CPU)
        small = seconds(lambda: predict_scores(network, slices, CPU))
        large = seconds(lambda: bare(network, given.slices))
        found = []
        whole = seconds(lambda: found.append(predict(model, read_nifti(source.path), Modality.CT)))
        saving = seconds(lambda: write_prediction(found[0], source, preview=False))
        del image, found[:]
        memory = most_memory(given.model, source)
        options = most_memory(given.model, source, "--tta", "--uncertainty", "--largest", "--stats")
    print(
        f"network on {len(slices)} slices of 128 x 128: {small:.1f} s; "
        f"on {given.slices} of 512 x 512: {large:.1f} s"
    )
    print(
        f"predict, reading included: {whole:.1f} s, {whole / small:.2f} and {whole / large:.2f} times these"
    )
    print(f"writing .nii.gz: {saving:.1f} s")
    print(f"most memory of `fedmodal predict`: {memory:.0f} MiB; with every option: {options:.0f} MiB")


def most_memory(model: Path, source: Source, *options: str) -> float:
    """MiB that the command needs in a process of its own."""
    command = [sys.executable, "-c", MEASURED, "predict", str(model), str(source.path), str(source.out)]
    done = subprocess.run([*command, *options], check=True, stdout=subprocess.PIPE, text=True)
    return int(done.stdout.split()[-1]) / 1024


def bare(network: torch.nn.Module, count: int) -> None:
    """The network and its most likely class on slices of 512 x 512, four at a time."""
    with torch.inference_mode():
        for _ in range(0, count, 4):
            network(torch.rand(4, 1, SIDE, SIDE)).argmax(1)


if __name__ == "__main__":
    main()
