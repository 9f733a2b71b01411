"""Installed packages against the kit's."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fedmodal.flare.kits import PACKAGES, REQUIREMENTS
from fedmodal.flare.preflight import (
    versions,
)
from fedmodal.flare.preflight.finding import Status, open_kit
from tests.flare.preflight import found


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
