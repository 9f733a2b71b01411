"""The data of a study: who trains where, and that nobody is tested who was trained on."""

from pathlib import Path

import pytest

from fedmodal.data.dataset import Case, Dataset, Split, new_dataset, read_dataset, write_dataset
from fedmodal.data.store import open_store
from fedmodal.errors import UserError
from fedmodal.study.data import Sets, link_sites, phantom_sets, read_sets, refuse_shared_images, sample_sets
from fedmodal.study.plan import REGIMES
from fedmodal.tasks import ABDOMEN, HEART, Modality

COUNTS = {Split.TRAIN: 4, Split.VALIDATION: 2, Split.TEST: 1}


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The heart's phantoms for all regimes: a smaller body than the abdomen's."""
    folder = tmp_path_factory.mktemp("study") / "heart"
    phantom_sets(HEART, COUNTS, REGIMES, folder, lambda *_: None)
    return folder


def images(datasets: list[Dataset], *splits: Split) -> list[bytes]:
    return [
        one.image_path(case).read_bytes() for one in datasets for split in splits for case in one.split(split)
    ]


def sites_of(phantoms: Path, regime: str, tmp_path: Path) -> list[Dataset]:
    return link_sites(read_sets(phantoms, HEART), regime, HEART, tmp_path / regime)


@pytest.mark.parametrize("regime", REGIMES)
def test_no_test_patient_is_among_a_regime_s_training_patients(
    phantoms: Path, tmp_path: Path, regime: str
) -> None:
    sites = sites_of(phantoms, regime, tmp_path)
    tests = [one for sets in read_sets(phantoms, HEART).test.values() for one in sets]
    trained = images(sites, Split.TRAIN, Split.VALIDATION)
    tested = images(tests, Split.TEST)
    assert len(tested) == 2
    assert len(set(trained)) == len(trained), "a patient at two sites"
    assert not set(trained) & set(tested)
    refuse_shared_images(sites, tests, tmp_path)


def test_every_federated_regime_has_as_many_training_patients(phantoms: Path, tmp_path: Path) -> None:
    counts = {
        regime: sum(len(site.split(Split.TRAIN)) for site in sites_of(phantoms, regime, tmp_path))
        for regime in REGIMES
        if regime.startswith(("federated", "pooled"))
    }
    assert set(counts.values()) == {8}


def test_four_sites_share_out_the_patients_of_two(phantoms: Path, tmp_path: Path) -> None:
    two, four = (sites_of(phantoms, regime, tmp_path) for regime in ("federated", "federated_4"))
    assert [len(site.split(Split.TRAIN)) for site in four] == [3, 1, 2, 2]
    assert set(images(two, Split.TRAIN)) == set(images(four, Split.TRAIN))


def test_a_site_opens_as_any_data_set_does(phantoms: Path, tmp_path: Path, cache: Path) -> None:
    site = sites_of(phantoms, "alone_mri", tmp_path)[0]
    store = open_store(read_dataset(site.folder), cache)
    assert store.modality == Modality.MRI
    assert [case.split for case in store.cases] == [Split.TRAIN] * 4 + [Split.VALIDATION]


def test_phantoms_are_made_once(phantoms: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in phantoms.rglob("*.gz")}
    phantom_sets(HEART, COUNTS, REGIMES, phantoms, lambda *_: None)
    assert {path: path.stat().st_mtime_ns for path in phantoms.rglob("*.gz")} == before


def test_a_test_image_that_is_trained_on_is_refused(phantoms: Path, tmp_path: Path) -> None:
    """Under another file name and in another data set."""
    site = sites_of(phantoms, "alone_ct", tmp_path)[0]
    (tmp_path / "other").mkdir()
    for name in ("image", "label"):
        source = site.image_path(site.cases[0]) if name == "image" else site.label_path(site.cases[0])
        (tmp_path / "other" / f"{name}.nii.gz").write_bytes(source.read_bytes())
    case = Case(image=Path("image.nii.gz"), label=Path("label.nii.gz"), patient="stranger", split=Split.TEST)
    other = new_dataset(tmp_path / "other", HEART, Modality.CT, (case,), name="other")
    write_dataset(other)
    with pytest.raises(UserError, match=r"other/image\.nii\.gz: a test image that is trained on"):
        refuse_shared_images([site], [other], tmp_path)


def test_a_missing_second_data_set_is_named(phantom_sites: Path, tmp_path: Path) -> None:
    sets = read_sets(phantom_sites, ABDOMEN)
    with pytest.raises(UserError, match=r"regime 'federated_ct'.*needs 2 CT.*found 1.*--regimes"):
        link_sites(sets, "federated_ct", ABDOMEN, tmp_path)


def test_a_data_set_without_the_other_modality(tmp_path: Path) -> None:
    nothing = Sets({Modality.CT: (), Modality.MRI: ()}, {})
    with pytest.raises(UserError, match="needs 1 CT"):
        link_sites(nothing, "federated", ABDOMEN, tmp_path)


def test_a_folder_without_data_sets(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no data set for task 'heart'"):
        read_sets(tmp_path, HEART)


def test_sample_pairs_become_a_set_to_train_and_one_to_test(realdata: Path, tmp_path: Path) -> None:
    sample_sets(realdata / "abdomen", tmp_path / "sets")
    sets = read_sets(tmp_path / "sets", ABDOMEN)
    for modality in Modality:
        assert [len(one.cases) for one in sets.train[modality]] == [1]
        assert [len(one.cases) for one in sets.test[modality]] == [1]


def test_missing_sample_pair_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no ct_image\.nii\.gz here"):
        sample_sets(tmp_path, tmp_path / "sets")
    assert not (tmp_path / "sets").exists()
