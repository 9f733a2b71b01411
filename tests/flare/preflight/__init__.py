"""What the tests of `fedmodal preflight` share."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

from fedmodal.flare.preflight.finding import Finding, Kit, open_kit

Check = Callable[[Kit], Iterator[Finding]]


def found(check: Check, kit: Path) -> dict[str, Finding]:
    return {one.check: one for one in check(open_kit(kit))}


def use_data(kit: Path, folder: Path) -> None:
    (kit / "local" / "fedmodal.json").write_text(json.dumps({"data": str(folder)}))


def change_policy(kit: Path, name: str, change: Callable[[dict[str, object]], None]) -> None:
    content = json.loads((kit / "local" / f"{name}.default").read_text())
    change(content)
    (kit / "local" / name).write_text(json.dumps(content))
