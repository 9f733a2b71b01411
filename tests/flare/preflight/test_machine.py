"""What runs, GPU, memory and disk."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedmodal.flare.preflight import (
    dry_run,
    machine,
    process,
)
from fedmodal.flare.preflight.finding import Status
from tests.flare.preflight import change_policy, found


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
