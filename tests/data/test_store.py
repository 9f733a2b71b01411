"""The store: made once, found again, never half-written, shared between processes."""

import multiprocessing
import os
import resource
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess as Process
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fedmodal.data.dataset import Dataset, Split, write_dataset
from fedmodal.data.nifti import read_nifti
from fedmodal.data.preprocess import preprocess
from fedmodal.data.store import Store, default_cache, open_store
from fedmodal.errors import UserError
from fedmodal.tasks import ABDOMEN, Modality

Maker = Callable[..., Dataset]


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def made(cache: Path) -> list[str]:
    """Names of the finished folders."""
    return sorted(path.name for path in (cache / "cases").iterdir())


def same(one: Store, other: Store) -> bool:
    pairs = zip(one.cases, other.cases, strict=True)
    names = ("image", "label", "reference", "voxels")
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for a, b in pairs for name in names)


def opening(
    dataset: Dataset, cache: Path, prepare: Callable[[Connection], None]
) -> tuple[Process, Connection]:
    """Open the store in a forked process; it sends the error's text, or "opened", when it is done."""
    ours, theirs = multiprocessing.Pipe()

    def run() -> None:
        prepare(theirs)
        try:
            open_store(dataset, cache)
            theirs.send("opened")
        except UserError as error:
            theirs.send(str(error))

    process = multiprocessing.get_context("fork").Process(target=run)
    process.start()
    return process, ours


def test_a_case_holds_what_preprocessing_gives(make_dataset: Maker, cache: Path) -> None:
    dataset = make_dataset()
    store = open_store(dataset, cache)
    assert (store.task, store.modality, store.name) == (ABDOMEN, Modality.CT, "site")
    stored = store.cases[1]
    image = read_nifti(dataset.image_path(dataset.cases[1]))
    label = read_nifti(dataset.label_path(dataset.cases[1]))
    prepared = preprocess(image, label, ABDOMEN, Modality.CT)
    np.testing.assert_array_equal(stored.image, prepared.image)
    np.testing.assert_array_equal(stored.label, prepared.label)
    np.testing.assert_array_equal(stored.reference, np.asanyarray(label.dataobj))
    assert stored.geometry == prepared.geometry
    assert (stored.image.dtype, stored.label.dtype, stored.reference.dtype) == (
        np.float16,
        np.uint8,
        np.uint8,
    )
    assert (stored.patient, stored.split, stored.modality) == ("p1", Split.VALIDATION, Modality.CT)


def test_voxels_count_each_class_in_each_slice(make_dataset: Maker, cache: Path) -> None:
    case = open_store(make_dataset(), cache).cases[0]
    assert case.voxels.dtype == np.int64
    assert case.voxels.shape == (12, 7)
    assert case.voxels[2].tolist() == [128 * 128, 0, 0, 0, 0, 0, 0]
    assert case.voxels[3].tolist() == [128 * 128 - 6 * 20, 20, 20, 20, 20, 20, 20]


def test_splits_keep_their_order(make_dataset: Maker, cache: Path) -> None:
    store = open_store(make_dataset(splits=("test", "train", "test")), cache)
    assert [case.patient for case in store.split(Split.TEST)] == ["p0", "p2"]
    assert store.split(Split.VALIDATION) == ()


def test_progress_counts_cases(make_dataset: Maker, cache: Path) -> None:
    calls: list[tuple[int, int]] = []
    open_store(make_dataset(splits=("train", "test")), cache, lambda *call: calls.append(call))
    assert calls == [(1, 2), (2, 2)]


def test_arrays_cannot_be_written(make_dataset: Maker, cache: Path) -> None:
    case = open_store(make_dataset(), cache).cases[0]
    with pytest.raises(ValueError, match="read-only"):
        case.image[0] = 1


def test_only_the_owner_can_read_the_cache(make_dataset: Maker, cache: Path) -> None:
    open_store(make_dataset(), cache)
    folders = [cache, *(path for path in cache.rglob("*") if path.is_dir())]
    assert {stat.S_IMODE(folder.stat().st_mode) for folder in folders} == {0o700}


