"""A study's data: phantoms made once, sample pairs, and each regime's sites as views of data sets."""

import os
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from fedmodal.data.convert.labels import parse_labels
from fedmodal.data.convert.pair import add_pair
from fedmodal.data.dataset import DATASET_FILE, Case, Dataset, Split, read_dataset, write_dataset
from fedmodal.data.digests import Digests
from fedmodal.data.phantom import write_phantoms
from fedmodal.data.site import PHANTOM_SEED
from fedmodal.errors import UserError
from fedmodal.study.plan import REGIMES, Part
from fedmodal.tasks import ABDOMEN, Modality, Task

Advance = Callable[[int, int], None]

SAMPLE_PAIRS = {
    Modality.CT: ("ct_image.nii.gz", "ct_label_total.nii.gz", "total"),
    Modality.MRI: ("mri_image.nii.gz", "mri_label_total_mr.nii.gz", "total_mr"),
}
"""Image, label and label table of the sample images (TotalSegmentator's tests/reference_files)."""


@dataclass(frozen=True)
class Sets:
    """The data sets of one task: by modality, those with training patients and those with test patients."""

    train: Mapping[Modality, tuple[Dataset, ...]]
    test: Mapping[Modality, tuple[Dataset, ...]]


def phantom_sets(
    task: Task, counts: Mapping[Split, int], regimes: Iterable[str], folder: Path, advance: Advance
) -> None:
    """Make the phantoms that these regimes need in `folder`, unless they are there.

    A modality's sites and its test set have seeds of their own, so that no two share a patient.
    """
    parts = [part for regime in regimes for part in REGIMES[regime].parts]
    training: dict[Split, int] = {split: count for split, count in counts.items() if split != Split.TEST}
    wanted: dict[tuple[Modality, int], dict[Split, int]] = {
        (part.modality, part.number): training for part in parts
    }
    wanted |= {(modality, -1): {Split.TEST: counts[Split.TEST]} for modality in Modality}
    total, done = sum(sum(patients.values()) for patients in wanted.values()), 0
    for (modality, number), patients in wanted.items():
        name = f"{modality.lower()}-{'test' if number < 0 else number + 1}"
        if not (folder / name / DATASET_FILE).is_file():
            seed = PHANTOM_SEED + 100 + number
            write_phantoms(folder / name, task, modality, patients, seed, _shifted(advance, done, total))
        done += sum(patients.values())


def _shifted(advance: Advance, before: int, total: int) -> Advance:
    return lambda done, _: advance(before + done, total)


