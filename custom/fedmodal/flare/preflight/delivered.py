"""Checks of what a kit holds: signatures, certificate, key, policies."""

import json
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from shlex import quote
from typing import Any

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from nvflare.lighter.utils import load_crt, verify_content, verify_folder_signature

from fedmodal.flare.kits import PACKAGES
from fedmodal.flare.policy import class_allow_list
from fedmodal.flare.preflight.finding import Finding, Kit, failed, passed, warned

ADDED = frozenset({"start_docker.sh", "start_slurm.sh", "parent.slurm"})
REMOVED = frozenset({"start.sh", "stop_fl.sh", "sub_start.sh"})
"""Scripts that `nvflare deploy prepare` adds and takes away; none that it keeps is changed."""

FEW_DAYS = 30
SIGNATURES = "signature.json"
ENFORCE = "enforce"


def signatures(kit: Kit) -> Iterator[Finding]:
    """Whether what was delivered is what the project's authority signed; `local` is the participant's own."""
    for folder in (kit.startup, kit.folder / PACKAGES):
        if not folder.is_dir():
            continue
        check = f"{folder.name} signed"
        if verify_folder_signature(str(folder), str(kit.authority), True, SIGNATURES):
            yield passed(check, "every file is as delivered")
        elif not (folder / SIGNATURES).is_file():
            yield failed(check, f"no {SIGNATURES}", "unpack the kit again, as it was handed over")
        else:
            yield _other_files(check, kit, folder)


def _other_files(check: str, kit: Kit, folder: Path) -> Finding:
    """Which files of a folder are not as signed; all of them if the authority's certificate is another."""
    signed: dict[str, str] = json.loads((folder / SIGNATURES).read_text(encoding="utf-8"))
    names = {path.name for path in folder.iterdir()} - {SIGNATURES} | set(signed)
    altered = _altered(kit, folder, names, signed)
    if altered and all(name in (ADDED if (folder / name).exists() else REMOVED) for name in altered):
        message = f"changed as `nvflare deploy prepare` does: {', '.join(altered)}"
        return warned(check, message, "make sure that it was you who prepared it")
    message = f"altered, added or missing: {', '.join(altered)}" if altered else f"{SIGNATURES} does not fit"
    if len(altered) == len(names):
        message = f"{kit.authority.name} is not the authority that signed this folder"
    return failed(check, message, "unpack the kit again; ask who changed it")


def _altered(kit: Kit, folder: Path, names: set[str], signed: dict[str, str]) -> list[str]:
    key = load_crt(str(kit.authority)).public_key()
    return sorted(name for name in names if not _intact(folder / name, signed.get(name), key))


def _intact(path: Path, signature: str | None, key: object) -> bool:
    if signature is None or not path.is_file():
        return False
    try:
        verify_content(path.read_bytes(), signature, key)
    except (InvalidSignature, ValueError):  # ValueError: what stands there is no signature
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
    for check, one in (("certificate", own), ("authority", authority)):
        yield _validity(check, one.not_valid_before_utc, one.not_valid_after_utc, again)


def _public(key: object) -> bytes:
    encoded: bytes = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]
    return encoded


def _validity(check: str, start: datetime, end: datetime, remedy: str) -> Finding:
    now = datetime.now(UTC)
    days = (end - now).days
    if now < start:
        return failed(check, f"not valid before {start:%Y-%m-%d %H:%M} UTC", "set this machine's clock")
    if now > end:
        return failed(check, f"ended on {end:%Y-%m-%d}", remedy)
    if days < FEW_DAYS:
        return warned(check, f"ends in {days} days, on {end:%Y-%m-%d}", remedy)
    return passed(check, f"valid for {days} more days, until {end:%Y-%m-%d}")


def private_key(kit: Kit) -> Iterator[Finding]:
    """Whether only its owner can read the key."""
    path = kit.credentials[1]
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        yield failed("private key", f"others can read it (mode {mode:o})", f"chmod 600 {quote(str(path))}")
    else:
        yield passed("private key", "only its owner can read it")


def policies(kit: Kit) -> Iterator[Finding]:
    """Whether the site builds our classes and no others, and lets nobody bring code."""
    if kit.role == "admin":
        return
    yield from _allow_list(kit.resources)
    permissions = kit.local_json("authorization.json").get("permissions", {})
    if free := [role for role, rights in permissions.items() if _may_bring_code(rights)]:
        remedy = 'set "byoc": "none" for each role in local/authorization.json'
        yield warned("authorization", f"{', '.join(free)} may run code of their own here", remedy)
    else:
        yield passed("authorization", "nobody may bring code")


def _allow_list(resources: dict[str, Any]) -> Iterator[Finding]:
    listed, ours = resources.get("class_allow_list"), set(class_allow_list())
    restore = "take local/resources.json away, so that the delivered one counts"
    if listed is None:
        yield failed("allow list", "none here: FLARE's own counts, and our jobs do not start", restore)
        return
    if missing := sorted(ours - set(listed)):
        yield failed("allow list", f"lacks {', '.join(missing)}", restore)
    if more := sorted(set(listed) - ours):
        yield warned("allow list", f"is broader than delivered: {', '.join(more)}", restore)
    mode = str(resources.get("class_list_enforcement_mode", ENFORCE))
    if mode.lower() != ENFORCE:
        yield warned("allow list", f"not kept to: class_list_enforcement_mode is '{mode}'", restore)
    elif not (missing or more):
        yield passed("allow list", f"{len(listed)} entries, as delivered")


def _may_bring_code(rights: str | dict[str, str]) -> bool:
    """Whether a role may: by a word for all its rights, or by the right itself; not named is not granted."""
    return (rights if isinstance(rights, str) else rights.get("byoc", "none")) != "none"
