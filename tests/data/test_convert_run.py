"""Any conversion: splits, interruption and restart, what is left behind, the report, the command."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from convert_samples import contents, in_ids, refused, saved
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmodal.cli import main
from fedmodal.data.convert.btcv import btcv
from fedmodal.data.convert.pair import add_pair
from fedmodal.data.convert.report import read_conversion
from fedmodal.data.convert.run import convert_set
from fedmodal.data.convert.source import Pair, SourceCase
from fedmodal.data.convert.splits import Splits
from fedmodal.data.dataset import DATASET_FILE, Split, read_dataset
from fedmodal.tasks import ABDOMEN, Modality

Volumes = Callable[..., tuple[np.ndarray, np.ndarray]]
BTCV = (1, 2, 3, 4, 6, 11)
IDENTITY = {number: number for number in range(1, 7)}


def case(patient: str, split: Split | None = None) -> SourceCase:
    def read() -> Pair:
        raise AssertionError("splits open no image")

    return SourceCase(patient, patient, read, split)


# --- splits


def test_splits_depend_on_seed_and_patient_only() -> None:
    cases = [case(f"p{number}") for number in range(2000)]
    first = Splits(seed=1).assign(cases)
    assert first == Splits(seed=1).assign(cases[::-1])
    assert first != Splits(seed=2).assign(cases)
    fewer = Splits(seed=1).assign(cases[500:])
    assert {patient: first[patient] for patient in fewer} == fewer
    shares = [list(first.values()).count(split) / 2000 for split in Split]
    assert shares == pytest.approx([0.7, 0.15, 0.15], abs=0.03)


@given(validation=st.floats(0, 1), test=st.floats(0, 1), seed=st.integers(0, 99))
@settings(max_examples=30, deadline=None)
def test_shares_are_kept(validation: float, test: float, seed: int) -> None:
    if validation + test > 1:
        refused(lambda: Splits(seed, validation, test), "together at most 1")
        return
    found = list(Splits(seed, validation, test).assign([case(f"p{n}") for n in range(400)]).values())
    assert found.count(Split.VALIDATION) / 400 == pytest.approx(validation, abs=0.12)
    assert found.count(Split.TEST) / 400 == pytest.approx(test, abs=0.12)


@pytest.mark.parametrize(
    ("splits", "shares"),
    [
        (Splits(), (0.7, 0.15, 0.15)),
        (Splits(test=1), (0, 0, 1)),
        (Splits(validation=0), (0.85, 0, 0.15)),
        (Splits(validation=0.9), (0, 0.9, 0.1)),
    ],
)
def test_a_share_not_given_makes_room(splits: Splits, shares: tuple[float, float, float]) -> None:
    assert splits.shares == pytest.approx(shares)


def test_a_set_without_validation_gives_up_a_part_of_its_training() -> None:
    cases = [case(f"p{number}", Split.TRAIN) for number in range(400)] + [case("t", Split.TEST)]
    found = Splits().assign(cases)
    assert found["t"] is Split.TEST
    assert list(found.values()).count(Split.TEST) == 1
    assert list(found.values()).count(Split.VALIDATION) == pytest.approx(60, abs=25)
    whole = Splits().assign([*cases, case("v", Split.VALIDATION)])
    assert list(whole.values()).count(Split.VALIDATION) == 1


def test_a_patient_in_two_splits_of_the_set_is_refused() -> None:
    refused(lambda: Splits().assign([case("p", Split.TRAIN), case("p", Split.TEST)]), "in two splits")


# --- interruption and restart


@pytest.fixture
def src(tmp_path: Path, volume: Volumes) -> Path:
    """Five BTCV patients; the fourth has an empty label map."""
    for number in range(5):
        image, label = volume(Modality.CT, number)
        saved(image, tmp_path / "src" / "img" / f"img000{number}.nii.gz")
        wanted = in_ids(label, BTCV) if number != 3 else 0 * label
        saved(wanted, tmp_path / "src" / "label" / f"label000{number}.nii.gz")
    return tmp_path / "src"


KILLED = """
import os, signal, sys
from pathlib import Path
from fedmodal.data.convert import run
from fedmodal.data.convert.btcv import btcv

