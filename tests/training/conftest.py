import numpy as np
import pytest
import torch

from fedmodal.data.dataset import Split
from fedmodal.data.preprocess import Geometry
from fedmodal.data.store import StoredCase
from fedmodal.tasks import ABDOMEN, Modality
from fedmodal.training.config import TrainingConfig, training_config


def make_case(
    patient: str,
    split: Split,
    label: np.ndarray,
    image: np.ndarray | None = None,
    modality: Modality = Modality.CT,
) -> StoredCase:
    """A stored case whose image is already on the task's grid, (S, P, L) at 3 mm."""
    shape = label.shape
    geometry = Geometry(
        shape=shape,
        affine=((0, 0, -3, 0), (0, -3, 0, 0), (3, 0, 0, 0), (0, 0, 0, 1)),
        oriented=shape,
        resampled=shape,
        start=(0, 0),
        size=shape[1:],
        spacing=(3.0, 3.0, 3.0),
    )
    pixels = label.astype(np.float16) / 6 if image is None else image
    voxels = np.stack([(label == organ).sum((1, 2)) for organ in range(7)], 1)
    return StoredCase(patient, split, modality, pixels, label, label, geometry, voxels)


@pytest.fixture
def cases() -> list[StoredCase]:
    """Two training patients and one of validation: liver in slices 0 and 1, spleen in slice 2 of 4."""
    label = np.zeros((4, 32, 32), np.uint8)
    label[:2, 8:20, 4:16] = ABDOMEN.labels["liver"]
    label[2, 10:18, 20:28] = ABDOMEN.labels["spleen"]
    splits = (Split.TRAIN, Split.TRAIN, Split.VALIDATION)
    return [make_case(f"p{number}", split, label) for number, split in enumerate(splits)]


@pytest.fixture
def config() -> TrainingConfig:
    return training_config(
        {"steps_per_round": 3, "batch_size": 2, "network": {"channels": [4, 8]}, "learning_rate": 1e-2}
    )


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)
