"""A cell's process: runs the steps of one cell, and ends with the study that started it.

It imports nothing heavy: while FLARE's simulator works in a process of its own, this one waits.
"""

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

ROWS_FILE = "rows.json"
RUN_FOLDER = "run"
JOB_FOLDER = "job"
_FEDMODAL = (sys.executable, "-c", "from fedmodal.cli import main; main()")


def run_cell(folder: Path) -> int:
    """Train and score the cell, unless it is finished; returns 0 if it is finished now.

    A cell left unfinished is trained anew. A second process for the same cell waits for the first.
    """
    started = time.time()
    with (folder / "lock").open("ab") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if (folder / ROWS_FILE).exists():
            return 0
        shutil.rmtree(folder / RUN_FOLDER, ignore_errors=True)
        order = json.loads((folder / "order.json").read_text(encoding="utf-8"))
        if order["federated"] and (status := _simulate(folder, order)):
            return status
        work = (sys.executable, "-m", "fedmodal.study.work", str(folder), str(started))
        return subprocess.run(work, check=False).returncode  # noqa: S603 - our own module


def _simulate(folder: Path, order: dict[str, Any]) -> int:
    names = list(order["sites"])
    first = folder.parents[1] / order["sites"][names[0]]
    command = (
        *_FEDMODAL, "simulate", str(folder / JOB_FOLDER), "-w", str(folder / RUN_FOLDER),
        "-c", ",".join(names), "-t", str(len(names)),
    )  # fmt: skip
    environment = os.environ | {"FEDMODAL_DATA": str(first.parent)}
    return subprocess.run(command, env=environment, check=False).returncode  # noqa: S603 - our own command


def _end_with(parent: int) -> None:
    """Kill this process and those that it started as soon as the study is gone, however it ended."""
    while os.getppid() == parent:
        time.sleep(0.3)
    os.killpg(os.getpgid(0), signal.SIGKILL)


def main() -> None:
    """`python -m fedmodal.study.cell FOLDER`, as leader of a process group of its own."""
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()
    sys.exit(run_cell(Path(sys.argv[1])))


if __name__ == "__main__":
    main()
