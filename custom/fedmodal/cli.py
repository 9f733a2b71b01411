"""The command line: each command reads its arguments, calls one function, and shows the answer."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from fedmodal import __version__
from fedmodal.errors import UserError

if TYPE_CHECKING:
    from fedmodal.tasks import Modality
    from fedmodal.training.pooled import Progress as TrainingProgress

Advance = Callable[[int, int], None]
OnStep = Callable[[int, float], None]

app = typer.Typer(
    name="fedmodal",
    help="Federated segmentation of CT and MRI: data, training, simulation, reports.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
convert = typer.Typer(help="Bring images and labels into a site's data set.", no_args_is_help=True)
app.add_typer(convert, name="convert")
console = Console()

TaskName = Annotated[str, typer.Option("--task", help="abdomen or heart")]
ModalityName = Annotated[str, typer.Option("--modality", help="CT or MRI")]
AsJson = Annotated[bool, typer.Option("--json", help="for a program to read")]
Seed = Annotated[int, typer.Option(min=0, help="decides every random number")]


def main() -> None:
    """Run a command; what a user can mend is one line on standard error and exit code 1."""
    try:
        app()
    except UserError as error:
        sys.exit(f"fedmodal: {error}")


@app.callback(invoke_without_command=True)
def version(show: Annotated[bool, typer.Option("--version", help="print the version")] = False) -> None:
    """Federated segmentation of CT and MRI: data, training, simulation, reports."""
    if show:
        console.print(__version__)
        raise typer.Exit


@app.command()
def phantom(
    out: Annotated[Path, typer.Argument(help="new folder for the data set")],
    task: TaskName = "abdomen",
    modality: ModalityName = "CT",
    train: Annotated[int, typer.Option(min=0)] = 12,
    validation: Annotated[int, typer.Option(min=0)] = 3,
    test: Annotated[int, typer.Option(min=0)] = 5,
    seed: Seed = 0,
) -> None:
    """Write a data set of synthetic patients."""
    from fedmodal.data.dataset import Split
    from fedmodal.data.phantom import write_phantoms
    from fedmodal.tasks import get_task

    counts = {Split.TRAIN: train, Split.VALIDATION: validation, Split.TEST: test}
    with _bar("phantoms") as advance:
        dataset = write_phantoms(out, get_task(task), _modality(modality), counts, seed, advance)
    console.print(f"{len(dataset.cases)} {modality} phantoms for task {task} in {out}", soft_wrap=True)


@app.command()
def check(
    dataset: Annotated[Path, typer.Argument(help="folder with dataset.json")], as_json: AsJson = False
) -> None:
    """Check a data set, a line a case; exit code 1 if there are problems."""
    from fedmodal.data.check import check_dataset, render
    from fedmodal.data.dataset import read_dataset

    opened = read_dataset(dataset)
    with _bar("cases", hidden=as_json) as advance:
        report = check_dataset(opened, advance)
    if as_json:
        print(report.to_json())
    else:
        render(report, console)
    raise typer.Exit(0 if report.ok else 1)


@app.command()
def train(
    datasets: Annotated[list[Path], typer.Argument(help="data sets to train on, pooled")],
    out: Annotated[Path, typer.Option(help="folder for the model, its state and results.json")],
    test: Annotated[list[Path] | None, typer.Option(help="more data sets to test on; repeatable")] = None,
    arm: Annotated[str, typer.Option(help="intensity augmentation: none or gin")] = "gin",
    rounds: Annotated[int, typer.Option(min=1)] = 6,
    steps: Annotated[int, typer.Option(min=1, help="optimizer steps a round")] = 150,
    seed: Seed = 42,
    settings: Annotated[Path | None, typer.Option(help="JSON file with more training settings")] = None,
) -> None:
    """Train on one data set, or on several pooled, without a federation; then test."""
    from fedmodal.data.dataset import read_dataset
    from fedmodal.data.store import default_cache, open_store
    from fedmodal.report.table import test_table
    from fedmodal.training.config import read_settings, training_config
    from fedmodal.training.pooled import score_data_sets, train_pooled, write_results

    more = read_settings(settings) if settings else {}
    opened = [read_dataset(folder) for folder in [*datasets, *(test or [])]]
    given = {"task": opened[0].task, "arm": arm, "steps_per_round": steps, "seed": seed}
    config = training_config(given | more)
    stores = [open_store(dataset, default_cache()) for dataset in opened]
    with _training_progress(rounds * steps) as (on_step, on_round):
        session = train_pooled(config, stores[: len(datasets)], rounds, out, on_step, on_round)
    results = score_data_sets(session, stores)
    path = write_results(results, config, out)
    console.print(test_table(results))
    console.print(f"written: {path}", soft_wrap=True)


@app.command()
def simulate(
    job: Annotated[Path, typer.Argument(help="a folder in jobs/")],
    workspace: Annotated[Path, typer.Option("-w", "--workspace")] = Path("simulator_workspace"),
    n_clients: Annotated[int, typer.Option("-n", "--n-clients", min=1, help="number of sites")] = 2,
    clients: Annotated[str, typer.Option("-c", "--clients", help="names of the sites, by commas")] = "",
    threads: Annotated[int, typer.Option("-t", "--threads", min=1, help="sites at the same time")] = 1,
) -> None:
    """Run a job in FLARE's simulator, with the site policy that it needs, in any workspace."""
    from fedmodal.flare.simulate import Simulation, simulate

    sites = tuple(clients.split(",")) if clients else n_clients
    simulate(Simulation(job, workspace, sites, threads))
    console.print(f"the table again: fedmodal report {workspace}", soft_wrap=True)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="simulator workspace or downloaded job")],
    as_json: AsJson = False,
) -> None:
    """Show what a federated run reached: Dice per organ, modality and site, global against local."""
    from fedmodal.report.record import find_record, read_record
    from fedmodal.report.table import render

    path = find_record(run)
    record = read_record(path)
    if as_json:
        print(record.model_dump_json(indent=2))
    else:
        render(record, path, console)


