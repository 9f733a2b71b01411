"""Synthetic patients: reproducible, plausible, where they should be, and never half written."""

from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from fedmodal.data import phantom
from fedmodal.data.anatomy import Grid, draw_person, smooth_field
from fedmodal.data.atlas import ORGAN_TISSUES, Tissue
from fedmodal.data.contrast import Phase, Sequence, render_ct, render_mri
from fedmodal.data.dataset import Dataset, Split, read_dataset
from fedmodal.data.phantom import make_phantom, write_phantoms
from fedmodal.errors import UserError
from fedmodal.tasks import ABDOMEN, HEART, TASKS, Modality

# Millilitres between which an organ of an adult lies.
VOLUMES = {
    "spleen": (50, 400),
    "right kidney": (80, 320),
    "left kidney": (80, 320),
    "gallbladder": (12, 80),
    "liver": (1000, 2300),
    "pancreas": (45, 160),
    "heart": (280, 1000),
}
COUNTS = {Split.TRAIN: 1, Split.VALIDATION: 1, Split.TEST: 1}


@dataclass
class Opened:
    """A case read back from its files, turned so that the axes run right to left, front to back, up."""

    image: np.ndarray
    label: np.ndarray
    affine: np.ndarray
    axes: tuple[str, ...]

    def centre(self, organ: str) -> np.ndarray:
        """The organ's centre in the scanner's millimetres: x to the left, y to the back, z up."""
        index = np.argwhere(self.label == ABDOMEN.labels[organ]).mean(0)
        return nib.affines.apply_affine(self.affine, index) * [-1, -1, 1]


def _open(dataset: Dataset) -> list[Opened]:
    opened = []
    for case in dataset.cases:
        image, label = (nib.load(path(case)) for path in (dataset.image_path, dataset.label_path))
        np.testing.assert_array_equal(image.affine, label.affine)
        voxels, organs = np.asarray(image.dataobj), np.asarray(label.dataobj)
        opened.append(Opened(voxels, organs, image.affine, nib.aff2axcodes(image.affine)))
    return opened


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> dict[Modality, Dataset]:
    folder = tmp_path_factory.mktemp("phantoms")
    return {m: write_phantoms(folder / m.lower(), ABDOMEN, m, COUNTS, seed=5) for m in Modality}


@pytest.fixture(scope="module")
def opened(datasets: dict[Modality, Dataset]) -> dict[Modality, list[Opened]]:
    return {modality: _open(dataset) for modality, dataset in datasets.items()}


def test_data_set_reads_back_and_says_what_it_is(datasets: dict[Modality, Dataset]) -> None:
    for modality, dataset in datasets.items():
        assert read_dataset(dataset.folder) == dataset
        assert dataset.modality is modality
        assert "synthetic" in dataset.name
        assert "no image of a real patient" in dataset.description
        assert [case.split for case in dataset.cases] == list(Split)
        assert dataset.cases[0].patient == f"phantom-{modality.lower()}-001"


def test_patients_depend_on_seed_and_index_only(datasets: dict[Modality, Dataset]) -> None:
    for modality, dataset in datasets.items():
        again = make_phantom(ABDOMEN, modality, 5, 2)
        stored = nib.load(dataset.image_path(dataset.cases[2]))
        np.testing.assert_array_equal(phantom._nifti(again, again.image).dataobj, stored.dataobj)
        np.testing.assert_allclose(phantom._nifti(again, again.image).affine, stored.affine, rtol=1e-6)


def test_another_seed_is_another_patient() -> None:
    one, other = (make_phantom(HEART, Modality.CT, seed, 0) for seed in (1, 2))
    assert one.grid != other.grid


def test_files_of_a_patient_are_the_same_whatever_the_counts(
    datasets: dict[Modality, Dataset], tmp_path: Path
) -> None:
    alone = write_phantoms(tmp_path / "alone", ABDOMEN, Modality.CT, {Split.TEST: 1}, seed=5)
    for path in (alone.cases[0].image, alone.cases[0].label):
        assert (alone.folder / path).read_bytes() == (datasets[Modality.CT].folder / path).read_bytes()


def test_ct_and_mri_patients_are_different_people(opened: dict[Modality, list[Opened]]) -> None:
    for ct, mri in zip(opened[Modality.CT], opened[Modality.MRI], strict=True):
        ct_apart = ct.centre("spleen") - ct.centre("liver")
        mri_apart = mri.centre("spleen") - mri.centre("liver")
        assert np.abs(ct_apart - mri_apart).max() > 1


def test_organs_have_the_volumes_of_a_person(opened: dict[Modality, list[Opened]]) -> None:
    for case in (case for cases in opened.values() for case in cases):
        millilitres = abs(np.linalg.det(case.affine[:3, :3])) / 1000
        for organ in ABDOMEN.organs:
            volume = (case.label == organ.id).sum() * millilitres
            low, high = VOLUMES[organ.name]
            assert low < volume < high or (organ.name == "gallbladder" and volume == 0), organ.name


