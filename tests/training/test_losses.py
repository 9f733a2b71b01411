import pytest
import torch

from fedmodal.tasks import ABDOMEN, HEART
from fedmodal.training.config import TrainingConfig
from fedmodal.training.losses import make_loss, weights_of


def scores_for(labels: torch.Tensor, confidence: float = 30.0) -> torch.Tensor:
    return torch.nn.functional.one_hot(labels, 7).movedim(-1, 1).float() * confidence


@pytest.fixture
def labels() -> torch.Tensor:
    result = torch.zeros(2, 8, 8, dtype=torch.long)
    result[0, 2:6, 2:6] = ABDOMEN.labels["liver"]
    return result


@pytest.mark.parametrize("kind", ["dice_ce", "dice_focal", "plain_dice_ce"])
def test_right_and_sure_costs_nothing(kind: str, labels: torch.Tensor) -> None:
    loss = make_loss(TrainingConfig(loss=kind))  # type: ignore[arg-type]
    assert loss(scores_for(labels), labels[:, None]).item() == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("kind", ["dice_ce", "dice_focal", "plain_dice_ce"])
def test_wrong_costs_more_than_unsure(kind: str, labels: torch.Tensor) -> None:
    loss = make_loss(TrainingConfig(loss=kind))  # type: ignore[arg-type]
    unsure = loss(torch.zeros(2, 7, 8, 8), labels[:, None])
    assert loss(scores_for((labels + 1) % 7), labels[:, None]) > unsure > 0.5


def test_weights_by_hand() -> None:
    expected = [1, (1500 / 200) ** 0.5, 10**0.5, 10**0.5, (1500 / 35) ** 0.5, 1, (1500 / 80) ** 0.5]
    torch.testing.assert_close(weights_of(ABDOMEN), torch.tensor(expected))
    assert weights_of(HEART).tolist() == [1, 1]


def test_unsure_by_hand(labels: torch.Tensor) -> None:
    """All scores equal: p = 1/7 everywhere, 16 liver voxels of 128."""
    liver = 1 - (2 * 16 / 7 + 1) / (16 + 128 / 7 + 1)
    absent = 1 - 1 / (128 / 7 + 1)
    expected = (liver + 5 * absent) / 6 + torch.log(torch.tensor(7.0)).item()
    loss = make_loss(TrainingConfig())(torch.zeros(2, 7, 8, 8), labels[:, None])
    assert loss.item() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", ["dice_ce", "dice_focal", "plain_dice_ce"])
def test_marginal_loss_with_every_organ_outlined_is_the_plain_one(kind: str, labels: torch.Tensor) -> None:
    config = TrainingConfig(loss=kind)  # type: ignore[arg-type]
    scores = torch.randn(2, 7, 8, 8, generator=torch.Generator().manual_seed(0))
    both = [make_loss(config, organs)(scores, labels[:, None]).item() for organs in (None, range(1, 7))]
    assert both[0] == pytest.approx(both[1], rel=1e-5)


@pytest.mark.parametrize("kind", ["dice_ce", "dice_focal", "plain_dice_ce"])
def test_an_organ_that_is_not_outlined_may_lie_in_the_background(kind: str, labels: torch.Tensor) -> None:
    """The spleen predicted where the label map says background: right where only the liver is outlined."""
    config = TrainingConfig(loss=kind)  # type: ignore[arg-type]
    predicted = labels.clone()
    predicted[1, :4] = ABDOMEN.labels["spleen"]
    partly = make_loss(config, [ABDOMEN.labels["liver"]])
    assert partly(scores_for(predicted), labels[:, None]).item() == pytest.approx(0, abs=1e-4)
    assert make_loss(config)(scores_for(predicted), labels[:, None]) > 0.5
    predicted[1, 4:] = ABDOMEN.labels["liver"]
    assert partly(scores_for(predicted), labels[:, None]) > 0.5


def test_marginal_loss_by_hand() -> None:
    """Equal scores, liver of 6 organs outlined: background 6/7, liver 1/7, at one voxel of each."""
    config = TrainingConfig(loss="plain_dice_ce")
    labels = torch.tensor([0, ABDOMEN.labels["liver"]]).reshape(1, 1, 1, 2)
    dice = (1 - (2 * 6 / 7) / (12 / 7 + 1) + 1 - (2 / 7) / (2 / 7 + 1)) / 2
    entropy = -(torch.log(torch.tensor(6 / 7)) + torch.log(torch.tensor(1 / 7))).item() / 2
    value = make_loss(config, [ABDOMEN.labels["liver"]])(torch.zeros(1, 7, 1, 2), labels)
    assert value.item() == pytest.approx(dice + entropy, rel=1e-4)
