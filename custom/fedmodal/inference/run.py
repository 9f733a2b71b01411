"""`fedmodal predict`: every image that was named, one at a time."""

from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.text import Text

from fedmodal.errors import UserError
from fedmodal.inference.files import Source, find_sources, stats_json, write_prediction, write_stats
from fedmodal.inference.model import Model, load_model
from fedmodal.inference.predict import OrganStats, organ_stats, predict
from fedmodal.tasks import Modality


@dataclass(frozen=True)
class Request:
    """What to predict; see the command's options."""

    model: Path
    image: Path
    out: Path
    modality: Modality | None = None
    largest: bool = False
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
    sources = find_sources(request.image, request.out)
    rows: list[tuple[Source, dict[str, OrganStats]]] = []
    problems = []
    for number, source in enumerate(sources, 1):
        try:
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
    image, declared = source.read()
    chosen = request.modality or declared
    prediction = predict(model, image, chosen, largest_only=request.largest)
    write_prediction(prediction, source, preview=request.preview)
    line = Text(f"{source.out}: {prediction.modality}")
    for warning in _warnings(request.modality, declared, prediction.warning):
        line.append(f"; {warning}", style="yellow")
    return organ_stats(image, prediction, model.task), line


def _warnings(given: Modality | None, declared: Modality | None, doubt: str | None) -> list[str]:
    found = [doubt] if doubt else []
    if given and declared and given != declared:
        found.append(f"{given} was given, its header says {declared}")
    return found
