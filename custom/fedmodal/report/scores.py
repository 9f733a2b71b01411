"""The models that were tested on a site, under the names that tables give them."""

from collections.abc import Iterable, Mapping

from fedmodal.report.document import Table
from fedmodal.report.record import EvaluationRecord

BEST_GLOBAL = "SRV_best_FL_global_model.pt"
LAST_GLOBAL = "SRV_FL_global_model.pt"
"""Names that FLARE gives to the server's models in a cross-site evaluation."""

Models = Mapping[str, EvaluationRecord]
"""Model name to its result on one site."""


def columns_of(site: str, models: Models) -> dict[str, list[EvaluationRecord]]:
    """Heading to models: best and last global, the site's own, and the other sites' on average."""
    named = [("global, best", BEST_GLOBAL), ("global, last", LAST_GLOBAL), (f"local {site}", site)]
    columns = {heading: [models[name]] for heading, name in named if name in models}
    others = sorted(set(models) - {BEST_GLOBAL, LAST_GLOBAL, site})
    if others:
        heading = f"local {others[0]}" if len(others) == 1 else f"local, other {len(others)} sites"
        columns[heading] = [models[name] for name in others]
    return columns


def dice_table(site: str, models: Models) -> Table:
    """Mean Dice per organ on one site's patients, a column a model."""
    shown, columns = shown_model(models), columns_of(site, models)
    rows = [
        (
            name,
            str(organ.n),
            *(dice(mean_of(one.organs[name].dice for one in group)) for group in columns.values()),
        )
        for name, organ in shown.organs.items()
    ]
    means = (dice(mean_of(model.mean for model in group)) for group in columns.values())
    return Table(
        f"{site} ({shown.modality}): 3D Dice on {shown.patients} {shown.split} patients",
        ("organ", "n", *columns),
        (*rows, ("mean over organs", "", *means)),
        total=True,
    )


def shown_name(models: Models) -> str:
    """The model that a summary shows: the best global one, else the last, else the first."""
    return next((name for name in (BEST_GLOBAL, LAST_GLOBAL) if name in models), next(iter(models)))


def shown_model(models: Models) -> EvaluationRecord:
    """Its result."""
    return models[shown_name(models)]


def which(name: str) -> str:
    """A model's name in words."""
    return {BEST_GLOBAL: "global, best", LAST_GLOBAL: "global, last"}.get(name, f"local {name}")


def mean_of(values: Iterable[float | None]) -> float | None:
    """Mean of those that are known; None if none is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def dice(value: float | None) -> str:
    """Three digits, or a dash for what does not exist."""
    return "-" if value is None else f"{value:.3f}"
