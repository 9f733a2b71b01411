"""What a conversion took and what it left: on the terminal, and as `conversion.json` beside the data set."""

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedmodal.data.convert.pair import whole_file
from fedmodal.data.convert.source import Left, Source
from fedmodal.data.dataset import Split
from fedmodal.errors import UserError
from fedmodal.tasks import Modality, get_task

CONVERSION_FILE = "conversion.json"


class Taken(BaseModel):
    """A case of the data set."""

    model_config = ConfigDict(frozen=True)

    case: str
    patient: str
    split: Split


class Conversion(BaseModel):
    """`conversion.json`: whose conversion a folder holds, and what came of it.

    It is there from the start of a conversion, so that only the same one goes on in that folder;
    `finished` says whether it came to its end.
    """

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    source: str = Field(alias="set")
    task: str
    modality: Modality
    annotated: tuple[str, ...] | None
    settings: Mapping[str, str]
    finished: bool = False
    taken: tuple[Taken, ...] = ()
    left: tuple[Left, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def begun(cls, source: Source) -> "Conversion":
        """The record of a conversion that starts."""
        return cls(
            source=source.name,
            task=source.task.name,
            modality=source.modality,
            annotated=source.annotated,
            settings=dict(source.settings),
            notes=source.notes,
        )

    @property
    def unexpected(self) -> tuple[Left, ...]:
        """Cases left because something is wrong with them."""
        return tuple(each for each in self.left if not each.expected)

    @property
    def not_annotated(self) -> tuple[str, ...]:
        """Organs of the task that the set does not outline."""
        names = (organ.name for organ in get_task(self.task).organs)
        return tuple(name for name in names if self.annotated is not None and name not in self.annotated)

    def same_files(self, other: "Conversion") -> bool:
        """Whether both would write the same images and label maps; splits are not in those."""
        fields = ("source", "task", "modality", "annotated", "settings")
        return all(getattr(self, name) == getattr(other, name) for name in fields)


def write_conversion(record: Conversion, folder: Path) -> None:
    """Write `conversion.json` into the data set's folder, as a whole or not at all."""
    with whole_file(folder / CONVERSION_FILE) as partial:
        text = json.dumps(record.model_dump(mode="json", by_alias=True), indent=2)
        partial.write_text(text + "\n", encoding="utf-8")


def read_conversion(folder: Path) -> Conversion | None:
    """The conversion that a folder holds, or None.

    Raises:
        UserError: the file is there, but not readable.
    """
    path = folder / CONVERSION_FILE
    if not path.is_file():
        return None
    try:
        return Conversion.model_validate_json(path.read_text(encoding="utf-8"))
    except (ValidationError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable; convert into a new folder") from error


def render(record: Conversion, folder: Path, console: Console) -> None:
    """Print what was taken by split, what was left and why, and a line that sums up."""
    table = Table("split", "patients", "cases", header_style="bold")
    for split in Split:
        cases = [each for each in record.taken if each.split == split]
        table.add_row(split, str(len({each.patient for each in cases})), str(len(cases)))
    console.print(table)
    if record.left:
        console.print(_left_table(record))
    for note in _notes(record):
        console.print(Text(f"note: {note}", style="yellow"), soft_wrap=True)
    counts = f"{len(record.taken)} cases in {folder}, {len(record.left)} left out"
    if record.unexpected:
        counts += f", {len(record.unexpected)} of them because something is wrong"
    style = "bold red" if record.unexpected else "green"
    console.print(Text(f"{counts}; all in {folder / CONVERSION_FILE}", style=style), soft_wrap=True)


def _left_table(record: Conversion) -> Table:
    table = Table("left out", "", "why", header_style="bold")
    table.columns[2].overflow = "fold"
    for each in record.left:
        style = "" if each.expected else "red"
        table.add_row(each.case, "expected" if each.expected else "wrong", Text(each.why), style=style)
    return table


def _notes(record: Conversion) -> tuple[str, ...]:
    if not record.not_annotated:
        return record.notes
    organs = ", ".join(record.not_annotated)
    return (
        *record.notes,
        f"this set does not outline {organs}: recorded as `annotated` in dataset.json, see docs/data.md",
    )
