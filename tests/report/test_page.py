"""The written report: complete, self-contained, and the same in HTML and in Markdown."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fedmodal.errors import UserError
from fedmodal.report.document import Table
from fedmodal.report.page import Material, as_markdown, write_report
from fedmodal.report.record import EvaluationRecord, RunRecord

VOID = {"meta", "input", "br", "img", "link"}


class Page(HTMLParser):
    """Tags that are open at the end or closed out of order, headings, ids, and what is not right to have."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.headings: list[int] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.faults: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag not in VOID:
            self.open.append(tag)
        if re.fullmatch(r"h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if "id" in found and "svg" not in self.open:
            self.ids.append(str(found["id"]))
        self.links += [str(found[name]) for name in ("href", "src", "xlink:href") if name in found]
        if tag == "img" and not found.get("alt"):
            self.faults.append("a picture without words")
        if tag == "th" and "scope" not in found:
            self.faults.append("a heading cell without a scope")
        if tag == "svg" and not (found.get("role") == "img" and found.get("aria-label")):
            self.faults.append("a drawing without words")

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> out of place")


def written(record: RunRecord, out: Path, pooled: list[tuple[str, EvaluationRecord]] | None = None) -> str:
    html, markdown = write_report(Material(record, (), pooled or []), out)
    assert markdown.parent == html.parent == out
    return html.read_text(encoding="utf-8")


def test_the_page_stands_alone(record: RunRecord, tmp_path: Path) -> None:
    text = written(record, tmp_path)
    page = Page(text)
    assert all(link.startswith(("#", "data:")) for link in page.links)
    assert "default-src 'none'" in text
    assert "url(" not in re.sub(r"url\(#[^)]*\)", "", text)


def test_the_page_is_well_formed_and_can_be_read_aloud(record: RunRecord, tmp_path: Path) -> None:
    page = Page(written(record, tmp_path))
    assert page.faults == []
    assert page.open == []
    assert len(page.ids) == len(set(page.ids))
    assert page.headings[0] == 1
    assert all(after <= before + 1 for before, after in zip(page.headings, page.headings[1:], strict=False))


def test_both_pages_hold_the_figures_and_the_warnings(record: RunRecord, tmp_path: Path) -> None:
    html = written(record, tmp_path)
    markdown = (tmp_path / "report.md").read_text()
    for text in (html, markdown):
        assert "round 2 went without site-2" in text
        assert "0.800 on CT (2 test patients of 1 site)" in text
        assert "0.750 on MRI (2 train patients of 1 site)" in text
    assert '<th scope="row">liver</th><td>2</td><td>0.800</td><td>0.700</td><td>0.900</td>' in html
    assert "| liver | 2 | 0.800 | 0.700 | 0.900 |" in markdown
    assert "| site-1 (CT) | 0.800 | 0.900 | -0.100 | liver 0.800 |" in markdown
    assert "0.050 apart" in markdown


def test_absence_and_refusal_are_told_round_by_round(record: RunRecord, tmp_path: Path) -> None:
    record.rounds[0].sites["site-1"].accepted = False
    written(record, tmp_path)
    markdown = (tmp_path / "report.md").read_text()
    assert "| 1 | site-1 | not accepted | 100 |" in markdown
    assert "| 2 | site-2 | absent | - |" in markdown
    assert "| site-1 | CT | patients: 3 train, 1 validation, 2 test | 1 of 2 | 100 | 50 % |" in markdown


def test_pooled_training_is_a_column_by_modality(record: RunRecord, tmp_path: Path) -> None:
    ct, mri = record.evaluation["site-1"]["site-1"], next(iter(record.evaluation["site-2"].values()))
    written(record, tmp_path, [("ours", ct), ("theirs", mri), ("more", ct.model_copy(update={"mean": 0.7}))])
    markdown = (tmp_path / "report.md").read_text()
    assert "| site | global | site's own | pooled | gain on own | worst organ |" in markdown
    assert "| site-1 (CT) | 0.800 | 0.900 | 0.800 | -0.100 | liver 0.800 |" in markdown  # (0.9 + 0.7) / 2
    assert "| site-2 (MRI) | 0.750 | - | 0.750 | - | liver 0.750 |" in markdown


def test_names_cannot_bring_code_in(record: RunRecord, tmp_path: Path) -> None:
    bad = "<script>alert(1)</script>"
    text = written(record.model_copy(update={"job": bad, "submitter": bad, "refusals": [bad]}), tmp_path)
    assert bad not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text


def test_a_site_name_cannot_break_a_drawing(record: RunRecord, tmp_path: Path) -> None:
    text = record.model_dump_json().replace("site-2", "site<&2")
    assert Page(written(RunRecord.model_validate_json(text), tmp_path)).faults == []


def test_colours_follow_the_theme(record: RunRecord, tmp_path: Path) -> None:
    text = written(record, tmp_path)
    assert "var(--series-1)" in text
    assert "#0a0" not in text


@pytest.mark.parametrize("without", [{"evaluation": {}}, {"evaluation": {}, "rounds": {}, "sites": {}}])
def test_a_run_that_did_not_get_far(record: RunRecord, tmp_path: Path, without: dict[str, object]) -> None:
    text = written(record.model_copy(update={"best_round": None} | without), tmp_path)
    assert "No model has been tested in this run." in text
    assert Page(text).faults == []


def test_pages_are_written_whole_or_not_at_all(record: RunRecord, tmp_path: Path) -> None:
    (tmp_path / "report.html").mkdir()
    with pytest.raises(UserError, match=r"report.html: cannot be written \(.*\); make room or name another"):
        write_report(Material(record, (), []), tmp_path)
    assert not list(tmp_path.glob(".partial*"))


def test_markdown_table() -> None:
    table = Table("t", ("organ", "Dice", "note"), (("a|b", "0.5", "good"), ("all", "0.5", "")), total=True)
    assert as_markdown(table).splitlines() == [
        "| organ | Dice | note |",
        "| --- | ---: | --- |",
        "| a\\|b | 0.5 | good |",
        "| **all** | **0.5** |  |",
    ]
