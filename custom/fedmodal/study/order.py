"""A cell's order: all that its processes need to know."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from fedmodal.study.plan import REGIMES, Cell, Preset, training_of
from fedmodal.training.config import TrainingConfig

ORDER_FILE = "order.json"


class Order(BaseModel):
    """What a cell's processes read.

    Attributes:
        task: the task's name.
        arm: the arm's name.
        regime: the regime's name.
        seed: the training's seed.
        trained_on: the sites' modalities, as in "CT+MRI".
        federated: whether the sites share weights only.
        rounds: rounds of training.
        training: its settings.
        sites: name to data set folder, below the study's folder.
        tests: the data set folders whose test patients are scored; below the study's folder, or
            absolute where they are the user's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    arm: str
    regime: str
    seed: int
    trained_on: str
    federated: bool
    rounds: int
    training: TrainingConfig
    sites: dict[str, Path]
    tests: tuple[Path, ...]


def make_order(preset: Preset, cell: Cell, sites: Mapping[str, Path], tests: tuple[Path, ...]) -> Order:
    """The order of a cell of a preset."""
    regime = REGIMES[cell.regime]
    return Order(
        task=cell.task,
        arm=cell.arm,
        regime=cell.regime,
        seed=cell.seed,
        trained_on="+".join(regime.modalities),
        federated=regime.federated,
        rounds=preset.rounds,
        training=training_of(preset, cell),
        sites=dict(sites),
        tests=tests,
    )


def write_order(order: Order, folder: Path) -> None:
    """Write the order into the cell's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ORDER_FILE).write_text(order.model_dump_json(indent=2) + "\n", encoding="utf-8")


def read_order(folder: Path) -> Order:
    """The order in a cell's folder."""
    return Order.model_validate_json((folder / ORDER_FILE).read_bytes())
