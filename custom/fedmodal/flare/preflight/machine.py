"""Checks of the machine: disk, memory, GPU."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

import psutil

from fedmodal.data.site import cache_of, read_site_file
from fedmodal.flare.preflight.finding import Finding, Kit, failed, passed, warned

GIB = 1 << 30
DISK_LEAST, DISK_ENOUGH = 2, 20  # GiB
MEMORY_ENOUGH = {"site": 8, "server": 4, "admin": 1}  # GiB
ROUNDING = 0.9  # a machine of 8 GiB shows a little less


def disk(kit: Kit) -> Iterator[Finding]:
    """Whether the places that are written to can be written, and have room."""
    yield _room("kit's folder", kit.folder)
    if kit.role == "site":
        yield _room("cache", cache_of(read_site_file(kit.local)))
    if kit.role == "server":
        for what, place in kit.storage.items():
            yield _room(what, place)


def _room(name: str, place: Path) -> Finding:
    exists = next(parent for parent in (place, *place.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=exists) as probe:
            probe.write(b"fedmodal")
    except OSError as error:
        # Only the place itself is handed over, never a folder above it.
        remedy = f"as administrator: mkdir -p {quote(str(place))} && chown {os.getuid()} {quote(str(place))}"
        return failed(name, f"{place}: cannot be written ({error.strerror})", remedy)
    free = shutil.disk_usage(exists).free / GIB
    if free < DISK_LEAST:
        return failed(name, f"{place}: {free:.1f} GiB free", f"make room: {DISK_ENOUGH} GiB")
    if free < DISK_ENOUGH:
        return warned(name, f"{place}: {free:.0f} GiB free", f"{DISK_ENOUGH} GiB are better")
    return passed(name, f"{place}: {free:.0f} GiB free")


def memory(kit: Kit) -> Iterator[Finding]:
    """The machine's memory."""
    found, wanted = psutil.virtual_memory().total / GIB, MEMORY_ENOUGH[kit.role]
    if found < wanted * ROUNDING:
        yield warned("memory", f"{found:.0f} GiB", f"{wanted} GiB are better")
    else:
        yield passed("memory", f"{found:.0f} GiB")


def gpu(kit: Kit) -> Iterator[Finding]:
    """The GPUs that are here, against those that the kit offers to jobs."""
    if kit.role != "site":
        return
    import torch

    offer = kit.part("resource_manager")
    if "num_of_gpus" not in offer:
        return  # a kit made ready for containers or a cluster, which hands out the GPUs
    wanted, gib = int(offer["num_of_gpus"]), float(offer.get("mem_per_gpu_in_GiB", 0))
    sizes = [
        torch.cuda.get_device_properties(index).total_memory / GIB
        for index in range(torch.cuda.device_count())
    ]
    if sum(size >= gib * ROUNDING for size in sizes) < wanted:
        here = f"{len(sizes)} here" + (f" of {min(sizes):.0f} GiB" if sizes else "")
        remedy = "set num_of_gpus and mem_per_gpu_in_GiB in local/resources.json to what is here"
        yield failed("gpu", f"the kit offers {wanted} of {gib:.0f} GiB, {here}", remedy)
    elif wanted or sizes:
        yield passed("gpu", f"{wanted} offered to jobs, {len(sizes)} here")
    else:
        yield passed("gpu", "none: trains on the CPU")
