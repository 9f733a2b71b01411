"""A site's place on its machine: its data, its share of the cores."""

import logging
import os
from pathlib import Path

import psutil
from nvflare.apis.fl_context import FLContext

from fedmodal.data.dataset import Dataset, Split
from fedmodal.data.site import cache_of, find_dataset, read_site_file
from fedmodal.data.store import Store, open_store
from fedmodal.flare.console import in_simulator
from fedmodal.report.record import SiteRecord
from fedmodal.tasks import get_task

THREADS_VARIABLE = "FEDMODAL_THREADS"
WORKERS = (
    "nvflare.private.fed.app.simulator.simulator_worker",
    "nvflare.private.fed.app.client.worker_process",
)
"""Modules that FLARE runs one client's job in."""


def open_site(fl_ctx: FLContext, task_name: str, logger: logging.Logger) -> tuple[Store, SiteRecord]:
    """Find, prepare and describe the site's data; what takes long says so in the log.

    Raises:
        UserError: there are no data, or they are not fit for the task.
    """
    site = fl_ctx.get_identity_name()
    task = get_task(task_name)
    site_file = read_site_file(Path(fl_ctx.get_engine().get_workspace().get_site_config_dir()))
    cache = cache_of(site_file)

    def making(done: int, total: int) -> None:
        if done % 5 == 0 or done == total:
            logger.info(f"  {site}: {done} of {total} phantoms made")

    dataset = find_dataset(site, task, site_file, cache, simulator=in_simulator(fl_ctx), progress=making)
    store = open_store(dataset, cache)
    return store, _describe(dataset)


def _describe(dataset: Dataset) -> SiteRecord:
    patients = {split.value: len({case.patient for case in dataset.split(split)}) for split in Split}
    return SiteRecord(modality=dataset.modality.value, patients=patients, phantoms=dataset.synthetic)


def threads_for_this_process() -> int:
    """Cores for this process: an equal share among the FLARE client processes on this machine.

    FEDMODAL_THREADS, where it is set, decides.
    """
    if configured := os.environ.get(THREADS_VARIABLE):
        return max(1, int(configured))
    cores = len(os.sched_getaffinity(0))
    return max(1, cores // max(1, _client_processes()))


def _client_processes() -> int:
    """FLARE client processes that run a job on this machine now."""
    count = 0
    for process in psutil.process_iter(["cmdline", "status"]):
        command = process.info["cmdline"] or []
        if process.info["status"] != psutil.STATUS_ZOMBIE and any(worker in command for worker in WORKERS):
            count += 1
    return count
