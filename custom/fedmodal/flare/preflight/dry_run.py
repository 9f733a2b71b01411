"""FLARE's own preflight check, on a copy of the kit that takes no job and keeps nothing."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nvflare.app_common.resource_managers.passthrough_resource_manager import PassthroughResourceManager

from fedmodal.flare.preflight.finding import Finding, Kit, failed, passed, warned
from fedmodal.flare.preflight.process import runs

CHECK = "flare's own"
TIMEOUT = 120.0  # seconds
COPIED = ("startup", "local")
WIDTH = 80  # of the column of problems in FLARE's table
PASSED = "PASSED"
SCRIPT = "sub_start.sh"


class NoJobs(PassthroughResourceManager):  # type: ignore[misc]
    """Has no room for any job: a job that waits for this site must wait for its real start."""

    def check_resources(self, resource_requirement: dict[str, Any], fl_ctx: object) -> tuple[bool, str]:  # noqa: ARG002
        """Say no."""
        return False, "this is a preflight's dry run"


def flare(kit: Kit) -> Iterator[Finding]:
    """`nvflare preflight-check`: it starts the participant for a few seconds, then kills it.

    In the place of a participant that runs it would take its connection over, so that it is left out.
    """
    if kit.role != "admin" and runs(kit):
        yield warned(CHECK, "SKIP: the kit is running", "run preflight again while it is stopped")
        return
    if kit.role == "site" and not (kit.startup / SCRIPT).is_file():  # FLARE reads the site's name there
        yield warned(
            CHECK, f"SKIP: no {SCRIPT}, as `nvflare deploy prepare` leaves it", "see the other lines"
        )
        return
    with tempfile.TemporaryDirectory(prefix="fedmodal-preflight-") as name:
        copy = _copy(kit, Path(name))
        command = [sys.executable, "-m", "nvflare.cli", "preflight-check", "-p", str(copy)]
        # FLARE forks while gRPC's threads run, which now and then breaks the child.
        environment = os.environ | {"GRPC_ENABLE_FORK_SUPPORT": "0"}
        try:
            done = subprocess.run(  # noqa: S603 - FLARE's own command
                command, capture_output=True, text=True, timeout=TIMEOUT, check=False, env=environment
            )
        except subprocess.TimeoutExpired:
            yield failed(CHECK, f"no end in {TIMEOUT:.0f} s", "ask whether the server is up")
            return
        yield _verdict(done)


def _verdict(done: subprocess.CompletedProcess[str]) -> Finding:
    if not done.returncode:
        return passed(CHECK, "nvflare preflight-check passed, its dry run too")
    problem, remedy = first_problem(done.stdout)
    return failed(CHECK, problem or done.stderr.strip()[-200:] or "failed", remedy or "see the other lines")


def _copy(kit: Kit, folder: Path) -> Path:
    """The kit as it is run dry: under its own name, with room for no job, with storage of its own."""
    copy = folder / kit.name
    for name in COPIED:
        if (kit.folder / name).is_dir():
            shutil.copytree(kit.folder / name, copy / name)
    if kit.role != "admin":
        resources = _dry(kit, folder)
        (copy / "local" / "resources.json").write_text(json.dumps(resources), encoding="utf-8")
    return copy


def _dry(kit: Kit, folder: Path) -> dict[str, Any]:
    resources = kit.resources
    for part in resources.get("components", []):
        if part.get("id") == "resource_manager":
            part |= {"path": f"{NoJobs.__module__}.{NoJobs.__name__}", "args": {}}
        if part.get("id") == "job_manager":
            part["args"]["uri_root"] = str(folder / "jobs")
    if "snapshots" in kit.storage:
        resources["snapshot_persistor"]["args"]["storage"]["args"]["root_dir"] = str(folder / "snapshots")
    return resources


def first_problem(output: str) -> tuple[str, str]:
    """The first problem in FLARE's table of checks, and what FLARE says about mending it."""
    found: list[tuple[str, str]] = []
    for line in output.splitlines():
        cells = line.split(" | ") if line.startswith("| ") else []
        if len(cells) < 3:
            continue
        check, problem, remedy = cells[0][2:].strip(), " | ".join(cells[1:-1])[:WIDTH], cells[-1].rstrip(" |")
        if check:
            found.append((problem, remedy))
        elif found:  # cells go on below, cut after WIDTH characters
            found[-1] = (found[-1][0] + problem, found[-1][1])
    texts = [(problem.strip(), remedy) for problem, remedy in found[1:]]  # the first is the heading
    return next(((problem, remedy) for problem, remedy in texts if problem != PASSED), ("", ""))
