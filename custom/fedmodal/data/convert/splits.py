"""Which patients of a data set are for training, validation and test."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from fedmodal.data.convert.source import SourceCase
from fedmodal.data.dataset import Split
from fedmodal.errors import UserError

VALIDATION_SHARE = 0.15
TEST_SHARE = 0.15


@dataclass(frozen=True)
class Splits:
    """How patients are divided.

    A patient's place follows from the seed and the patient's name alone, so that one more patient
    moves no other. Without shares, the set's own division counts where it has one; a set that
    names test patients only gives up a part of the others for validation.

    Attributes:
        seed: of the draw.
        validation: share of the patients; None for the usual one, or what `test` leaves of it.
        test: likewise.
    """

    seed: int = 0
    validation: float | None = None
    test: float | None = None

    def __post_init__(self) -> None:
        given = [share for share in (self.validation, self.test) if share is not None]
        if any(not 0 <= share <= 1 for share in given) or sum(given) > 1 + 1e-9:
            raise UserError(
                "--validation and --test are shares of the patients: from 0 to 1, together at most 1"
            )

    @property
    def shares(self) -> tuple[float, float, float]:
        """Of training, validation and test."""
        validation, test = self.validation, self.test
        if validation is None:
            validation = min(VALIDATION_SHARE, 1 - (test or 0))
        if test is None:
            test = min(TEST_SHARE, 1 - validation)
        return 1 - validation - test, validation, test

    def assign(self, cases: Sequence[SourceCase]) -> dict[str, Split]:
        """Patient to split.

        Raises:
            UserError: the set itself puts a patient in two splits.
        """
        own = self._own(cases) if self.validation is None and self.test is None else {}
        names_validation = Split.VALIDATION in own.values()
        assigned = {}
        for patient in {case.patient: None for case in cases}:
            published = own.get(patient)
            if published is Split.TRAIN and not names_validation:
                assigned[patient] = self._draw(patient, (1 - self.shares[1], self.shares[1]))
            else:
                assigned[patient] = published or self._draw(patient, self.shares)
        return assigned

    def _own(self, cases: Sequence[SourceCase]) -> dict[str, Split]:
        own: dict[str, Split] = {}
        for case in cases:
            if case.split and own.setdefault(case.patient, case.split) != case.split:
                raise UserError(f"patient '{case.patient}' is in two splits of the set; mend its list")
        return own

    def _draw(self, patient: str, shares: Sequence[float]) -> Split:
        digest = hashlib.sha256(f"{self.seed}:{patient}".encode()).digest()
        place = int.from_bytes(digest[:8]) / 2**64
        if place < shares[0]:
            return Split.TRAIN
        return Split.VALIDATION if place < shares[0] + shares[1] or len(shares) == 2 else Split.TEST
