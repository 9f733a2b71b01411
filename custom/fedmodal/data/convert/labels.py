"""Label ids of other tools and data sets, mapped to a task's ids."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from fedmodal.data.nifti import Array
from fedmodal.errors import UserError
from fedmodal.tasks import Task

# TotalSegmentator v2, totalsegmentator/map_to_binary.py: ids of the organs that the tasks hold.
_ABDOMEN_IDS = {"spleen": 1, "right kidney": 2, "left kidney": 3, "gallbladder": 4, "liver": 5, "pancreas": 7}
KNOWN_LABELS: dict[str, dict[str, int]] = {
    "total": _ABDOMEN_IDS | {"heart": 51},
    "total_mr": _ABDOMEN_IDS | {"heart": 22},
}


def parse_labels(text: str, task: Task, *, partly: bool = False) -> dict[int, int]:
    """Read a mapping from the command line.

    Args:
        text: the name of a known table (`total`, `total_mr`), `task` for label maps in the task's own
            ids, or pairs `source=organ` with commas between them; an organ is an id or a name of the
            task, as in `1=1,55=liver`.
        task: whose organs the mapping must cover.
        partly: some of them are enough, as the label maps outline no others.

    Returns:
        Source id to task id.

    Raises:
        UserError: not readable, an organ that the task lacks, or one that no source id maps to.
    """
    known = {organ.name: organ.id for organ in task.organs} if text == "task" else KNOWN_LABELS.get(text)
    pairs = [(str(source), name) for name, source in known.items()] if known else _pairs(text)
    organs = {name: organ for name, organ in task.labels.items() if organ}
    organs |= {str(organ): organ for organ in organs.values()}
    mapping = {}
    for source, organ in pairs:
        if organ in organs:
            mapping[int(source)] = organs[organ]
        elif not known:
            raise UserError(f"--labels: '{organ}' is no organ of task '{task.name}'; use {_choices(task)}")
    require_all_organs(mapping, task, partly=partly)
    return mapping


def require_all_organs(mapping: Mapping[int, int], task: Task, *, partly: bool = False) -> None:
    """Refuse a mapping that leaves an organ of the task out (unless `partly`) or names one that it lacks.

    Raises:
        UserError: with the organ's name; an organ left out would be taught as background.
    """
    missing = [organ.name for organ in task.organs if organ.id not in mapping.values()]
    if missing and not partly:
        raise UserError(
            f"the label mapping has no source for {', '.join(missing)} of task '{task.name}'; add it, "
            "or the organ would be taught as background"
        )
    strange = sorted(set(mapping.values()) - set(task.labels.values()))
    if strange or 0 in mapping:
        raise UserError(
            f"the label mapping must lead from ids above 0 to {_choices(task)}; every id not listed "
            "becomes background"
        )


def map_labels(labels: Array, mapping: Mapping[int, int]) -> npt.NDArray[np.uint8]:
    """A label map in task ids; every source id that is not listed becomes background (0)."""
    mapped = np.zeros(labels.shape, np.uint8)
    for source, organ in mapping.items():
        mapped[labels == source] = organ
    return mapped


def _pairs(text: str) -> list[tuple[str, str]]:
    pairs = []
    for item in text.split(","):
        source, equals, organ = (part.strip() for part in item.partition("="))
        if not (equals and source.isascii() and source.isdigit() and organ):
            raise UserError(
                f"--labels: '{item.strip()}' is neither source=organ (as in 5=liver) nor one of "
                f"task, {', '.join(KNOWN_LABELS)}"
            )
        pairs.append((source, organ))
    sources = [int(source) for source, _ in pairs]
    if len(set(sources)) < len(sources):
        raise UserError("--labels: a source id is listed twice; list each once")
    return pairs


def _choices(task: Task) -> str:
    return ", ".join(f"{organ.id} ({organ.name})" for organ in task.organs)
