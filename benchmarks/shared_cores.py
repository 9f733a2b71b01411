"""Two CPU threads beside another busy process, with and without OMP_WAIT_POLICY=passive.

    python benchmarks/shared_cores.py

OpenMP's threads spin while they wait for one another; where another process has the core, a step waits
for the spinning to end. Every kind runs in a fresh process, as the variable is read when torch loads.
"""

import os
import statistics
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

STEP = Path(__file__).with_name("step.py")
POLICIES: Mapping[str, Mapping[str, str]] = {"default": {}, "passive": {"OMP_WAIT_POLICY": "passive"}}
TURNS = 3


def milliseconds(more: Mapping[str, str]) -> float:
    command = [sys.executable, str(STEP), "--once", "8", "1", "--threads", "2"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | dict(more))
    return float(done.stdout)


def main() -> None:
    for busy in (False, True):
        other = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
        try:
            found: dict[str, list[float]] = {name: [] for name in POLICIES}
            for _ in range(TURNS):
                for name, more in POLICIES.items():
                    found[name].append(milliseconds(more))
        finally:
            if other:
                other.kill()
                other.wait()
        shown = ", ".join(f"{name} {statistics.median(values):.0f} ms" for name, values in found.items())
        print(f"{'beside a busy process' if busy else 'alone'}: {shown} a step", flush=True)


if __name__ == "__main__":
    main()
