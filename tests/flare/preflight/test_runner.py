"""All checks of a kit, their output and exit code."""

import io
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from fedmodal.cli import app
from fedmodal.errors import UserError
from fedmodal.flare import preflight as runner
from fedmodal.flare.preflight import (
    as_json,
    delivered,
    machine,
    overall,
    preflight,
    process,
    show,
    show_overall,
)
from fedmodal.flare.preflight.data import data
from fedmodal.flare.preflight.finding import Status
from tests.flare.preflight import Check, found
from tests.kits import ADMIN, SERVER


@pytest.mark.parametrize(("name", "message"), [("", "not a startup kit"), ("nowhere", "no such folder")])
def test_a_folder_without_a_kit_is_refused(tmp_path: Path, name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        list(preflight(tmp_path / name))


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
