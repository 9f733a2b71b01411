import pytest

from fedmodal.report.record import EvaluationRecord, RunRecord
from fedmodal.report.scores import BEST_GLOBAL
from fedmodal.report.warnings import rounds_in_words, warnings_of


@pytest.mark.parametrize(
    ("numbers", "words"),
    [([3], "round 3"), ([1, 2], "rounds 1 to 2"), ([2, 4, 5, 6, 9], "rounds 2, 4 to 6, 9")],
)
def test_rounds_in_words(numbers: list[int], words: str) -> None:
    assert rounds_in_words(numbers) == words


def test_a_round_below_the_quorum(record: RunRecord) -> None:
    assert not any("quorum" in line for line in warnings_of(record))
    asked = record.model_copy(update={"quorum": 2})
    assert "round 2 ended below the quorum of 2 sites" in warnings_of(asked)


def test_an_update_that_was_not_accepted_is_a_site_lost(record: RunRecord) -> None:
    record.rounds[0].sites["site-2"].accepted = False
    assert "rounds 1 to 2 went without site-2" in warnings_of(record)


def test_a_run_that_is_not_finished(record: RunRecord) -> None:
    assert any("has not come to its end" in line for line in warnings_of(record))
    ended = record.model_copy(update={"finished": "2026-01-01T01:00:00+00:00"})
    assert not any("has not come to its end" in line for line in warnings_of(ended))


def test_few_patients(record: RunRecord) -> None:
    assert "site-1: its figures are of 2 patients only, too few for intervals" in warnings_of(record)
    best = record.evaluation["site-1"][BEST_GLOBAL]
    best.patients, best.organs["liver"].n = 9, 9
    assert not any("site-1: its figures" in line for line in warnings_of(record))
    best.organs["gallbladder"].n = 3
    assert "site-1: few of its patients have gallbladder (3); no interval is given for these" in warnings_of(
        record
    )


def test_a_missed_organ(record: RunRecord) -> None:
    record.evaluation["site-1"][BEST_GLOBAL].organs["liver"].missed = 1
    assert "site-1: liver missed entirely in 1 of 2 patients" in warnings_of(record)


def test_a_site_that_does_better_alone(record: RunRecord) -> None:
    line = "site-1: its own model is better there than the global one, by 0.100 mean Dice"
    assert line in warnings_of(record)
    own: EvaluationRecord = record.evaluation["site-1"]["site-1"]
    own.mean = 0.84
    assert line not in warnings_of(record)
    assert not any("its own model is better" in one for one in warnings_of(record))
