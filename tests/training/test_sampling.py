import numpy as np
import pytest

from fedmodal.data.dataset import Split
from fedmodal.data.sampling import SliceSampler
from fedmodal.data.store import StoredCase
from fedmodal.errors import UserError
from fedmodal.randomness import generator_for
from tests.training.conftest import make_case


def held(sampler: SliceSampler, numbers: list[int]) -> np.ndarray:
    """Per drawn slice, the highest label in it."""
    _, labels = sampler.load(numbers)
    return labels.flatten(1).amax(1).numpy()


def test_each_organ_is_drawn_as_often(cases: list[StoredCase]) -> None:
    sampler = SliceSampler(cases[:2], organ_fraction=1.0)
    labels = held(sampler, sampler.draw(2000, generator_for(0)))
    # Liver lies in twice as many slices as the spleen, and neither in the last one.
    assert (labels == 0).sum() == 0
    assert abs((labels == 1).mean() - 0.5) < 0.05


def test_slices_without_an_organ_are_drawn_too(cases: list[StoredCase]) -> None:
    sampler = SliceSampler(cases[:2], organ_fraction=0.5)
    labels = held(sampler, sampler.draw(2000, generator_for(0)))
    assert abs((labels == 0).mean() - 0.5 / 4) < 0.03


def test_every_slice_can_be_drawn(cases: list[StoredCase]) -> None:
    sampler = SliceSampler(cases[:2], organ_fraction=0.5)
    assert set(sampler.draw(2000, generator_for(0))) == set(range(8))


def test_draws_repeat_and_differ_by_round(cases: list[StoredCase]) -> None:
    sampler = SliceSampler(cases[:2], organ_fraction=0.5)
    first = sampler.draw(50, generator_for(1, "site-1", 3))
    assert first == sampler.draw(50, generator_for(1, "site-1", 3))
    assert first != sampler.draw(50, generator_for(1, "site-1", 4))
    assert first != sampler.draw(50, generator_for(1, "site-2", 3))


def test_loads_the_named_slice_of_the_named_case() -> None:
    labels = [np.full((2, 16, 16), value, np.uint8) for value in (1, 2)]
    labels[1][1] = 3
    sampler = SliceSampler([make_case("p", Split.TRAIN, label) for label in labels], 0.5)
    images, loaded = sampler.load([0, 2, 3])
    assert loaded[:, 0, 0].tolist() == [1, 2, 3]
    assert images.shape == (3, 1, 16, 16)
    assert images[2, 0, 0, 0].item() == np.float16(3) / np.float16(6)


def test_no_training_case_is_an_error() -> None:
    with pytest.raises(UserError, match="no training cases"):
        SliceSampler([], 0.5)
