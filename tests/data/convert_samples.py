"""Small files in the layouts of public data sets, and what tests ask of converted ones."""

from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fedmodal.errors import UserError

LPS = np.diag([-3.0, -3.0, 3.0, 1.0])


def saved(array: np.ndarray, path: Path, affine: np.ndarray = LPS) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def loaded(path: Path) -> np.ndarray:
    return np.asanyarray(nib.load(path).dataobj)


def refused(act: Callable[[], object], words: str) -> None:
    """The act ends with one line for the user that holds the words."""
    with pytest.raises(UserError) as caught:
        act()
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def in_ids(label: np.ndarray, ids: Sequence[int]) -> np.ndarray:
    """A label map of the task as a set has it: organ n becomes `ids[n - 1]`."""
    return np.array([0, *ids], np.int16)[label]


def centre(image: nib.Nifti1Image, organ: int) -> np.ndarray:
    """Where an organ lies, mm to the right, front and head."""
    voxels = np.argwhere(np.asanyarray(image.dataobj) == organ).mean(axis=0)
    return np.asarray(nib.affines.apply_affine(image.affine, voxels))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