@app.command()
def jobs(
    write: Annotated[bool, typer.Option("--write", help="write the files instead of checking them")] = False,
    root: Annotated[Path, typer.Option(help="the repository")] = Path(),
) -> None:
    """Check that jobs/ and the simulator's policy are as defined in the code, or write them."""
    from fedmodal.flare.jobs import outdated_files, write_files

    if write:
        console.print(f"{len(write_files(root))} files written")
    elif outdated := outdated_files(root):
        names = ", ".join(str(path) for path in outdated)
        raise UserError(f"not as defined: {names}; run `fedmodal jobs --write`")
    else:
        console.print("all job and policy files are as defined")


@convert.command("totalsegmentator")
def convert_totalsegmentator_command(
    source: Annotated[Path, typer.Argument(help="the set's folder, one folder a patient")],
    out: Path,
    task: TaskName = "abdomen",
    modality: ModalityName = "CT",
    seed: Seed = 0,
) -> None:
    """TotalSegmentator's own layout, CT or MRI; restartable, one case in memory at a time."""
    from fedmodal.data.convert.totalsegmentator import convert_totalsegmentator
    from fedmodal.tasks import get_task

    with _bar("patients") as advance:
        report = convert_totalsegmentator(
            source, out, get_task(task), _modality(modality), seed=seed, progress=advance
        )
    for patient, why in report.left.items():
        console.print(f"left out {patient}: {why}", soft_wrap=True)
    console.print(f"{len(report.taken)} patients in {out}, {len(report.left)} left out", soft_wrap=True)


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
        _modality(modality),
        image=image,
        label=label,
        patient=patient,
        split=Split(split),
        mapping=mapping,
    )
    console.print(f"{out}: {len(dataset.cases)} cases", soft_wrap=True)


def _modality(name: str) -> "Modality":
    from fedmodal.tasks import Modality

    if name.upper() not in list(Modality):
        raise UserError(f"unknown modality '{name}': choose CT or MRI")
    return Modality(name.upper())


@contextmanager
def _bar(what: str, *, hidden: bool = False) -> Iterator[Advance]:
    """A progress bar, as a function of (done, total)."""
    from rich.progress import Progress

    with Progress(console=console, transient=True, disable=hidden) as progress:
        line = progress.add_task(what)
        yield lambda done, total: progress.update(line, completed=done, total=total)


@contextmanager
def _training_progress(total_steps: int) -> Iterator[tuple[OnStep, Callable[["TrainingProgress"], None]]]:
    """A bar of steps with loss and time left, and a line a round."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    steps, loss = TextColumn("step {task.completed}/{task.total}"), TextColumn("loss {task.fields[loss]:.3f}")
    with Progress(steps, BarColumn(), TimeRemainingColumn(), loss, console=console, transient=True) as bar:
        line = bar.add_task("training", total=total_steps, loss=float("nan"))

        def on_round(done: "TrainingProgress") -> None:
            dice = "" if done.val_dice is None else f", val_dice {done.val_dice:.3f}"
            console.print(f"round {done.number + 1}: loss {done.loss:.3f}{dice}")

        yield lambda step, value: bar.update(line, completed=step + 1, loss=value), on_round
