"""Checks of what a kit holds: versions, signatures, certificate, key, policies."""

import json
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from nvflare.lighter.utils import verify_content

from fedmodal.flare.kits import PACKAGES, REQUIREMENTS
from fedmodal.flare.policy import class_allow_list
from fedmodal.flare.preflight.finding import Finding, Kit, failed, passed, warned

DECIDING = frozenset({"fedmodal", "monai", "nvflare", "torch"})
"""Packages whose versions must be those of the kit: they decide what is computed and what is spoken."""

ADDED = frozenset({"start_docker.sh", "start_slurm.sh", "parent.slurm"})
REMOVED = frozenset({"start.sh", "stop_fl.sh", "sub_start.sh"})
"""Scripts that `nvflare deploy prepare` adds and takes away; none that it keeps is changed."""

FEW_DAYS = 30
SIGNATURES = "signature.json"


def versions(kit: Kit) -> Iterator[Finding]:
    """Installed packages against the kit's pins."""
    pins = kit.folder / PACKAGES / REQUIREMENTS
    if not pins.is_file():
        yield warned("packages", f"no {PACKAGES}/{REQUIREMENTS} in the kit", "install what the server has")
        return
    lines = [line for line in pins.read_text(encoding="utf-8").splitlines() if "==" in line]
    wanted = dict(line.strip().split("==") for line in lines)
    found = {name: _installed(name) for name in wanted}
    other = [name for name in wanted if found[name] != wanted[name]]
    remedy = f"pip install --find-links {PACKAGES} -r {PACKAGES}/{REQUIREMENTS}"
    if deciding := [name for name in other if name in DECIDING]:
        yield failed("packages", _differences(deciding, found, wanted), remedy)
    elif other:
        yield warned("packages", _differences(other, found, wanted), remedy)
    else:
        yield passed("packages", f"{len(wanted)} packages as in the kit, fedmodal {wanted['fedmodal']}")


def _installed(name: str) -> str | None:
    try:
        return version(name).partition("+")[0]  # a build of torch for one kind of machine
    except PackageNotFoundError:
        return None


def _differences(names: list[str], found: dict[str, str | None], wanted: dict[str, str]) -> str:
    shown = [f"{name} {found[name] or 'is missing'} (kit {wanted[name]})" for name in names[:4]]
    more = f" and {len(names) - 4} more" if len(names) > 4 else ""
    return ", ".join(shown) + more


def signatures(kit: Kit) -> Iterator[Finding]:
    """Whether what was delivered is what the project's authority signed."""
    key = x509.load_pem_x509_certificate(kit.authority.read_bytes()).public_key()
    for folder in (kit.startup, kit.folder / PACKAGES):
        if not folder.is_dir():
            continue
        check = f"{folder.name} signed"
        if not (folder / SIGNATURES).is_file():
            yield failed(check, f"no {SIGNATURES}", "unpack the kit again, as it was handed over")
        elif altered := _altered(folder, key):
            yield _other_files(check, folder, altered)
        else:
            yield passed(check, "every file is as delivered")


def _other_files(check: str, folder: Path, altered: list[str]) -> Finding:
    names = ", ".join(altered)
    prepared = [name for name in altered if name in (ADDED if (folder / name).exists() else REMOVED)]
    if prepared == altered:
        remedy = "make sure that it was you who prepared it"
        return warned(check, f"changed as `nvflare deploy prepare` does: {names}", remedy)
    return failed(check, f"altered or not signed: {names}", "unpack the kit again; ask who changed it")


def _signed(folder: Path) -> dict[str, str]:
    content: dict[str, str] = json.loads((folder / SIGNATURES).read_text(encoding="utf-8"))
    return content


def _altered(folder: Path, key: object) -> list[str]:
    signed = _signed(folder)
    names = {path.name for path in folder.iterdir() if path.is_file()} - {SIGNATURES}
    return sorted(name for name in names | set(signed) if not _intact(folder / name, signed.get(name), key))


def _intact(path: Path, signature: str | None, key: object) -> bool:
    if signature is None or not path.is_file():
        return False
    try:
        verify_content(path.read_bytes(), signature, key)
    except InvalidSignature:
        return False
    return True


def certificate(kit: Kit) -> Iterator[Finding]:
    """Whether the certificate is the authority's, fits the key, and lasts."""
    path, key_path = kit.credentials
    own = x509.load_pem_x509_certificate(path.read_bytes())
    authority = x509.load_pem_x509_certificate(kit.authority.read_bytes())
    again = "ask for a new kit"
    try:
        own.verify_directly_issued_by(authority)
    except (ValueError, InvalidSignature):
        yield failed("certificate", f"{path.name} is of another authority than rootCA.pem", again)
        return
    if _public(own.public_key()) != _public(load_pem_private_key(key_path.read_bytes(), None).public_key()):
        yield failed("certificate", f"{path.name} does not belong to {key_path.name}", again)
        return
    end = min(own.not_valid_after_utc, authority.not_valid_after_utc)
    start = max(own.not_valid_before_utc, authority.not_valid_before_utc)
    yield _validity(start, end, again)


def _public(key: object) -> bytes:
    encoded: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return encoded


def _validity(start: datetime, end: datetime, remedy: str) -> Finding:
    now = datetime.now(UTC)
    days = (end - now).days
    if now < start:
        return failed("certificate", f"not valid before {start:%Y-%m-%d}", "set this machine's clock")
    if now > end:
        return failed("certificate", f"ended on {end:%Y-%m-%d}", remedy)
    if days < FEW_DAYS:
        return warned("certificate", f"ends in {days} days, on {end:%Y-%m-%d}", remedy)
    return passed("certificate", f"valid for {days} more days, until {end:%Y-%m-%d}")


def private_key(kit: Kit) -> Iterator[Finding]:
    """Whether only its owner can read the key."""
    path = kit.credentials[1]
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        yield failed("private key", f"others can read it (mode {mode:o})", f"chmod 600 {path}")
    else:
        yield passed("private key", "only its owner can read it")


def policies(kit: Kit) -> Iterator[Finding]:
    """Whether the site builds our classes and no others, and lets nobody bring code."""
    if kit.role == "admin":
        return
    listed, ours = set(kit.local_json("resources.json")["class_allow_list"]), set(class_allow_list())
    restore = "take local/resources.json away, so that the delivered one counts"
    if missing := sorted(ours - listed):
        yield failed("allow list", f"lacks {', '.join(missing)}", restore)
    elif more := sorted(listed - ours):
        yield warned("allow list", f"is broader than delivered: {', '.join(more)}", restore)
    else:
        yield passed("allow list", f"{len(listed)} entries, as delivered")
    permissions = kit.local_json("authorization.json")["permissions"]
    free = [role for role, rights in permissions.items() if rights == "any" or rights.get("byoc") != "none"]
    if free:
        remedy = 'set "byoc": "none" for each role in local/authorization.json'
        yield warned("authorization", f"{', '.join(free)} may run code of their own here", remedy)
    else:
        yield passed("authorization", "nobody may bring code")