save, calls = run.nib.save, []

def killed_in_the_middle(image, path):
    calls.append(path)
    if len(calls) < int(sys.argv[3]):
        return save(image, path)
    Path(path).write_bytes(b"half a file")
    os.kill(os.getpid(), signal.SIGKILL)

run.nib.save = killed_in_the_middle
run.convert_set(btcv(Path(sys.argv[1])), Path(sys.argv[2]))
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system cannot kill a process outright")
def test_a_killed_conversion_goes_on_and_ends_as_an_unbroken_one(src: Path, tmp_path: Path) -> None:
    out, unbroken = tmp_path / "broken" / "site", tmp_path / "unbroken" / "site"
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", KILLED, str(src), str(out), "3"]
    assert subprocess.run(command, check=False, env=environment).returncode == -signal.SIGKILL  # noqa: S603
    assert not (out / DATASET_FILE).exists()
    assert sorted(path.name for path in (out / "labels").iterdir()) == [
        ".partial-img0002.nii.gz",
        "img0000.nii.gz",
        "img0001.nii.gz",
    ]
    assert not read_conversion(out).finished
    (out / "images" / ".partial-gone.nii.gz").write_bytes(b"half a file of a case that is no more")
    stamp = (out / "labels" / "img0000.nii.gz").stat().st_mtime_ns
    record = convert_set(btcv(src), out)
    assert (out / "labels" / "img0000.nii.gz").stat().st_mtime_ns == stamp
    assert convert_set(btcv(src), unbroken) == record
    assert contents(out) == contents(unbroken)


def test_each_case_is_let_go_before_the_next_is_read(src: Path, tmp_path: Path) -> None:
    calls: list[tuple[int, int, int]] = []

    def count(done: int, total: int) -> None:
        calls.append((done, total, len(list((tmp_path / "out" / "labels").glob("*.nii.gz")))))

    convert_set(btcv(src), tmp_path / "out", progress=count)
    assert calls == [(1, 5, 1), (2, 5, 2), (3, 5, 3), (4, 5, 3), (5, 5, 4)]


def test_a_restart_takes_new_cases_and_moves_no_old_ones(src: Path, tmp_path: Path, volume: Volumes) -> None:
    first = convert_set(btcv(src), tmp_path / "out")
    image, label = volume(Modality.CT, 9)
    saved(image, src / "img" / "img0009.nii.gz")
    saved(in_ids(label, BTCV), src / "label" / "label0009.nii.gz")
    second = convert_set(btcv(src), tmp_path / "out")
    assert second.taken[:-1] == first.taken
    assert second.taken[-1].case == "img0009"


def test_another_seed_divides_anew_without_reading_again(src: Path, tmp_path: Path) -> None:
    convert_set(btcv(src), tmp_path / "out")
    for path in (src / "img").iterdir():
        path.write_bytes(b"not needed any more")
    record = convert_set(btcv(src), tmp_path / "out", Splits(validation=0, test=1))
    assert {each.split for each in record.taken} == {Split.TEST}
    assert len(record.taken) == 4


def test_cases_added_by_hand_stay(src: Path, tmp_path: Path, volume: Volumes) -> None:
    convert_set(btcv(src), tmp_path / "out")
    image, label = volume(Modality.CT, 9)
    files = {"image": saved(image, tmp_path / "i.nii.gz"), "label": saved(label, tmp_path / "l.nii.gz")}
    add_pair(
        tmp_path / "out", ABDOMEN, Modality.CT, **files, patient="own", split=Split.TEST, mapping=IDENTITY
    )
    convert_set(btcv(src), tmp_path / "out")
    assert len(read_dataset(tmp_path / "out").cases) == 5
    assert read_dataset(tmp_path / "out").cases[0].patient == "own"


