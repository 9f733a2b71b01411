"""The FLARE job of a federated cell."""

from pathlib import Path

from fedmodal.flare.jobs import JobDefinition, job_files
from fedmodal.study.cell import JOB_FOLDER
from fedmodal.study.order import Order


def write_job(order: Order, folder: Path) -> None:
    """Write the job into the cell's folder; every site must answer in every round."""
    job = JobDefinition(
        name=f"{order.task}_{order.arm}",
        training=order.training,
        num_rounds=order.rounds,
        min_clients=len(order.sites),
    )
    for path, text in job_files(job).items():
        (folder / JOB_FOLDER / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / JOB_FOLDER / path).write_text(text, encoding="utf-8")
