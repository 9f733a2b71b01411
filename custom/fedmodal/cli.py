"""The command line: each command reads its arguments, calls one function, and shows the answer."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from fedmodal import __version__
from fedmodal.cli_convert import convert, modality_of
from fedmodal.errors import UserError

if TYPE_CHECKING:
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
        dataset = write_phantoms(out, get_task(task), modality_of(modality), counts, seed, advance)
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
    arm: Annotated[str, typer.Option(help="none, randconv, spectrum, normlocal, gin or ipa")] = "gin",
    rounds: Annotated[int, typer.Option(min=1)] = 6,
    steps: Annotated[int, typer.Option(min=1, help="optimizer steps a round")] = 150,
    seed: Seed = 42,
    settings: Annotated[Path | None, typer.Option(help="JSON file with more training settings")] = None,
) -> None:
    """Train on one data set, or on several pooled, without a federation; then test."""
    from fedmodal.data.dataset import read_dataset
    from fedmodal.data.store import default_cache, open_store
    from fedmodal.report.table import test_table
    from fedmodal.training.config import read_settings, settings_of, training_config
    from fedmodal.training.pooled import score_data_sets, train_pooled, write_results

    more = read_settings(settings) if settings else {}
    opened = [read_dataset(folder) for folder in [*datasets, *(test or [])]]
    given = settings_of(arm) | {"task": opened[0].task, "steps_per_round": steps, "seed": seed}
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
    """Run a job in FLARE's simulator, in any workspace with the site policy that it needs, then report."""
    from fedmodal.flare.simulate import Simulation, simulate
    from fedmodal.report.run import Request, write_pages

    sites = tuple(clients.split(",")) if clients else n_clients
    simulate(Simulation(job, workspace, sites, threads))
    write_pages(Request(workspace), console)


@app.command()
def report(
    run: Annotated[Path, typer.Argument(help="simulator workspace or downloaded job")],
    out: Annotated[Path | None, typer.Option(help="folder for the pages; by default the run's")] = None,
    cases: Annotated[
        list[Path] | None, typer.Option(help="data set of yours to show the model on; repeatable")
    ] = None,
    pooled: Annotated[
        Path | None, typer.Option(help="folder of a `fedmodal train` on pooled data, to compare with")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show what a federated run reached, and write it as report.html and report.md."""
    from fedmodal.report.record import find_record, read_record
    from fedmodal.report.run import Request, show, write_pages

    if as_json:
        print(read_record(find_record(run)).model_dump_json(indent=2))
        return
    request = Request(run, out, tuple(cases or ()), pooled)
    show(request, console)
    write_pages(request, console)


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="model file, or the folder of a training or federated run")],
    image: Annotated[Path, typer.Argument(help="NIfTI file, DICOM folder, or a folder of either")],
    out: Annotated[Path, typer.Argument(help=".nii.gz or .dcm (DICOM-SEG) for one image, else a folder")],
    modality: Annotated[str, typer.Option(help="CT or MRI; by default the header or the values tell")] = "",
    series: Annotated[str, typer.Option(help="end of the UID of the series to take from a folder")] = "",
    dicom_seg: Annotated[
        bool, typer.Option("--dicom-seg", help="into a folder: DICOM-SEG, not NIfTI")
    ] = False,
    largest: Annotated[bool, typer.Option("--largest", help="keep each organ's largest component")] = False,
    tta: Annotated[bool, typer.Option("--tta", help="average over turned, zoomed and relit views")] = False,
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="a map of it beside each label map, in percent")
    ] = False,
    preview: Annotated[bool, typer.Option("--preview", help="a picture beside each label map")] = False,
    stats: Annotated[
        bool, typer.Option("--stats", help="stats.csv: volume, mean intensity, uncertainty")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Segment images on their own grid; exit code 1 if one of them could not be read."""
    from fedmodal.inference.run import Request, run

    given = modality_of(modality) if modality else None
    request = Request(
        model, image, out, given, series, dicom_seg, largest, tta, uncertainty, preview, stats, as_json
    )
    raise typer.Exit(run(request, console))


@app.command()
def bundle(
    model: Annotated[Path, typer.Argument(help="model file, or the folder of a training or federated run")],
    out: Annotated[Path, typer.Argument(help="new folder for the bundle")],
    modality: Annotated[str, typer.Option(help="CT or MRI, assumed where nobody names one")] = "",
) -> None:
    """Write a model as a MONAI bundle, which MONAI, MONAI Label and MONAI Deploy run without this package."""
    from fedmodal.inference.bundle import write_bundle
    from fedmodal.inference.model import load_model

    facts = write_bundle(load_model(model), out, modality_of(modality) if modality else None)
    if facts.phantoms:
        console.print("trained on phantoms: for trying the software only", style="yellow")
    console.print(f"{out}: MONAI bundle, {facts.kind} training; see docs/README.md in it", soft_wrap=True)


@app.command()
def study(
    preset: Annotated[str, typer.Argument(help="smoke, phantom, real or paper")],
    out: Annotated[Path, typer.Option(help="folder of the study; a stopped study goes on from it")],
    data: Annotated[
        Path | None, typer.Option(help="for real: the sample pairs; for paper: a set a site")
    ] = None,
    tasks: Annotated[str, typer.Option(help="only these, by commas")] = "",
    arms: Annotated[str, typer.Option(help="only these, by commas")] = "",
    regimes: Annotated[str, typer.Option(help="only these, by commas")] = "",
    seeds: Annotated[str, typer.Option(help="these instead of the study's, by commas")] = "",
    parallel: Annotated[int | None, typer.Option(min=1, help="cells at the same time")] = None,
    agreed: Annotated[bool, typer.Option("--yes", help="start a study whose cost was printed")] = False,
) -> None:
    """Compare every arm on every task, alone, pooled and federated; exit code 1 if a cell failed."""
    from fedmodal.study.plan import get_preset, parse_choice
    from fedmodal.study.study import Study, run_study

    choice = parse_choice(tasks, arms, regimes, seeds)
    wanted = Study(get_preset(preset), out.absolute(), choice, data, parallel, agreed)
    raise typer.Exit(1 if run_study(wanted, console) else 0)


@app.command()
def preflight(
    kit: Annotated[Path, typer.Argument(help="unpacked startup kit")] = Path(), as_json: AsJson = False
) -> None:
    """Check a startup kit, its machine and its data before it is started; exit code 1 on a FAIL."""
    from fedmodal.flare import preflight as checks

    findings = []
    with console.status("checking; data and a training step take longest") if not as_json else nullcontext():
        for finding in checks.preflight(kit):
            findings.append(finding)
            if not as_json:
                checks.show(finding, console)
    if as_json:
        print(checks.as_json(findings))
    else:
        checks.show_overall(findings, console)
    raise typer.Exit(1 if checks.overall(findings) == "FAIL" else 0)


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
