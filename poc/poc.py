"""Every participant of provisioning/project.yml on this machine: real kits, real mutual TLS, real jobs.

    python poc/poc.py run                       # all of the following, in order; stops at the end
    python poc/poc.py prepare|start|submit|follow|download|report|stop

Everything lies in one folder (--folder), with ports and a home of its own, so that several run side by
side. The sites train on synthetic patients, or on the data sets in --data.
"""

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from fedmodal.data.dataset import DATASET_FILE
from fedmodal.data.site import DATA_VARIABLE, SITE_FILE
from fedmodal.data.store import CACHE_VARIABLE, default_cache
from fedmodal.errors import UserError

ROOT = Path(__file__).resolve().parents[1]
PROJECT = ROOT / "provisioning" / "project.yml"
SERVER = "localhost"
CONNECTED = "Successfully registered client"
OUR_LINES = " - RunSummary - "
POLL = 2.0  # seconds
ANSWER_TIMEOUT = 60.0
START_TIMEOUT = 120.0
STOP_TIMEOUT = 30.0  # seconds; a kit looks every five whether it shall stop

app = typer.Typer(help=__doc__, no_args_is_help=True, add_completion=False, rich_markup_mode=None)
Folder = Annotated[Path, typer.Option(help="where this POC lives")]
DEFAULT = Path("runs/poc")


