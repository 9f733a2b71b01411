"""What a study trains: its cells, the presets, and the settings of each cell's training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from fedmodal.data.dataset import Split
from fedmodal.errors import UserError
from fedmodal.tasks import TASKS, Modality
from fedmodal.training.config import TrainingConfig, settings_of, training_config

ARMS = ("none", "randconv", "spectrum", "normlocal", "gin", "ipa")
"""In the order of tables and figures: the paper's five, and `ipa`, GIN's own extension.

`normlocal` is a way to federate, all others augment images.
"""

REFERENCE_ARM = "gin"
POOLED = "pooled"


@dataclass(frozen=True)
class Part:
    """A site of a regime: one of the modality's data sets, or a part of its training patients.

    Attributes:
        site: the site's name.
        modality: the data set's modality.
        number: which of the modality's data sets, from 0.
        start: where the part begins, as a fraction of the training patients in their order.
        stop: where it ends.
    """

    site: str
    modality: Modality
    number: int = 0
    start: float = 0.0
    stop: float = 1.0


@dataclass(frozen=True)
class Regime:
    """Which sites train, and whether they share weights (federated) or pool their images.

    `uneven` sites train one pass over their slices a round, so that larger ones count for more.
    """

    parts: tuple[Part, ...]
    federated: bool
    uneven: bool = False
    arms: tuple[str, ...] = ARMS

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Modalities trained on, CT first."""
        return tuple(one for one in Modality if one in {part.modality for part in self.parts})


_CT, _MRI = Part("ct-1", Modality.CT), Part("mri-1", Modality.MRI)
REGIMES: Mapping[str, Regime] = {
    "alone_ct": Regime((_CT,), federated=False),
    "alone_mri": Regime((_MRI,), federated=False),
    POOLED: Regime((_CT, _MRI), federated=False),
    "federated": Regime((_CT, _MRI), federated=True),
    "federated_ct": Regime((_CT, Part("ct-2", Modality.CT, 1)), federated=True),
    "federated_mri": Regime((_MRI, Part("mri-2", Modality.MRI, 1)), federated=True),
    "federated_4": Regime(  # the patients of `federated`, over four sites
        (
            Part("ct-1", Modality.CT, stop=0.75),
            Part("ct-2", Modality.CT, start=0.75),
            Part("mri-1", Modality.MRI, stop=0.625),
            Part("mri-2", Modality.MRI, start=0.625),
        ),
        federated=True,
        uneven=True,
        arms=("none", "gin"),
    ),
}


@dataclass(frozen=True)
class Cell:
    """One training: everything else follows from the preset."""

    task: str
    arm: str
    regime: str
    seed: int

    @property
    def name(self) -> str:
        """The name of the cell's folder."""
        return f"{self.task}-{self.regime}-{self.arm}-{self.seed}"


@dataclass(frozen=True)
class Preset:
    """A study's size.

    Attributes:
        name: as on the command line.
        regimes: task to its regimes.
        seeds: each gives one training a task, regime and arm.
        rounds: rounds of federated averaging; the other regimes train as long.
        steps: optimizer steps a round at each site, and of a training without a federation: averaging
            does not shorten the way that each site has to go. None is one pass over each site's slices.
        training: settings that differ from the defaults, the same for every arm.
        phantoms: synthetic patients a split of each data set; None if the user gives the data.
        pairs: whether the data that the user gives are the two sample pairs, not data sets.
        unseen_only: score only on modalities that were not trained on.
        costly: measure and print the cost, and start only with the user's consent.
        arms: the arms compared.
    """

    name: str
    regimes: Mapping[str, tuple[str, ...]]
    seeds: tuple[int, ...]
    rounds: int
    steps: int | None
    training: Mapping[str, object] = field(default_factory=dict)
    phantoms: Mapping[Split, int] | None = None
    pairs: bool = False
    unseen_only: bool = False
    costly: bool = False
    arms: tuple[str, ...] = ARMS


