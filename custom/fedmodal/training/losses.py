"""Losses on a batch of scores and label maps."""

import torch
from monai.losses import DiceLoss, FocalLoss

from fedmodal.tasks import Task, get_task
from fedmodal.training.config import TrainingConfig


class SegmentationLoss(torch.nn.Module):
    """Dice plus a voxel-wise term: of scores (N, classes, *spatial), labels (N, 1, *spatial), a scalar.

    Dice is taken over the whole batch and over organs only: a slice without an organ adds no 0/0
    term of its own, and where the batch lacks an organ, a smoothing of 1 asks for fewer voxels of
    it.

    Cross-entropy counts an organ's voxels by the inverse square root of its usual volume, the
    largest organ and background 1. Unweighted, the gallbladder and the pancreas are not predicted
    at all for the first thousand steps (docs/results.md). The focal term (Lin et al., arXiv
    1708.02002, gamma 2) is FedGIN's.
    """

    class_weights: torch.Tensor

    def __init__(self, task: Task, kind: str) -> None:
        super().__init__()
        self.dice = DiceLoss(
            include_background=False,
            to_onehot_y=True,
            softmax=True,
            batch=True,
            smooth_nr=1.0,
            smooth_dr=1.0,
        )
        self.focal = (
            FocalLoss(to_onehot_y=True, use_softmax=True, gamma=2.0) if kind == "dice_focal" else None
        )
        self.register_buffer("class_weights", weights_of(task))

    def forward(self, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The sum of both terms."""
        dice: torch.Tensor = self.dice(scores, labels)
        if self.focal is not None:
            focal: torch.Tensor = self.focal(scores, labels)
            return dice + focal
        voxels: torch.Tensor = torch.nn.functional.cross_entropy(
            scores, labels[:, 0].long(), self.class_weights.to(scores)
        )
        return dice + voxels


def weights_of(task: Task) -> torch.Tensor:
    """Weight of each class in the cross-entropy, (classes,), background first."""
    volumes = torch.tensor([organ.millilitres for organ in task.organs])
    return torch.cat((torch.ones(1), (volumes.max() / volumes).sqrt()))


def make_loss(config: TrainingConfig) -> torch.nn.Module:
    """The configured loss."""
    return SegmentationLoss(get_task(config.task), config.loss)
