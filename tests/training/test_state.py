from pathlib import Path

import pytest
import torch

from fedmodal.training.state import RoundState, TrainingState


def weights(value: float) -> dict[str, torch.Tensor]:
    return {"w": torch.full((2,), value)}


def test_best_is_kept_only_if_better(tmp_path: Path) -> None:
    state = TrainingState(tmp_path)
    assert state.offer_best(weights(1), 0.5, 0)
    assert not state.offer_best(weights(2), 0.4, 1)
    assert state.offer_best(weights(3), 0.6, 2)
    best = TrainingState(tmp_path).best()
    assert best is not None
    assert (best.val_dice, best.round_number, best.weights["w"][0].item()) == (0.6, 2, 3)


def test_two_rounds_are_kept(tmp_path: Path) -> None:
    state = TrainingState(tmp_path)
    for number in range(4):
        state.save_round(number, RoundState({"step": number}, weights(number)))
    for number in (2, 3):
        kept = state.load_round(number)
        assert kept is not None
        assert (kept.optimizer, kept.local["w"][0].item()) == ({"step": number}, number)
    assert state.load_round(1) is None
    assert TrainingState(tmp_path).last_round() == 3


def test_altered_best_model_is_refused(tmp_path: Path) -> None:
    state = TrainingState(tmp_path)
    state.offer_best(weights(1), 0.5, 0)
    path = tmp_path / "best_local.pt"
    content = torch.load(path)
    content["model"]["w"] += 1
    torch.save(content, path)
    with pytest.raises(OSError, match="do not match their hash"):
        state.best()


def test_killed_while_writing_leaves_the_old_state(tmp_path: Path) -> None:
    state = TrainingState(tmp_path)
    assert state.last_round() is None
    state.save_round(0, RoundState({"step": 0}, {}))
    (tmp_path / "round_00000.partial").write_bytes(b"half")
    assert state.load_round(0) == RoundState({"step": 0}, {})
    assert state.last_round() == 0
