"""A case as pictures inside a page: one slice as it is printed, all slices as the viewer reads them."""

import base64
import io
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image

from fedmodal.inference.paint import Pixels, paint
from fedmodal.report.cases import Shown
from fedmodal.tasks import Task

_ZOOM = 3  # pixels a voxel in the printed slice
_GAP = 2  # voxels between the parts of the printed slice
_JPEG_QUALITY = 82
_AIR = 0.04  # of 0 to 1: what is darker at the edges is cut off
_MARGIN = 3


@dataclass(frozen=True)
class Mosaic:
    """A case's slices side by side in two pictures of one size, as the viewer takes them apart.

    Attributes:
        shape: slices, rows, columns, after the air around the body was cut off.
        spacing: millimetres between voxels along these.
        across: slices side by side; the pictures are filled row by row.
        first: the slice to begin with.
        image: JPEG, grey, as a data URL.
        labels: PNG as a data URL: red holds the true ids, green the predicted ones.
    """

    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    across: int
    first: int
    image: str
    labels: str


def mosaic(shown: Shown) -> Mosaic:
    """Pack a case for the viewer."""
    grey, truth, found = _cut(shown)
    across = math.ceil(math.sqrt(len(grey)))
    labels = np.stack([_tiled(truth, across), _tiled(found, across)], axis=-1)
    labels = np.concatenate([labels, np.zeros_like(labels[..., :1])], axis=-1)
    slices, rows, columns = grey.shape
    return Mosaic(
        shape=(slices, rows, columns),
        spacing=shown.case.geometry.spacing,
        across=across,
        first=_place(truth, found),
        image=_url(Image.fromarray(_tiled(grey, across)), "JPEG", quality=_JPEG_QUALITY),
        labels=_url(Image.fromarray(labels), "PNG", optimize=True),
    )


def printed(shown: Shown, task: Task) -> str:
    """The slice with the most wrong voxels: image, truth and prediction side by side, as a data URL."""
    grey, truth, found = (part[_place(*_cut(shown)[1:])] for part in _cut(shown))
    gap = np.full((len(grey), _GAP, 3), 128, np.uint8)
    parts = [paint(grey, None, task), gap, paint(grey, truth, task), gap, paint(grey, found, task)]
    height = round(_ZOOM * len(grey) * _squareness(shown))
    picture = Image.fromarray(np.concatenate(parts, axis=1))
    zoomed = picture.resize((_ZOOM * picture.width, height), Image.Resampling.NEAREST)
    return _url(zoomed, "PNG", optimize=True)


def _squareness(shown: Shown) -> float:
    """Height of a voxel of a slice by its width."""
    _, row, column = shown.case.geometry.spacing
    return row / column


def _cut(shown: Shown) -> tuple[Pixels, Pixels, Pixels]:
    """Image, truth and prediction (S, H, W) without the air around the body."""
    image, truth, found = np.asarray(shown.case.image, np.float32), shown.case.label, shown.found
    something = np.any((image > _AIR) | (truth > 0) | (found > 0), axis=0)
    box = tuple(_reach(np.any(something, axis=1 - axis)) for axis in range(2))
    grey = np.rint(255 * image[:, *box]).astype(np.uint8)
    return grey, np.asarray(truth[:, *box]), found[:, *box]


def _reach(filled: npt.NDArray[np.bool_]) -> slice:
    places = np.flatnonzero(filled)
    if not len(places):
        return slice(0, len(filled))
    return slice(max(int(places[0]) - _MARGIN, 0), int(places[-1]) + 1 + _MARGIN)


def _place(truth: Pixels, found: Pixels) -> int:
    """The slice with the most wrong voxels; of a perfect prediction the one with the most organ."""
    wrong = (truth != found).sum((1, 2))
    return int(np.argmax(wrong if wrong.any() else (truth > 0).sum((1, 2))))


def _tiled(volume: Pixels, across: int) -> Pixels:
    slices, rows, columns = volume.shape
    down = math.ceil(slices / across)
    whole = np.zeros((down * across, rows, columns), volume.dtype)
    whole[:slices] = volume
    return whole.reshape(down, across, rows, columns).swapaxes(1, 2).reshape(down * rows, across * columns)


def _url(picture: Image.Image, kind: str, **options: object) -> str:
    content = io.BytesIO()
    picture.save(content, kind, **options)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(content.getvalue()).decode()}"
