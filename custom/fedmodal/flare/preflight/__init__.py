"""Everything that must hold before a startup kit is started, each with what to do if it does not."""

import json
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedmodal.errors import UserError
from fedmodal.flare.preflight.finding import Finding, Kit, Status, failed, open_kit

CHECKS = (
    "versions.python",
    "versions.packages",
    "delivered.signatures",
    "delivered.certificate",
    "delivered.private_key",
    "delivered.policies",
    "process.running",
    "machine.disk",
    "machine.memory",
    "machine.gpu",
    "server.server",
    "dry_run.flare",
    "data.data",
)
"""Module and function of each check: imported in its turn, as what it needs may be what is missing."""

_COLOURS = {Status.PASS: "green", Status.WARN: "yellow", Status.FAIL: "bold red"}
_COLUMNS = (4, 15)  # status and check; the message has the rest


def preflight(folder: Path) -> Iterator[Finding]:
    """Run every check of a kit; one that breaks is a FAIL with its reason, and the rest goes on.

    Raises:
        UserError: the folder holds no kit.
    """
    kit = open_kit(folder)
    for check in CHECKS:
        yield from _run(check, kit)


def _run(check: str, kit: Kit) -> Iterator[Finding]:
    module, function = check.split(".")
    try:
        yield from getattr(import_module(f"{__name__}.{module}"), function)(kit)
    except UserError as error:
        yield failed(_words(function), str(error), "mend this, then run preflight again")
    except ImportError as error:
        yield failed(_words(function), f"could not be checked: {error}", "install the kit's packages")
    except Exception as error:  # a check that breaks is a line like the others
        reason = f"could not be checked ({type(error).__name__}: {error})"
        yield failed(_words(function), reason, "send this to the project's admins")


def _words(function: str) -> str:
    return function.replace("_", " ")


def as_json(findings: list[Finding]) -> str:
    """The findings for a program, and the worst of their states."""
    lines = [
        {"check": one.check, "status": one.status.value, "message": one.message, "remedy": one.remedy}
        for one in findings
    ]
    return json.dumps({"overall": overall(findings).value, "findings": lines}, indent=2)


def overall(findings: list[Finding]) -> Status:
    """The worst state of all; only FAIL keeps a kit from being started."""
    found = {one.status for one in findings}
    return next((status for status in (Status.FAIL, Status.WARN) if status in found), Status.PASS)


def show(finding: Finding, console: Console) -> None:
    """Print one finding, its remedy below."""
    grid = Table.grid(padding=(0, 1))
    for width in _COLUMNS:
        grid.add_column(width=width)
    grid.add_column(overflow="fold")
    status = Text(finding.status.value, style=_COLOURS[finding.status])
    grid.add_row(status, finding.check, Text(finding.message))
    if finding.remedy:
        grid.add_row("", "", Text(f"-> {finding.remedy}"))
    console.print(grid)


def show_overall(findings: list[Finding], console: Console) -> None:
    """Print the line that sums up."""
    counts = [f"{sum(one.status is status for one in findings)} {status.value}" for status in Status]
    worst = overall(findings)
    verdict = "not ready" if worst is Status.FAIL else "ready"
    console.print(Text(f"{verdict}: {', '.join(counts)}", style=_COLOURS[worst]))
