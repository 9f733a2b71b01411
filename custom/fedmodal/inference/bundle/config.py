"""`inference.json`: MONAI's transforms, with the task's numbers put in."""

import json
from importlib.resources import files
from typing import Any

from fedmodal.data import preprocess
from fedmodal.tasks import Modality, Task

TEMPLATE = "templates/inference.json"


def inference_config(task: Task, modality: Modality, only: bool) -> dict[str, Any]:
    """The bundle's workflow: images in, label maps on their own grid out.

    What MONAI has no transform for (the fractional area average, the cut around the body's middle,
    percentiles of tissue alone) are expressions in it, not a module beside it: so the configuration
    also works from within `model.ts`, where MONAI Deploy reads it.

    Args:
        task: whose spacing, slice size and intensity rules.
        modality: the rule that applies where the command line names none.
        only: leave the other modality's rule out, so that asking for it is an error.
    """
    config: dict[str, Any] = json.loads(files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8"))
    config["modality"] = modality.value
    config["grid"] |= _grid(task)
    config["mri_percentiles"] = [task.mri.low, task.mri.high]
    config["intensity"]["CT"] |= {"a_min": task.ct.low, "a_max": task.ct.high}
    if only:
        config["intensity"] = {modality.value: config["intensity"][modality.value]}
    return config


def _grid(task: Task) -> dict[str, Any]:
    """The numbers of `data.preprocess`, from there: one place holds each."""
    return {
        "spacing": list(task.spacing),
        "slice_size": list(task.slice_size),
        "area_from": preprocess.AREA_FROM,
        "body_hu": preprocess.BODY_HU,
        "background_fraction": preprocess.BACKGROUND_FRACTION,
        "table_mass": preprocess.TABLE_MASS,
    }
