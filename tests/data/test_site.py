from collections.abc import Callable
from pathlib import Path

import pytest

from fedmodal.data.dataset import Dataset
from fedmodal.data.site import SiteFile, find_dataset, phantoms_for, read_site_file
from fedmodal.errors import UserError
from fedmodal.tasks import ABDOMEN, HEART, Modality

Make = Callable[..., Dataset]


@pytest.fixture(autouse=True)
def no_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FEDMODAL_DATA", raising=False)


def test_variable_names_the_folder_or_its_parent(make_dataset: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_dataset(name="site-1").folder
    for value in (folder, folder.parent):
        monkeypatch.setenv("FEDMODAL_DATA", str(value))
        assert find_dataset("site-1", ABDOMEN, SiteFile(), value, simulator=False).folder == folder


def test_variable_comes_before_the_site_file(make_dataset: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = make_dataset(name="a").folder, make_dataset(name="b").folder
    monkeypatch.setenv("FEDMODAL_DATA", str(first))
    assert find_dataset("s", ABDOMEN, SiteFile(data=second), first, simulator=False).folder == first


def test_wrong_variable_says_what_was_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FEDMODAL_DATA", str(tmp_path))
    with pytest.raises(UserError, match=r"found neither dataset.json nor site-9/dataset.json"):
        find_dataset("site-9", ABDOMEN, SiteFile(), tmp_path, simulator=True)


def test_provisioned_site_without_data_stops(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"site 'site-1' has no data: set FEDMODAL_DATA or"):
        find_dataset("site-1", ABDOMEN, SiteFile(), tmp_path, simulator=False)


def test_data_set_of_another_task_is_refused(make_dataset: Make, tmp_path: Path) -> None:
    site_file = SiteFile(data=make_dataset(task=ABDOMEN).folder)
    with pytest.raises(UserError, match="is for task 'abdomen', the job trains 'heart'"):
        find_dataset("s", HEART, site_file, tmp_path, simulator=False)


def test_phantoms_are_made_once_odd_ct_even_mri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fedmodal.data import site
    from fedmodal.data.dataset import Split

    monkeypatch.setattr(site, "PHANTOM_COUNTS", {Split.TRAIN: 1, Split.VALIDATION: 0, Split.TEST: 0})
    made = {name: phantoms_for(name, ABDOMEN, tmp_path) for name in ("site-1", "site-2")}
    assert [dataset.modality for dataset in made.values()] == [Modality.CT, Modality.MRI]
    assert all(dataset.synthetic for dataset in made.values())
    image = made["site-1"].image_path(made["site-1"].cases[0])
    stamp = image.stat().st_mtime_ns
    assert phantoms_for("site-1", ABDOMEN, tmp_path) == made["site-1"]
    assert image.stat().st_mtime_ns == stamp


@pytest.mark.parametrize(
    ("text", "message"), [("{", "not readable as JSON"), ('{"dat": "/x"}', "dat: Extra inputs")]
)
def test_broken_site_file(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "fedmodal.json").write_text(text)
    with pytest.raises(UserError, match=message):
        read_site_file(tmp_path)
