"""Every setting of a training, checked when it is made; every default lives here."""

import json
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from fedmodal.augment.base import BaseAugmentationConfig
from fedmodal.errors import UserError
from fedmodal.networks import NetworkConfig
from fedmodal.normlocal import NORMLOCAL

KEY_METRIC = "val_dice"
"""Mean over organs of the mean over patients of the 3D Dice on validation volumes."""


class TrainingConfig(BaseModel):
    """How a network is trained, the same at every site.

    Attributes:
        task: name of the task.
        arm: intensity augmentation on top of the base augmentation (see `fedmodal.augment.ARMS`).
        arm_options: keyword arguments of the arm.
        network: the network's shape.
        augmentation: base augmentation, the same for every arm.
        seed: with the site's name and the round, decides every random number.
        steps_per_round: optimizer steps a round, or None for one pass over the site's slices.
        batch_size: slices a step.
        learning_rate: peak of the one-cycle schedule over all rounds.
        warmup: part of all steps during which the rate rises.
        weight_decay: AdamW's.
        loss: "dice_ce", Dice with cross-entropy weighted by organ; "dice_focal", Dice with focal loss
            (gamma 2); "plain_dice_ce", MONAI's DiceCELoss as it is, which learns small organs later
            and is ahead on an unseen modality (docs/results.md).
        clip_norm: gradients longer than this are shortened to it.
        organ_fraction: part of the slices drawn for an organ they hold, each organ as often as
            the others; the rest is drawn from all slices.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str = "abdomen"
    arm: str = "gin"
    arm_options: dict[str, object] = {}
    network: NetworkConfig = NetworkConfig()
    augmentation: BaseAugmentationConfig = BaseAugmentationConfig()
    seed: Annotated[int, Field(ge=0)] = 42
    steps_per_round: Annotated[int, Field(ge=1)] | None = None
    batch_size: Annotated[int, Field(ge=1)] = 4
    learning_rate: Annotated[float, Field(gt=0)] = 2e-3
    warmup: Annotated[float, Field(ge=0, lt=1)] = 0.3
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    loss: Literal["dice_ce", "dice_focal", "plain_dice_ce"] = "dice_ce"
    clip_norm: Annotated[float, Field(gt=0)] = 5.0
    organ_fraction: Annotated[float, Field(ge=0, le=1)] = 0.8

    @model_validator(mode="after")
    def _arm_fits_network(self) -> Self:
        if self.arm == NORMLOCAL and self.network.norm != "batch":
            raise ValueError(
                f"arm '{NORMLOCAL}' keeps batch norm at the site and needs a network with it: "
                'set "network": {"norm": "batch"}'
            )
        return self


def read_settings(path: Path) -> dict[str, object]:
    """Settings from a JSON file.

    Raises:
        UserError: no such file, or not a JSON object.
    """
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(settings, dict):
        raise UserError(f"{path}: expected a JSON object of training settings")
    return settings


def settings_of(arm: str) -> dict[str, object]:
    """An arm's name and what it needs beside; all else is the same for every arm."""
    return {"arm": arm, "network": {"norm": "batch"}} if arm == NORMLOCAL else {"arm": arm}


def training_config(settings: dict[str, object]) -> TrainingConfig:
    """Check settings as they come from a job or a command line.

    Raises:
        UserError: an unknown or wrong setting, in one line.
    """
    try:
        return TrainingConfig.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        if not where:
            raise UserError(f"training settings: {first['msg'].removeprefix('Value error, ')}") from error
        raise UserError(f"training setting '{where}': {first['msg']} (got {first['input']!r})") from error