def test_organs_lie_on_the_right_side(opened: dict[Modality, list[Opened]]) -> None:
    for case in (case for cases in opened.values() for case in cases):
        liver, spleen = case.centre("liver"), case.centre("spleen")
        right, left = case.centre("right kidney"), case.centre("left kidney")
        assert liver[0] < right[0] + 25 < left[0] < spleen[0]
        assert right[0] + 60 < left[0]
        assert max(right[2], left[2]) < min(liver[2], spleen[2])
        assert case.centre("pancreas")[1] < min(right[1], left[1])  # in front of the kidneys


def test_columns_run_from_right_to_left() -> None:
    made = make_phantom(ABDOMEN, Modality.MRI, 5, 0)
    slices, rows, columns = (
        [
            np.nonzero(made.label == ABDOMEN.labels[name])[axis].mean()
            for name in ("liver", "spleen", "right kidney")
        ]
        for axis in range(3)
    )
    assert columns[0] < columns[1]
    assert slices[2] < slices[0]
    assert rows[0] < rows[2]


def test_header_orientations_differ(opened: dict[Modality, list[Opened]]) -> None:
    axes = {case.axes for cases in opened.values() for case in cases}
    assert len(axes) >= 3
    assert all(np.abs(case.affine[:3, 3]).max() > 5 for cases in opened.values() for case in cases)


def test_ct_is_in_hounsfield_units(opened: dict[Modality, list[Opened]]) -> None:
    for case in opened[Modality.CT]:
        assert case.image.dtype == np.int16
        assert np.percentile(case.image, 5) <= -900
        liver = case.image[case.label == ABDOMEN.labels["liver"]]
        assert 35 < np.median(liver) < 140
        assert 300 < case.image.max() <= 3000


def test_mri_is_not_in_hounsfield_units(opened: dict[Modality, list[Opened]]) -> None:
    peaks = [case.image.max() for case in opened[Modality.MRI]]
    assert all(300 <= peak <= 3000 for peak in peaks)
    assert len(set(peaks)) == len(peaks)  # every scanner has a scale of its own
    assert all(case.image.min() >= 0 and case.image.dtype == np.int16 for case in opened[Modality.MRI])


def test_slices_are_thicker_than_the_plane_is_fine(opened: dict[Modality, list[Opened]]) -> None:
    for case in (case for cases in opened.values() for case in cases):
        steps = sorted(np.linalg.norm(case.affine[:3, :3], axis=0))
        assert steps[0] == pytest.approx(steps[1])
        assert 2.2 <= steps[0] <= 3
        assert 5 <= steps[2] <= 8


@pytest.mark.parametrize("modality", list(Modality))
def test_no_interval_of_intensities_is_an_organ(
    modality: Modality, opened: dict[Modality, list[Opened]]
) -> None:
    scores = {
        organ.name: [
            _best_interval_dice(_windowed(case.image, modality), case.label == organ.id)
            for case in opened[modality]
            if (case.label == organ.id).any()
        ]
        for organ in ABDOMEN.organs
    }
    for name, reached in scores.items():
        mean_bound, bound = (0.75, 0.85) if name == "liver" else (0.5, 0.75)  # the liver outweighs its like
        assert np.mean(reached) < mean_bound, name
        assert max(reached) < bound, name


def _windowed(image: np.ndarray, modality: Modality) -> np.ndarray:
    """As the task brings intensities to 0..1."""
    low, high = ABDOMEN.ct.low, ABDOMEN.ct.high
    if modality is Modality.MRI:
        low, high = np.percentile(image, (ABDOMEN.mri.low, ABDOMEN.mri.high))
    return np.clip((image - low) / (high - low), 0, 1)


def _best_interval_dice(image: np.ndarray, mask: np.ndarray, bins: int = 40) -> float:
    inside, everywhere = (
        np.r_[0, np.histogram(values, bins, (0, 1))[0].cumsum()] for values in (image[mask], image)
    )
    low, high = np.triu_indices(bins + 1, 1)
    hits, marked = inside[high] - inside[low], everywhere[high] - everywhere[low]
    return float((2 * hits / (marked + mask.sum()).clip(1)).max())


def test_best_interval_of_a_separable_organ_is_found() -> None:
    image = np.repeat([0.1, 0.5, 0.9], 10)
    assert _best_interval_dice(image, image == 0.5) == 1
    assert _best_interval_dice(np.full(30, 0.5), np.arange(30) < 10) == pytest.approx(
        0.5
    )  # 2 * 10 / (30 + 10)


