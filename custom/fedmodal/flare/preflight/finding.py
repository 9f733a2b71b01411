"""What a check found, and the kit it looks at."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from fedmodal.errors import UserError


class Status(StrEnum):
    """How a check ended: FAIL must be mended before the site can take part."""

    PASS = "PASS"  # noqa: S105 - no password
    WARN = "WARN"
    FAIL = "FAIL"


CONFIGS = {"fed_client.json": "site", "fed_server.json": "server", "fed_admin.json": "admin"}


@dataclass(frozen=True)
class Finding:
    """One line of a preflight.

    Attributes:
        check: what was looked at.
        status: how it ended.
        message: what was found.
        remedy: what to do; empty with PASS.
    """

    check: str
    status: Status
    message: str
    remedy: str = ""


def passed(check: str, message: str) -> Finding:
    """A check that found nothing wrong."""
    return Finding(check, Status.PASS, message)


def warned(check: str, message: str, remedy: str) -> Finding:
    """A check that found something to look at."""
    return Finding(check, Status.WARN, message, remedy)


def failed(check: str, message: str, remedy: str) -> Finding:
    """A check that found what must be mended."""
    return Finding(check, Status.FAIL, message, remedy)


@dataclass(frozen=True)
class Kit:
    """An unpacked startup kit.

    Attributes:
        folder: the one that holds `startup`.
        role: site, server or admin.
        config: FLARE's configuration of that participant.
    """

    folder: Path
    role: str
    config: Mapping[str, Any]

    @property
    def startup(self) -> Path:
        """What FLARE delivers and signs."""
        return self.folder / "startup"

    @property
    def local(self) -> Path:
        """What is the participant's own."""
        return self.folder / "local"

    @property
    def credentials(self) -> tuple[Path, Path]:
        """Certificate and private key."""
        name = "server" if self.role == "server" else "client"
        return self.startup / f"{name}.crt", self.startup / f"{name}.key"

    @property
    def name(self) -> str:
        """The participant's name, as its certificate has it; the folder may be called otherwise."""
        from cryptography import x509
        from cryptography.x509.oid import NameOID

        certificate = x509.load_pem_x509_certificate(self.credentials[0].read_bytes())
        return str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)

    @property
    def authority(self) -> Path:
        """The certificate of the project's own authority."""
        return self.startup / "rootCA.pem"

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the server."""
        if self.role == "admin":
            admin = self.config["admin"]
            return str(admin["host"]), int(admin["port"])
        host, _, port = self.config["servers"][0]["service"]["target"].rpartition(":")
        return host, int(port)

    @property
    def resources(self) -> dict[str, Any]:
        """`local/resources.json`: FLARE's parts at this participant, and what a job may build."""
        return self.local_json("resources.json")

    def part(self, name: str) -> dict[str, Any]:
        """The arguments of one of FLARE's parts in `resources`; empty if there is no such part."""
        parts = self.resources.get("components", [])
        return next((part.get("args", {}) for part in parts if part.get("id") == name), {})

    @property
    def storage(self) -> dict[str, Path]:
        """Where a server keeps what must outlive it: folders by what they hold."""
        persistor = self.resources.get("snapshot_persistor", {}).get("args", {})
        found = {
            "snapshots": persistor.get("storage", {}).get("args", {}).get("root_dir"),
            "jobs": self.part("job_manager").get("uri_root"),
        }
        return {name: Path(place) for name, place in found.items() if place}

    def local_json(self, name: str) -> dict[str, Any]:
        """A file of `local`, as the participant changed it, or else as delivered.

        Raises:
            UserError: it is not readable as JSON.
        """
        path = self.local / name
        path = path if path.is_file() else self.local / f"{name}.default"
        try:
            content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise UserError(f"{path}: not readable as JSON; copy it from the kit again") from error
        return content


def open_kit(folder: Path) -> Kit:
    """Look at what kind of kit a folder holds.

    Raises:
        UserError: it holds none.
    """
    folder = folder.absolute()
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; name the unpacked startup kit")
    for name, role in CONFIGS.items():
        path = folder / "startup" / name
        if path.is_file():
            try:
                return Kit(folder, role, json.loads(path.read_text(encoding="utf-8")))
            except ValueError as error:
                raise UserError(f"{path}: not readable as JSON; unpack the kit again") from error
    raise UserError(
        f"{folder}: not a startup kit: no startup/fed_client.json, fed_server.json or fed_admin.json; "
        "name the folder that holds `startup`"
    )
