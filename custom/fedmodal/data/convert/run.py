"""Convert a public data set: one case in memory at a time, restartable, with a report of what was left."""

from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib

from fedmodal.data.check import pair_problems
from fedmodal.data.convert.pair import copy_compressed, open_or_new, valid_patient, whole_file, writing
from fedmodal.data.convert.report import Conversion, Taken, read_conversion, write_conversion
from fedmodal.data.convert.source import Left, NothingToLearnError, Pair, Source, SourceCase
from fedmodal.data.convert.splits import Splits
from fedmodal.data.dataset import DATASET_FILE, Case, Dataset, Split, new_dataset, write_dataset
from fedmodal.errors import UserError

_FOLDERS = ("images", "labels")


def convert_set(
    source: Source,
    out: Path,
    splits: Splits | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Conversion:
    """Convert a data set into a site's data set.

    A case's image is written first, its label map second, each under a temporary name until it is
    whole, so a case whose label map is there is finished. Started again after an interruption, the
    conversion keeps those and does the rest; the outcome is that of an unbroken one.
    `dataset.json` is written last. Cases added by `convert pair` since stay in it.

    Args:
        source: the set.
        out: the data set's folder, new or holding the same conversion.
        splits: how patients are divided.
        progress: called with cases done and cases in all, after each case.

    Returns:
        What was taken and what was left.

    Raises:
        UserError: `out` holds something else or cannot be written, or no case could be taken.
    """
    record = Conversion.begun(source)
    dataset = _opened(source, record, out)
    assigned = (splits or Splits()).assign(source.cases)
    cases: list[Case] = []
    left = list(source.left)
    for number, case in enumerate(source.cases, 1):
        target = _target(case, assigned[case.patient])
        problem = _refused(case, target, cases) or _taken(case, target, dataset)
        if problem:
            left.append(problem)
        else:
            cases.append(target)
        if progress:
            progress(number, len(source.cases))
    return _finished(source, record, dataset, cases, left)


def _opened(source: Source, record: Conversion, out: Path) -> Dataset:
    """The data set in `out`, which is made if need be and belongs to this conversion from now on."""
    if out.resolve() == source.folder.resolve():
        raise UserError(f"{out}: is the data set itself, which is only read; name a new folder")
    dataset = open_or_new(out, source.task, source.modality)
    held = read_conversion(out)
    if held is None and any((out / name).exists() for name in (DATASET_FILE, *_FOLDERS)):
        raise UserError(f"{out}: holds files that are no conversion's; name a new folder")
    if held and not held.same_files(record):
        raise UserError(f"{out}: holds another conversion (of {held.source}); name a new folder")
    for partial in (path for name in _FOLDERS for path in (out / name).glob(".partial-*")):
        partial.unlink()
    if held is None:
        write_conversion(record, out)
    return dataset


def _target(case: SourceCase, split: Split) -> Case:
    images, labels = (Path(name) / f"{case.name}.nii.gz" for name in _FOLDERS)
    return Case(image=images, label=labels, patient=case.patient, split=split)


def _refused(case: SourceCase, target: Case, cases: Sequence[Case]) -> Left | None:
    if not valid_patient(case.name):
        return Left(case.name, "its name holds characters other than letters, digits, '.', '-' and '_'")
    if any(target.image == taken.image for taken in cases):
        return Left(case.name, "the set holds this case twice")
    return None


def _taken(case: SourceCase, target: Case, dataset: Dataset) -> Left | None:
    """Bring a case into the data set unless it is there already; why not, if that fails."""
    image, label = dataset.image_path(target), dataset.label_path(target)
    if image.is_file() and label.is_file():
        return None
    try:
        pair = case.read()
    except UserError as error:
        return Left(case.name, str(error))
    except NothingToLearnError as reason:
        return Left(case.name, str(reason), expected=True)
    task = dataset.task_definition
    for problem in pair_problems(pair.image, pair.label, task, dataset.modality, pair.paths):
        return Left(case.name, problem)
    with whole_file(image) as partial:
        _write_image(pair, partial)
    with whole_file(label) as partial:
        nib.save(pair.label, partial)
    return None


def _write_image(pair: Pair, path: Path) -> None:
    if pair.original:
        copy_compressed(pair.original, path)
    else:
        nib.save(pair.image, path)


def _finished(
    source: Source, record: Conversion, dataset: Dataset, cases: Sequence[Case], left: Sequence[Left]
) -> Conversion:
    """Write the report and, if there are cases, `dataset.json`."""
    out = dataset.folder
    taken = tuple(
        Taken(case=case.image.name.removesuffix(".nii.gz"), patient=case.patient, split=case.split)
        for case in cases
    )
    record = record.model_copy(update={"taken": taken, "left": tuple(left), "finished": True})
    write_conversion(record, out)
    if not cases:
        first = f"the first, {left[0].case}: {left[0].why}" if left else "it holds none"
        raise UserError(f"{out}: no case of {source.name} could be taken; {first}")
    names = {each.name for each in source.cases} | {each.case for each in source.left}
    others = [case for case in dataset.cases if case.image.name.removesuffix(".nii.gz") not in names]
    whole = new_dataset(
        out,
        source.task,
        source.modality,
        (*others, *cases),
        name=dataset.name,
        description=f"converted from {source.name}",
        annotated=source.annotated,
    )
    with writing(out / DATASET_FILE):
        write_dataset(whole)
    return record
