"""The cells of each preset, and that every arm of a regime gets the same training."""

import pytest

from fedmodal.errors import UserError
from fedmodal.study.plan import (
    ARMS,
    PAPER,
    PHANTOM,
    PRESETS,
    REAL,
    REGIMES,
    Cell,
    Choice,
    Preset,
    get_preset,
    parse_choice,
    plan_cells,
    training_of,
)
from fedmodal.tasks import Modality


def test_phantom_study_has_50_cells_a_seed() -> None:
    cells = plan_cells(PHANTOM, Choice(seeds=(42,)))
    by_task = {task: [cell for cell in cells if cell.task == task] for task in ("abdomen", "heart")}
    assert len(by_task["abdomen"]) == 6 * 6 + 2  # four sites for two arms only
    assert len(by_task["heart"]) == 2 * 6
    assert len(set(cells)) == len({cell.name for cell in cells}) == 50


def test_four_sites_are_for_none_and_gin_only() -> None:
    cells = plan_cells(PHANTOM, Choice(regimes=("federated_4",), seeds=(1,)))
    assert [cell.arm for cell in cells] == ["none", "gin"]


def test_all_cells_of_a_seed_come_before_the_next_seed() -> None:
    seeds = [cell.seed for cell in plan_cells(PHANTOM)]
    assert seeds == [42] * 50 + [123] * 50 + [215] * 50


def test_real_study_is_each_modality_alone_and_scored_on_the_other() -> None:
    assert {cell.regime for cell in plan_cells(REAL)} == {"alone_ct", "alone_mri"}
    assert len(plan_cells(REAL)) == 2 * 6 * 3
    assert REAL.unseen_only


def test_paper_study_is_the_paper_s_protocol() -> None:
    assert (PAPER.rounds, PAPER.steps, PAPER.seeds, PAPER.costly) == (100, None, (42, 123, 215), True)


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_arms_differ_in_nothing_but_the_arm_and_the_norm_of_normlocal(preset: Preset) -> None:
    for cell in plan_cells(preset):
        training = training_of(preset, cell)
        reference = training_of(preset, Cell(cell.task, "gin", cell.regime, cell.seed))
        norm = reference.network.model_copy(update={"norm": "batch"})
        network = norm if cell.arm == "normlocal" else reference.network
        assert training == reference.model_copy(update={"arm": cell.arm, "network": network})


@pytest.mark.parametrize("preset", [one for one in PRESETS.values() if one.steps], ids=lambda one: one.name)
def test_every_even_site_trains_as_many_steps_as_a_training_without_a_federation(preset: Preset) -> None:
    for cell in plan_cells(preset):
        regime, steps = REGIMES[cell.regime], training_of(preset, cell).steps_per_round
        if regime.uneven:
            assert steps is None  # one pass over what each site has
        else:
            assert steps == preset.steps


def test_unseen_modality_regimes_train_on_two_sites_of_one_modality() -> None:
    assert REGIMES["federated_ct"].modalities == (Modality.CT,)
    assert REGIMES["federated_mri"].modalities == (Modality.MRI,)
    assert len(REGIMES["federated_ct"].parts) == len(REGIMES["federated_mri"].parts) == 2


def test_choice_narrows() -> None:
    cells = plan_cells(PHANTOM, parse_choice("heart", "gin, none", "pooled", "7"))
    assert cells == (Cell("heart", "none", "pooled", 7), Cell("heart", "gin", "pooled", 7))


@pytest.mark.parametrize(
    ("choice", "message"),
    [
        (Choice(arms=("gim",)), "arm 'gim' does not exist: choose from none, randconv"),
        (Choice(tasks=("brain",)), "task 'brain' does not exist: choose from abdomen"),
        (Choice(tasks=("heart",)), "task 'heart' is not in study 'real': choose from abdomen"),
        (Choice(regimes=("pooled",)), "regime 'pooled' is not in study 'real': choose from alone_ct"),
    ],
)
def test_a_choice_that_does_not_exist_is_one_clear_line(choice: Choice, message: str) -> None:
    with pytest.raises(UserError, match=r"^[^\n]+$") as caught:
        plan_cells(REAL, choice)
    assert message in str(caught.value)


def test_a_choice_without_cells_says_so() -> None:
    with pytest.raises(UserError, match="no cell"):
        plan_cells(PHANTOM, Choice(tasks=("heart",), regimes=("alone_ct",)))


def test_unknown_preset_and_strange_seed() -> None:
    with pytest.raises(UserError, match="choose one of smoke, phantom, real, paper"):
        get_preset("big")
    with pytest.raises(UserError, match="seed 'x' is not a whole number"):
        parse_choice("", "", "", "1,x")


def test_the_papers_arms_come_first_and_ours_last() -> None:
    assert ARMS == ("none", "randconv", "spectrum", "normlocal", "gin", "ipa")
