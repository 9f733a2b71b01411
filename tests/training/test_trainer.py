import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from fedmodal.data.dataset import Split
from fedmodal.data.store import StoredCase
from fedmodal.errors import UserError
from fedmodal.tasks import ABDOMEN
from fedmodal.training.config import TrainingConfig
from fedmodal.training.evaluator import Stopped
from fedmodal.training.schedule import one_cycle
from fedmodal.training.session import Session
from fedmodal.training.state import TrainingState

CPU = torch.device("cpu")


def session(config: TrainingConfig, cases: list[StoredCase], folder: Path, name: str = "site-1") -> Session:
    return Session(config, cases, TrainingState(folder), name=name, device=CPU)


def difference(one: Session, other: Session) -> float:
    pairs = zip(one.weights().values(), other.weights().values(), strict=True)
    return max(float((a - b).abs().max()) for a, b in pairs)


def test_loss_falls(config: TrainingConfig, cases: list[StoredCase], tmp_path: Path) -> None:
    longer = config.model_copy(update={"steps_per_round": 40, "arm": "none"})
    losses: list[float] = []
    session(longer, cases, tmp_path).train(0, 1, on_step=lambda _, loss: losses.append(loss))
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])


def test_result_counts_slices(config: TrainingConfig, cases: list[StoredCase], tmp_path: Path) -> None:
    result = session(config, cases, tmp_path).train(0, 2)
    assert (result.steps, result.slices) == (3, 6)


def test_without_a_number_of_steps_a_round_is_one_pass(cases: list[StoredCase], tmp_path: Path) -> None:
    config = TrainingConfig(batch_size=2, network={"channels": (4, 8)})
    assert session(config, cases, tmp_path).train(0, 1).slices == 8  # two training patients of 4 slices


def test_restarted_process_goes_on_exactly(
    config: TrainingConfig, cases: list[StoredCase], tmp_path: Path
) -> None:
    unbroken = session(config, cases, tmp_path / "a")
    for number in range(3):
        unbroken.train(number, 3)
    weights = None
    for number in range(3):
        restarted = session(config, cases, tmp_path / "b")
        if weights:
            restarted.network.load_state_dict(weights)
        restarted.train(number, 3)
        weights = restarted.weights()
    assert difference(unbroken, restarted) == 0


def test_a_round_trained_twice_gives_the_same(
    config: TrainingConfig, cases: list[StoredCase], tmp_path: Path
) -> None:
    one = session(config, cases, tmp_path)
    one.train(0, 2)
    start = one.weights()
    one.train(1, 2)
    first = one.weights()
    one.network.load_state_dict(start)
    one.train(1, 2)
    assert all(torch.equal(first[name], tensor) for name, tensor in one.weights().items())


def test_lost_state_changes_the_result(
    config: TrainingConfig, cases: list[StoredCase], tmp_path: Path
) -> None:
    kept, lost = session(config, cases, tmp_path / "a"), session(config, cases, tmp_path / "b")
    kept.train(0, 2)
    lost.network.load_state_dict(kept.weights())
    kept.train(1, 2)
    lost.train(1, 2)
    assert difference(kept, lost) > 0


def test_sites_draw_different_slices(config: TrainingConfig, cases: list[StoredCase], tmp_path: Path) -> None:
    one = session(config, cases, tmp_path / "a", "site-1")
    other = session(config, cases, tmp_path / "b", "site-2")
    assert difference(one, other) == 0
    one.train(0, 1)
    other.train(0, 1)
    assert difference(one, other) > 0


def test_stops_within_one_batch(config: TrainingConfig, cases: list[StoredCase], tmp_path: Path) -> None:
    seen: list[int] = []
    with pytest.raises(Stopped):
        session(config, cases, tmp_path).train(0, 1, lambda: bool(seen), lambda step, _: seen.append(step))
    assert seen == [0]
    assert not list(tmp_path.glob("round_*"))


def test_infinite_loss_is_named(config: TrainingConfig, cases: list[StoredCase], tmp_path: Path) -> None:
    broken = session(config, cases, tmp_path)
    with torch.no_grad():
        next(iter(broken.network.parameters())).fill_(float("nan"))
    with pytest.raises(FloatingPointError, match="loss is nan"):
        broken.train(0, 1)


def test_evaluation_leaves_the_network_in_training_mode(
    config: TrainingConfig, cases: list[StoredCase], tmp_path: Path
) -> None:
    one = session(config, cases, tmp_path)
    one.network.train()
    one.evaluate(Split.VALIDATION)
    assert one.network.training


def test_evaluation_says_which_split_stood_in(
    config: TrainingConfig, cases: list[StoredCase], tmp_path: Path
) -> None:
    one = session(config, cases, tmp_path)
    assert one.evaluate(Split.TEST).split == Split.VALIDATION
    assert session(config, cases[:2], tmp_path).evaluate(Split.TEST).split == Split.TRAIN


def test_perfect_scores_restore_to_dice_one(cases: list[StoredCase]) -> None:
    from fedmodal.tasks import ABDOMEN
    from fedmodal.training.evaluator import evaluate

    class Oracle(torch.nn.Module):
        """Reads the label off the image, which the cases hold as label / 6."""

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            labels = (images[:, 0] * 6).round().long()
            return torch.nn.functional.one_hot(labels, 7).movedim(-1, 1).float() * 20

    scores = evaluate(Oracle(), cases, ABDOMEN, CPU)
    assert [score.dice[4] for score in scores] == [1.0] * 3
    assert [score.dice[0] for score in scores] == [1.0] * 3


def test_schedule_rises_then_falls() -> None:
    rates = [one_cycle(step, 100, peak=1.0, warmup=0.1) for step in range(101)]
    assert rates[0] == pytest.approx(1 / 25)
    assert rates[10] == pytest.approx(1.0)
    assert rates[100] == pytest.approx(1e-4)
    assert rates[:11] == sorted(rates[:11])
    assert rates[10:] == sorted(rates[10:], reverse=True)


def test_patients_with_other_organs_outlined_are_not_pooled(
    config: TrainingConfig, cases: list[StoredCase], tmp_path: Path
) -> None:
    partly = dataclasses.replace(cases[0], annotated=(ABDOMEN.labels["liver"],))
    with pytest.raises(UserError, match="outline different organs"):
        session(config, [partly, *cases[1:]], tmp_path)


def test_a_site_that_outlines_one_organ_asks_nothing_of_the_others(
    config: TrainingConfig, cases: list[StoredCase], tmp_path: Path
) -> None:
    """A network that finds the spleen in what only says "no liver here"."""
    liver, spleen = ABDOMEN.labels["liver"], ABDOMEN.labels["spleen"]
    truth = torch.from_numpy(np.array(cases[0].label[2:3]))
    outlined = torch.where(truth == liver, truth, 0)
    assert (truth == spleen).any()
    losses = []
    for annotated in (None, (liver,)):
        own = [dataclasses.replace(case, annotated=annotated) for case in cases]
        scores = 30 * torch.nn.functional.one_hot(truth.long(), 7).movedim(-1, 1).float()
        loss_of = session(config, own, tmp_path / str(annotated)).trainer.loss_of
        losses.append(loss_of(lambda _, scores=scores: scores, truth, outlined).item())  # type: ignore[arg-type]
    assert losses[0] > 0.5
    assert losses[1] < 0.01
