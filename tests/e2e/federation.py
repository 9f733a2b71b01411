"""A provisioned federation on this machine: real kits, their own start.sh, TLS on loopback."""

import json
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from tests.kits import ADMIN, LEAD, SERVER

READY = {SERVER: "Server started", "site": "Successfully registered client"}


class Federation:
    """Starts, asks and ends the participants of one provisioning; ends only what it started."""

    def __init__(self, kits: Path, environment: Mapping[str, str]) -> None:
        self.kits = kits
        self.environment = dict(environment)
        self.started: list[Path] = []

    def start(self, kit: Path) -> Path:
        """Run a kit's start.sh; returns the file with what it prints."""
        output = kit.with_name(f"{kit.name}.txt")
        with output.open("w") as file:
            subprocess.run(  # noqa: S603 - the kit's own script
                [kit / "startup" / "start.sh"],
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                env=self.environment,
                check=True,
            )
        self.started.append(kit)
        return output

    def start_all(self, *names: str) -> None:
        """Start participants, and wait until each is connected."""
        for name in names:
            self.start(self.kits / name)
        for name in names:
            wait_for(self.kits / name / "log.txt", READY.get(name, READY["site"]))

    def nvflare(self, *command: str | Path, who: str = LEAD) -> dict[str, Any]:
        """`nvflare ...` as the person with that kit types it; its answer."""
        call = ["nvflare", *map(str, command), "--startup-kit", str(self.kits / who), "--format", "json"]
        done = subprocess.run(  # noqa: S603 - FLARE's own command
            call, env=self.environment, capture_output=True, text=True, timeout=240, check=False
        )
        answer: dict[str, Any] = json.loads(done.stdout)
        return answer

    def submit(self, job: Path, who: str = LEAD) -> str:
        """Submit a job that is accepted; returns its id."""
        answer = self.nvflare("job", "submit", "-j", job, who=who)
        assert answer["status"] == "ok", answer
        return str(answer["data"]["job_id"])

    def outcome(self, job_id: str) -> str:
        """Wait for a job's end; returns its status."""
        self.nvflare("job", "wait", job_id, "--timeout", "180")
        (job,) = self.nvflare("job", "list", "--id", job_id)["data"]
        return str(job["status"])

    def shut_down(self) -> None:
        """As the project admin does it; returns when no process of a kit is left."""
        self.nvflare("system", "shutdown", "all", "--force", who=ADMIN)
        end = time.monotonic() + 30
        while self.processes() and time.monotonic() < end:
            time.sleep(0.5)

    def kill(self) -> None:
        """End what is left, without asking."""
        for kit in self.started:
            (kit / "shutdown.fl").touch()  # so that sub_start.sh does not start it anew
        for process in self.processes():
            process.kill()
        psutil.wait_procs(self.processes(), timeout=10)

    def processes(self) -> list[psutil.Process]:
        """Processes of the kits that were started: their command lines name the kit's folder."""
        every = list(psutil.process_iter(["cmdline"]))
        return [
            one for one in every for kit in self.started if str(kit) in " ".join(one.info["cmdline"] or [])
        ]


def wait_for(log: Path, text: str, seconds: float = 90) -> str:
    """Wait until a log holds a text; returns the log."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if log.exists() and text in (content := log.read_text(errors="replace")):
            return content
        time.sleep(0.5)
    shown = log.read_text(errors="replace")[-3000:] if log.exists() else "(there is no log)"
    raise AssertionError(f"'{text}' did not come in {log} within {seconds} s:\n{shown}")
