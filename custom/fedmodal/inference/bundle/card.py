"""The model card, `docs/README.md`."""

from importlib.resources import files
from typing import Any

from jinja2 import Environment, StrictUndefined

from fedmodal import __version__
from fedmodal.inference.bundle.facts import Facts
from fedmodal.inference.model import Model
from fedmodal.tasks import Modality

TEMPLATE = "templates/README.md.jinja"


def model_card(model: Model, facts: Facts, metadata: dict[str, Any], modality: Modality, only: bool) -> str:
    """Intended use, limits, training sites and Dice in Markdown.

    Args:
        model: whose card.
        facts: of its training.
        metadata: the bundle's.
        modality: that the bundle assumes.
        only: whether it takes no other.
    """
    environment = Environment(
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - Markdown, not HTML
    )
    template = environment.from_string(files(__package__).joinpath(TEMPLATE).read_text(encoding="utf-8"))
    task = model.task
    return template.render(
        task=task,
        names=[organ.name for organ in task.organs],
        facts=facts,
        metadata=metadata,
        modality=modality.value,
        only=only,
        field=[round(size * step) for size, step in zip(task.slice_size, task.spacing[1:], strict=True)],
        fingerprint=model.fingerprint,
        version=__version__,
        dice=lambda value: "-" if value is None else f"{value:.3f}",
    )
