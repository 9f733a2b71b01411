"""Cases preprocessed once, kept as memory-mapped files that a restarted process finds again."""

import errno
import fcntl
import hashlib
import math
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt
import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from fedmodal.data.check import dataset_problems, duplicate_problems, pair_problems
from fedmodal.data.dataset import Case, Dataset, Split
from fedmodal.data.digests import Digests
from fedmodal.data.nifti import Array, read_nifti
from fedmodal.data.preprocess import PREPROCESSING_VERSION, Geometry, Prepared, preprocess
from fedmodal.errors import UserError
from fedmodal.tasks import Modality, Task

CACHE_VARIABLE = "FEDMODAL_CACHE"

_MARKER = "case.json"  # written last: a folder without it, or with other sizes than it says, is not believed
_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class StoredCase:
    """One preprocessed case; its arrays are read-only maps of files in the cache.

    Attributes:
        patient: as in `dataset.json`.
        split: as in `dataset.json`.
        modality: the data set's.
        image: float16 (S, H, W), 0 to 1.
        label: uint8 (S, H, W), the task's ids.
        reference: uint8, the label map on the image's own grid and axes, for evaluation.
        geometry: the way from (S, H, W) back to the image's own grid.
        voxels: int64 (S, num_classes), voxels of each class in each slice of `label`.
        annotated: ids of the organs that the label map outlines; None means all of the task's.
    """

    patient: str
    split: Split
    modality: Modality
    image: npt.NDArray[np.float16]
    label: npt.NDArray[np.uint8]
    reference: npt.NDArray[np.uint8]
    geometry: Geometry
    voxels: npt.NDArray[np.int64]
    annotated: tuple[int, ...] | None = None


@dataclass(frozen=True, eq=False)
class Store:
    """A site's data set, ready for training and evaluation; `synthetic` marks phantoms."""

    task: Task
    modality: Modality
    name: str
    cases: tuple[StoredCase, ...]
    synthetic: bool = False

    def split(self, split: Split) -> tuple[StoredCase, ...]:
        """The cases of one split, in the order of `dataset.json`."""
        return tuple(case for case in self.cases if case.split == split)


class _Marker(BaseModel):
    """What a finished folder says of itself: enough to know how long each of its files must be."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    geometry: Geometry


def default_cache() -> Path:
    """`$FEDMODAL_CACHE`, else `$XDG_CACHE_HOME/fedmodal`, else `~/.cache/fedmodal`."""
    if named := os.environ.get(CACHE_VARIABLE):
        return Path(named).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "fedmodal"


def open_store(dataset: Dataset, cache: Path, progress: Progress | None = None) -> Store:
    """Open the preprocessed cases of a data set, making those that the cache does not hold.

    Processes that open the same data set at once share the work: each case is made by one of
    them, the others wait for it.

    Args:
        dataset: the site's data set; a split may be empty.
        cache: folder of preprocessed cases; made if missing, readable by its owner only.
        progress: called with cases done and cases in all, after each case.

    Raises:
        UserError: the data set breaks a rule of `fedmodal check`, or the cache cannot be written.
    """
    _refuse(dataset_problems(dataset))
    with _room_needed(cache, "the folder itself"):
        _private_folder(cache)
        _remove_leftovers(cache)
    digests = Digests(cache, dataset.folder)
    try:
        cases = tuple(_open_all(dataset, cache, digests, progress))
    finally:
        digests.save()
    return Store(dataset.task_definition, dataset.modality, dataset.name, cases, dataset.synthetic)


def _open_all(
    dataset: Dataset, cache: Path, digests: Digests, progress: Progress | None
) -> Iterator[StoredCase]:
    images = []
    for number, case in enumerate(dataset.cases, 1):
        image, label = digests.of(dataset.image_path(case)), digests.of(dataset.label_path(case))
        images.append((image, str(dataset.image_path(case))))
        _refuse(duplicate_problems(images))
        yield _open_case(dataset, case, cache, _key(dataset, image, label))
        if progress:
            progress(number, len(dataset.cases))


def _refuse(problems: tuple[str, ...]) -> None:
    for problem in problems:
        raise UserError(problem)


def _key(dataset: Dataset, image: str, label: str) -> str:
    """The name of a case's folder: a hash of everything that its arrays depend on."""
    task = dataset.task_definition.model_dump_json()
    parts = (str(PREPROCESSING_VERSION), task, dataset.modality, image, label)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _open_case(dataset: Dataset, case: Case, cache: Path, key: str) -> StoredCase:
    folder = cache / "cases" / key
    found = _load(folder, dataset, case)
    if found:
        return found
    with _room_needed(cache, "a lock file"), _locked(cache, key):
        found = _load(folder, dataset, case)  # another process may have made it meanwhile
        if found:
            return found
        shutil.rmtree(folder, ignore_errors=True)
        _make(dataset, case, cache, key)
    made = _load(folder, dataset, case)
    if made is None:
        raise UserError(f"{folder}: vanished while it was opened; start again")
    return made