def test_fat_is_dark_in_ct_and_bright_in_mri() -> None:
    grid = Grid((6, 48, 48), (5.0, 3.0, 3.0), (0.0, -72.0, -72.0))
    tissue = np.full(grid.shape, Tissue.FAT, np.uint8)
    tissue[:, :, 24:] = Tissue.LIVER

    def contrast(image: np.ndarray) -> float:
        return float(image[:, :, :20].mean() / image[:, :, 28:].mean())

    rng = np.random.default_rng(0)
    assert contrast(render_mri(tissue, grid, Sequence.T1, rng)) > 1.2
    assert contrast(render_mri(tissue, grid, Sequence.T2, rng)) > 1.2
    assert render_ct(tissue, grid, Phase.NATIVE, rng)[:, :, :20].mean() == pytest.approx(-104, abs=20)


def test_phases_enhance_what_they_should() -> None:
    grid = Grid((4, 40, 40), (5.0, 3.0, 3.0), (0.0, -60.0, -60.0))
    medians = {
        (phase, tissue): np.median(
            render_ct(np.full(grid.shape, tissue, np.uint8), grid, phase, np.random.default_rng(1))
        )
        for phase in Phase
        for tissue in (Tissue.ARTERY, Tissue.LIVER, Tissue.GALLBLADDER)
    }
    assert medians[Phase.ARTERIAL, Tissue.ARTERY] > medians[Phase.PORTAL, Tissue.ARTERY] + 50
    assert medians[Phase.PORTAL, Tissue.LIVER] > medians[Phase.NATIVE, Tissue.LIVER] + 25
    assert medians[Phase.PORTAL, Tissue.GALLBLADDER] == pytest.approx(
        medians[Phase.NATIVE, Tissue.GALLBLADDER], abs=2
    )


@pytest.mark.parametrize("modality", list(Modality))
def test_heart_task_has_one_heart_left_of_the_middle(modality: Modality) -> None:
    made = make_phantom(HEART, modality, 3, 0)
    volume = (made.label == 1).sum() * np.prod(made.grid.spacing) / 1000
    assert VOLUMES["heart"][0] < volume < VOLUMES["heart"][1]
    assert set(np.unique(made.label)) == {0, 1}
    x = made.grid.axes[2][np.nonzero(made.label)[2]].mean()
    assert 0 < x < 45


def test_every_organ_of_every_task_has_tissues() -> None:
    named = {organ.name for task in TASKS.values() for organ in task.organs}
    assert named == set(ORGAN_TISSUES)
    tissues = [tissue for tissues in ORGAN_TISSUES.values() for tissue in tissues]
    assert len(tissues) == len(set(tissues))


def test_interrupted_run_leaves_nothing_that_looks_like_a_data_set(tmp_path: Path) -> None:
    folder = tmp_path / "site"

    def stop(done: int, _: int) -> None:
        # What a killed process would leave, for it cannot tidy up.
        assert not folder.exists()
        assert len(list(tmp_path.rglob("*.nii.gz"))) == 2 * done
        assert not list(tmp_path.rglob("dataset.json"))
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_phantoms(folder, HEART, Modality.MRI, {Split.TRAIN: 3}, seed=0, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_folder_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "scan.nii").touch()
    with pytest.raises(UserError, match="not empty; remove it or name another"):
        write_phantoms(tmp_path, ABDOMEN, Modality.CT, {Split.TRAIN: 1}, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["scan.nii"]


def test_folder_that_fills_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    folder = tmp_path / "site"

    def meanwhile(_: int, __: int) -> None:
        folder.mkdir()
        (folder / "scan.nii").touch()

    with pytest.raises(UserError, match="name another folder"):
        write_phantoms(folder, HEART, Modality.CT, {Split.TRAIN: 1}, seed=0, progress=meanwhile)
    assert [path.name for path in folder.iterdir()] == ["scan.nii"]


def test_progress_counts_to_the_end(tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    write_phantoms(
        tmp_path / "a", HEART, Modality.CT, {Split.TRAIN: 1, Split.TEST: 1}, 0, lambda *at: seen.append(at)
    )
    assert seen == [(1, 2), (2, 2)]


def test_smooth_field_has_mean_0_deviation_1_and_is_smooth() -> None:
    grid = Grid((60, 60, 60), (3.0, 3.0, 3.0), (0.0, 0.0, 0.0))
    field = smooth_field(np.random.default_rng(0), grid, 15.0)
    assert field.shape == grid.shape
    assert abs(field.mean()) < 0.2
    assert field.std() == pytest.approx(1, abs=0.1)
    assert np.diff(field, axis=1).std() < 0.3  # white noise: 1.41


def test_people_differ_in_habitus() -> None:
    fat = [draw_person(np.random.default_rng(seed)).fat for seed in range(50)]
    assert min(fat) < 10
    assert max(fat) > 25
