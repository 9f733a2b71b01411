"""`fedmodal predict`: every image that was named, one at a time."""

from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.text import Text

from fedmodal.data.plausible import label_map_problem
from fedmodal.errors import UserError
from fedmodal.inference.files import Opened, Source, find_sources, stats_json, write_prediction, write_stats
from fedmodal.inference.model import Model, load_model
from fedmodal.inference.predict import OrganStats, Prediction, organ_stats, predict
from fedmodal.tasks import Modality


@dataclass(frozen=True)
class Request:
    """What to predict; see the command's options."""

    model: Path
    image: Path
    out: Path
    modality: Modality | None = None
    series: str = ""
    dicom_seg: bool = False
    largest: bool = False
    views: bool = False
    uncertainty: bool = False
    preview: bool = False
    stats: bool = False
    as_json: bool = False


def run(request: Request, console: Console) -> int:
    """Predict every image; one that cannot be read is named, and the rest goes on.

    Returns:
        The exit code: 1 if an image failed.

    Raises:
        UserError: the model or the images cannot be found, or the only image failed.
    """
    model = load_model(request.model)
    sources = find_sources(
        request.image, request.out, dicom_seg=request.dicom_seg, uncertainty=request.uncertainty
    )
    rows: list[tuple[Source, dict[str, OrganStats]]] = []
    problems = []
    for number, source in enumerate(sources, 1):
        try:
            with console.status(source.path.name) if not request.as_json else nullcontext():
                stats, line = _one(request, model, source)
        except UserError as error:
            if len(sources) == 1:
                raise
            problems.append(str(error))
            line = Text(f"problem: {error}", style="red")
        else:
            rows.append((source, stats))
        if not request.as_json:
            console.print(Text(f"{number}/{len(sources)} ") + line, soft_wrap=True)
    if request.stats and rows:
        write_stats(rows, rows[0][0].out.parent)
    if request.as_json:
        print(stats_json(rows))
    return 1 if problems else 0


def _one(request: Request, model: Model, source: Source) -> tuple[dict[str, OrganStats], Text]:
    opened = source.read(request.series)
    chosen = request.modality or opened.declared
    prediction = predict(
        model,
        opened.image,
        chosen,
        largest_only=request.largest,
        views=request.views,
        uncertainty=request.uncertainty,
    )
    dicom, doubt = _dicom_seg(prediction, opened, model) if source.is_dicom_seg else (b"", None)
    write_prediction(prediction, source, preview=request.preview, dicom_seg=dicom)
    line = Text(f"{source.out}: {prediction.modality}")
    stats = organ_stats(opened.image, prediction, model.task)
    nothing = None if any(one.millilitres for one in stats.values()) else _nothing_found(model)
    strange = label_map_problem(np.asanyarray(opened.image.dataobj))
    for warning in _warnings(request.modality, opened.declared, prediction.warning, doubt, nothing, strange):
        line.append(f"; {warning}", style="yellow")
    return stats, line


def _nothing_found(model: Model) -> str:
    names = ", ".join(organ.name for organ in model.task.organs)
    return f"NOTHING FOUND: the model is for task '{model.task.name}' ({names}); does the image show any?"


def _dicom_seg(prediction: Prediction, opened: Opened, model: Model) -> tuple[bytes, str | None]:
    from fedmodal.inference.dicom_seg import dicom_segmentation  # noqa: PLC0415 - a second to import

    return dicom_segmentation(prediction, opened.files, model)


def _warnings(given: Modality | None, declared: Modality | None, *doubts: str | None) -> list[str]:
    found = [doubt for doubt in doubts if doubt]
    if given and declared and given != declared:
        found.append(f"{given} was given, its header says {declared}")
    return found
