"""Whether a kit runs: FLARE's files with process numbers, and the processes that have them."""

import shlex
from collections.abc import Iterator
from pathlib import Path

import psutil

from fedmodal.flare.preflight.finding import Finding, Kit, passed, warned

DAEMON, MAIN = "daemon_pid.fl", "pid.fl"
"""FLARE's files: the process of `sub_start.sh`, and the one that it starts."""

_OURS = ("sub_start.sh", "nvflare")


def running(kit: Kit) -> Iterator[Finding]:
    """Whether the kit already runs, or left a process's number behind.

    FLARE asks only whether a process of that number exists: after a restart of the machine it may be
    any program, and `start.sh` then does nothing.
    """
    if kit.role == "admin":
        return
    stale = [path for path in _files(kit) if path.exists() and not _alive(path)]
    if runs(kit):
        yield warned("process", "already running", "stop it before you start it again")
    elif stale:
        message = f"{', '.join(path.name for path in stale)} of a process that is gone"
        yield warned("process", message, f"rm {shlex.join(map(str, stale))}")
    else:
        yield passed("process", "not running")


def runs(kit: Kit) -> bool:
    """Whether a process of this kit is alive."""
    return any(_alive(path) for path in _files(kit))


def _files(kit: Kit) -> tuple[Path, Path]:
    return kit.folder / DAEMON, kit.folder / MAIN


def _alive(path: Path) -> bool:
    try:
        command = psutil.Process(int(path.read_text(encoding="utf-8"))).cmdline()
    except psutil.AccessDenied:
        return True  # somebody else's process, which may well be this kit under another account
    except (OSError, ValueError, OverflowError, psutil.Error):
        return False
    return any(name in word for word in command for name in _OURS)
