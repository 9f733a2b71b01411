"""The cases of a written report: every patient in a table, the worst and the median as pictures."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from fedmodal.report.cases import CaseResults, Shown, invented, mean_dice, missed
from fedmodal.report.document import Section, Table
from fedmodal.report.pictures import Mosaic, mosaic, printed
from fedmodal.report.record import RunRecord
from fedmodal.report.scores import dice
from fedmodal.tasks import Task
from fedmodal.training.metrics import PatientScore


@dataclass(frozen=True)
class Picture:
    """A case as a page shows it.

    Attributes:
        title: its data set, patient and role.
        words: what the model did on it.
        alt: the same for who cannot see the picture.
        picture: data URL of the printed slice.
        mosaic: for the viewer.
    """

    title: str
    words: str
    alt: str
    picture: str
    mosaic: Mosaic


def case_section(record: RunRecord, tested: Sequence[CaseResults], task: Task) -> Section:
    """What the best global model did on each patient that the reader has."""
    if not tested:
        return Section("cases", "Cases", (_no_cases(record),))
    text = [
        "The run's global model on the patients whose images are on this machine. Pictures are in the "
        "network's own grid, seen from the feet, the patient's right on the left; Dice is measured on the "
        "images' own grids.",
    ]
    if sites := [one.site for one in tested if one.site]:
        text.append(f"Phantoms of {', '.join(sites)}: the mean Dice here is that in the record.")
    return Section("cases", "Cases", tuple(text), tables=tuple(_table(one, task) for one in tested))


def _no_cases(record: RunRecord) -> str:
    phantoms = any(site.phantoms for site in record.sites.values())
    why = "its phantoms or its model are not on this machine" if phantoms else "the images stay at the sites"
    return f"None are shown: {why}. --cases DATASET shows the model on a data set that you have."


def _table(tested: CaseResults, task: Task) -> Table:
    headings = ("patient", "mean", *(organ.name for organ in task.organs), "missed", "invented")
    rows = tuple(_row(score, task) for score in tested.scores)
    caption = f"{tested.site or tested.name}: Dice of each {tested.split} patient, the worst first"
    return Table(caption, headings, rows, folded=True)


def _row(score: PatientScore, task: Task) -> tuple[str, ...]:
    values = (dice(None if value != value else float(value)) for value in score.dice)  # noqa: PLR0124 - NaN
    faults = (", ".join(found(score, task)) or "-" for found in (missed, invented))
    return score.patient, dice(mean_dice(score)), *values, *faults


def pictures_of(tested: Sequence[CaseResults], task: Task) -> Iterator[Picture]:
    """The pictures of every case to show."""
    for one in tested:
        for shown in one.shown:
            yield _picture(one, shown, task)


def _picture(tested: CaseResults, shown: Shown, task: Task) -> Picture:
    where = tested.site or tested.name
    title = f"{where} ({shown.case.modality}), {shown.role} case: {shown.score.patient}"
    known = (
        (organ.name, float(value))
        for organ, value in zip(task.organs, shown.score.dice, strict=True)
        if value == value  # noqa: PLR0124 - NaN
    )
    organs = ", ".join(f"{name} {value:.2f}" for name, value in known)
    words = f"mean Dice {dice(mean_dice(shown.score))} ({organs}). Image, truth and prediction in the slice "
    words += "with the most wrong voxels."
    return Picture(title, words, f"{title}: {words}", printed(shown, task), mosaic(shown))
