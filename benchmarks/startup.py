"""From the start of a client process to its first training batch, and what that time is spent on.

    python benchmarks/startup.py RUN      # a finished run's workspace, best one with one thread

Imports are timed in fresh processes of this interpreter, each the smallest of three.
"""

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path

from fedmodal.report.record import find_record, read_record

IMPORTS = {
    "python": "pass",
    "fedmodal": "import fedmodal",
    "nvflare": "import nvflare.private.fed.app.simulator.simulator_worker",
    "torch": "import torch",
    "torch and monai": "import torch, monai.networks.nets, monai.losses",
    "the learner, with all of it": "import fedmodal.flare.learner",
}


def seconds(statement: str) -> float:
    def once() -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", statement], check=True)
        return time.perf_counter() - started

    return min(once() for _ in range(3))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("run", type=Path)
    record = read_record(find_record(parser.parse_args().run))
    parts = [part for done in record.rounds.values() for part in done.sites.values()]
    found = [part.startup for part in parts if part.startup is not None]
    print(
        f"process start to first batch: median {statistics.median(found):.1f} s, "
        f"{min(found):.1f} to {max(found):.1f} s ({len(found)} processes)"
    )
    for name, statement in IMPORTS.items():
        print(f"  {name}: {seconds(statement):.2f} s")


if __name__ == "__main__":
    main()
