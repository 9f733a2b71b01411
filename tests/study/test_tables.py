"""Tables and figures from hand-made rows."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from fedmodal.data.dataset import Split, new_dataset
from fedmodal.study.figures import write_figures
from fedmodal.study.order import make_order
from fedmodal.study.plan import SMOKE, Cell
from fedmodal.study.results import Row, collect, mean_dice, rows_of, write_results, write_rows
from fedmodal.study.statistics import Estimate
from fedmodal.study.tables import compare, markdown, show, write_tables
from fedmodal.study.work import slice_with_most
from fedmodal.tasks import ABDOMEN, Modality
from fedmodal.training.metrics import PatientScore
from tests.study.conftest import MakeRow


@pytest.fixture
def rows(make_row: MakeRow) -> list[Row]:
    """Two arms, two patients, liver and spleen; the second patient has no spleen. GIN first."""
    made = []
    for arm, better in (("gin", 0.2), ("none", 0.0)):
        for regime, trained_on in (("federated", "CT+MRI"), ("pooled", "CT+MRI"), ("alone_ct", "CT")):
            about = {"regime": regime, "trained_on": trained_on}
            made += [
                make_row(arm, "p1", "liver", 0.5 + better, **about),
                make_row(arm, "p1", "spleen", 0.3 + better, **about),
                make_row(arm, "p2", "liver", 0.5 + better, **about),
                make_row(arm, "p2", "spleen", None, invented=arm == "none", **about),
            ]
    return made


def table_after(text: str, heading: str) -> list[list[str]]:
    """The cells of the table that follows a heading."""
    lines = text[text.index(heading) :].splitlines()[2:]
    table = []
    for line in lines:
        if not line.startswith("|"):
            break
        table.append([cell.strip() for cell in line.strip("|").split("|")])
    return table


def test_table_has_organs_in_the_task_s_order_and_arms_in_the_study_s(rows: list[Row]) -> None:
    table = table_after(markdown(compare(rows), "x"), "### abdomen, federated, tested on MRI: 2 patients")
    assert table[0] == ["arm", "spleen", "liver", "mean", "less gin"]
    assert [line[0] for line in table[2:]] == ["none", "gin"]
    assert table[2][1] == "0.300 [0.300, 0.300]"  # of the one patient who has a spleen
    assert table[2][3].startswith("0.400")  # (0.3 + 0.5) / 2, not a mean over the three values
    assert table[2][4].startswith("-0.200 [-0.200, -0.2")
    assert table[3][4] == ""


def test_unseen_modality_is_marked(rows: list[Row]) -> None:
    text = markdown(compare(rows), "x")
    assert "### abdomen, alone_ct, tested on MRI (unseen)" in text
    assert "### abdomen, pooled, tested on MRI:" in text


def test_ratio_table(rows: list[Row]) -> None:
    table = table_after(markdown(compare(rows), "x"), "## abdomen: federated relative to pooled")
    assert table[0] == ["regime", "tested on", "none", "gin"]
    assert [line[:2] for line in table[2:]] == [["federated", "MRI"]]
    assert table[2][2].startswith("1.000")


def test_summary_csv_says_what_the_markdown_says(rows: list[Row], tmp_path: Path) -> None:
    write_tables(compare(rows), "x", tmp_path)
    with (tmp_path / "summary.csv").open(newline="") as file:
        found = {(row["regime"], row["arm"], row["organ"]): row for row in csv.DictReader(file)}
    assert len(found) == 3 * 2 * 3
    row = found["federated", "none", "mean"]
    assert float(row["dice"]) == pytest.approx(0.4)
    assert float(row["less_gin"]) == pytest.approx(-0.2)
    assert found["federated", "gin", "mean"]["less_gin"] == ""


def test_a_heart_has_no_mean_beside_its_one_organ(make_row: MakeRow) -> None:
    rows = [make_row("gin", "p1", "heart", 0.9, task="heart")]
    table = table_after(markdown(compare(rows), "x"), "### heart, federated")
    assert table[0] == ["arm", "heart", "less gin"]
    assert table[2] == ["gin", "0.900", ""]


def test_show() -> None:
    assert show(Estimate(0.5, 0.25, 0.75)) == "0.500 [0.250, 0.750]"
    assert show(Estimate(0.5, None, None), signed=True) == "+0.500"
    assert show(Estimate(float("nan"), None, None)) == "-"


def test_absent_organ_is_an_empty_cell_and_keeps_its_flag(rows: list[Row], tmp_path: Path) -> None:
    write_results(rows, tmp_path / "results.csv")
    with (tmp_path / "results.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert len(read) == len(rows)
    absent = [(row["arm"], row["invented"]) for row in read if row["dice"] == ""]
    assert absent == [("gin", "0")] * 3 + [("none", "1")] * 3


def test_rows_of_scores(tmp_path: Path) -> None:
    """NaN becomes None; organs that the data set does not outline are left out."""
    organs = ("spleen", "liver")
    dataset = new_dataset(tmp_path / "amos", ABDOMEN, Modality.MRI, (), name="x", annotated=organs)
    score = PatientScore("p7", np.array([np.nan, 0, 0, 0, 0.5, 0]), np.array([True] + [False] * 5))
    order = make_order(SMOKE, Cell("abdomen", "gin", "alone_ct", 42), {}, ())
    found = rows_of(order, dataset, [score])
    assert [(row.organ, row.dice, row.invented) for row in found] == [
        ("spleen", None, True),
        ("liver", 0.5, False),
    ]
    assert {(row.patient, row.modality, row.trained_on) for row in found} == {("amos/p7", "MRI", "CT")}


def test_finished_cells_are_collected(rows: list[Row], tmp_path: Path) -> None:
    for number, some in enumerate((rows[:5], rows[5:])):
        (tmp_path / f"cell-{number}").mkdir()
        write_rows(some, 1.5, tmp_path / f"cell-{number}" / "rows.json")
    (tmp_path / "unfinished").mkdir()
    assert collect(tmp_path) == rows


def test_mean_dice_is_over_organs_of_over_patients(rows: list[Row]) -> None:
    some = [row for row in rows if row.arm == "none" and row.regime == "pooled"]
    assert mean_dice(some) == {"MRI": pytest.approx(0.4)}


def test_slice_with_most_organs() -> None:
    """Slices 1 and 2 hold two organs; the rarer one is larger in slice 2. Background counts nothing."""
    voxels = np.array([[900, 0, 90], [10, 1, 50], [20, 5, 6], [0, 0, 0]])
    assert slice_with_most(voxels) == 2


def test_figures_are_small_and_complete(rows: list[Row], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for arm in ("none", "gin"):
        cell = tmp_path / "cells" / Cell("abdomen", arm, "federated", 1).name
        cell.mkdir(parents=True)
        arrays = {
            "image MRI": rng.integers(0, 255, (128, 128), np.uint8),
            "truth MRI": np.zeros((128, 128), np.uint8),
            "prediction MRI": np.full((128, 128), 5, np.uint8),
        }
        np.savez_compressed(cell / "example.npz", allow_pickle=False, **arrays)
    written = write_figures(compare(rows), tmp_path / "cells", tmp_path / "figures")
    assert {path.name for path in written} == {
        "slices_abdomen_federated.png",
        *(f"bars_abdomen_{regime}.png" for regime in ("alone_ct", "pooled", "federated")),
    }
    for path in written:
        assert path.stat().st_size < 150_000
        with Image.open(path) as image:
            assert image.width > 400


def test_smoke_study_has_intervals() -> None:
    assert SMOKE.phantoms is not None
    assert SMOKE.phantoms[Split.TEST] >= 2, "an interval needs two patients"
