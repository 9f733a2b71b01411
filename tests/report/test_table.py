from pathlib import Path

import pytest

from fedmodal.errors import UserError
from fedmodal.report.progress import describe_contribution, describe_round
from fedmodal.report.record import RunRecord, find_record, read_record, write_record
from fedmodal.report.table import render_text
from fedmodal.report.warnings import warnings_of


def test_table_shows_each_model_on_each_site(record: RunRecord) -> None:
    text = render_text(record, Path("run/fedmodal_run.json"))
    row = next(line for line in text.splitlines() if "liver" in line)
    assert row.split()[1:-1] == ["liver", "│", "2", "│", "0.800", "│", "0.700", "│", "0.900"]
    assert "site-1 (CT): 3D Dice on 2 test patients" in text
    assert "best global model after round 1 (val_dice 0.600)" in text


def test_absent_organ_is_shown_as_absent(record: RunRecord) -> None:
    text = render_text(record, Path("run/fedmodal_run.json"))
    row = next(line for line in text.splitlines() if "gallbladder" in line)
    assert row.split()[1:5] == ["gallbladder", "│", "0", "│"]
    assert row.split()[5] == "-"


def test_warnings_name_what_a_reader_must_know(record: RunRecord) -> None:
    found = "\n".join(warnings_of(record))
    assert "round 2 went without site-2" in found
    assert "site-2 has no test patients: its Dice is from train patients" in found
    assert "gallbladder predicted in 1 of 2 patients without it" in found


def test_missing_best_model_is_a_warning(record: RunRecord) -> None:
    without = record.model_copy(update={"best_round": None, "best_dice": None})
    assert any("no best global model" in line for line in warnings_of(without))


def test_progress_lines(record: RunRecord) -> None:
    line = describe_contribution(record, 0, "site-1")
    assert "round 1/4  site-1 (CT)  loss 1.250  Dice global 0.500, local 0.600  100 slices, 10 s" in line
    done = describe_round(record, 1)
    assert "with 1 site, WITHOUT site-2" in done
    assert "2 min of training left" in done


def test_record_survives_the_file(record: RunRecord, tmp_path: Path) -> None:
    (tmp_path / "server/run").mkdir(parents=True)
    write_record(record, tmp_path / "server/run")
    assert read_record(find_record(tmp_path)) == record


def test_no_run_and_two_runs(record: RunRecord, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no fedmodal_run\.json in it"):
        find_record(tmp_path)
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write_record(record, tmp_path / name)
    with pytest.raises(UserError, match="holds 2 runs"):
        find_record(tmp_path)


def test_a_training_without_a_federation_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(UserError, match="a training without a federation"):
        find_record(tmp_path)


def test_damaged_record(tmp_path: Path) -> None:
    path = tmp_path / "fedmodal_run.json"
    path.write_text('{"job": ')
    with pytest.raises(UserError, match="not a run's record"):
        read_record(path)
