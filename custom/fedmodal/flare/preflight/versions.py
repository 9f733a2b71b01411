"""Checks of what is installed; needs nothing but Python, as a package may be what is missing."""

import re
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version

from fedmodal.flare.preflight.finding import Finding, Kit, failed, passed, warned

PYTHON = (3, 11)
PINS = ("packages", "requirements.txt")
"""Where a kit has its pinned versions, as `fedmodal.flare.kits` writes them."""

DECIDING = frozenset({"fedmodal", "monai", "nvflare", "torch"})
"""Packages whose versions must be those of the kit: they decide what is computed and what is spoken."""

SHOWN = 4  # differences named one by one
_PIN = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;#]+)")


def python(kit: Kit) -> Iterator[Finding]:  # noqa: ARG001 - the shape of a check
    """The version of Python."""
    found = sys.version.split()[0]
    if sys.version_info < PYTHON:
        yield failed("python", found, "install Python 3.11 or newer and make the environment again")
    else:
        yield passed("python", found)


def packages(kit: Kit) -> Iterator[Finding]:
    """Installed packages against the kit's pins."""
    pins = kit.folder.joinpath(*PINS)
    if not pins.is_file():
        yield warned(
            "packages", f"no {'/'.join(PINS)} in the kit", "install the versions that the server has"
        )
        return
    lines = pins.read_text(encoding="utf-8").splitlines()
    wanted = {match[1]: match[2] for line in lines if (match := _PIN.match(line.strip()))}
    found = {name: _installed(name) for name in wanted}
    other = [name for name in wanted if found[name] != wanted[name].partition("+")[0]]
    remedy = f"in {kit.folder}: pip install --find-links {PINS[0]} -r {'/'.join(PINS)}"
    if deciding := [name for name in other if name.lower() in DECIDING]:
        yield failed("packages", _differences(deciding, found, wanted), remedy)
    if others := [name for name in other if name.lower() not in DECIDING]:
        yield warned("packages", _differences(others, found, wanted), remedy)
    if not other:
        yield passed("packages", f"{len(wanted)} packages as in the kit")


def _installed(name: str) -> str | None:
    try:
        return version(name).partition("+")[0]  # a build of torch for one kind of machine
    except PackageNotFoundError:
        return None


def _differences(names: list[str], found: dict[str, str | None], wanted: dict[str, str]) -> str:
    shown = [f"{name} {found[name] or 'is missing'} (kit {wanted[name]})" for name in names[:SHOWN]]
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(shown) + more
