"""A site's training between two messages: weights in, weights and scores out."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from fedmodal.data.dataset import Split
from fedmodal.data.sampling import SliceSampler
from fedmodal.data.store import StoredCase
from fedmodal.networks import SegmentationNetwork
from fedmodal.tasks import get_task
from fedmodal.training.config import TrainingConfig
from fedmodal.training.evaluator import evaluate, never
from fedmodal.training.metrics import PatientScore
from fedmodal.training.state import TrainingState
from fedmodal.training.trainer import LossOf, Round, RoundResult, Trainer

Weights = Mapping[str, torch.Tensor]

FALLBACKS = {
    Split.TRAIN: (Split.TRAIN,),
    Split.VALIDATION: (Split.VALIDATION, Split.TRAIN),
    Split.TEST: (Split.TEST, Split.VALIDATION, Split.TRAIN),
}
"""Which patients stand in where a split is empty; whoever shows a score names the split it is from."""


@dataclass(frozen=True)
class Scores:
    """Scores of a model and the split that the patients are really from."""

    split: Split
    patients: list[PatientScore]


class Session:
    """Trains and evaluates one network on one group of cases, with its state on disk."""

    def __init__(
        self,
        config: TrainingConfig,
        cases: Sequence[StoredCase],
        state: TrainingState,
        *,
        name: str,
        device: torch.device,
        loss_of: LossOf | None = None,
    ) -> None:
        self.config = config
        self.task = get_task(config.task)
        self.cases = tuple(cases)
        self.state = state
        self.name = name
        self.device = device
        network = SegmentationNetwork(config.task, config.seed, config.network.model_dump())
        sampler = SliceSampler(self._of(Split.TRAIN), config.organ_fraction)
        self.trainer = Trainer(network, sampler, config, device, loss_of)
        self._round_in_memory: int | None = None

    @property
    def network(self) -> torch.nn.Module:
        """The network being trained."""
        return self.trainer.network

    def weights(self) -> dict[str, torch.Tensor]:
        """A copy of the network's weights, on the CPU."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.network.state_dict().items()}

    def train(
        self,
        number: int,
        total: int,
        should_stop: Callable[[], bool] = never,
        on_step: Callable[[int, float], None] | None = None,
    ) -> RoundResult:
        """Train round `number` of `total` from the network's present weights.

        The optimizer goes on from the round before, from memory or from disk, so that a process
        started anew gives the weights that an unbroken one would have given.

        Raises:
            Stopped: `should_stop` said so; the state on disk is still that of the round before.
        """
        self._restore_optimizer(number)
        self._round_in_memory = None
        result = self.trainer.train_round(Round(self.name, number, total), should_stop, on_step)
        self.state.save_optimizer(number, self.trainer.optimizer.state_dict())
        self._round_in_memory = number
        return result

    def evaluate(self, split: Split, should_stop: Callable[[], bool] = never) -> Scores:
        """Score the network's present weights on a split, or on the split that stands in for it."""
        used = next((choice for choice in FALLBACKS[split] if self._of(choice)), split)
        return Scores(used, evaluate(self.network, self._of(used), self.task, self.device, should_stop))

    def _of(self, split: Split) -> tuple[StoredCase, ...]:
        return tuple(case for case in self.cases if case.split == split)

    def _restore_optimizer(self, number: int) -> None:
        if self._round_in_memory is not None and self._round_in_memory == number - 1:
            return
        state = self.state.load_optimizer(number - 1) if number else None
        self.trainer.reset_optimizer()
        if state is not None:
            self.trainer.optimizer.load_state_dict(state)