def sample_sets(images: Path, root: Path) -> None:
    """Data sets from the two sample pairs: each modality's only patient, once to train, once to test.

    Raises:
        UserError: an image or label is missing or not fit.
    """
    if not root.exists():
        partial = root.with_name(f".{root.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        for modality in Modality:
            for name, split in (("1", Split.TRAIN), ("test", Split.TEST)):
                sample_set(images, modality, split, partial / f"{modality.lower()}-{name}")
        partial.replace(root)


def sample_set(images: Path, modality: Modality, split: Split, folder: Path) -> Dataset:
    """A data set of one sample pair.

    Raises:
        UserError: the image or the label is missing or not fit.
    """
    image, label, labels = SAMPLE_PAIRS[modality]
    for name in (image, label):
        if not (images / name).is_file():
            raise UserError(f"{images}: no {name} here; name the folder that holds the sample pairs")
    mapping = parse_labels(labels, ABDOMEN)
    return add_pair(
        folder,
        ABDOMEN,
        modality,
        image=images / image,
        label=images / label,
        patient=f"{modality.lower()}-sample",
        split=split,
        mapping=mapping,
    )


def read_sets(root: Path, task: Task) -> Sets:
    """The data sets of a task below `root`, one folder each, in the order of their names.

    Raises:
        UserError: none, or one that is not in order.
    """
    folders = sorted(path.parent for path in root.glob(f"*/{DATASET_FILE}"))
    found = [dataset for folder in folders if (dataset := read_dataset(folder)).task == task.name]
    if not found:
        raise UserError(
            f"{root}: no data set for task '{task.name}' in it; looked for <site>/{DATASET_FILE} "
            f"and found {len(folders)} for other tasks"
        )
    return Sets(_having(found, Split.TRAIN), _having(found, Split.TEST))


def _having(datasets: Iterable[Dataset], split: Split) -> dict[Modality, tuple[Dataset, ...]]:
    holding = [dataset for dataset in datasets if dataset.split(split)]
    return {one: tuple(data for data in holding if data.modality == one) for one in Modality}


def link_sites(sets: Sets, regime: str, task: Task, root: Path) -> list[Dataset]:
    """Write the regime's sites below `root`, a data set each that points to the files of its source.

    A site has its part of the training patients and one validation patient, which only the curves
    of a federated run are for.

    Raises:
        UserError: the regime needs more data sets of a modality than there are.
    """
    linked = []
    for part in REGIMES[regime].parts:
        datasets = sets.train[part.modality]
        if len(datasets) <= part.number:
            raise UserError(
                f"regime '{regime}', task '{task.name}': needs {part.number + 1} {part.modality} data set(s) "
                f"with training patients, found {len(datasets)}; add one, or leave it out with --regimes"
            )
        linked.append(_link(datasets[part.number], part, root / part.site))
    return linked


def _link(source: Dataset, part: Part, folder: Path) -> Dataset:
    folder.mkdir(parents=True, exist_ok=True)
    files = folder / "files"
    if files.is_symlink():
        files.unlink()
    files.symlink_to(os.path.relpath(source.folder.resolve(), folder.resolve()), target_is_directory=True)
    cases = tuple(
        case.model_copy(update={"image": Path("files") / case.image, "label": Path("files") / case.label})
        for case in _part_of(source, part)
    )
    view = source.model_copy(update={"folder": folder, "cases": cases, "num_training": len(cases)})
    write_dataset(view)
    return view


def _part_of(source: Dataset, part: Part) -> tuple[Case, ...]:
    train = _by_patient(source.split(Split.TRAIN))
    names = list(train)[int(part.start * len(train)) : int(part.stop * len(train))]
    chosen = tuple(case for name in names for case in train[name])
    validation = _by_patient(source.split(Split.VALIDATION))
    if not validation:
        return chosen
    return chosen + list(validation.values())[int(part.start * len(validation))]


def _by_patient(cases: Iterable[Case]) -> dict[str, tuple[Case, ...]]:
    found: dict[str, tuple[Case, ...]] = {}
    for case in cases:
        found[case.patient] = (*found.get(case.patient, ()), case)
    return found


def only_tests(dataset: Dataset) -> Dataset:
    """The data set with its test patients alone."""
    cases = dataset.split(Split.TEST)
    return dataset.model_copy(update={"cases": cases, "num_training": len(cases)})


def refuse_shared_images(training: Iterable[Dataset], tests: Iterable[Dataset], cache: Path) -> None:
    """See to it that no test image is also trained on, by the files' contents.

    Raises:
        UserError: an image is in both.
    """
    trained = {
        digest: path
        for dataset in training
        for digest, path in _images(dataset, (Split.TRAIN, Split.VALIDATION), cache).items()
    }
    for dataset in tests:
        for digest, path in _images(dataset, (Split.TEST,), cache).items():
            if digest in trained:
                raise UserError(f"{path}: a test image that is trained on as {trained[digest]}; remove one")


def _images(dataset: Dataset, splits: tuple[Split, ...], cache: Path) -> dict[str, Path]:
    digests = Digests(cache, dataset.folder)
    paths = [dataset.image_path(case) for split in splits for case in dataset.split(split)]
    found = {digests.of(path): path for path in paths}
    digests.save()
    return found
