"""Startup kits from the project's own project.yml, for this machine."""

import copy
import socket
from pathlib import Path
from typing import Any

import yaml
from nvflare.lighter.prov_utils import prepare_builders
from nvflare.lighter.provision import prepare_project
from nvflare.lighter.provisioner import Provisioner

from fedmodal import __version__

ROOT = Path(__file__).parents[1]
LEAD = "lead@fedmodal.example.org"
ADMIN = "admin@fedmodal.example.org"
ORG_ADMIN = "admin@hospital-a.example.org"
SERVER = "localhost"


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def local_project(folder: Path) -> dict[str, Any]:
    """provisioning/project.yml with this machine as its server, and a wheel of this version."""
    project: dict[str, Any] = yaml.safe_load((ROOT / "provisioning" / "project.yml").read_text())
    port = free_port()
    (server,) = (one for one in project["participants"] if one["type"] == "server")
    server |= {"name": SERVER, "fed_learn_port": port, "admin_port": port}
    wheels = folder / "wheels"
    wheels.mkdir(exist_ok=True)
    (wheels / f"fedmodal-{__version__}-py3-none-any.whl").write_bytes(b"stands for the wheel")
    project["builders"][-1]["args"] |= {
        "guide": str(ROOT / "provisioning" / "kit" / "SITE-GUIDE.md"),
        "requirements": str(ROOT / "requirements.txt"),
        "wheels": str(wheels),
        "server_storage": str(folder / "storage"),
    }
    return project


def provision(project: dict[str, Any], folder: Path) -> Path:
    """The folder with everybody's kits, as `nvflare provision` makes them."""
    own = copy.deepcopy(project)  # FLARE takes entries out of it
    provisioner = Provisioner(str(folder), prepare_builders(own))
    context = provisioner.provision(prepare_project(own))
    return Path(context.get_result_location())
