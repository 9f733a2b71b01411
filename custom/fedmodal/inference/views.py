"""Test-time augmentation: a network asked about several views of each slice, and how far they disagree.

Wang et al. 2019, "Aleatoric uncertainty estimation with test-time augmentation for medical image
segmentation with convolutional neural networks", Neurocomputing 338. The views are few and fixed, so
that a prediction is the same every time. MONAI's `TestTimeAugmentation` draws random ones for a
data loader and keeps every result in memory.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

from fedmodal.tasks import Task

_TINY = 1e-12


@dataclass(frozen=True)
class View:
    """One way to look at a slice.

    Attributes:
        degrees: by which it is turned.
        zoom: by which it is enlarged.
        gamma: exponent of its intensities, 0 to 1.
        mirrored: the axis of (S, P, L) whose two ends change places, 1 or 2; None for none.
    """

    degrees: float = 0.0
    zoom: float = 1.0
    gamma: float = 1.0
    mirrored: int | None = None

    @property
    def moves(self) -> bool:
        """Whether voxels change their place."""
        return self.mirrored is not None or self.degrees != 0 or self.zoom != 1

    def matrix(self) -> Tensor:
        """Where in the slice a place of the view is taken from: (2, 2), x before y, in voxels."""
        angle = math.radians(self.degrees)
        turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        if self.mirrored is not None:
            turn[:, 2 - self.mirrored] *= -1
        return turn / self.zoom


_VIEWS = (
    View(),
    View(degrees=-7.5),
    View(degrees=7.5),
    View(zoom=0.93),
    View(zoom=1.08),
    View(gamma=0.8),
    View(gamma=1.25),
)


def views_of(task: Task) -> tuple[View, ...]:
    """The views of a task's slices; mirrored ones only where a mirrored patient is still a patient."""
    return (*_VIEWS, *(View(mirrored=axis) for axis in task.mirror_axes if axis in (1, 2)))


class Views(torch.nn.Module):
    """A network that answers with the mean of another's class probabilities over views.

    A view that does not show a place has no say there.

    Args:
        network: gives logits (N, C, H, W) for slices (N, 1, H, W).
        views: of at least one that does not move.
    """

    def __init__(self, network: torch.nn.Module, views: tuple[View, ...]) -> None:
        super().__init__()
        self.network = network
        self.views = views

    def forward(self, slices: Tensor) -> Tensor:
        """Scores (N, C, H, W) whose softmax is the mean of the probabilities."""
        total = sum(self._answer(slices, view) for view in self.views)
        assert isinstance(total, Tensor)  # noqa: S101 - sum() of none would be a number
        # Where a view does not show a place its classes sum to less than 1 there. The softmax that
        # follows divides by the sum over views and classes, so that only what was seen counts.
        return total.clamp_min(_TINY).log()

    def _answer(self, slices: Tensor, view: View) -> Tensor:
        seen = slices.clamp_min(0) ** view.gamma if view.gamma != 1 else slices
        if not view.moves:
            return torch.softmax(self.network(seen), 1)
        matrix = view.matrix().to(slices)
        answer = torch.softmax(self.network(_sample(seen, matrix)), 1)
        return _sample(answer, torch.linalg.inv(matrix))


def _sample(images: Tensor, matrix: Tensor) -> Tensor:
    """Images (N, C, H, W) read at `matrix` times the place around the middle; zero outside."""
    height, width = images.shape[-2:]
    size = matrix.new_tensor([width, height])
    relative = matrix * size[None, :] / size[:, None]  # affine_grid counts each side from -1 to 1
    theta = torch.cat([relative, matrix.new_zeros(2, 1)], 1).expand(len(images), 2, 3)
    grid = affine_grid(theta, list(images.shape), align_corners=False)
    return grid_sample(images, grid, align_corners=False)


def entropy_percent(probabilities: Tensor) -> Tensor:
    """Predictive entropy of probabilities (C, ...) in percent of that of a blind guess, (...)."""
    nats: Tensor = torch.special.entr(probabilities).sum(0)
    return nats * (100 / math.log(len(probabilities)))
