"""BTCV (Synapse "Beyond the Cranial Vault", abdomen): `img/img0001.nii.gz` with `label/label0001.nii.gz`."""

from pathlib import Path

from fedmodal.data.convert.source import (
    LabelTable,
    Naming,
    Source,
    nifti_cases,
    nifti_files,
    not_this_set,
)
from fedmodal.tasks import ABDOMEN, Modality

_IDS = {"spleen": 1, "right kidney": 2, "left kidney": 3, "gallbladder": 4, "liver": 6, "pancreas": 11}
_DOCUMENTED = range(14)
_ROOTS = (".", "Training", "RawData/Training", "Abdomen/RawData/Training")
_FOLDERS = (("img", "label"), ("imagesTr", "labelsTr"))


def btcv(src: Path) -> Source:
    """The training part of BTCV, CT, labels of the abdomen task; its test part has no labels.

    Args:
        src: folder with `img` and `label`, or `imagesTr` and `labelsTr`, or `RawData` above them.

    Raises:
        UserError: not such a folder.
    """
    images, labels = _files(src)
    table = LabelTable.of(_IDS, ABDOMEN, _DOCUMENTED)
    cases, left = nifti_cases(images, labels, table, Naming("img{}.nii.gz", "label{}.nii.gz", "img{}"))
    return Source("btcv", src, ABDOMEN, Modality.CT, cases, left=left)


def _files(src: Path) -> tuple[dict[str, Path], dict[str, Path]]:
    """Images and label maps by their number."""
    for root in _ROOTS:
        for image_folder, label_folder in _FOLDERS:
            images = _numbered(src / root / image_folder, "img")
            labels = _numbered(src / root / label_folder, "label")
            if images:
                return images, labels
    raise not_this_set(src, "img/img0001.nii.gz and label/label0001.nii.gz")


def _numbered(folder: Path, prefix: str) -> dict[str, Path]:
    files = nifti_files(folder)
    return {name.removeprefix(prefix): path for name, path in files.items() if name.startswith(prefix)}
