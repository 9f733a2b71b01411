"""What a study will cost, from a few training steps on this machine."""

import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import torch

from fedmodal.data.dataset import Dataset, Split, read_dataset
from fedmodal.data.phantom import write_phantoms
from fedmodal.data.store import open_store
from fedmodal.study.runner import Job
from fedmodal.tasks import Modality, get_task
from fedmodal.training.config import TrainingConfig
from fedmodal.training.session import Session
from fedmodal.training.state import TrainingState

_WARM_UP, _MEASURED = 3, 7


@dataclass(frozen=True)
class Cost:
    """An estimate: optimizer steps in all, seconds a step alone on this machine, and on what device."""

    steps: int
    seconds_a_step: float
    device: str

    @property
    def hours(self) -> float:
        """Of training alone, one step after the other; scoring and start-up come on top."""
        return self.steps * self.seconds_a_step / 3600


def estimate_cost(jobs: Sequence[Job], root: Path) -> Cost:
    """Count the jobs' steps and measure one; the images' headers are read, no voxels.

    Args:
        jobs: what is to run.
        root: the study's folder.
    """
    slices: dict[Path, int] = {}
    steps = 0
    for job in jobs:
        for site in job.order.sites.values():
            if site not in slices:
                slices[site] = count_slices(read_dataset(root / site))
        counts = [slices[site] for site in job.order.sites.values()]
        steps += job.order.rounds * _steps_a_round(job.order.training, counts, federated=job.order.federated)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Cost(steps, measure_step(jobs[-1].order.training, device), device.type)


def _steps_a_round(training: TrainingConfig, slices: Sequence[int], *, federated: bool) -> int:
    sessions = list(slices) if federated else [sum(slices)]
    return sum(training.steps_per_round or max(1, count // training.batch_size) for count in sessions)


def count_slices(dataset: Dataset) -> int:
    """Slices of the training patients once they are prepared; thick slices keep their thickness."""
    wanted = dataset.task_definition.spacing[0]
    return sum(_slices(dataset.image_path(case), wanted) for case in dataset.split(Split.TRAIN))


def _slices(path: Path, wanted: float) -> int:
    image = nib.load(path)
    axis = next(i for i, code in enumerate(nib.aff2axcodes(image.affine)) if code in ("S", "I"))
    thickness = float(image.header.get_zooms()[axis])
    kept: int = round(image.shape[axis] * thickness / max(thickness, wanted))
    return max(1, kept)


def measure_step(training: TrainingConfig, device: torch.device) -> float:
    """Seconds of one optimizer step, slices and augmentation included, on one phantom."""
    task = get_task(training.task)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dataset = write_phantoms(folder / "phantom", task, Modality.CT, {Split.TRAIN: 1}, seed=0)
        store = open_store(dataset, folder / "cache")
        few = training.model_copy(update={"steps_per_round": _WARM_UP + _MEASURED})
        session = Session(few, store.cases, TrainingState(folder / "state"), name="cost", device=device)
        times: list[float] = []
        session.train(0, 1, on_step=lambda *_: times.append(time.perf_counter()))
    return (times[-1] - times[_WARM_UP - 1]) / _MEASURED
