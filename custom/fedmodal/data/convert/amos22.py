"""AMOS22: `imagesTr/amos_0001.nii.gz` with `labelsTr/amos_0001.nii.gz`, and the same for `Va` and `Ts`."""

import re
from pathlib import Path

from fedmodal.data.convert.source import (
    LabelTable,
    Left,
    Source,
    SourceCase,
    first_folder,
    nifti_case,
    nifti_files,
)
from fedmodal.data.dataset import Split
from fedmodal.errors import UserError
from fedmodal.tasks import ABDOMEN, Modality

_IDS = {"spleen": 1, "right kidney": 2, "left kidney": 3, "gallbladder": 4, "liver": 6, "pancreas": 10}
_DOCUMENTED = range(16)
_LAST_CT = 500  # numbers above are MRI
_NUMBER = re.compile(r"amos_(\d+)")
# The labelled validation part is what publications test on; `Ts` has had no labels so far.
_PARTS = {"Tr": Split.TRAIN, "Va": Split.TEST, "Ts": Split.TEST}


def amos22(src: Path, modality: Modality) -> Source:
    """The CT or the MRI half of AMOS22, labels of the abdomen task.

    Args:
        src: folder with `imagesTr` and `labelsTr`.
        modality: by the number in a file's name: up to 0500 CT, above MRI.

    Raises:
        UserError: not such a folder, or no case of this modality.
    """
    root = first_folder(src, ("imagesTr", "amos22/imagesTr"), "imagesTr/ and labelsTr/").parent
    table = LabelTable.of(_IDS, ABDOMEN, _DOCUMENTED)
    cases: list[SourceCase] = []
    left: list[Left] = []
    others = 0
    for part, split in _PARTS.items():
        images, labels = nifti_files(root / f"images{part}"), nifti_files(root / f"labels{part}")
        for name in sorted(images | labels):
            found = _modality(name)
            if found not in (modality, None):
                others += 1
            elif problem := _missing(name, found, part, name in images, name in labels):
                left.append(problem)
            else:
                cases.append(nifti_case(images[name], labels[name], table, name=name, split=split))
    if not cases and not left:
        raise UserError(f"{src}: no {modality} among its {others} cases; choose the other --modality")
    notes = (f"{others} cases of the other modality: convert them into a folder of their own",) * bool(others)
    return Source("amos22", src, ABDOMEN, modality, tuple(cases), left=tuple(left), notes=notes)


def _modality(name: str) -> Modality | None:
    number = _NUMBER.fullmatch(name)
    if number is None:
        return None
    return Modality.CT if int(number[1]) <= _LAST_CT else Modality.MRI


def _missing(name: str, modality: Modality | None, part: str, image: bool, label: bool) -> Left | None:
    if modality is None:
        return Left(name, f"in images{part} or labels{part}, but not named amos_<number>")
    if not image:
        return Left(name, f"no images{part}/{name}.nii.gz for its label map")
    if not label:
        return Left(name, f"no labels{part}/{name}.nii.gz", expected=part == "Ts")
    return None
