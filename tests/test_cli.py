"""The command line as a person meets it: what it prints, its exit codes, one line for each mistake."""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fedmodal.cli import main

Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cache: Path) -> Call:
    """`call(*arguments)`: exit code, standard output and standard error of a command."""
    monkeypatch.setenv("FEDMODAL_CACHE", str(cache))
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fedmodal", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        code = stopped.value.code
        output = capsys.readouterr()
        if isinstance(code, str):  # what sys.exit prints before it exits with 1
            return 1, output.out, output.err + code
        return int(code or 0), output.out, output.err

    return run


@pytest.fixture
def site(phantom_sites: Path, tmp_path: Path) -> Path:
    """A copy of the CT site's data set, to be broken."""
    return Path(shutil.copytree(phantom_sites / "site-1", tmp_path / "site"))


def first_case(site: Path) -> dict[str, str]:
    case: dict[str, str] = json.loads((site / "dataset.json").read_text())["training"][0]
    return case


def test_package_and_help_start_at_once() -> None:
    def seconds(*command: str) -> float:
        started = time.perf_counter()
        subprocess.run([sys.executable, *command], check=True, stdout=subprocess.DEVNULL)  # noqa: S603
        return time.perf_counter() - started

    bare = min(seconds("-c", "pass") for _ in range(3))
    assert min(seconds("-c", "import fedmodal") for _ in range(3)) - bare < 0.2
    shown = "import sys, fedmodal.cli; assert not {'torch', 'monai', 'nvflare', 'nibabel'} & set(sys.modules)"
    seconds("-c", shown)


def test_good_data_set_passes(call: Call, phantom_sites: Path) -> None:
    code, output, _ = call("check", phantom_sites / "site-2")
    assert code == 0
    assert "MRI" in output
    assert "4 cases" in output


def test_problem_is_exit_code_1_and_json_for_programs(call: Call, site: Path) -> None:
    (site / first_case(site)["image"]).write_bytes(b"not an image")
    code, output, _ = call("check", site, "--json")
    assert code == 1
    assert Path(first_case(site)["image"]).name in json.loads(output)["rows"][0]["problems"][0]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("check", "nowhere"), "nowhere: no dataset.json here"),
        (("phantom", "out", "--task", "knee"), "unknown task 'knee': choose one of abdomen, heart"),
        (("phantom", "out", "--modality", "PET"), "unknown modality 'PET': choose CT or MRI"),
        (("report", "nowhere"), "nowhere: no such folder"),
        (("simulate", "nowhere"), "nowhere: not a job"),
    ],
)
def test_mistakes_are_one_line(call: Call, arguments: tuple[str, ...], message: str) -> None:
    code, _, error = call(*arguments)
    assert code == 1
    assert error.startswith(f"fedmodal: {message}")
    assert error.count("\n") == 0


def test_unknown_arm_lists_the_arms(call: Call, site: Path, tmp_path: Path) -> None:
    code, _, error = call("train", site, "--out", tmp_path / "out", "--arm", "magic")
    assert code == 1
    assert "magic" in error
    assert "gin" in error


def test_truncated_image_stops_training_with_its_name(call: Call, site: Path, tmp_path: Path) -> None:
    image = site / first_case(site)["image"]
    image.write_bytes(image.read_bytes()[:5000])
    code, _, error = call("train", site, "--out", tmp_path / "out")
    assert code == 1
    assert image.name in error
    assert error.count("\n") == 0


def test_foreign_label_stops_training_with_its_name(call: Call, site: Path, tmp_path: Path) -> None:
    path = site / first_case(site)["label"]
    label = nib.load(path)
    values = np.asarray(label.dataobj).copy()
    values[0, 0, 0] = 9
    nib.save(nib.Nifti1Image(values, label.affine), path)
    code, _, error = call("train", site, "--out", tmp_path / "out")
    assert code == 1
    assert path.name in error
    assert "9" in error


def test_training_without_a_federation(call: Call, phantom_sites: Path, tmp_path: Path) -> None:
    settings = tmp_path / "settings.json"
    settings.write_text('{"network": {"channels": [4, 8]}, "batch_size": 2}')
    given = ("--rounds", "2", "--steps", "2", "--settings", settings, "--out", tmp_path / "out")
    code, output, error = call("train", phantom_sites / "site-1", "--test", phantom_sites / "site-2", *given)
    assert code == 0, error
    assert "pancreas" in output
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert [result["modality"] for result in results["results"]] == ["CT", "MRI"]
    assert results["training"]["steps_per_round"] == 2


def test_real_pairs_come_in_and_pass(call: Call, realdata: Path, tmp_path: Path) -> None:
    source = realdata / "abdomen"
    pairs = [
        ("CT", "ct_image", "ct_label_total", "total"),
        ("MRI", "mri_image", "mri_label_total_mr", "total_mr"),
    ]
    for modality, image, label, labels in pairs:
        out = tmp_path / modality
        files = (source / f"{image}.nii.gz", source / f"{label}.nii.gz", out)
        code, _, error = call(
            "convert", "pair", *files, "--patient", "p1", "--modality", modality, "--labels", labels
        )
        assert code == 0, error
        code, output, _ = call("check", out)
        assert code == 0, output


def test_jobs_are_written_and_checked(call: Call, tmp_path: Path) -> None:
    assert call("jobs", "--root", tmp_path)[0] == 1
    assert call("jobs", "--root", tmp_path, "--write")[0] == 0
    assert call("jobs", "--root", tmp_path)[0] == 0
