"""What a training keeps on disk, so that a restarted process goes on exactly where it was."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from fedmodal.networks import weights_hash


@dataclass(frozen=True)
class BestModel:
    """The site's own best model so far: weights, validation Dice and the round they are from."""

    weights: dict[str, torch.Tensor]
    val_dice: float
    round_number: int


@dataclass(frozen=True)
class RoundState:
    """What the next round needs beside the global weights.

    Attributes:
        optimizer: the optimizer's state dict.
        local: weights that stay at the site; empty but for arm `normlocal`.
    """

    optimizer: dict[str, Any]
    local: dict[str, torch.Tensor]


class TrainingState:
    """What a round leaves, by round, and the best model, in one folder.

    A round's state is kept for the last two rounds: a round that is trained again, because
    its result was lost with the process, starts from the state before it and gives the same
    weights. The schedule and all random numbers follow from the round's number.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def save_round(self, round_number: int, state: RoundState) -> None:
        """Keep the state as it is after `round_number`."""
        _save({"optimizer": state.optimizer, "local": state.local}, self._round_file(round_number))
        for path in self.folder.glob("round_*.pt"):
            if path not in (self._round_file(round_number), self._round_file(round_number - 1)):
                path.unlink(missing_ok=True)

    def load_round(self, round_number: int) -> RoundState | None:
        """The state after `round_number`, or None if this folder never reached it."""
        path = self._round_file(round_number)
        return RoundState(**_load(path)) if path.exists() else None

    def last_round(self) -> int | None:
        """The last round that left its state."""
        numbers = [int(path.stem.removeprefix("round_")) for path in self.folder.glob("round_*.pt")]
        return max(numbers, default=None)

    def offer_best(self, weights: Mapping[str, torch.Tensor], val_dice: float, round_number: int) -> bool:
        """Keep the weights if they are better than the best so far; returns whether they were."""
        best = self.best()
        if best is not None and best.round_number != round_number and val_dice <= best.val_dice:
            return False
        content = {"model": dict(weights), "val_dice": val_dice, "round": round_number}
        _save(content | {"hash": weights_hash(weights)}, self._best_file)
        return True

    def best(self) -> BestModel | None:
        """The best model so far, checked against its hash."""
        if not self._best_file.exists():
            return None
        content = _load(self._best_file)
        if weights_hash(content["model"]) != content["hash"]:
            raise OSError(f"{self._best_file}: the weights do not match their hash; the file is damaged")
        return BestModel(content["model"], content["val_dice"], content["round"])

    @property
    def _best_file(self) -> Path:
        return self.folder / "best_local.pt"

    def _round_file(self, round_number: int) -> Path:
        return self.folder / f"round_{round_number:05d}.pt"


def _save(content: dict[str, Any], path: Path) -> None:
    """Write as a whole or not at all."""
    partial = path.with_suffix(".partial")
    with partial.open("wb") as file:
        torch.save(content, file)
        file.flush()
        os.fsync(file.fileno())
    partial.replace(path)


def _load(path: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return content
