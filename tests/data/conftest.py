"""Small data sets of real NIfTI files, and the real CT and MRI where they lie beside the repository."""

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest
import torch

from fedmodal.data.dataset import Case, Dataset, Split, new_dataset, write_dataset
from fedmodal.tasks import ABDOMEN, Modality, Task

Volume = tuple[npt.NDArray[np.int16], npt.NDArray[np.uint8]]
LPS = np.diag([-3.0, -3.0, 3.0, 1.0])

torch.set_num_threads(1)


@pytest.fixture
def realdata() -> Path:
    """The folder of real images, one level above the repository."""
    folder = Path(__file__).parents[3] / "shared" / "realdata"
    if not folder.is_dir():
        pytest.skip("no real images in ../shared/realdata")
    return folder


def _volume(modality: Modality, seed: int, shape: tuple[int, int, int] = (30, 28, 12)) -> Volume:
    """An elliptic body in air with a block for each organ of the abdomen; axes LPS."""
    noise = np.random.default_rng(seed)
    x, y, _ = np.indices(shape)
    radius = np.hypot((x - shape[0] / 2) / (shape[0] * 0.45), (y - shape[1] / 2) / (shape[1] * 0.45))
    label = np.zeros(shape, np.uint8)
    for organ in range(1, 7):
        left, front = 7 + 6 * ((organ - 1) % 3), 8 + 7 * ((organ - 1) // 3)
        label[left : left + 4, front : front + 5, 3:9] = organ
    tissue = np.where(radius < 0.85, 2, np.where(radius < 1, 1, 0))
    values, spread = ([-1000, -100, 40], 15) if modality is Modality.CT else ([3, 700, 250], 10)
    image = np.array(values)[tissue] + 20 * (label > 0) + noise.normal(0, spread, shape)
    return (image if modality is Modality.CT else np.abs(image)).astype(np.int16), label


@pytest.fixture
def volume() -> Callable[..., Volume]:
    """`volume(modality, seed)`: image and label arrays."""
    return _volume


@pytest.fixture
def make_dataset(tmp_path: Path) -> Callable[..., Dataset]:
    """`make_dataset(modality, splits, name)`: a data set on disk, a patient for each split named."""

    def make(
        modality: Modality = Modality.CT,
        splits: tuple[str, ...] = ("train", "validation", "test"),
        name: str = "site",
        task: Task = ABDOMEN,
    ) -> Dataset:
        folder = tmp_path / name
        folder.mkdir()
        cases = []
        for number, split in enumerate(splits):
            image, label = _volume(modality, seed=number)
            case = Case(
                image=Path(f"image{number}.nii.gz"),
                label=Path(f"label{number}.nii.gz"),
                patient=f"p{number}",
                split=Split(split),
            )
            nib.save(nib.Nifti1Image(image, LPS), folder / case.image)
            nib.save(nib.Nifti1Image(label, LPS), folder / case.label)
            cases.append(case)
        dataset = new_dataset(folder, task, modality, tuple(cases), name=name)
        write_dataset(dataset)
        return dataset

    return make