PAPERS_ARMS = ARMS[:-1]
_PAPER_SEEDS = (42, 123, 215)
SMOKE = Preset(
    "smoke",
    {"abdomen": ("alone_ct", POOLED), "heart": (POOLED, "federated")},
    seeds=(42,),
    rounds=2,
    steps=8,
    training={"network": {"channels": (4, 8, 16)}},
    phantoms={Split.TRAIN: 2, Split.VALIDATION: 1, Split.TEST: 2},
)
PHANTOM = Preset(
    "phantom",
    {"abdomen": tuple(REGIMES), "heart": (POOLED, "federated")},
    seeds=_PAPER_SEEDS,
    rounds=6,
    steps=360,
    phantoms={Split.TRAIN: 18, Split.VALIDATION: 2, Split.TEST: 10},
)
REAL = Preset(
    "real",
    {"abdomen": ("alone_ct", "alone_mri")},
    seeds=_PAPER_SEEDS,
    rounds=1,
    steps=2000,
    training={
        "network": {
            "channels": (16, 32, 64, 128),
            "residual_units": 2,
            "head": "monai",
            "activation": "prelu",
        },
        "loss": "plain_dice_ce",
        "batch_size": 8,
        "weight_decay": 0.01,
        "augmentation": {
            "affine_prob": 1.0,
            "rotation": 27,
            "scale": (0.75, 1.35),
            "translation": 0.135,
            "elastic_prob": 0.0,
            "gamma_prob": 0.0,
            "contrast_prob": 0.0,
            "noise_prob": 0.0,
        },
    },
    pairs=True,
    unseen_only=True,
)
"""Also the training of benchmarks/cross_modality.py.

One patient to learn from: strong affine maps stand for other bodies, and MONAI's own network and loss
go further on the unseen modality than the defaults, which are made for many patients and few steps.
"""
PAPER = Preset(
    "paper",
    {"abdomen": tuple(REGIMES), "heart": tuple(REGIMES)},
    seeds=_PAPER_SEEDS,
    rounds=100,
    steps=None,
    training={
        "network": {"channels": (32, 64, 128, 256), "dropout": 0.3},
        "batch_size": 8,
        "learning_rate": 5e-4,
        "loss": "dice_focal",
    },
    costly=True,
    arms=PAPERS_ARMS,
)
PRESETS = {preset.name: preset for preset in (SMOKE, PHANTOM, REAL, PAPER)}


def get_preset(name: str) -> Preset:
    """Look a preset up by name.

    Raises:
        UserError: there is no such preset; the message lists those that exist.
    """
    if name not in PRESETS:
        raise UserError(f"unknown study '{name}': choose one of {', '.join(PRESETS)}")
    return PRESETS[name]


@dataclass(frozen=True)
class Choice:
    """What to run of a preset; an empty choice is everything that the preset has."""

    tasks: tuple[str, ...] = ()
    arms: tuple[str, ...] = ()
    regimes: tuple[str, ...] = ()
    seeds: tuple[int, ...] = ()


EVERYTHING = Choice()


def parse_choice(tasks: str, arms: str, regimes: str, seeds: str) -> Choice:
    """A choice from lists with commas, as a person types them.

    Raises:
        UserError: a seed that is no number from 0.
    """
    names = [
        tuple(part.strip() for part in text.split(",") if part.strip()) for text in (tasks, arms, regimes)
    ]
    numbers = [part.strip() for part in seeds.split(",") if part.strip()]
    if strange := [number for number in numbers if not number.isdecimal()]:
        raise UserError(f"seed '{strange[0]}' is not a whole number; give seeds as in 42,123,215")
    return Choice(names[0], names[1], names[2], tuple(int(number) for number in numbers))


def plan_cells(preset: Preset, choice: Choice = EVERYTHING) -> tuple[Cell, ...]:
    """The cells of a study, seed by seed, so that the first seed's table is there first.

    Raises:
        UserError: a task, arm or regime that does not exist or is not in the preset, or nothing left.
    """
    _known("task", choice.tasks, TASKS, tuple(preset.regimes), preset)
    _known("arm", choice.arms, ARMS, preset.arms, preset)
    in_preset = {regime for regimes in preset.regimes.values() for regime in regimes}
    _known("regime", choice.regimes, REGIMES, tuple(one for one in REGIMES if one in in_preset), preset)
    cells = tuple(
        Cell(task, arm, regime, seed)
        for seed in choice.seeds or preset.seeds
        for task, regimes in preset.regimes.items()
        for regime in regimes
        for arm in preset.arms
        if task in (choice.tasks or preset.regimes)
        and regime in (choice.regimes or REGIMES)
        and arm in (choice.arms or preset.arms)
        and arm in REGIMES[regime].arms
    )
    if not cells:
        raise UserError(f"study '{preset.name}' has no cell with these tasks, arms and regimes; name fewer")
    return cells


def _known(
    what: str,
    chosen: Sequence[str],
    existing: Mapping[str, object] | Sequence[str],
    offered: Sequence[str],
    preset: Preset,
) -> None:
    for name in chosen:
        if name not in offered:
            reason = f"is not in study '{preset.name}'" if name in existing else "does not exist"
            raise UserError(f"{what} '{name}' {reason}: choose from {', '.join(offered)}")


def training_of(preset: Preset, cell: Cell) -> TrainingConfig:
    """The cell's training: but for the arm and what it cannot do without, the same for every arm."""
    needed = settings_of(cell.arm)
    network = {**_network(preset.training), **_network(needed)}
    settings = {**preset.training, **needed, "task": cell.task, "seed": cell.seed, "network": network}
    return training_config(settings | {"steps_per_round": _steps_a_site(preset, REGIMES[cell.regime])})


def _network(settings: Mapping[str, object]) -> Mapping[str, object]:
    network = settings.get("network", {})
    return network if isinstance(network, Mapping) else {}


def _steps_a_site(preset: Preset, regime: Regime) -> int | None:
    return None if regime.uneven else preset.steps