@dataclass(frozen=True)
class Poc:
    """One POC's places: everything is below `folder`."""

    folder: Path

    @property
    def project(self) -> Path:
        """The project as provisioned: that of `provisioning/`, with this machine as its server."""
        return self.folder / "project.yml"

    @property
    def kits(self) -> Path:
        """Everybody's startup kits."""
        return self.folder / "workspace" / str(self.read_project()["name"]) / "prod_00"

    @property
    def result(self) -> Path:
        """The downloaded job."""
        return self.folder / "result"

    def read_project(self) -> dict[str, Any]:
        """The project that was prepared.

        Raises:
            UserError: none was.
        """
        if not self.project.is_file():
            raise UserError(f"{self.folder}: nothing is prepared here; first `poc.py prepare`")
        project: dict[str, Any] = yaml.safe_load(self.project.read_text(encoding="utf-8"))
        return project

    def names(self, kind: str) -> list[str]:
        """Participants of a type: server, client, admin."""
        return [one["name"] for one in self.read_project()["participants"] if one["type"] == kind]

    def kit_of(self, role: str) -> Path:
        """The kit of the first person with a role."""
        people = (one for one in self.read_project()["participants"] if one.get("role") == role)
        return self.kits / str(next(people)["name"])

    def job_id(self) -> str:
        """The job submitted last.

        Raises:
            UserError: none was.
        """
        self.read_project()
        path = self.folder / "job.txt"
        if not path.is_file():
            raise UserError(f"{self.folder}: no job was submitted here; first `poc.py submit`")
        return path.read_text(encoding="utf-8").strip()

    def environment(self) -> dict[str, str]:
        """FLARE keeps its place in the user's home, so that each POC has one of its own.

        Each site's `local/fedmodal.json` says where its data are, and nothing else.
        """
        own = {
            "HOME": str(self.folder / "home"),
            "NVFLARE_POC_WORKSPACE": str(self.folder / "workspace"),
            "PATH": os.pathsep.join((str(Path(sys.executable).parent), os.environ["PATH"])),
            CACHE_VARIABLE: str(default_cache()),
        }
        return {name: value for name, value in os.environ.items() if name != DATA_VARIABLE} | own

    def nvflare(self, *command: str | Path, own_session: bool = False) -> None:
        """Run `nvflare ...`; what it prints goes on to the terminal.

        Raises:
            UserError: it failed.
        """
        words = ["nvflare", *map(str, command)]
        done = subprocess.run(words, env=self.environment(), start_new_session=own_session, check=False)
        if done.returncode:
            raise UserError(
                f"`{' '.join(words)}` failed with exit code {done.returncode}; its reason is above"
            )

    def ask(self, *command: str | Path) -> dict[str, Any]:
        """Run `nvflare ...` as the lead and return its answer.

        Raises:
            UserError: it failed.
        """
        kit = ["--startup-kit", str(self.kit_of("lead"))]
        words = ["nvflare", *map(str, command), *kit, "--format", "json"]
        try:
            done = subprocess.run(
                words,
                env=self.environment(),
                capture_output=True,
                text=True,
                timeout=ANSWER_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            raise UserError(
                f"the server does not answer; is it running? `poc.py start`, or see {self.kits}"
            ) from None
        answer = json.loads(done.stdout or "{}")
        if answer.get("status") != "ok":
            message = answer.get("message") or done.stderr.strip() or "no answer"
            raise UserError(f"`nvflare {' '.join(map(str, command))}`: {message} {answer.get('hint', '')}")
        return dict(answer["data"])


@app.command()
def prepare(
    folder: Folder = DEFAULT,
    data: Annotated[Path | None, typer.Option(help="a data set a site; without it, phantoms")] = None,
) -> None:
    """Provision everybody's kits, and tell each site where its data are."""
    poc = Poc(folder.resolve())
    if poc.folder.exists() and any(poc.folder.iterdir()):
        if not (poc.folder / "workspace").is_dir():
            raise UserError(f"{poc.folder}: holds other files, which would be deleted; name another folder")
        stop(folder)
        shutil.rmtree(poc.folder)
    (poc.folder / "home").mkdir(parents=True)
    poc.project.write_text(yaml.safe_dump(_local_project(), sort_keys=False), encoding="utf-8")
    poc.nvflare("poc", "prepare", "-i", poc.project, "--force")
    for site in poc.names("client"):
        content = {"phantoms": True} if data is None else {"data": str(_data_of(data, site))}
        (poc.kits / site / "local" / SITE_FILE).write_text(json.dumps(content), encoding="utf-8")
        print(f"{site}: {'synthetic patients' if data is None else content['data']}")


def _local_project() -> dict[str, Any]:
    project: dict[str, Any] = yaml.safe_load(PROJECT.read_text(encoding="utf-8"))
    (server,) = (one for one in project["participants"] if one["type"] == "server")
    port = _free_port()
    server |= {"name": SERVER, "fed_learn_port": port, "admin_port": port}
    kit = project["builders"][-1]["args"]
    kit |= {name: str(ROOT / kit[name]) for name in ("guide", "requirements", "wheels")}
    return project


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _data_of(data: Path, site: str) -> Path:
    folder = data.resolve() / site
    if not (folder / DATASET_FILE).is_file():
        raise UserError(f"{folder}: no {DATASET_FILE} in it; --data needs a data set for every site")
    return folder


@app.command()
def start(folder: Folder = DEFAULT) -> None:
    """Start the server and the sites, and wait until they are connected."""
    poc = Poc(folder.resolve())
    poc.read_project()
    # Ctrl-C here is not for them; FLARE's own waiting can hang if it asks before the server listens.
    poc.nvflare("poc", "start", "--no-wait", own_session=True)
    logs = {site: poc.kits / site / "log.txt" for site in poc.names("client")}
    _wait(lambda: [site for site, log in logs.items() if not _connected(log)], START_TIMEOUT, "not connected")
    print(f"connected: {', '.join(logs)}")


def _connected(log: Path) -> bool:
    return log.is_file() and CONNECTED in log.read_text(encoding="utf-8", errors="replace")


def _wait(missing: Callable[[], list[str]], seconds: float, problem: str) -> None:
    """Wait until nothing is missing.

    Raises:
        UserError: something still is after that time; the message names it.
    """
    end = time.monotonic() + seconds
    while left := missing():
        if time.monotonic() > end:
            raise UserError(f"{problem} after {seconds:.0f} s: {', '.join(left)}; see log.txt in their kits")
        time.sleep(0.5)


@app.command()
def submit(
    job: Annotated[Path, typer.Argument(help="a folder in jobs/")] = ROOT / "jobs" / "abdomen_gin",
    folder: Folder = DEFAULT,
) -> None:
    """Submit a job as the lead."""
    poc = Poc(folder.resolve())
    job_id = poc.ask("job", "submit", "-j", job.resolve())["job_id"]
    (poc.folder / "job.txt").write_text(job_id, encoding="utf-8")
    print(f"submitted {job.name} as {job_id}")


@app.command()
def follow(folder: Folder = DEFAULT) -> None:
    """Show the job's rounds as they come, and errors of the sites, until it has ended."""
    poc = Poc(folder.resolve())
    job_id = poc.job_id()
    logs = {SERVER: poc.kits / SERVER / job_id / "log.txt"}
    logs |= {site: poc.kits / site / job_id / "error_log.txt" for site in poc.names("client")}
    seen = dict.fromkeys(logs, 0)
    status = ""
    while not status.startswith("FINISHED"):
        time.sleep(POLL)
        status = poc.ask("job", "meta", job_id)["status"]
        for name, log in logs.items():
            seen[name] = _show_new_lines(name, log, seen[name])
    print(f"{job_id}: {status}")
    if status != "FINISHED:COMPLETED":
        raise UserError(f"the job did not end well; see {logs[SERVER]} and the sites' logs beside it")


def _show_new_lines(name: str, log: Path, start: int) -> int:
    """Print what is new in a log: of the server's our own lines, of a site's all; returns its length."""
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []
    for line in lines[start:]:
        if name != SERVER:
            print(f"  {name}: {line}")
        elif OUR_LINES in line:
            print(line.rpartition(" - ")[2])
    return max(start, len(lines))


@app.command()
def download(folder: Folder = DEFAULT) -> None:
    """Download the job's result: models, metrics, the table across sites, who took part."""
    poc = Poc(folder.resolve())
    poc.ask("job", "download", poc.job_id(), "-o", poc.result, "--force")
    print(f"downloaded to {poc.result}")


@app.command()
def report(folder: Folder = DEFAULT) -> None:
    """Show the downloaded result."""
    poc = Poc(folder.resolve())
    poc.job_id()
    subprocess.run(["fedmodal", "report", str(poc.result)], env=poc.environment(), check=True)


@app.command()
def stop(folder: Folder = DEFAULT) -> None:
    """Stop all participants; a job that runs is aborted."""
    poc = Poc(folder.resolve())
    poc.read_project()
    poc.nvflare("poc", "stop")
    daemons = {
        name: poc.kits / name / "daemon_pid.fl" for kind in ("server", "client") for name in poc.names(kind)
    }
    _wait(lambda: [name for name, pid in daemons.items() if pid.exists()], STOP_TIMEOUT, "still running")


@app.command()
def run(
    job: Annotated[Path, typer.Argument(help="a folder in jobs/")] = ROOT / "jobs" / "abdomen_gin",
    folder: Folder = DEFAULT,
    data: Annotated[Path | None, typer.Option(help="a data set a site; without it, phantoms")] = None,
) -> None:
    """Everything from prepare to stop; the participants are stopped after an error or Ctrl-C too."""
    prepare(folder, data)
    try:
        start(folder)
        submit(job, folder)
        follow(folder)
        download(folder)
        report(folder)
    finally:
        stop(folder)


if __name__ == "__main__":
    try:
        app()
    except UserError as error:
        sys.exit(f"poc: {error}")
