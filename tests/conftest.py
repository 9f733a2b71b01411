"""What several test folders share: real sample images, and a small data set of each modality."""

from pathlib import Path

import pytest

from fedmodal.data.dataset import Dataset, Split
from fedmodal.data.phantom import write_phantoms
from fedmodal.tasks import ABDOMEN, Modality, Task

REALDATA = Path(__file__).parents[2] / "shared" / "realdata"


@pytest.fixture(scope="session")
def realdata() -> Path:
    if not REALDATA.is_dir():
        pytest.skip("the real sample images are not here (../shared/realdata)")
    return REALDATA


def write_sites(root: Path, task: Task, train: int) -> Path:
    """Phantoms of site-1 (CT) and site-2 (MRI) in folders below `root`."""
    counts = {Split.TRAIN: train, Split.VALIDATION: 1, Split.TEST: 1}
    for number, modality in enumerate((Modality.CT, Modality.MRI), 1):
        write_phantoms(root / f"site-{number}", task, modality, counts, seed=7)
    return root


@pytest.fixture(scope="session")
def phantom_sites(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one small data set a site: site-1 CT, site-2 MRI."""
    return write_sites(tmp_path_factory.mktemp("sites"), ABDOMEN, train=2)


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def model_file(phantom_sites: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small network after a few steps on CT phantoms; it finds some of the larger organs."""
    from fedmodal.data.dataset import read_dataset
    from fedmodal.data.store import open_store
    from fedmodal.training.config import training_config
    from fedmodal.training.pooled import train_pooled

    settings = {"steps_per_round": 30, "batch_size": 4, "network": {"channels": [4, 8, 16]}}
    store = open_store(read_dataset(phantom_sites / "site-1"), cache)
    folder = tmp_path_factory.mktemp("model")
    train_pooled(training_config(settings), [store], 1, folder)
    return folder / "model.pt"


@pytest.fixture
def ct_phantoms(phantom_sites: Path) -> Dataset:
    from fedmodal.data.dataset import read_dataset

    return read_dataset(phantom_sites / "site-1")


@pytest.fixture(scope="session")
def kits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Everybody's startup kits, never started; copy one to change it."""
    from tests.kits import local_project, provision

    folder = tmp_path_factory.mktemp("kits")
    return provision(local_project(folder), folder)
