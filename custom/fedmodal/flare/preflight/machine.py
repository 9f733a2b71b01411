"""Checks of the machine: the way to the server, disk, memory, GPU, what already runs."""

import os
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from fedmodal.data.site import cache_of, read_site_file
from fedmodal.flare.preflight.finding import Finding, Kit, failed, passed, warned

TIMEOUT = 5.0  # seconds
GIB = 1 << 30
DISK_LEAST, DISK_ENOUGH = 2, 20  # GiB
MEMORY_ENOUGH = {"site": 8, "server": 4, "admin": 1}  # GiB
ROUNDING = 0.9  # a machine of 8 GiB shows a little less
PYTHON = (3, 11)
FLARE_TIMEOUT = 120.0  # seconds


def python(kit: Kit) -> Iterator[Finding]:  # noqa: ARG001 - the shape of a check
    """The version of Python."""
    found = sys.version.split()[0]
    if sys.version_info < PYTHON:
        yield failed("python", found, "install Python 3.11 or newer and make the environment again")
    else:
        yield passed("python", found)


def server(kit: Kit) -> Iterator[Finding]:
    """Whether the server's name resolves, and answers over TLS with a certificate of our authority."""
    host, port = kit.address
    if kit.role == "server":
        yield _own_port(port, running=_alive(kit.folder / "pid.fl"))
        return
    try:
        socket.getaddrinfo(host, port)
    except OSError:
        yield failed("server", f"the name {host} does not resolve", "ask your network's people")
        return
    yield _handshake(kit, host, port)


def _own_port(port: int, *, running: bool) -> Finding:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("", port))
        except OSError as error:
            if running:
                return passed("port", f"{port} is this server's")
            return failed("port", f"{port}: {error.strerror}", "end what holds it")
    return passed("port", f"{port} is free")


def _handshake(kit: Kit, host: str, port: int) -> Finding:
    where = f"{host}:{port}"
    context = ssl.create_default_context(cafile=str(kit.authority))
    context.check_hostname = False  # FLARE compares the certificate's name with the server's identity
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(*kit.credentials)
    try:
        with socket.create_connection((host, port), TIMEOUT) as plain, context.wrap_socket(plain) as secure:
            return passed("server", f"{where} answers over {secure.version()}, certificate of the project")
    except ssl.SSLCertVerificationError as error:
        remedy = "something between you and the server opens TLS, or the kit is of another project"
        return failed("server", f"{where}: certificate of another authority ({error.verify_message})", remedy)
    except ssl.SSLError as error:
        return failed("server", f"{where}: no TLS ({error.reason})", "ask if the server runs there")
    except TimeoutError:
        return failed(
            "server", f"{where}: no answer in {TIMEOUT:.0f} s", f"let outbound TCP to {port} through"
        )
    except OSError as error:
        return failed("server", f"{where}: {error.strerror}", "ask whether the server is up")


def disk(kit: Kit) -> Iterator[Finding]:
    """Whether the places that are written to can be written, and have room."""
    places = {"kit's folder": kit.folder}
    if kit.role == "site":
        places["cache"] = cache_of(read_site_file(kit.local))
    if kit.role == "server":
        storage = kit.local_json("resources.json")["snapshot_persistor"]["args"]["storage"]["args"][
            "root_dir"
        ]
        places["server storage"] = Path(storage).parent
    for name, place in places.items():
        yield _room(name, place)


def _room(name: str, place: Path) -> Finding:
    exists = next(parent for parent in (place, *place.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=exists) as probe:
            probe.write(b"fedmodal")
    except OSError as error:
        remedy = f"let this account write there: chown -R {os.getuid()} {exists}"
        return failed(name, f"{place}: {error.strerror}", remedy)
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

    parts = kit.local_json("resources.json")["components"]
    (manager,) = (part.get("args", {}) for part in parts if part["id"] == "resource_manager")
    if "num_of_gpus" not in manager:
        return  # a kit made ready for containers or a cluster, which hands out the GPUs
    wanted, gib = int(manager["num_of_gpus"]), float(manager["mem_per_gpu_in_GiB"])
    sizes = [
        torch.cuda.get_device_properties(index).total_memory / GIB
        for index in range(torch.cuda.device_count())
    ]
    good = [size for size in sizes if size >= gib * ROUNDING]
    if len(good) < wanted:
        found = f"{len(sizes)} here" + (f" of {min(sizes):.0f} GiB" if sizes else "")
        remedy = "set num_of_gpus and mem_per_gpu_in_GiB in local/resources.json to what is here"
        yield failed("gpu", f"the kit offers {wanted} of {gib:.0f} GiB, {found}", remedy)
    elif len(sizes) > wanted:
        yield passed("gpu", f"{wanted} offered to jobs, {len(sizes)} here")
    else:
        yield passed("gpu", f"{wanted}, as offered" if wanted else "none: trains on the CPU")


def running(kit: Kit) -> Iterator[Finding]:
    """Whether the kit already runs, or left a process's number behind."""
    if kit.role == "admin":
        return
    files = [kit.folder / name for name in ("daemon_pid.fl", "pid.fl")]
    if any(_alive(path) for path in files):
        yield warned("process", "already running", "stop it before you start it again")
    elif stale := [path for path in files if path.exists()]:
        names = " ".join(map(str, stale))
        yield warned("process", f"{stale[0].name} of a process that is gone", f"rm {names}")
    else:
        yield passed("process", "not running")


def _alive(path: Path) -> bool:
    try:
        return bool(psutil.pid_exists(int(path.read_text(encoding="utf-8"))))
    except (OSError, ValueError):
        return False


def flare(kit: Kit) -> Iterator[Finding]:
    """FLARE's own `nvflare preflight-check`, which connects as this participant for a moment."""
    if _alive(kit.folder / "pid.fl"):
        yield warned("flare's own", "not run: the kit is running", "run it while it is stopped")
        return
    with tempfile.TemporaryDirectory() as name:
        copy = shutil.copytree(kit.folder, Path(name) / kit.folder.name, ignore=_only_the_kit)
        command = [sys.executable, "-m", "nvflare.cli", "preflight-check", "-p", str(copy)]
        try:
            done = subprocess.run(  # noqa: S603 - FLARE's own command
                command, capture_output=True, text=True, timeout=FLARE_TIMEOUT, check=False
            )
        except subprocess.TimeoutExpired:
            yield failed("flare's own", "no answer", "ask whether the server is up")
            return
    if done.returncode:
        yield failed(
            "flare's own", _problem(done.stdout), "see the other lines; a port just closed waits a minute"
        )
    else:
        yield passed("flare's own", "all of FLARE's own checks passed")


def _only_the_kit(folder: str, names: list[str]) -> set[str]:
    """Leave out environments and what earlier runs wrote."""
    return (
        set() if Path(folder).name in {"startup", "local"} else set(names) - {"startup", "local", "transfer"}
    )


def _problem(output: str) -> str:
    """The first problem in FLARE's table of checks."""
    cells = [line.strip("| ").split("|") for line in output.splitlines() if line.startswith("|")]
    found = [
        cell[1].strip() for cell in cells if len(cell) > 1 and cell[1].strip() not in {"PASSED", "Problems"}
    ]
    return next((text for text in found if text), "failed")