def read_by_this_process() -> int:
    io = Path("/proc/self/io")
    if not io.exists():
        pytest.skip("the system does not count what a process reads")
    return int(io.read_text().split()[1])


def test_a_second_start_is_fast_reads_no_image_and_keeps_no_file_open(
    make_dataset: Maker, cache: Path
) -> None:
    dataset = make_dataset(splits=("train",) * 40)
    first = open_store(dataset, cache)
    before, start = read_by_this_process(), time.perf_counter()
    second = open_store(dataset, cache)
    assert time.perf_counter() - start < 1
    images = sum(dataset.image_path(case).stat().st_size for case in dataset.cases)
    assert read_by_this_process() - before < images / 5
    assert same(first, second)
    opened = [os.path.realpath(descriptor) for descriptor in Path("/proc/self/fd").iterdir()]
    assert not [path for path in opened if path.startswith(str(cache))]


def test_a_changed_file_is_noticed(make_dataset: Maker, cache: Path) -> None:
    dataset = make_dataset()
    first = open_store(dataset, cache)
    path = dataset.label_path(dataset.cases[0])
    label = np.asanyarray(nib.load(path).dataobj).copy()
    label[label == 6] = 5
    nib.save(nib.Nifti1Image(label, nib.load(path).affine), path)
    second = open_store(dataset, cache)
    assert first.cases[0].voxels[:, 6].sum() == second.cases[0].voxels[:, 5].sum() / 2
    assert len(made(cache)) == 4


def test_a_damaged_index_costs_time_only(make_dataset: Maker, cache: Path) -> None:
    dataset = make_dataset()
    first = open_store(dataset, cache)
    (index,) = (cache / "digests").iterdir()
    for content in ("{", "[1]", '{"a": 1}'):
        index.write_text(content)
        assert same(first, open_store(dataset, cache))
    assert len(made(cache)) == 3


@pytest.mark.parametrize("name", ["image", "label", "reference", "voxels", "case.json"])
@pytest.mark.parametrize("change", ["cut", "gone"])
def test_a_damaged_case_is_made_again(make_dataset: Maker, cache: Path, name: str, change: str) -> None:
    dataset = make_dataset(splits=("train",))
    good = open_store(dataset, cache)
    path = cache / "cases" / made(cache)[0] / name
    kept = [np.array(good.cases[0].image), np.array(good.cases[0].label)]
    data = path.read_bytes()
    path.unlink()
    if change == "cut":
        path.write_bytes(data[:-1])
    again = open_store(dataset, cache).cases[0]
    np.testing.assert_array_equal(again.image, kept[0])
    np.testing.assert_array_equal(again.label, kept[1])
    assert path.read_bytes() == data


COUNTING = """
import sys, time
from pathlib import Path
from fedmodal.data import store
from fedmodal.data.dataset import read_dataset

real = store.preprocess
def counted(*arguments):
    print("made", flush=True)
    time.sleep(0.05)
    return real(*arguments)
store.preprocess = counted
store.open_store(read_dataset(Path(sys.argv[1])), Path(sys.argv[2]))
"""


def test_two_processes_share_the_work(make_dataset: Maker, cache: Path) -> None:
    dataset = make_dataset(splits=("train",) * 6)
    command = [sys.executable, "-c", COUNTING, str(dataset.folder), str(cache)]
    runs = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]  # noqa: S603
    output = "".join(run.communicate(timeout=100)[0] for run in runs)
    assert [run.returncode for run in runs] == [0, 0]
    assert output.count("made") == 6
    assert len(made(cache)) == 6


