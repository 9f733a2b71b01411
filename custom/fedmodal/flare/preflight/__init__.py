"""Everything that must hold before a startup kit is started, each with what to do if it does not."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from fedmodal.errors import UserError
from fedmodal.flare.preflight import delivered, machine
from fedmodal.flare.preflight.finding import Finding, Kit, Status, failed, open_kit

Check = Callable[[Kit], Iterator[Finding]]


def data(kit: Kit) -> Iterator[Finding]:
    """See `data.py`; imported when its turn has come, as it needs torch, which may be what is missing."""
    from fedmodal.flare.preflight.data import data as check

    return check(kit)


CHECKS: tuple[Check, ...] = (
    machine.python,
    delivered.versions,
    delivered.signatures,
    delivered.certificate,
    delivered.private_key,
    delivered.policies,
    machine.running,
    machine.disk,
    machine.memory,
    machine.gpu,
    machine.server,
    machine.flare,
    data,
)

_COLOURS = {Status.PASS: "green", Status.WARN: "yellow", Status.FAIL: "bold red"}


def preflight(folder: Path) -> Iterator[Finding]:
    """Run every check of a kit; one that breaks is a FAIL with its reason, and the rest goes on.

    Raises:
        UserError: the folder holds no kit.
    """
    kit = open_kit(folder)
    for check in CHECKS:
        try:
            yield from check(kit)
        except (UserError, OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
            yield failed(
                check.__name__.replace("_", " "), _reason(error), "mend this, then run preflight again"
            )


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"


def as_json(findings: list[Finding]) -> str:
    """The findings for a program, and whether the kit is ready."""
    lines = [
        {"check": one.check, "status": one.status.value, "message": one.message, "remedy": one.remedy}
        for one in findings
    ]
    return json.dumps({"ready": ready(findings), "findings": lines}, indent=2)


def ready(findings: list[Finding]) -> bool:
    """Whether nothing failed."""
    return all(one.status is not Status.FAIL for one in findings)


def show(finding: Finding, console: Console) -> None:
    """Print one finding, its remedy below."""
    grid = Table.grid(padding=(0, 1))
    for width in (4, 15):
        grid.add_column(width=width)
    grid.add_column(overflow="fold")
    status = Text(finding.status.value, style=_COLOURS[finding.status])
    grid.add_row(status, finding.check, Text(finding.message))
    if finding.remedy:
        grid.add_row("", "", Text(f"-> {finding.remedy}"))
    console.print(grid)
