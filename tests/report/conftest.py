import pytest

from fedmodal.report.record import RunRecord
from fedmodal.report.scores import BEST_GLOBAL, LAST_GLOBAL


def organ(dice: float | None, n: int = 2, invented: int = 0) -> dict[str, object]:
    return {"dice": dice, "n": n, "missed": 0, "absent": 2 - n, "invented": invented}


def evaluation(liver: float, *, split: str = "test", modality: str = "CT") -> dict[str, object]:
    organs = {"liver": organ(liver), "gallbladder": organ(None, n=0, invented=1)}
    return {"split": split, "modality": modality, "patients": 2, "mean": liver, "organs": organs}


def contribution(*, accepted: bool = True, global_dice: float | None = 0.5) -> dict[str, object]:
    return {
        "accepted": accepted,
        "slices": 100,
        "loss": 1.25,
        "seconds": 10.0,
        "global_dice": global_dice,
        "local_dice": 0.6,
    }


@pytest.fixture
def record() -> RunRecord:
    site = {"patients": {"train": 3, "validation": 1, "test": 2}, "phantoms": False}
    both = {"site-1": contribution(), "site-2": contribution(global_dice=0.7)}
    return RunRecord.model_validate(
        {
            "job": "abdomen_gin",
            "task": "abdomen",
            "arm": "gin",
            "num_rounds": 4,
            "started": "2026-01-01T00:00:00+00:00",
            "rounds": {
                0: {"seconds": 60, "sites": both},
                1: {"seconds": 60, "sites": {"site-1": both["site-1"]}},
            },
            "sites": {"site-1": {"modality": "CT"} | site, "site-2": {"modality": "MRI"} | site},
            "best_round": 1,
            "best_dice": 0.6,
            "evaluation": {
                "site-1": {
                    BEST_GLOBAL: evaluation(0.8),
                    LAST_GLOBAL: evaluation(0.7),
                    "site-1": evaluation(0.9),
                },
                "site-2": {BEST_GLOBAL: evaluation(0.75, modality="MRI", split="train")},
            },
        }
    )
