"""Losses on a batch of scores and label maps."""

import torch
from monai.losses import DiceCELoss, DiceFocalLoss

from fedmodal.training.config import TrainingConfig


def make_loss(config: TrainingConfig) -> torch.nn.Module:
    """Loss of scores (N, classes, *spatial) and labels (N, 1, *spatial), a scalar.

    Dice is taken over the whole batch, background included: a slice without an organ then adds
    no 0/0 term of its own.
    """
    common = {"to_onehot_y": True, "softmax": True, "batch": True, "include_background": True}
    if config.loss == "dice_focal":
        return DiceFocalLoss(**common, gamma=2.0)  # type: ignore[no-any-return]
    return DiceCELoss(**common)  # type: ignore[no-any-return]