def test_a_killed_process_leaves_nothing_that_is_believed(
    make_dataset: Maker, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = make_dataset(splits=("train",))

    def stall_when_writing(pipe: Connection) -> None:
        monkeypatch.setattr(os, "fsync", lambda _: (pipe.send("writing"), time.sleep(60)))

    process, pipe = opening(dataset, cache, stall_when_writing)
    assert pipe.recv() == "writing"
    assert list((cache / "partial").iterdir())
    process.kill()
    process.join()
    assert made(cache) == []
    case = open_store(dataset, cache).cases[0]
    assert case.voxels.sum() == case.label.size
    assert list((cache / "partial").iterdir()) == []


def test_a_leftover_of_another_data_set_is_removed(make_dataset: Maker, cache: Path) -> None:
    dataset = make_dataset()
    open_store(dataset, cache)
    (cache / "partial" / ("ab" * 32)).mkdir()
    open_store(dataset, cache)
    assert list((cache / "partial").iterdir()) == []


def test_a_full_disk_is_said_and_leaves_nothing(make_dataset: Maker, cache: Path) -> None:
    dataset = make_dataset()
    process, pipe = opening(
        dataset, cache, lambda _: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
    )
    message = pipe.recv()
    process.join()
    assert message.startswith(
        f"{cache}: the cache of preprocessed images is full, it needs 1 MB for one case"
    )
    assert "set FEDMODAL_CACHE to another folder" in message
    assert "\n" not in message
    assert made(cache) == []
    assert list((cache / "partial").iterdir()) == []
    assert len(open_store(dataset, cache).cases) == 3


def test_a_cache_that_is_a_file_is_said(make_dataset: Maker, cache: Path) -> None:
    cache.write_text("")
    with pytest.raises(UserError, match=r"cannot be written .* FEDMODAL_CACHE"):
        open_store(make_dataset(), cache)


def refused(dataset: Dataset, cache: Path, words: str) -> None:
    with pytest.raises(UserError) as caught:
        open_store(dataset, cache)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_rules_of_check_hold_here_too(make_dataset: Maker, cache: Path) -> None:
    dataset = make_dataset()
    first, second, third = dataset.cases
    refused(dataset.model_copy(update={"modality": Modality.MRI}), cache, "declared MRI")
    refused(dataset.model_copy(update={"num_training": 4}), cache, "lists 3 cases")
    leak = second.model_copy(update={"patient": "p0"})
    refused(
        dataset.model_copy(update={"cases": (first, leak, third)}), cache, "one patient in several splits"
    )
    twice = third.model_copy(update={"image": first.image, "label": first.label})
    refused(dataset.model_copy(update={"cases": (first, second, twice)}), cache, "the same image")


def test_a_broken_file_is_named(make_dataset: Maker, cache: Path) -> None:
    dataset = make_dataset()
    path = dataset.image_path(dataset.cases[1])
    path.write_bytes(path.read_bytes()[:-50])
    refused(dataset, cache, f"{path}: truncated or damaged gzip file")
    path.unlink()
    refused(dataset, cache, f"{path}: no such file")


def test_an_evaluation_site_needs_no_training_case(make_dataset: Maker, cache: Path) -> None:
    store = open_store(make_dataset(splits=("test",)), cache)
    assert store.split(Split.TRAIN) == ()
    assert len(store.split(Split.TEST)) == 1


def test_data_sets_share_cases_of_the_same_content(make_dataset: Maker, cache: Path) -> None:
    one = make_dataset(splits=("train",), name="one")
    other = make_dataset(splits=("train",), name="two")
    first, second = open_store(one, cache), open_store(other, cache)
    assert same(first, second)
    assert len(made(cache)) == 1
    assert len(list((cache / "digests").iterdir())) == 2


def test_where_the_cache_lies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("FEDMODAL_CACHE", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert default_cache() == tmp_path / ".cache" / "fedmodal"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert default_cache() == tmp_path / "xdg" / "fedmodal"
    monkeypatch.setenv("FEDMODAL_CACHE", "~/mine")
    assert default_cache() == tmp_path / "mine"


def test_another_task_is_another_folder(make_dataset: Maker, cache: Path) -> None:
    dataset = make_dataset(splits=("train",))
    open_store(dataset, cache)
    heart = dataset.model_copy(update={"task": "heart", "labels": {"background": 0, "heart": 1}})
    path = dataset.label_path(dataset.cases[0])
    label = (np.asanyarray(nib.load(path).dataobj) > 0).astype(np.uint8)
    nib.save(nib.Nifti1Image(label, nib.load(path).affine), path)
    write_dataset(heart)
    open_store(heart, cache)
    assert len(made(cache)) == 2
