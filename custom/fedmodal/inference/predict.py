"""From an image to a label map on the image's own grid."""

from collections.abc import Iterator
from dataclasses import dataclass

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from fedmodal.data.nifti import millilitres_a_voxel
from fedmodal.data.plausible import modality_problem
from fedmodal.data.preprocess import preprocess, restore, restore_values
from fedmodal.inference.model import Model
from fedmodal.inference.paint import paint
from fedmodal.inference.views import Views, entropy_percent, views_of
from fedmodal.tasks import Modality, Organ, Task
from fedmodal.training.evaluator import predict_scores

DECIMALS = 1
NEIGHBOURS = np.ones((3, 3, 3), dtype=bool)
ZOOM = 4  # pixels a voxel, along each side
NOT_LOOKED_AT = 255
"""In an uncertainty map: voxels outside the slices that the network saw."""


@dataclass(frozen=True)
class OrganStats:
    """One organ of a prediction.

    Attributes:
        millilitres: its volume.
        mean_intensity: of the image inside it (HU for CT); None where it was not found.
        mean_uncertainty: inside it, percent; None where it was not found or not asked for.
    """

    millilitres: float
    mean_intensity: float | None
    mean_uncertainty: float | None


@dataclass(frozen=True, eq=False)
class Prediction:
    """A label map and how it came about.

    Attributes:
        image: label map in the task's ids, uint8, on the image's grid: shape and affine are equal.
        modality: by whose intensity rule the image was read.
        warning: what speaks against that modality, or None.
        preview: the slice with the most organs in it, uint8 (rows, columns, RGB), seen from the feet.
        uncertainty: entropy of the class probabilities in percent of the highest possible, uint8, on the
            same grid, `NOT_LOOKED_AT` outside the slices that the network saw; None if not asked for.
    """

    image: nib.Nifti1Image
    modality: Modality
    warning: str | None
    preview: npt.NDArray[np.uint8]
    uncertainty: nib.Nifti1Image | None = None


def estimate_modality(values: npt.NDArray[np.generic]) -> Modality:
    """CT where the intensities are Hounsfield units, else MRI."""
    return Modality.CT if modality_problem(values, Modality.CT) is None else Modality.MRI


def predict(
    model: Model,
    image: nib.Nifti1Image,
    modality: Modality | None = None,
    *,
    device: torch.device | None = None,
    largest_only: bool = False,
    views: bool = False,
    uncertainty: bool = False,
) -> Prediction:
    """Segment one volume of any orientation and spacing.

    Args:
        model: of `load_model`.
        image: 3D volume, as `read_nifti` or `read_series` gives it.
        modality: given, or None to tell by the intensities.
        device: a GPU where there is one, by default.
        largest_only: keep the largest connected component (26 neighbours) of each organ.
        views: average over the views of `inference.views`; takes about as many times as long.
        uncertainty: make the map of uncertainty too.

    Raises:
        UserError: the model has no norm layers for that modality.
    """
    values = np.asanyarray(image.dataobj)
    chosen = modality or estimate_modality(values)
    warning = modality_problem(values, chosen) if modality else None
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = model.network(chosen).to(device)
    if views:
        network = Views(network, views_of(model.task))
    prepared = preprocess(image, None, model.task, chosen)
    scores = predict_scores(network, prepared.image, device)
    label = restore(scores, prepared.geometry)
    if largest_only:
        label = keep_largest(label, model.task)
    doubt = restore_values(entropy_percent(scores), prepared.geometry, NOT_LOOKED_AT) if uncertainty else None
    return Prediction(
        image=_on_grid(label, image),
        modality=chosen,
        warning=warning,
        uncertainty=None if doubt is None else _on_grid(doubt, image),
        preview=draw_preview(prepared.image, scores, model.task),
    )


def _on_grid(values: npt.NDArray[np.uint8], image: nib.Nifti1Image) -> nib.Nifti1Image:
    return nib.Nifti1Image(values, image.affine, dtype=np.uint8)


def keep_largest(label: npt.NDArray[np.uint8], task: Task) -> npt.NDArray[np.uint8]:
    """Keep the largest connected component of each organ (26 neighbours); returns a new label map."""
    kept = np.zeros_like(label)
    for organ, box in _boxes(label, task):
        parts, _ = ndimage.label(label[box] == organ.id, NEIGHBOURS)
        sizes = np.bincount(parts.ravel())[1:]
        kept[box][parts == 1 + int(np.argmax(sizes))] = organ.id
    return kept


def _boxes(label: npt.NDArray[np.uint8], task: Task) -> Iterator[tuple[Organ, tuple[slice, slice, slice]]]:
    """The organs that are in a label map, and the box that each fills."""
    for organ, box in zip(task.organs, ndimage.find_objects(label, len(task.organs)), strict=True):
        if box is not None:
            yield organ, box


def draw_preview(image: npt.NDArray[np.float16], scores: torch.Tensor, task: Task) -> npt.NDArray[np.uint8]:
    """The slice with the most organs in it, in grey with the organs in their colours.

    Args:
        image: (S, H, W), 0 to 1.
        scores: (classes, S, H, W).
        task: whose colours.
    """
    labels = scores.argmax(0).numpy()
    place = int(np.argmax([len(np.unique(one)) * one.size + np.count_nonzero(one) for one in labels]))
    grey = np.rint(image[place].astype(np.float32) * 255).astype(np.uint8)
    return np.kron(paint(grey, labels[place].astype(np.uint8), task), np.ones((ZOOM, ZOOM, 1), np.uint8))


def organ_stats(image: nib.Nifti1Image, prediction: Prediction, task: Task) -> dict[str, OrganStats]:
    """Volume, mean intensity and mean uncertainty of each organ, by name."""
    label, values = np.asanyarray(prediction.image.dataobj), np.asanyarray(image.dataobj)
    doubt = None if prediction.uncertainty is None else np.asanyarray(prediction.uncertainty.dataobj)
    voxel = millilitres_a_voxel(image.affine)
    stats = {organ.name: OrganStats(0.0, None, None) for organ in task.organs}
    for organ, box in _boxes(label, task):
        inside = label[box] == organ.id
        stats[organ.name] = OrganStats(
            round(float(inside.sum()) * voxel, DECIMALS),
            round(float(values[box][inside].mean()), DECIMALS),
            None if doubt is None else round(float(doubt[box][inside].mean()), DECIMALS),
        )
    return stats
