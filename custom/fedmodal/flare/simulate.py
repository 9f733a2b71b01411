"""Run a job in FLARE's own simulator, with the site policy that our jobs need."""

import os
from dataclasses import dataclass
from pathlib import Path

from nvflare.private.fed.app.simulator.simulator_runner import SimulatorRunner

from fedmodal.errors import UserError
from fedmodal.flare.policy import install_simulator_policy
from fedmodal.report.record import RunRecord, find_record, read_record


@dataclass(frozen=True)
class Simulation:
    """What to simulate.

    Attributes:
        job: the job's folder.
        workspace: where the run is kept; FLARE empties it but for `local` and `startup`.
        sites: names of the sites, or how many of them (`site-1`, `site-2`, ...).
        threads: sites that work at the same time.
    """

    job: Path
    workspace: Path
    sites: tuple[str, ...] | int = 2
    threads: int = 1


def simulate(simulation: Simulation) -> RunRecord:
    """Run the job to its end; the run prints its own progress and table.

    Raises:
        UserError: no such job, a workspace with other files in it, or a run that failed.
    """
    _check(simulation)
    install_simulator_policy(simulation.workspace)
    named = not isinstance(simulation.sites, int)
    runner = SimulatorRunner(
        job_folder=str(simulation.job.resolve()),
        workspace=str(simulation.workspace.resolve()),
        clients=",".join(simulation.sites) if named else None,  # type: ignore[arg-type]
        n_clients=None if named else simulation.sites,
        threads=simulation.threads,
        log_config=str((simulation.workspace / "local" / "log_config.json").resolve()),
    )
    before = Path.cwd()
    status = runner.run()
    os.chdir(before)
    return _result(simulation.workspace, status)


def _check(simulation: Simulation) -> None:
    if not (simulation.job / "meta.json").is_file():
        raise UserError(f"{simulation.job}: not a job (no meta.json in it); see the folders in jobs/")
    count = simulation.sites if isinstance(simulation.sites, int) else len(simulation.sites)
    if not 1 <= simulation.threads <= count:
        raise UserError(f"{simulation.threads} threads for {count} sites: choose 1 to {count}")
    workspace = simulation.workspace
    if workspace.exists() and any(workspace.iterdir()) and not (workspace / "local").is_dir():
        raise UserError(f"{workspace}: holds other files, which FLARE would delete; name another folder")


def _result(workspace: Path, status: int) -> RunRecord:
    log = workspace / "server" / "log.txt"
    try:
        record = read_record(find_record(workspace))
    except UserError as error:
        raise UserError(f"the run ended before its first round; the reason is above and in {log}") from error
    if status or record.problem or not record.evaluation:
        raise UserError(f"the run failed ({record.problem or f'status {status}'}); see above and {log}")
    return record
