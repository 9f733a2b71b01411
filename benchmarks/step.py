"""What a training step costs on one CPU thread, with and without keeping freed memory.

    python benchmarks/step.py

Both kinds run in fresh processes, in turns, so that other work on the machine strikes both alike.
"""

import argparse
import statistics
import subprocess
import sys
import time

import torch

from fedmodal.networks import SegmentationNetwork
from fedmodal.training.config import TrainingConfig
from fedmodal.training.memory import keep_freed_memory
from fedmodal.training.trainer import segmentation_loss

STEPS = 20


def measure(batch_size: int, *, keep: bool, threads: int = 1) -> float:
    """Milliseconds a step of the default network on random slices of 128 x 128."""
    torch.set_num_threads(threads)
    if keep and not keep_freed_memory():
        sys.exit("this C library has no such setting")
    network = SegmentationNetwork("abdomen", 0)
    loss_of = segmentation_loss(TrainingConfig())
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    images, labels = torch.rand(batch_size, 1, 128, 128), torch.randint(0, 7, (batch_size, 128, 128))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        loss_of(network, images, labels).backward()
        optimizer.step()

    for _ in range(3):
        step()
    started = time.perf_counter()
    for _ in range(STEPS):
        step()
    return (time.perf_counter() - started) / STEPS * 1000


def in_fresh_process(batch_size: int, *, keep: bool) -> float:
    command = [sys.executable, __file__, "--once", str(batch_size), str(int(keep))]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--once", nargs=2, type=int, metavar=("BATCH", "KEEP"), help=argparse.SUPPRESS)
    parser.add_argument("--threads", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--turns", type=int, default=5)
    given = parser.parse_args()
    if given.once:
        print(measure(given.once[0], keep=bool(given.once[1]), threads=given.threads))
        return
    for batch_size in (4, 8):
        pairs = [
            [in_fresh_process(batch_size, keep=keep) for keep in (False, True)] for _ in range(given.turns)
        ]
        plain, kept = (statistics.median(column) for column in zip(*pairs, strict=True))
        print(
            f"batch {batch_size}: {plain:.0f} ms a step, with freed memory kept {kept:.0f} ms, "
            f"ratio {plain / kept:.2f}"
        )


if __name__ == "__main__":
    main()
