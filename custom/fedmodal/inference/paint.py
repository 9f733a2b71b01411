"""Organs in their colours on a slice."""

import numpy as np
import numpy.typing as npt

from fedmodal.tasks import Task

_OPACITY = 0.5

Pixels = npt.NDArray[np.uint8]


def paint(grey: Pixels, label: Pixels | None, task: Task) -> Pixels:
    """A slice (rows, columns) in grey with its organs in their colours, uint8 (rows, columns, RGB)."""
    picture = np.repeat(grey[..., None], 3, axis=2).astype(np.float32)
    for organ in task.organs if label is not None else ():
        colour = np.array([int(organ.colour[start : start + 2], 16) for start in (1, 3, 5)])
        inside = label == organ.id
        picture[inside] = (1 - _OPACITY) * picture[inside] + _OPACITY * colour
    return np.rint(picture).astype(np.uint8)
