"""A site's training between two messages: weights in, weights and scores out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch

from fedmodal.data.dataset import Split
from fedmodal.data.sampling import SliceSampler
from fedmodal.data.store import StoredCase
from fedmodal.errors import UserError
from fedmodal.networks import SegmentationNetwork
from fedmodal.normlocal import NORMLOCAL, NormLocal, select_domain, split_domains
from fedmodal.tasks import get_task
from fedmodal.training.config import TrainingConfig
from fedmodal.training.evaluator import evaluate, never
from fedmodal.training.metrics import PatientScore
from fedmodal.training.state import RoundState, TrainingState
from fedmodal.training.trainer import Batch, LossOf, Round, RoundResult, Sampler, Trainer, segmentation_loss

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


def unchanged(loss_of: LossOf) -> LossOf:
    """The step as it is."""
    return loss_of


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
        wrap_loss: Callable[[LossOf], LossOf] = unchanged,
    ) -> None:
        self.config = config
        self.task = get_task(config.task)
        self.cases = tuple(cases)
        self.state = state
        self.name = name
        self.device = device
        network = SegmentationNetwork(config.task, config.seed, config.network.model_dump())
        loss_of = wrap_loss(segmentation_loss(config, self._annotated()))
        self.trainer = Trainer(network, self._sampler(network), config, device, loss_of)
        arm = self.trainer.arm
        self.local_names = arm.local_names(network) if isinstance(arm, NormLocal) else frozenset[str]()
        self._round_in_memory: int | None = None
        self._initial_local = self._pick_local(self.weights())

    @property
    def network(self) -> torch.nn.Module:
        """The network being trained."""
        return self.trainer.network

    def weights(self) -> dict[str, torch.Tensor]:
        """A copy of the network's weights, on the CPU."""
        return {name: tensor.detach().cpu().clone() for name, tensor in self.network.state_dict().items()}

    def load_global(self, weights: Weights, number: int | None = None) -> None:
        """Put global weights into the network; what stays at the site keeps the site's state.

        Args:
            weights: all of the state dict; entries that stay at the site are passed over.
            number: the round that follows, so that the local state is the one before it; None for
                the latest.
        """
        self.network.load_state_dict({**weights, **self.local_weights(number)})

    def shared_names(self) -> frozenset[str]:
        """Names of the state dict that cross to the server."""
        return frozenset(self.network.state_dict()) - self.local_names

    def local_weights(self, number: int | None = None) -> dict[str, torch.Tensor]:
        """What stays at the site, as it was before round `number`, or as of the site's last round."""
        last = self.state.last_round() if number is None else number - 1
        if not self.local_names or last is None:
            return self._initial_local
        state = self.state.load_round(last)
        return self._initial_local if state is None else state.local

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
        local = self._pick_local(self.weights())
        self.state.save_round(number, RoundState(self.trainer.optimizer.state_dict(), local))
        self._round_in_memory = number
        return result

    def evaluate(self, split: Split, should_stop: Callable[[], bool] = never) -> Scores:
        """Score the network's present weights on a split, or on the split that stands in for it.

        Every measure for the test, Dice only for validation, which comes twice a round.
        """
        used = next((choice for choice in FALLBACKS[split] if self._of(choice)), split)
        thorough = split is Split.TEST
        cases = self._of(used)
        found = evaluate(self.network, cases, self.task, self.device, should_stop, thorough=thorough)
        return Scores(used, found)

    def _of(self, split: Split) -> tuple[StoredCase, ...]:
        return tuple(case for case in self.cases if case.split == split)

    def _annotated(self) -> tuple[int, ...] | None:
        """The organs that the training cases outline, which must be the same in all of them."""
        found = {case.annotated for case in self._of(Split.TRAIN)}
        if len(found) > 1:
            raise UserError(
                "the training data sets outline different organs (`annotated` in dataset.json), which pooled "
                "training cannot tell apart: train each at a site of its own, in a federation"
            )
        return found.pop() if found else None

    def _sampler(self, network: torch.nn.Module) -> Sampler:
        """All training cases; for `normlocal` on several modalities each has norm layers and batches."""
        cases = self._of(Split.TRAIN)
        modalities = sorted({case.modality.value for case in cases})
        if self.config.arm != NORMLOCAL or len(modalities) < 2:
            return SliceSampler(cases, self.config.organ_fraction)
        split_domains(network, modalities)
        groups = {name: [case for case in cases if case.modality == name] for name in modalities}
        return _InTurns(
            network, {name: SliceSampler(group, self.config.organ_fraction) for name, group in groups.items()}
        )

    def _pick_local(self, weights: Weights) -> dict[str, torch.Tensor]:
        return {name: weights[name] for name in sorted(self.local_names)}

    def _restore_optimizer(self, number: int) -> None:
        if self._round_in_memory is not None and self._round_in_memory == number - 1:
            return
        state = self.state.load_round(number - 1) if number else None
        self.trainer.reset_optimizer()
        if state is not None:
            self.trainer.optimizer.load_state_dict(state.optimizer)


class _InTurns:
    """Batches of each domain in turn; before each, the network is told whose it is."""

    def __init__(self, network: torch.nn.Module, samplers: Mapping[str, SliceSampler]) -> None:
        self.network = network
        self.samplers = dict(samplers)

    def __len__(self) -> int:
        return sum(len(sampler) for sampler in self.samplers.values())

    def batches(self, steps: int, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        """`steps` batches of `batch_size` slices of one domain."""
        parts = [
            (name, sampler.batches(steps, batch_size, generator)) for name, sampler in self.samplers.items()
        ]
        for step in range(steps):
            domain, batches = parts[step % len(parts)]
            select_domain(self.network, domain)
            yield next(batches)
