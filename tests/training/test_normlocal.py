from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from fedmodal.augment import make_arm
from fedmodal.data.dataset import Split
from fedmodal.data.store import Store, StoredCase
from fedmodal.errors import UserError
from fedmodal.networks import SegmentationNetwork
from fedmodal.normlocal import (
    DomainNorm,
    NormLocal,
    NormSet,
    choose_set,
    read_norm_sets,
    recompute_statistics,
    select_domain,
    split_domains,
    write_norm_sets,
)
from fedmodal.tasks import ABDOMEN, Modality
from fedmodal.training.config import TrainingConfig, training_config
from fedmodal.training.evaluator import evaluate
from fedmodal.training.metrics import summarize
from fedmodal.training.pooled import score_data_sets, with_own_statistics
from fedmodal.training.session import Session
from fedmodal.training.state import TrainingState
from tests.training.conftest import make_case

SETTINGS: dict[str, object] = {
    "arm": "normlocal",
    "steps_per_round": 3,
    "batch_size": 2,
    "network": {"channels": [4, 8], "norm": "batch"},
    "learning_rate": 1e-2,
}
NewSession = Callable[..., Session]


@pytest.fixture
def config() -> TrainingConfig:
    return training_config(SETTINGS)


@pytest.fixture
def new_session(config: TrainingConfig, cases: list[StoredCase], tmp_path: Path) -> NewSession:
    def make(folder: str, site_cases: list[StoredCase] = cases) -> Session:
        state = TrainingState(tmp_path / folder)
        return Session(config, site_cases, state, name="site-1", device=torch.device("cpu"))

    return make


def layers(network: torch.nn.Module) -> list[str]:
    return [name for name, layer in network.named_modules() if isinstance(layer, torch.nn.BatchNorm2d)]


def test_layers_are_found_by_type() -> None:
    network = SegmentationNetwork("abdomen", 0, {"channels": (4, 8), "norm": "batch"})
    state = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    assert NormLocal().local_names(network) == {f"{name}.{key}" for name in layers(network) for key in state}
    assert NormLocal("statistics").local_names(network) == {
        f"{name}.{key}" for name in layers(network) for key in state[2:]
    }


def test_images_stay_as_they_are() -> None:
    images = torch.rand(2, 1, 8, 8)
    assert make_arm("normlocal", {"keep": "statistics"})(images, torch.Generator()) is images
    with pytest.raises(UserError, match="keep must be one of layers, statistics"):
        make_arm("normlocal", {"keep": "everything"})


def test_a_network_without_batch_norm_is_refused() -> None:
    with pytest.raises(UserError, match="but the network has none"):
        NormLocal().local_names(SegmentationNetwork("abdomen", 0))
    with pytest.raises(UserError, match="needs a network with it"):
        training_config({"arm": "normlocal"})


def test_global_weights_leave_the_norm_layers_alone(new_session: NewSession) -> None:
    session = new_session("a")
    session.train(0, 2)
    own = session.weights()
    session.load_global({name: torch.full_like(tensor, 7) for name, tensor in own.items()})
    for name, tensor in session.weights().items():
        expected = own[name] if name in session.local_names else torch.full_like(tensor, 7)
        assert torch.equal(tensor, expected), name


def test_restarted_process_finds_its_norm_layers(new_session: NewSession) -> None:
    unbroken, sent = new_session("a"), {}
    for number in range(3):
        restarted = new_session("b")
        if sent:
            unbroken.load_global(sent, number)
            restarted.load_global(sent, number)
        unbroken.train(number, 3)
        restarted.train(number, 3)
        sent = unbroken.weights()
        for name, tensor in restarted.weights().items():
            assert torch.equal(tensor, sent[name]), (number, name)
    assert set(new_session("b").local_weights()) == restarted.local_names
    for name, tensor in new_session("b").local_weights().items():
        assert torch.equal(tensor, sent[name])


def test_a_round_asked_for_again_starts_from_the_layers_before_it(new_session: NewSession) -> None:
    session = new_session("a")
    session.train(0, 3)
    sent = session.weights()
    session.train(1, 3)
    first = session.weights()
    again = new_session("a")
    again.load_global(sent, 1)
    again.train(1, 3)
    assert all(torch.equal(first[name], tensor) for name, tensor in again.weights().items())


