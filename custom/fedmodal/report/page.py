"""The written report of a run: one HTML file that needs nothing else, and the same in Markdown."""

import datetime
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from fedmodal import __version__
from fedmodal.report.case_section import Picture, case_section, pictures_of
from fedmodal.report.cases import CaseResults
from fedmodal.report.document import Table
from fedmodal.report.record import RunRecord
from fedmodal.report.sections import Pooled, headline, sections_of
from fedmodal.report.warnings import warnings_of
from fedmodal.tasks import get_task
from fedmodal.writing import written_whole

HTML_FILE, MARKDOWN_FILE = "report.html", "report.md"
_TEMPLATES = "templates"
_PLANES = (
    ("axial", (("left", "R"), ("right", "L"), ("top", "A"), ("bottom", "P"))),
    ("coronal", (("left", "R"), ("right", "L"), ("top", "H"), ("bottom", "F"))),
    ("sagittal", (("left", "A"), ("right", "P"), ("top", "H"), ("bottom", "F"))),
)


@dataclass(frozen=True)
class Material:
    """What a report is written from.

    Attributes:
        record: of the run.
        tested: the run's global model on data that the reader has.
        pooled: data sets, and what a network trained on pooled data reached there; may be empty.
    """

    record: RunRecord
    tested: Sequence[CaseResults]
    pooled: Pooled


def write_report(material: Material, out: Path) -> tuple[Path, Path]:
    """Write both files into a folder, each as a whole or not at all.

    Returns:
        The paths of the HTML and the Markdown file.

    Raises:
        UserError: the folder cannot be written.
    """
    task = get_task(material.record.task)
    sections = sections_of(material.record, material.pooled)
    if material.record.evaluation:
        sections.insert(-2, case_section(material.record, material.tested, task))
    shared = {
        "title": material.record.job,
        "headline": headline(material.record),
        "warnings": warnings_of(material.record),
        "sections": sections,
        "version": __version__,
        "made": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    }
    pictures = list(pictures_of(material.tested, task))
    page = _html(shared, pictures, material, task.organs)
    content = {out / HTML_FILE: page, out / MARKDOWN_FILE: _markdown(shared)}
    for path, text in content.items():
        with written_whole(path) as partial:
            partial.write_text(text, encoding="utf-8")
    return out / HTML_FILE, out / MARKDOWN_FILE


def _environment(*, html: bool) -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__, _TEMPLATES),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=html,  # noqa: S701 - Markdown is not HTML
    )
    environment.filters["markdown"] = as_markdown
    return environment


def _html(
    shared: dict[str, Any], pictures: Sequence[Picture], material: Material, organs: Sequence[Any]
) -> str:
    texts = files(__package__).joinpath(_TEMPLATES)
    return (
        _environment(html=True)
        .get_template("report.html.jinja")
        .render(
            **shared,
            css=texts.joinpath("report.css").read_text(encoding="utf-8"),
            script=texts.joinpath("viewer.js").read_text(encoding="utf-8"),
            private=any(not one.synthetic for one in material.tested),
            cases=pictures,
            mosaics=[asdict(picture.mosaic) for picture in pictures],
            organs=[{"id": organ.id, "name": organ.name, "colour": organ.colour} for organ in organs],
            planes=_PLANES,
        )
    )


def _markdown(shared: dict[str, Any]) -> str:
    return _environment(html=False).get_template("report.md.jinja").render(**shared)


def as_markdown(table: Table) -> str:
    """A table in Markdown."""
    rule = ["---" if table.is_text(column) else "---:" for column in range(len(table.headings))]
    last = len(table.rows) - 1 if table.total else -1
    rows = [
        [f"**{cell}**" if number == last and cell else cell for cell in row]
        for number, row in enumerate(table.rows)
    ]
    escaped = [[cell.replace("|", r"\|") for cell in line] for line in (table.headings, *rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in (escaped[0], rule, *escaped[1:]))
