import shutil
from pathlib import Path

import pytest


@pytest.fixture
def kit(kits: Path, tmp_path: Path) -> Path:
    """A copy of site-2's kit (MRI) in a folder of another name."""
    return Path(shutil.copytree(kits / "site-2", tmp_path / "kit"))


@pytest.fixture(autouse=True)
def own_environment(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.delenv("FEDMODAL_DATA", raising=False)
    monkeypatch.setenv("FEDMODAL_CACHE", str(cache))
