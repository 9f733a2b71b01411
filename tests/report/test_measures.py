import io

from rich.console import Console

from fedmodal.report.measures import render_measures
from fedmodal.report.record import RunRecord
from fedmodal.report.scores import BEST_GLOBAL, LAST_GLOBAL


def spread(mean: float, *, interval: bool = True) -> dict[str, object]:
    ends = {"low": mean - 0.5, "high": mean + 0.5, "q1": 0.2, "median": 0.3, "q3": 0.4}
    return {"n": 2, "mean": mean} | (ends if interval else {})


def shown(spreads: dict[str, object], name: str = BEST_GLOBAL) -> str:
    organ = {"dice": 0.3, "n": 3, "missed": 1, "absent": 0, "invented": 0, "spreads": spreads}
    result = {"split": "test", "modality": "CT", "patients": 3, "mean": 0.3, "organs": {"liver": organ}}
    record = RunRecord.model_validate(
        {
            "job": "job", "task": "abdomen", "arm": "gin", "num_rounds": 1, "started": "",
            "evaluation": {"site-1": {name: result}},
        }
    )  # fmt: skip
    console = Console(file=io.StringIO(), width=120)
    render_measures(record, console)
    output: io.StringIO = console.file  # type: ignore[assignment]
    return output.getvalue()


def test_each_measure_has_its_middle_and_its_ends() -> None:
    text = shown({"dice": spread(0.9), "hd95_mm": spread(12.0), "volume_error_ml": spread(-7.0)})
    assert "global, best" in text
    assert "2 of 3" in text
    for words in ("0.90", "0.20..0.40", "12.0", "11.5..12.5", "-7.0", "-7.5..-6.5"):
        assert words in text


def test_few_patients_have_no_ends() -> None:
    assert ".." not in shown({"hd95_mm": spread(12.0, interval=False)}, LAST_GLOBAL).splitlines()[-2]


def test_runs_without_measures_get_no_table() -> None:
    assert shown({}) == ""
