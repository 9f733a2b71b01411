"""Losses on a batch of scores and label maps."""

import torch
from monai.losses import DiceCELoss, DiceFocalLoss

from fedmodal.tasks import get_task
from fedmodal.training.config import TrainingConfig


def make_loss(config: TrainingConfig) -> torch.nn.Module:
    """Loss of scores (N, classes, *spatial) and labels (N, 1, *spatial), a scalar.

    Dice is taken over the whole batch: a slice without an organ then adds no 0/0 term of its own.
    In the voxel-wise term background counts `background_weight`, each organ 1: most voxels are
    background, and at full weight the small organs are not predicted at all for hundreds of steps
    (docs/results.md).
    """
    organs = get_task(config.task).num_classes - 1
    weight = torch.tensor([config.background_weight, *[1.0] * organs])
    common = {"to_onehot_y": True, "softmax": True, "batch": True, "weight": weight}
    if config.loss == "dice_focal":
        return DiceFocalLoss(**common, gamma=2.0)  # type: ignore[no-any-return]
    return DiceCELoss(**common)  # type: ignore[no-any-return]
