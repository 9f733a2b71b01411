"""From an image to a label map on the image's own grid."""

from dataclasses import dataclass

import nibabel as nib
import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage

from fedmodal.data.nifti import millilitres_a_voxel
from fedmodal.data.plausible import modality_problem
from fedmodal.data.preprocess import preprocess, restore
from fedmodal.inference.model import Model
from fedmodal.tasks import Modality, Task
from fedmodal.training.evaluator import predict_scores

DECIMALS = 1
NEIGHBOURS = np.ones((3, 3, 3), dtype=bool)
OPACITY = 0.45  # of the organs' colours in a preview
ZOOM = 4  # pixels a voxel, along each side


@dataclass(frozen=True)
class OrganStats:
    """One organ of a prediction.

    Attributes:
        millilitres: its volume.
        mean_intensity: of the image inside it (HU for CT); None where it was not found.
    """

    millilitres: float
    mean_intensity: float | None


@dataclass(frozen=True, eq=False)
class Prediction:
    """A label map and how it came about.

    Attributes:
        image: label map in the task's ids, uint8, on the image's grid: shape and affine are equal.
        modality: by whose intensity rule the image was read.
        warning: what speaks against that modality, or None.
        preview: the slice with the most organs in it, uint8 (rows, columns, RGB), seen from the feet.
    """

    image: nib.Nifti1Image
    modality: Modality
    warning: str | None
    preview: npt.NDArray[np.uint8]


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
) -> Prediction:
    """Segment one volume of any orientation and spacing.

    Args:
        model: of `load_model`.
        image: 3D volume, as `read_nifti` or `read_series` gives it.
        modality: given, or None to tell by the intensities.
        device: a GPU where there is one, by default.
        largest_only: keep the largest connected component (26 neighbours) of each organ.

    Raises:
        UserError: the model has no norm layers for that modality.
    """
    values = np.asanyarray(image.dataobj)
    chosen = modality or estimate_modality(values)
    warning = modality_problem(values, chosen) if modality else None
    device = device or torch.device("cuda" if torch.cuda.is_available() else "cpu")
    network = model.network(chosen).to(device)
    prepared = preprocess(image, None, model.task, chosen)
    scores = predict_scores(network, prepared.image, device)
    label = restore(scores, prepared.geometry)
    if largest_only:
        label = keep_largest(label, model.task)
    result = nib.Nifti1Image(label, image.affine, dtype=np.uint8)
    return Prediction(result, chosen, warning, draw_preview(prepared.image, scores, model.task))


def keep_largest(label: npt.NDArray[np.uint8], task: Task) -> npt.NDArray[np.uint8]:
    """Keep the largest connected component of each organ (26 neighbours); returns a new label map."""
    kept = np.zeros_like(label)
    for organ in task.organs:
        parts, count = ndimage.label(label == organ.id, NEIGHBOURS)
        if count:
            sizes = np.bincount(parts.ravel())[1:]
            kept[parts == 1 + int(np.argmax(sizes))] = organ.id
    return kept


def draw_preview(image: npt.NDArray[np.float16], scores: torch.Tensor, task: Task) -> npt.NDArray[np.uint8]:
    """The slice with the most organs in it, in grey with the organs in their colours.

    Args:
        image: (S, H, W), 0 to 1.
        scores: (classes, S, H, W).
        task: whose colours.
    """
    labels = scores.argmax(0).numpy()
    place = int(np.argmax([len(np.unique(one)) * one.size + np.count_nonzero(one) for one in labels]))
    grey = np.repeat(image[place].astype(np.float32)[..., None], 3, axis=2) * 255
    for organ in task.organs:
        colour = np.array([int(organ.colour[start : start + 2], 16) for start in (1, 3, 5)])
        inside = labels[place] == organ.id
        grey[inside] = (1 - OPACITY) * grey[inside] + OPACITY * colour
    return np.rint(np.kron(grey, np.ones((ZOOM, ZOOM, 1)))).astype(np.uint8)


def organ_stats(image: nib.Nifti1Image, prediction: Prediction, task: Task) -> dict[str, OrganStats]:
    """Volume and mean intensity of each organ, by name."""
    label, values = np.asanyarray(prediction.image.dataobj), np.asanyarray(image.dataobj)
    voxel = millilitres_a_voxel(image.affine)
    stats = {}
    for organ in task.organs:
        inside = label == organ.id
        mean = round(float(values[inside].mean()), DECIMALS) if inside.any() else None
        stats[organ.name] = OrganStats(round(float(inside.sum()) * voxel, DECIMALS), mean)
    return stats
