from pathlib import Path

import pytest

from fedmodal.errors import UserError
from fedmodal.flare.simulate import Simulation, simulate


def test_not_a_job(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"not a job \(no meta.json in it\)"):
        simulate(Simulation(tmp_path, tmp_path / "ws"))


def test_more_threads_than_sites(tmp_path: Path) -> None:
    (tmp_path / "meta.json").write_text("{}")
    with pytest.raises(UserError, match="3 threads for 2 sites"):
        simulate(Simulation(tmp_path, tmp_path / "ws", 2, 3))


def test_a_folder_with_other_files_is_not_wiped(tmp_path: Path) -> None:
    (tmp_path / "meta.json").write_text("{}")
    other = tmp_path / "thesis"
    other.mkdir()
    (other / "chapter1.txt").write_text("years of work")
    with pytest.raises(UserError, match="holds other files"):
        simulate(Simulation(tmp_path, other))
    assert (other / "chapter1.txt").exists()
