"""Losses on a batch of scores and label maps."""

from collections.abc import Sequence
from typing import cast

import torch
from monai.losses import DiceCELoss, DiceLoss, FocalLoss

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

    Args:
        class_weights: of the cross-entropy, (classes,), background first; see `weights_of`.
        kind: "dice_ce" or "dice_focal".
    """

    class_weights: torch.Tensor

    def __init__(self, class_weights: torch.Tensor, kind: str) -> None:
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
        self.register_buffer("class_weights", class_weights)

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


class MarginalLoss(torch.nn.Module):
    """A loss at a site whose label maps outline some of the task's organs only.

    There, a voxel that is labelled background may be any of the others: their probability is added
    to the background's, and nothing is asked of them one by one. The marginal loss of Shi et al.
    (Medical Image Analysis 2021, arXiv 2007.03868).

    Args:
        loss: of the scores that are left, background first, and label maps in their numbering.
        annotated: ids of the organs that are outlined.
        num_classes: background and all organs of the task.
    """

    numbering: torch.Tensor

    def __init__(self, loss: torch.nn.Module, annotated: Sequence[int], num_classes: int) -> None:
        super().__init__()
        self.loss = loss
        self.annotated = list(annotated)
        self.merged = [index for index in range(num_classes) if index not in self.annotated]
        numbering = torch.zeros(num_classes, dtype=torch.long)
        numbering[self.annotated] = torch.arange(1, len(self.annotated) + 1)
        self.register_buffer("numbering", numbering)

    def forward(self, scores: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss of scores (N, classes, *spatial) and labels (N, 1, *spatial) in the task's ids."""
        background = scores[:, self.merged].logsumexp(1, keepdim=True)
        left = torch.cat((background, scores[:, self.annotated]), 1)
        value: torch.Tensor = self.loss(left, self.numbering.to(labels.device)[labels.long()])
        return value


def make_loss(config: TrainingConfig, annotated: Sequence[int] | None = None) -> torch.nn.Module:
    """The configured loss, of scores (N, classes, *spatial) and labels (N, 1, *spatial).

    Args:
        config: task and kind of loss.
        annotated: ids of the organs that the label maps outline; None means all.
    """
    task = get_task(config.task)
    if annotated is None:
        return _loss_over(task, config.loss, range(1, task.num_classes))
    return MarginalLoss(_loss_over(task, config.loss, annotated), annotated, task.num_classes)


def _loss_over(task: Task, kind: str, organs: Sequence[int]) -> torch.nn.Module:
    if kind == "plain_dice_ce":
        return cast("torch.nn.Module", DiceCELoss(to_onehot_y=True, softmax=True))
    return SegmentationLoss(weights_of(task)[[0, *organs]], kind)