def test_a_folder_that_holds_something_else_is_left_alone(src: Path, tmp_path: Path, volume: Volumes) -> None:
    image, label = volume(Modality.CT, 9)
    files = {"image": saved(image, tmp_path / "i.nii.gz"), "label": saved(label, tmp_path / "l.nii.gz")}
    other = tmp_path / "pairs"
    add_pair(other, ABDOMEN, Modality.CT, **files, patient="own", split=Split.TEST, mapping=IDENTITY)
    before = contents(other)
    refused(lambda: convert_set(btcv(src), other), "holds files that are no conversion's")
    (other / DATASET_FILE).unlink()
    refused(lambda: convert_set(btcv(src), other), "holds files that are no conversion's")
    assert contents(other) == {name: data for name, data in before.items() if name != DATASET_FILE}
    refused(lambda: convert_set(btcv(src), src), "is the data set itself")


def test_a_set_of_which_nothing_can_be_taken_is_an_error(src: Path, tmp_path: Path) -> None:
    for path in (src / "img").iterdir():
        path.write_bytes(b"damaged")
    refused(
        lambda: convert_set(btcv(src), tmp_path / "out"),
        "no case of btcv could be taken; the first, img0000:",
    )
    assert not (tmp_path / "out" / DATASET_FILE).exists()
    assert len(read_conversion(tmp_path / "out").left) == 5


def test_a_full_disk_ends_the_conversion_instead_of_leaving_cases_out(src: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "conversion.json").mkdir()
    refused(lambda: convert_set(btcv(src), tmp_path / "out"), "cannot be written")


# --- the command


@pytest.fixture
def call(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """`call(*arguments)`: exit code, standard output and standard error of `fedmodal convert`."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["fedmodal", "convert", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            main()
        code, output = stopped.value.code, capsys.readouterr()
        if isinstance(code, str):
            return 1, output.out, output.err + code
        return int(code or 0), output.out, output.err

    return run


def test_the_command_shows_what_was_left_and_fails_for_what_is_wrong(
    src: Path, tmp_path: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    out = tmp_path / "out"
    code, output, _ = call("btcv", src, out, "--validation", "0", "--test", "0")
    assert code == 1
    assert "label0003.nii.gz: empty label map" in " ".join(output.split())
    assert "4 cases in" in output
    assert "1 left out, 1 of them because something is wrong" in output
    told = json.loads((out / "conversion.json").read_text())
    assert [each["split"] for each in told["taken"]] == ["train"] * 4
    assert told["left"][0]["case"] == "img0003"
    assert told["set"] == "btcv"
    for path in src.glob("*/*0003.nii.gz"):
        path.unlink()
    code, output, _ = call("btcv", src, out)
    assert code == 0
    assert "0 left out" in output


def test_mistakes_on_the_command_line_are_one_line(
    src: Path, tmp_path: Path, call: Callable[..., tuple[int, str, str]]
) -> None:
    for arguments, words in (
        (("btcv", tmp_path / "none", tmp_path / "out"), "no such folder"),
        (("amos22", src, tmp_path / "out"), "looked for imagesTr/ and labelsTr/, found img, label"),
        (("mmwhs", src, tmp_path / "out", "--modality", "PET"), "unknown modality 'PET'"),
        (("btcv", src, tmp_path / "out", "--validation", "0.6", "--test", "0.6"), "together at most 1"),
        (("nnunet", src, tmp_path / "out", "--modality", "CT", "--task", "knee"), "unknown task 'knee'"),
    ):
        code, _, error = call(*arguments)
        assert code == 1
        assert words in error
        assert error.count("\n") == 0
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["amos22", "btcv", "chaos", "mmwhs", "nnunet", "totalsegmentator", "pair"])
def test_every_set_has_help(name: str, call: Callable[..., tuple[int, str, str]]) -> None:
    code, output, _ = call(name, "--help")
    assert code == 0
    assert "OUT" in output.upper()
