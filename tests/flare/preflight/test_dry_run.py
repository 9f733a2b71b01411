"""FLARE's own check on a copy of the kit."""

from pathlib import Path

from fedmodal.flare.preflight import (
    dry_run,
)
from fedmodal.flare.preflight.finding import Status, open_kit
from tests.flare.preflight import found
from tests.kits import SERVER


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
