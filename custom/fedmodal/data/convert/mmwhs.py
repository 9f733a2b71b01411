"""MM-WHS 2017: `ct_train/ct_train_1001_image.nii.gz` with `..._label.nii.gz`, and the same for `mr`."""

import re
from collections import defaultdict
from pathlib import Path

from fedmodal.data.convert.source import LabelTable, Left, Source, SourceCase, nifti_case, not_this_set
from fedmodal.tasks import HEART, Modality

# Left and right ventricle, left and right atrium, myocardium, ascending aorta, pulmonary artery.
_STRUCTURES = (500, 600, 420, 550, 205, 820, 850)
_MISTYPED = 421  # the left atrium in some files
_TABLE = LabelTable(dict.fromkeys((*_STRUCTURES, _MISTYPED), 1))
_PREFIX = {Modality.CT: "ct", Modality.MRI: "mr"}
_FILE = re.compile(r"((ct|mr)_(train|test)_\w+?)_(image|label)\.nii(?:\.gz)?")


def mmwhs(src: Path, modality: Modality) -> Source:
    """The CT or the MRI half of MM-WHS; its seven structures together are the heart.

    Args:
        src: a folder with the files, at any depth.
        modality: by the file's prefix, `ct` or `mr`.

    Raises:
        UserError: no file of this modality.
    """
    found: defaultdict[str, dict[str, list[Path]]] = defaultdict(lambda: {"image": [], "label": []})
    others = set()
    for path in sorted(src.rglob("*.nii*")):
        named = _FILE.fullmatch(path.name)
        if named and named[2] == _PREFIX[modality]:
            found[named[1]][named[4]].append(path)
        elif named:
            others.add(named[1])
    if not found:
        raise not_this_set(src, f"{_PREFIX[modality]}_train_1001_image.nii.gz and ..._label.nii.gz")
    cases: list[SourceCase] = []
    left: list[Left] = []
    for name, files in sorted(found.items()):
        images, labels = files["image"], files["label"]
        if problem := _problem(name, images, labels):
            left.append(problem)
        else:
            cases.append(nifti_case(images[0], labels[0], _TABLE, name=name))
    notes = (f"{len(others)} cases of the other modality: convert them into a folder of their own",)
    return Source("mmwhs", src, HEART, modality, tuple(cases), left=tuple(left), notes=notes * bool(others))


def _problem(name: str, images: list[Path], labels: list[Path]) -> Left | None:
    if len(images) > 1 or len(labels) > 1:
        return Left(name, f"{(images + labels)[0].parent.name} and another folder hold it; keep one copy")
    if not images:
        return Left(name, f"no {name}_image.nii.gz for its label map")
    if not labels:
        return Left(name, f"no {name}_label.nii.gz", expected="_test_" in name)
    return None
