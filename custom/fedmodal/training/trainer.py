"""One round of training: an epoch loop with an injected step."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from fedmodal.augment import Arm, make_arm
from fedmodal.augment.base import BaseAugmentation
from fedmodal.networks import standardize
from fedmodal.randomness import generator_for
from fedmodal.tasks import get_task
from fedmodal.training.config import TrainingConfig
from fedmodal.training.evaluator import Stopped, never
from fedmodal.training.losses import make_loss
from fedmodal.training.schedule import one_cycle

Batch = tuple[torch.Tensor, torch.Tensor]
LossOf = Callable[[torch.nn.Module, torch.Tensor, torch.Tensor], torch.Tensor]


class Sampler(Protocol):
    """Where batches come from; see `fedmodal.data.sampling.SliceSampler`."""

    def __len__(self) -> int:
        """Slices there are to draw from."""

    def batches(self, steps: int, batch_size: int, generator: torch.Generator) -> Iterator[Batch]:
        """`steps` batches of `batch_size` slices."""


@dataclass(frozen=True)
class Round:
    """What a round's randomness and schedule depend on: whose, which, of how many."""

    site: str
    number: int
    total: int


@dataclass(frozen=True)
class RoundResult:
    """What a round of training did.

    Attributes:
        loss: mean loss over the steps.
        steps: optimizer steps.
        slices: slices trained on, the weight of the site's update.
    """

    loss: float
    steps: int
    slices: int


class Trainer:
    """Trains one network on one site's slices, or on several sites' slices pooled."""

    def __init__(
        self,
        network: torch.nn.Module,
        sampler: Sampler,
        config: TrainingConfig,
        device: torch.device,
        loss_of: LossOf,
    ) -> None:
        self.network = network.to(device)
        self.sampler = sampler
        self.config = config
        self.device = device
        self.reset_optimizer()
        self.base = BaseAugmentation(config.augmentation, get_task(config.task).mirror_axes)
        self.arm: Arm = make_arm(config.arm, config.arm_options)
        self.loss_of = loss_of

    def reset_optimizer(self) -> None:
        """Begin with fresh moments, as in a first round."""
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(),
            lr=self.config.learning_rate,
            weight_decay=self.config.weight_decay,
            fused=True,
        )

    @property
    def steps_per_round(self) -> int:
        """Configured, or one pass over the slices."""
        return self.config.steps_per_round or max(1, len(self.sampler) // self.config.batch_size)

    def train_round(
        self,
        current: Round,
        should_stop: Callable[[], bool] = never,
        on_step: Callable[[int, float], None] | None = None,
    ) -> RoundResult:
        """Train for one round; every random number follows from (seed, site, round).

        Raises:
            Stopped: `should_stop` said so; checked before each batch.
            FloatingPointError: the loss is no longer a finite number.
        """
        # A stream for each purpose, so that every arm sees the same slices in the same poses.
        slices, base, arm = (
            generator_for(self.config.seed, current.site, current.number, purpose)
            for purpose in ("slices", "base", "arm")
        )
        batches = self.sampler.batches(self.steps_per_round, self.config.batch_size, slices)
        augmented = (self._augment(batch, base, arm) for batch in batches)
        return self._run(augmented, current, should_stop, on_step)

    def _run(
        self,
        batches: Iterable[Batch],
        current: Round,
        should_stop: Callable[[], bool],
        on_step: Callable[[int, float], None] | None,
    ) -> RoundResult:
        self.network.train()
        first_step = current.number * self.steps_per_round
        losses: list[float] = []
        for step, batch in enumerate(batches, start=first_step):
            if should_stop():
                raise Stopped
            self._set_rate(step, current.total * self.steps_per_round)
            losses.append(self._step(batch))
            if on_step is not None:
                on_step(step, losses[-1])
        return RoundResult(sum(losses) / len(losses), len(losses), len(losses) * self.config.batch_size)

    def _set_rate(self, step: int, total_steps: int) -> None:
        rate = one_cycle(step, total_steps, self.config.learning_rate, self.config.warmup)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _augment(self, batch: Batch, base: torch.Generator, arm: torch.Generator) -> Batch:
        images, labels = (tensor.to(self.device) for tensor in batch)
        images, labels = self.base(images, labels, base)
        return self.arm(standardize(images), arm), labels

    def _step(self, batch: Batch) -> float:
        with torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda"):
            loss = self.loss_of(self.network, *batch)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise FloatingPointError(f"the loss is {value}: lower learning_rate or check the images")
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip_norm)
        self.optimizer.step()
        return value


def segmentation_loss(config: TrainingConfig, annotated: Sequence[int] | None = None) -> LossOf:
    """The plain step: the configured loss of the network's scores; see `make_loss`."""
    loss = make_loss(config, annotated)

    def loss_of(network: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        value: torch.Tensor = loss(network(images).float(), labels[:, None])
        return value

    return loss_of
