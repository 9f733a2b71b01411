"""Runs a study's cells, a few at a time, each in a process of its own that can be killed."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from fedmodal.study.cell import ROWS_FILE
from fedmodal.study.order import Order

LOG_FILE = "log.txt"
_POLL = 0.2  # seconds
_THREADS = "FEDMODAL_THREADS"
_THREAD_VARIABLES = (_THREADS, "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


@dataclass(frozen=True)
class Job:
    """A cell to run: its order and its folder."""

    order: Order
    folder: Path

    @property
    def finished(self) -> bool:
        """Whether its rows are there; they are written last."""
        return (self.folder / ROWS_FILE).exists()

    @property
    def log(self) -> Path:
        """What its processes print."""
        return self.folder / LOG_FILE


@dataclass
class _Running:
    job: Job
    process: subprocess.Popen[bytes]


def default_parallel() -> int:
    """Two cells at a time where there are two cores."""
    return min(2, _cores())


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_jobs(
    jobs: Sequence[Job],
    parallel: int,
    on_done: Callable[[Job], None],
) -> None:
    """Run the jobs in order, `parallel` at a time; one that fails leaves no rows and stops no other.

    However this ends, no process of a cell outlives it.

    Args:
        jobs: what to run.
        parallel: cells at the same time; the cores are divided among them.
        on_done: called with each job that ended, finished or failed.
    """
    waiting = list(reversed(jobs))
    running: list[_Running] = []
    try:
        while waiting or running:
            while waiting and len(running) < parallel:
                job = waiting.pop()
                running.append(_Running(job, _start(job, parallel)))
            for one in [one for one in running if one.process.poll() is not None]:
                running.remove(one)
                on_done(one.job)
            time.sleep(_POLL)
    finally:
        for one in running:
            with suppress(ProcessLookupError):
                os.killpg(one.process.pid, signal.SIGKILL)
            one.process.wait()


def _start(job: Job, parallel: int) -> subprocess.Popen[bytes]:
    environment = os.environ | dict.fromkeys(_THREAD_VARIABLES, str(_threads(job, parallel)))
    with job.log.open("wb") as log:
        return subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-m", "fedmodal.study.cell", str(job.folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )


def _threads(job: Job, parallel: int) -> int:
    """Of each training process: what FEDMODAL_THREADS says, else an equal share of the cores."""
    if configured := os.environ.get(_THREADS):
        return max(1, int(configured))
    at_once = parallel * (len(job.order.sites) if job.order.federated else 1)
    return max(1, _cores() // at_once)
