"""Hand-made rows, as a study's cells leave them."""

from collections.abc import Callable

import pytest

from fedmodal.study.results import Row

MakeRow = Callable[..., Row]


@pytest.fixture
def make_row() -> MakeRow:
    """`make_row(arm, patient, organ, dice, ...)`: a row of the federated abdomen, tested on MRI."""

    def make(
        arm: str,
        patient: str,
        organ: str,
        dice: float | None,
        *,
        seed: int = 1,
        task: str = "abdomen",
        regime: str = "federated",
        modality: str = "MRI",
        trained_on: str = "CT+MRI",
        invented: bool = False,
    ) -> Row:
        return Row(seed, task, arm, regime, trained_on, modality, patient, organ, dice, invented)

    return make