def _load(folder: Path, dataset: Dataset, case: Case) -> StoredCase | None:
    """The case in a finished folder; None if there is none or a file is not as long as it must be."""
    try:
        marker = _Marker.model_validate_json((folder / _MARKER).read_bytes())
        return StoredCase(
            patient=case.patient,
            split=case.split,
            modality=dataset.modality,
            image=_map(folder / "image", marker.geometry.stored, torch.float16),
            label=_map(folder / "label", marker.geometry.stored, torch.uint8),
            reference=_map(folder / "reference", marker.geometry.shape, torch.uint8),
            geometry=marker.geometry,
            voxels=_map(
                folder / "voxels",
                (marker.geometry.stored[0], dataset.task_definition.num_classes),
                torch.int64,
            ),
            annotated=_outlined(dataset),
        )
    except (OSError, ValidationError, EOFError):
        return None


def _outlined(dataset: Dataset) -> tuple[int, ...] | None:
    """Ids of the organs that the label maps outline; None means all."""
    return None if dataset.annotated is None else tuple(organ.id for organ in dataset.annotated_organs)


def _map(path: Path, shape: tuple[int, ...], dtype: torch.dtype) -> npt.NDArray[Any]:
    """A read-only map of a raw file; unlike numpy's it keeps no file open, so thousands fit."""
    values = math.prod(shape)
    if path.stat().st_size != values * dtype.itemsize:
        raise EOFError(path)
    array: npt.NDArray[Any] = torch.from_file(str(path), shared=False, size=values, dtype=dtype).numpy()
    array.flags.writeable = False
    return array.reshape(shape)


def _make(dataset: Dataset, case: Case, cache: Path, key: str) -> None:
    """Preprocess a case into a temporary folder, then give it its name."""
    paths = dataset.image_path(case), dataset.label_path(case)
    image, label = read_nifti(paths[0]), read_nifti(paths[1])
    task = dataset.task_definition
    _refuse(pair_problems(image, label, task, dataset.modality, paths))
    prepared = preprocess(image, label, task, dataset.modality)
    arrays = _arrays(prepared, np.asanyarray(label.dataobj), task)
    partial = cache / "partial" / key
    with _room_needed(cache, f"{sum(array.nbytes for array in arrays.values()) / 1e6:.0f} MB for one case"):
        try:
            _write(partial, arrays, prepared.geometry)
            partial.rename(cache / "cases" / key)
        except OSError:
            shutil.rmtree(partial, ignore_errors=True)
            raise


def _arrays(prepared: Prepared, reference: Array, task: Task) -> dict[str, Array]:
    label = prepared.label
    if label is None:
        raise ValueError("a stored case has a label map")
    voxels = [np.bincount(part.ravel(), minlength=task.num_classes) for part in label]
    return {
        "image": prepared.image,
        "label": label,
        "reference": reference.astype(np.uint8),
        "voxels": np.stack(voxels).astype(np.int64),
    }


def _write(folder: Path, arrays: dict[str, Array], geometry: Geometry) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True, mode=0o700)
    for name, array in arrays.items():
        with (folder / name).open("wb") as file:
            file.write(np.ascontiguousarray(array).data)
            _to_disk(file)
    marker = _Marker(geometry=geometry)
    with (folder / _MARKER).open("wb") as file:
        file.write(marker.model_dump_json().encode())
        _to_disk(file)


def _to_disk(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _private_folder(cache: Path) -> None:
    cache.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in ("cases", "partial", "locks", "digests"):
        (cache / name).mkdir(exist_ok=True, mode=0o700)


@contextmanager
def _locked(cache: Path, key: str, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a key; the system frees it when its holder dies. One file serves many keys."""
    with (cache / "locks" / key[:2]).open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def _remove_leftovers(cache: Path) -> None:
    """Delete what killed processes left: partial folders whose lock is free."""
    for partial in (cache / "partial").iterdir():
        with suppress(BlockingIOError), _locked(cache, partial.name, wait=False):
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _room_needed(cache: Path, what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = "is full" if error.errno in _NO_ROOM else f"cannot be written ({error.strerror})"
        raise UserError(
            f"{cache}: the cache of preprocessed images {reason}, it needs {what}; free space there or set "
            f"{CACHE_VARIABLE} to another folder"
        ) from error
