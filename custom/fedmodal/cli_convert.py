"""`fedmodal convert`: a command for each public data set, and one for an image with its label map."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from fedmodal.errors import UserError

if TYPE_CHECKING:
    from fedmodal.data.convert.source import Source
    from fedmodal.tasks import Modality

convert = typer.Typer(help="Bring images and labels into a site's data set.", no_args_is_help=True)
console = Console()

SetFolder = Annotated[Path, typer.Argument(metavar="SRC", help="the unpacked data set; it is only read")]
Out = Annotated[
    Path, typer.Argument(metavar="OUT", help="folder for the site's data set, new or begun before")
]
TaskName = Annotated[str, typer.Option("--task", help="abdomen or heart")]
ModalityName = Annotated[str, typer.Option("--modality", help="CT or MRI: a site holds one of them")]
Seed = Annotated[int, typer.Option(min=0, help="of the draw of patients into splits")]
Share = typer.Option(min=0, max=1, help="share of the patients; overrides the set's own division")
Validation = Annotated[float | None, Share]
Test = Annotated[float | None, Share]


@convert.command("amos22")
def convert_amos22(
    src: SetFolder,
    out: Out,
    modality: ModalityName = "CT",
    validation: Validation = None,
    test: Test = None,
    seed: Seed = 0,
) -> None:
    """AMOS22, CT (up to amos_0500) or MRI: imagesTr and labelsTr; imagesVa and labelsVa are the test."""
    from fedmodal.data.convert.amos22 import amos22

    _run(amos22(src, modality_of(modality)), out, seed, validation, test)


@convert.command("btcv")
def convert_btcv(
    src: SetFolder,
    out: Out,
    validation: Validation = None,
    test: Test = None,
    seed: Seed = 0,
) -> None:
    """BTCV (Synapse, abdomen), CT: img/img0001.nii.gz and label/label0001.nii.gz."""
    from fedmodal.data.convert.btcv import btcv

    _run(btcv(src), out, seed, validation, test)


@convert.command("chaos")
def convert_chaos(
    src: SetFolder,
    out: Out,
    modality: ModalityName = "CT",
    validation: Validation = None,
    test: Test = None,
    seed: Seed = 0,
) -> None:
    """CHAOS, CT (liver) or MRI (liver, kidneys, spleen; T1 in and out of phase, T2): DICOM and PNG."""
    from fedmodal.data.convert.chaos import chaos

    _run(chaos(src, modality_of(modality)), out, seed, validation, test)


@convert.command("mmwhs")
def convert_mmwhs(
    src: SetFolder,
    out: Out,
    modality: ModalityName = "CT",
    validation: Validation = None,
    test: Test = None,
    seed: Seed = 0,
) -> None:
    """MM-WHS 2017, CT or MRI, whole heart: ct_train_1001_image.nii.gz and ct_train_1001_label.nii.gz."""
    from fedmodal.data.convert.mmwhs import mmwhs

    _run(mmwhs(src, modality_of(modality)), out, seed, validation, test)


@convert.command("nnunet")
def convert_nnunet(
    src: SetFolder,
    out: Out,
    modality: ModalityName,
    task: TaskName = "abdomen",
    labels: Annotated[str, typer.Option(help="source=organ pairs such as 1=liver; else by name")] = "",
    partly: Annotated[bool, typer.Option("--partly", help="the set outlines only some organs")] = False,
    channel: Annotated[int, typer.Option(min=0, help="which channel is the image")] = 0,
    validation: Validation = None,
    test: Test = None,
    seed: Seed = 0,
) -> None:
    """An nnU-Net v2 or Medical Segmentation Decathlon folder: dataset.json, imagesTr, labelsTr."""
    from fedmodal.data.convert.nnunet import nnunet
    from fedmodal.tasks import get_task

    source = nnunet(src, get_task(task), modality_of(modality), labels=labels, partly=partly, channel=channel)
    _run(source, out, seed, validation, test)


@convert.command("totalsegmentator")
def convert_totalsegmentator(
    src: SetFolder,
    out: Out,
    task: TaskName = "abdomen",
    modality: ModalityName = "CT",
    validation: Validation = None,
    test: Test = None,
    seed: Seed = 0,
) -> None:
    """TotalSegmentator, CT or MRI: a folder per patient with ct.nii.gz or mri.nii.gz and segmentations/."""
    from fedmodal.data.convert.totalsegmentator import totalsegmentator
    from fedmodal.tasks import get_task

    source = totalsegmentator(src, get_task(task), modality_of(modality))
    _run(source, out, seed, validation, test)


@convert.command("pair")
def convert_pair(
    image: Path,
    label: Path,
    out: Path,
    patient: Annotated[str, typer.Option(help="name of the patient in the data set")],
    task: TaskName = "abdomen",
    modality: ModalityName = "CT",
    split: Annotated[str, typer.Option(help="train, validation or test")] = "train",
    labels: Annotated[str, typer.Option(help="total, total_mr, task, or pairs such as 1=1,5=5,7=6")] = "task",
) -> None:
    """One NIfTI image and its label map."""
    from fedmodal.data.convert.labels import parse_labels
    from fedmodal.data.convert.pair import add_pair
    from fedmodal.data.dataset import Split
    from fedmodal.tasks import get_task

    if split not in list(Split):
        raise UserError(f"unknown split '{split}': choose one of {', '.join(Split)}")
    definition = get_task(task)
    mapping = parse_labels(labels, definition)
    dataset = add_pair(
        out,
        definition,
        modality_of(modality),
        image=image,
        label=label,
        patient=patient,
        split=Split(split),
        mapping=mapping,
    )
    console.print(f"{out}: {len(dataset.cases)} cases", soft_wrap=True)


def _run(source: "Source", out: Path, seed: int, validation: float | None, test: float | None) -> None:
    """Convert, show the report; exit code 1 if something is wrong with a case that was left out."""
    from fedmodal.data.convert.report import render
    from fedmodal.data.convert.run import convert_set
    from fedmodal.data.convert.splits import Splits

    with _bar() as advance:
        record = convert_set(source, out, Splits(seed, validation, test), advance)
    render(record, out, console)
    raise typer.Exit(1 if record.unexpected else 0)


@contextmanager
def _bar() -> Iterator[Callable[[int, int], None]]:
    """A bar of cases with the time left, as a function of (done, total)."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    columns = ("cases", BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        line = progress.add_task("cases", total=None)
        yield lambda done, total: progress.update(line, completed=done, total=total)


def modality_of(name: str) -> "Modality":
    """Read a modality's name from the command line.

    Raises:
        UserError: it is neither CT nor MRI.
    """
    from fedmodal.tasks import Modality

    if name.upper() not in list(Modality):
        raise UserError(f"unknown modality '{name}': choose CT or MRI")
    return Modality(name.upper())
