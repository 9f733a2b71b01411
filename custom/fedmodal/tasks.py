"""What is segmented: labels, colours, spacing, slice size and the intensity rule per modality."""

from enum import StrEnum
from functools import cached_property
from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from fedmodal.errors import UserError


class Modality(StrEnum):
    """How a volume was acquired; a site declares exactly one."""

    CT = "CT"
    MRI = "MRI"


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Code(_Frozen):
    """A SNOMED CT concept: its identifier and its meaning in English."""

    value: Annotated[str, Field(pattern=r"^[0-9]+$")]
    meaning: str


class Organ(_Frozen):
    """One label of a task.

    Attributes:
        id: its value in label maps.
        name: as tables and `dataset.json` have it.
        colour: in pictures, hex RGB.
        millilitres: its usual volume in adults; only the order of magnitude matters.
        code: what it is, from the context groups of DICOM PS3.16.
        side: right or left, of an organ that comes in pairs.
    """

    id: Annotated[int, Field(ge=1, le=255)]
    name: Annotated[str, Field(pattern=r"^[a-z][a-z ]*$")]
    colour: Annotated[str, Field(pattern=r"^#[0-9a-f]{6}$")]
    millilitres: Annotated[float, Field(gt=0)]
    code: Code
    side: Code | None = None


class Window(_Frozen):
    """CT rule: Hounsfield units from `low` to `high` become 0 to 1, values outside are clipped."""

    low: float
    high: float

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"a window needs low < high, got {self.low} and {self.high}")
        return self


class Percentiles(_Frozen):
    """MRI rule: the `low` to `high` percentiles of the volume become 0 to 1, the rest is clipped."""

    low: Annotated[float, Field(ge=0, lt=50)]
    high: Annotated[float, Field(gt=50, le=100)]


class Task(_Frozen):
    """A segmentation task.

    Volumes are brought to axis order (S, P, L): axis 0 runs from feet to head and counts the
    slices, axis 1 from front to back, axis 2 from the patient's right to left, so that a slice
    shown as a picture is the radiologist's view.

    Attributes:
        name: the name in `dataset.json`, on the command line and in job names.
        organs: the labels, ids 1..n without a gap; 0 is background.
        spacing: millimetres between voxels along (S, P, L). Slices thicker than the first entry
            keep their own thickness: interpolated slices would count one finding twice.
        slice_size: rows and columns of a training slice, in voxels of `spacing`.
        ct: intensity rule for CT.
        mri: intensity rule for MRI.
        mirror_axes: axes of (S, P, L) along which a mirrored patient is still a patient.
    """

    name: Annotated[str, Field(pattern=r"^[a-z]+$")]
    organs: Annotated[tuple[Organ, ...], Field(min_length=1)]
    spacing: tuple[float, float, float]
    slice_size: tuple[int, int]
    ct: Window
    mri: Percentiles
    mirror_axes: tuple[Annotated[int, Field(ge=0, le=2)], ...] = ()

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        ids = [organ.id for organ in self.organs]
        if ids != list(range(1, len(ids) + 1)):
            raise ValueError(f"organ ids must be 1..{len(ids)} in order, got {ids}")
        if len({organ.name for organ in self.organs}) != len(ids):
            raise ValueError("two organs have the same name")
        if any(step <= 0 for step in self.spacing):
            raise ValueError(f"spacing must be positive millimetres, got {self.spacing}")
        if any(size % 16 for size in self.slice_size):
            raise ValueError(f"slice_size must be multiples of 16, got {self.slice_size}")
        return self

    @property
    def num_classes(self) -> int:
        """Background and organs."""
        return len(self.organs) + 1

    @cached_property
    def labels(self) -> dict[str, int]:
        """Name to id, background included, as `dataset.json` holds it."""
        return {"background": 0} | {organ.name: organ.id for organ in self.organs}


def _sct(value: str, meaning: str) -> Code:
    return Code(value=value, meaning=meaning)


_KIDNEY, _RIGHT, _LEFT = _sct("64033007", "Kidney"), _sct("24028007", "Right"), _sct("7771000", "Left")

ABDOMEN = Task(
    name="abdomen",
    organs=(
        Organ(id=1, name="spleen", colour="#e377c2", millilitres=200, code=_sct("78961009", "Spleen")),
        Organ(id=2, name="right kidney", colour="#ff7f0e", millilitres=150, code=_KIDNEY, side=_RIGHT),
        Organ(id=3, name="left kidney", colour="#ffd92f", millilitres=150, code=_KIDNEY, side=_LEFT),
        Organ(
            id=4, name="gallbladder", colour="#2ca02c", millilitres=35, code=_sct("28231008", "Gallbladder")
        ),
        Organ(id=5, name="liver", colour="#d62728", millilitres=1500, code=_sct("10200004", "Liver")),
        Organ(id=6, name="pancreas", colour="#1f77b4", millilitres=80, code=_sct("15776009", "Pancreas")),
    ),
    spacing=(3.0, 3.0, 3.0),
    slice_size=(128, 128),
    ct=Window(low=-160, high=240),
    mri=Percentiles(low=0.5, high=99.5),
)

HEART = Task(
    name="heart",
    organs=(Organ(id=1, name="heart", colour="#d62728", millilitres=700, code=_sct("80891009", "Heart")),),
    spacing=(3.0, 3.0, 3.0),
    slice_size=(128, 128),
    ct=Window(low=-160, high=440),
    mri=Percentiles(low=0.5, high=99.5),
)

TASKS: dict[str, Task] = {task.name: task for task in (ABDOMEN, HEART)}


def get_task(name: str) -> Task:
    """Look a task up by name.

    Raises:
        UserError: there is no such task; the message lists those that exist.
    """
    if name not in TASKS:
        raise UserError(f"unknown task '{name}': choose one of {', '.join(TASKS)}")
    return TASKS[name]
