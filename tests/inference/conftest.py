from pathlib import Path

import pytest

from fedmodal.data.dataset import read_dataset
from fedmodal.data.store import open_store
from fedmodal.inference.model import Model, load_model
from fedmodal.training.config import training_config
from fedmodal.training.pooled import train_pooled

TRAINING = {"steps_per_round": 30, "batch_size": 4, "network": {"channels": [4, 8, 16]}}


@pytest.fixture(scope="session")
def model_file(phantom_sites: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network after a few steps on CT phantoms; it finds some of the larger organs."""
    store = open_store(read_dataset(phantom_sites / "site-1"), cache)
    folder = tmp_path_factory.mktemp("model")
    train_pooled(training_config(TRAINING), [store], 1, folder)
    return folder / "model.pt"


@pytest.fixture(scope="session")
def model(model_file: Path) -> Model:
    return load_model(model_file)


@pytest.fixture(scope="session")
def images(phantom_sites: Path) -> dict[str, Path]:
    """A phantom's image of each modality."""
    found = {}
    for name in ("site-1", "site-2"):
        dataset = read_dataset(phantom_sites / name)
        found[dataset.modality.value] = dataset.image_path(dataset.cases[0])
    return found
