"""What a person sees while a study runs."""

from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from fedmodal.study.results import mean_dice, read_rows
from fedmodal.study.runner import Job


class Watch:
    """The line of progress, and a line for each cell that ends.

    Attributes:
        bar: the line of progress; a context manager.
    """

    def __init__(self, jobs: Sequence[Job], waiting: Sequence[Job], parallel: int, console: Console) -> None:
        self.console = console
        self.parallel = parallel
        self.left = list(waiting)
        self.seconds: dict[bool, list[float]] = {True: [], False: []}
        columns = (TextColumn("cells"), MofNCompleteColumn(), BarColumn(), TextColumn("{task.fields[left]}"))
        self.bar = Progress(*columns, console=console, transient=True)
        done = len(jobs) - len(waiting)
        self.line = self.bar.add_task("cells", total=len(jobs), completed=done, left="")
        if done:
            console.print(f"{done} of {len(jobs)} cells are finished already")

    def on_done(self, job: Job) -> None:
        """Say what a cell reached, or where its log is."""
        self.left.remove(job)
        self.bar.advance(self.line)
        order = job.order
        name = f"{order.task} {order.regime} {order.arm}, seed {order.seed}"
        if not job.finished:
            self.console.print(f"{name}: [bold]FAILED[/bold], see {job.log}", soft_wrap=True)
            return
        rows, seconds = read_rows(job.folder)
        self.seconds[order.federated].append(seconds)
        dice = ", ".join(f"{modality} {value:.3f}" for modality, value in mean_dice(rows).items())
        self.console.print(f"{name}: mean Dice {dice or 'of no organ'} ({seconds:.0f} s)", soft_wrap=True)
        self.bar.update(self.line, left=self._left())

    def _left(self) -> str:
        every = self.seconds[True] + self.seconds[False]
        known = {kind: sum(own or every) / len(own or every) for kind, own in self.seconds.items()}
        minutes = sum(known[job.order.federated] for job in self.left) / self.parallel / 60
        return f"about {minutes:.0f} min left" if minutes >= 1 else "less than a minute left"
