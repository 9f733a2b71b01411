from pathlib import Path

import pytest

from fedmodal.data.dataset import read_dataset
from fedmodal.inference.model import Model, load_model


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