def test_layers_are_those_before_the_round_asked_for(new_session: NewSession) -> None:
    """A message of an earlier round between two later ones leaves no trace."""
    session = new_session("a")
    session.train(0, 3)
    before = session.weights()
    session.train(1, 3)
    after = session.weights()
    for number, expected in ((1, before), (2, after), (1, before), (None, after)):
        session.load_global(after, number)
        for name in session.local_names:
            assert torch.equal(session.weights()[name], expected[name]), (number, name)


def test_pooled_modalities_have_layers_of_their_own(new_session: NewSession, cases: list[StoredCase]) -> None:
    bright = [
        make_case(f"m{number}", case.split, case.label, np.float16(1) - case.image, Modality.MRI)
        for number, case in enumerate(cases)
    ]
    session = new_session("a", cases + bright)
    session.train(0, 1)
    weights = session.weights()
    means = [name for name in weights if name.endswith(".CT.running_mean")]
    assert means
    assert all((weights[name] != weights[name.replace("CT", "MRI")]).any() for name in means)
    assert len(session.evaluate(Split.VALIDATION).patients) == 2


def test_selected_domain_decides() -> None:
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(1))
    split_domains(network, ("CT", "MRI"))
    layer = network[0]
    assert isinstance(layer, DomainNorm)
    torch.nn.init.constant_(layer.domains["MRI"].bias, 5)  # type: ignore[arg-type]
    network.eval()
    zeros = torch.zeros(1, 1, 2, 2)
    select_domain(network, "CT")
    assert network(zeros).mean() == 0
    select_domain(network, "MRI")
    assert network(zeros).mean() == 5
    with pytest.raises(KeyError, match="only for CT, MRI"):
        select_domain(network, "PET")


def test_statistics_become_those_of_the_images() -> None:
    network = torch.nn.Sequential(torch.nn.BatchNorm2d(1))
    network[0].running_mean.fill_(100)  # type: ignore[operator, union-attr]
    batches = [torch.tensor([0.0, 2.0]).reshape(2, 1, 1, 1), torch.tensor([4.0, 10.0]).reshape(2, 1, 1, 1)]
    recompute_statistics(network, batches)
    assert network[0].running_mean.item() == 4  # type: ignore[operator, union-attr]  # of 1 and 7
    assert network[0].running_var.item() == 10  # type: ignore[operator, union-attr]  # of 2 and 18, unbiased
    assert network[0].momentum == 0.1


def test_sets_are_chosen_by_site_then_modality(tmp_path: Path) -> None:
    sets = {
        f"site-{number}": NormSet(modality, {"w": torch.full((1,), float(number))})
        for number, modality in enumerate(("CT", "MRI", "CT"), 1)
    }
    write_norm_sets(sets, tmp_path)
    found = read_norm_sets(tmp_path)
    chosen = [
        choose_set(found, site, modality).weights["w"].item()
        for site, modality in (("site-3", "CT"), ("new", "MRI"), ("new", "CT"), ("new", "PET"))
    ]
    assert chosen == [3, 2, 1, 1]
    assert read_norm_sets(tmp_path / "other") == {}


def test_an_unseen_modality_gets_the_statistics_of_its_own_images(
    new_session: NewSession, cases: list[StoredCase]
) -> None:
    session = new_session("a")
    session.train(0, 1)
    before = session.weights()
    unseen = [make_case("m", Split.TEST, cases[0].label, np.float16(1) - cases[0].image, Modality.MRI)]
    adapted = with_own_statistics(session.network, unseen, torch.device("cpu"))
    assert all(torch.equal(before[name], tensor) for name, tensor in session.weights().items())
    changed = {name for name, tensor in adapted.state_dict().items() if not torch.equal(tensor, before[name])}
    assert {name.rpartition(".")[2] for name in changed} <= {
        "running_mean",
        "running_var",
        "num_batches_tracked",
    }
    assert any(name.endswith("running_mean") for name in changed)
    store = Store(ABDOMEN, Modality.MRI, "new", tuple(unseen))
    (result,) = score_data_sets(session, [store])
    expected = evaluate(adapted, unseen, ABDOMEN, torch.device("cpu"), thorough=True)
    assert result.summary == summarize(expected, ABDOMEN)
