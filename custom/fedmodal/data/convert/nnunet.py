"""Folders of nnU-Net v2 and of the Medical Segmentation Decathlon: `dataset.json`, `imagesTr`, `labelsTr`."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedmodal.data.convert.labels import parse_labels
from fedmodal.data.convert.source import (
    LabelTable,
    Left,
    Naming,
    Source,
    SourceCase,
    first_folder,
    nifti_cases,
    nifti_files,
)
from fedmodal.errors import UserError
from fedmodal.tasks import Modality, Task

_IGNORE = "ignore"


@dataclass(frozen=True)
class _Description:
    """What the set's own `dataset.json` says: label ids by name, and how many channels an image has."""

    labels: Mapping[str, tuple[int, ...]]
    channels: int


def nnunet(
    src: Path, task: Task, modality: Modality, *, labels: str = "", partly: bool = False, channel: int = 0
) -> Source:
    """An nnU-Net v2 or Decathlon data set; each case counts as a patient of its own.

    Args:
        src: folder with `dataset.json`.
        task: what the labels are mapped to.
        modality: of the images.
        labels: mapping as for `parse_labels`; without it, organs are found by their names.
        partly: the set does not outline the organs that the mapping lacks.
        channel: which channel's files are the images, where nnU-Net has several.

    Raises:
        UserError: not such a folder, a `dataset.json` that cannot be understood, an organ without a
            source although not `partly`, or no such channel.
    """
    root = first_folder(src, ("imagesTr",), "dataset.json, imagesTr/ and labelsTr/").parent
    described = _description(root / "dataset.json")
    if not 0 <= channel < described.channels:
        raise UserError(f"--channel {channel}: {root} has channels 0 to {described.channels - 1}")
    mapping = _mapping(described, task, labels, partly=partly, where=root / "dataset.json")
    ignored = set(described.labels.get(_IGNORE, ()))
    known = {number for ids in described.labels.values() for number in ids} - ignored
    table = LabelTable(mapping, frozenset(known - mapping.keys() - {0}))
    cases, left = _cases(root, table, channel)
    annotated = tuple(organ.name for organ in task.organs if organ.id in mapping.values())
    return Source(
        "nnunet",
        src,
        task,
        modality,
        cases,
        annotated if len(annotated) < len(task.organs) else None,
        left,
        _notes(described, channel),
        {"mapping": json.dumps(sorted(mapping.items())), "channel": str(channel)},
    )


def _notes(described: _Description, channel: int) -> tuple[str, ...]:
    patients = "each case counts as a patient of its own: the format does not name patients"
    channels = f"only channel {channel} of {described.channels} was looked at"
    return (patients, channels) if described.channels > 1 else (patients,)


def _cases(root: Path, table: LabelTable, channel: int) -> tuple[tuple[SourceCase, ...], tuple[Left, ...]]:
    files, labels = nifti_files(root / "imagesTr"), nifti_files(root / "labelsTr")
    nnunet_names = any(f"{name}_0000" in files for name in labels)
    suffix = f"_{channel:04}" if nnunet_names else ""
    images = {name.removesuffix(suffix): path for name, path in files.items() if name.endswith(suffix)}
    naming = Naming(f"imagesTr/{{}}{suffix}.nii.gz", "labelsTr/{}.nii.gz")
    cases, left = nifti_cases(images, labels, table, naming)
    tests = nifti_files(root / "imagesTs")
    return cases, left + tuple(
        Left(name, "in imagesTs, which has no labels", expected=True) for name in tests
    )


def _description(path: Path) -> _Description:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        labels = _label_ids(content["labels"])
        channels = len(content.get("channel_names") or content.get("modality") or "1")
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); copy it from the set") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(
            f"{path}: not an nnU-Net v2 or Decathlon dataset.json with `labels`; mend it or copy it again"
        ) from error
    if content.get("file_ending", ".nii.gz") not in (".nii.gz", ".nii"):
        raise UserError(f"{path}: files are not NIfTI; convert them to .nii.gz")
    return _Description(labels, channels)


def _label_ids(labels: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name to ids: nnU-Net v2 has name to id or to a list of ids, the Decathlon id to name."""
    if all(key.isdigit() for key in labels):
        return {str(name): (int(number),) for number, name in labels.items()}
    return {name: _as_ids(ids) for name, ids in labels.items()}


def _as_ids(ids: int | list[int]) -> tuple[int, ...]:
    return tuple(int(number) for number in ids) if isinstance(ids, list) else (int(ids),)


def _mapping(
    described: _Description, task: Task, labels: str, *, partly: bool, where: Path
) -> dict[int, int]:
    """Source id to task id."""
    if labels:
        return parse_labels(labels, task, partly=partly)
    by_words = {_words(name): ids for name, ids in described.labels.items()}
    mapping: dict[int, int] = {}
    for organ in task.organs:
        for number in by_words.get(_words(organ.name), ()):
            if mapping.setdefault(number, organ.id) != organ.id:
                raise UserError(f"{where}: label {number} belongs to two organs; name them with --labels")
    missing = [organ.name for organ in task.organs if organ.id not in mapping.values()]
    if missing and not (partly and mapping):
        raise UserError(
            f"{where}: names no label {', '.join(missing)}; name its id with --labels, or say --partly if "
            "the set does not outline it"
        )
    return mapping


def _words(name: str) -> frozenset[str]:
    """Words of a label's name in any order: `kidney_right` is the right kidney."""
    return frozenset(name.lower().replace("_", " ").replace("-", " ").split())
