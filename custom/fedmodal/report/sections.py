"""A run's record as the sections of a written report."""

import datetime
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from fedmodal.report import charts
from fedmodal.report.document import Section, Table
from fedmodal.report.measures import TITLES, figures, found, has_spreads
from fedmodal.report.record import EvaluationRecord, OrganRecord, RunRecord, share_of
from fedmodal.report.scores import dice, dice_table, mean_of, shown_model, shown_name, which
from fedmodal.training.measures import DICE

_MANY_SITES = 4
"""Beyond so many, what there is of each is folded."""

Pooled = Sequence[tuple[str, EvaluationRecord]]
"""Data sets, and what a network trained on pooled data reached there."""


def sections_of(record: RunRecord, pooled: Pooled) -> list[Section]:
    """Everything that a record tells, in the order of a reader's questions.

    Args:
        record: of the run.
        pooled: results of `fedmodal train`, to compare with; empty if there are none.
    """
    if not record.rounds:
        return [_about(record)]
    if not record.evaluation:
        return [_about(record), _training(record), _versions(record)]
    return [
        _about(record), _scores(record), _beyond(record), _comparison(record, pooled), _training(record),
        _versions(record),
    ]  # fmt: skip


def headline(record: RunRecord) -> str:
    """The run's result in a sentence."""
    if not record.evaluation:
        return "No model has been tested in this run."
    shown: dict[str, list[EvaluationRecord]] = {}
    for models in record.evaluation.values():
        shown.setdefault(shown_model(models).modality, []).append(shown_model(models))
    parts = (
        f"{_reached(results)} on {modality} ({_patients(results)})"
        for modality, results in sorted(shown.items())
    )
    names = {which(shown_name(models)) for models in record.evaluation.values()}
    return f"Mean Dice over organs ({' / '.join(sorted(names))}): {', '.join(parts)}."


def _reached(results: list[EvaluationRecord]) -> str:
    mean = mean_of(one.mean for one in results)
    return "not measured" if mean is None else dice(mean)


def _patients(results: list[EvaluationRecord]) -> str:
    """Patients and sites, in words."""
    count = sum(one.patients for one in results)
    return f"{count} {results[0].split} patients of {len(results)} site{'s' * (len(results) != 1)}"


def _about(record: RunRecord) -> Section:
    best = (
        "none"
        if record.best_round is None
        else f"after round {record.best_round}, validation Dice {dice(record.best_dice)}"
    )
    rows = [
        ("task", record.task),
        ("intensity augmentation", record.arm),
        ("submitted by", record.submitter or "not recorded (a simulator run)"),
        ("started", _time(record.started)),
        (
            "finished",
            f"{_time(record.finished)}, after {_duration(record)}" if record.finished else "not yet",
        ),
        ("rounds", f"{len(record.rounds)} of {record.num_rounds}"),
        ("sites that a round waits for", str(record.quorum) if record.quorum else "not recorded"),
        ("best global model", best),
    ]
    sites = Table("Sites", ("site", "modality", "data", "rounds", "slices", "weight"), tuple(_sites(record)))
    return Section("run", "What was trained", tables=(Table("The run", ("", ""), tuple(rows)), sites))


def _sites(record: RunRecord) -> Iterator[tuple[str, ...]]:
    total = sum(share_of(record, site).slices for site in record.sites)
    for site, about in sorted(record.sites.items()):
        share = share_of(record, site)
        counts = ", ".join(f"{count} {split}" for split, count in about.patients.items())
        kind = "phantoms" if about.phantoms else "patients"
        weight = f"{100 * share.slices / total:.0f} %" if total else "-"
        yield (
            site, about.modality, f"{kind}: {counts}", f"{share.rounds} of {len(record.rounds)}",
            f"{share.slices:,}", weight,
        )  # fmt: skip


def _time(text: str) -> str:
    try:
        return datetime.datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M %Z").strip()
    except ValueError:
        return text or "not recorded"


def _duration(record: RunRecord) -> str:
    try:
        begin, end = (datetime.datetime.fromisoformat(text) for text in (record.started, record.finished))
    except ValueError:
        return "unknown"
    minutes, seconds = divmod(round((end - begin).total_seconds()), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"


def _scores(record: RunRecord) -> Section:
    tables = [dice_table(site, models) for site, models in sorted(record.evaluation.items())]
    text = (
        "Mean 3D Dice on each site's patients, measured there on whole volumes on the images' own grids: 1 "
        "is agreement with the outlines drawn at the site, 0 is none. n counts the patients who have the "
        "organ; organs that nobody has are left out of the mean.",
    )
    return Section("dice", "How good, for whom", text, tables=(_by_organ(record), *_folded(tables)))


def _folded(tables: Sequence[Table]) -> Iterator[Table]:
    """Tables of many sites, to be opened one by one."""
    return (replace(table, folded=len(tables) > _MANY_SITES) for table in tables)


def _by_organ(record: RunRecord) -> Table:
    """The global model's Dice: a row a site, then a row a modality, a column an organ."""
    shown = {site: shown_model(models) for site, models in record.evaluation.items()}
    groups = {f"{site} ({one.modality})": [one] for site, one in sorted(shown.items())}
    for modality in sorted({one.modality for one in shown.values()}):
        several = [one for one in shown.values() if one.modality == modality]
        groups |= {f"all {len(several)} {modality} sites": several} if len(several) > 1 else {}
    organs = list(next(iter(shown.values())).organs)
    rows = tuple(
        (name, str(sum(one.patients for one in group)),
         *(dice(mean_of(one.organs[organ].dice for one in group)) for organ in organs),
         dice(mean_of(one.mean for one in group)))
        for name, group in groups.items()
    )  # fmt: skip
    return Table("The global model, a row a site", ("site", "patients", *organs, "mean"), rows)


def _beyond(record: RunRecord) -> Section:
    results = {site: shown_model(models) for site, models in record.evaluation.items()}
    names = {which(shown_name(models)) for models in record.evaluation.values()}
    chart = charts.boxes(results, " / ".join(sorted(names)).capitalize())
    tables = tuple(_measures(site, result) for site, result in sorted(results.items()) if has_spreads(result))
    text = (
        "How the patients spread, and how far the outlines stray. Surface Dice is the part of the surface "
        "within 3 mm of the true one, HD95 the distance that 95 % of it keeps; volume error is the predicted "
        "volume less the true one. Below the means: quartiles of Dice, else the 95 % bootstrap interval of "
        "the mean over patients; neither is sent of fewer than five patients.",
    )  # fmt: skip
    return Section("spread", "Beyond the mean", text, (chart,), tuple(_folded(tables)))


def _measures(site: str, result: EvaluationRecord) -> Table:
    rows = tuple(
        (organ, found(one), _median(one), *(_with_ends(*figures(one, measure)) for measure in TITLES))
        for organ, one in result.organs.items()
    )
    titles = (title.replace("\n", ": ").replace(" %", "\u00a0%") for title in TITLES.values())
    headings = ("organ", "found", "Dice: median", *titles)
    return Table(f"{site} ({result.modality}), {result.patients} {result.split} patients", headings, rows)


def _median(organ: OrganRecord) -> str:
    spread = organ.spreads.get(DICE)
    return "-" if spread is None or spread.median is None else f"{spread.median:.2f}"


def _with_ends(mean: str, low: str, high: str) -> str:
    return f"{mean} ({low} to {high})" if low else mean


def _comparison(record: RunRecord, pooled: Pooled) -> Section:
    """Mean Dice of each model on each site: who gains from the federation, and who less than others."""
    columns = _compared(record, pooled)
    sites = sorted(record.evaluation)
    rows = [
        (_named(record, site), *(dice(values[at]) for values in columns.values()), _gain(columns, at),
         _worst(shown_model(record.evaluation[site])))
        for at, site in enumerate(sites)
    ]  # fmt: skip
    headings = ("site", *columns, "gain on own", "worst organ")
    table = Table("Mean Dice over organs on each site's patients", headings, tuple(rows))
    chart = charts.dots([_named(record, site) for site in sites], columns)
    text = [
        _range(record),
        "Gain: the global model's mean Dice less that of the site's own model, on the site's patients. The "
        "own model is the best that the site's training in this run led to; it began from global models, so "
        "it is not a network trained without the federation.",
    ]
    if pooled:
        tested = (f"{name} ({one.patients} {one.split} patients)" for name, one in pooled)
        text.append(
            "Pooled: a network trained on everybody's data in one place, which a federation does without; "
            f"tested on {', '.join(tested)}."
        )
    return Section("fairness", "Local, global, pooled: who gains", tuple(text), (chart,), (table,))


def _named(record: RunRecord, site: str) -> str:
    return f"{site} ({shown_model(record.evaluation[site]).modality})"


_GLOBAL, _OWN = "global", "site's own"


def _compared(record: RunRecord, pooled: Pooled) -> dict[str, list[float | None]]:
    """Heading to a mean Dice a site; models that nobody has are left out."""
    columns: dict[str, list[float | None]] = {}
    for site, models in sorted(record.evaluation.items()):
        modality = shown_model(models).modality
        others = {name: one for name, one in models.items() if name in record.sites and name != site}
        same = [one.mean for name, one in others.items() if record.sites[name].modality == modality]
        other = [one.mean for name, one in others.items() if record.sites[name].modality != modality]
        values = {
            _GLOBAL: shown_model(models).mean,
            _OWN: models[site].mean if site in models else None,
            "others, same modality": mean_of(same),
            "others, other modality": mean_of(other),
            "pooled": mean_of(one.mean for _, one in pooled if one.modality == modality),
        }
        for heading, value in values.items():
            columns.setdefault(heading, []).append(value)
    return {heading: values for heading, values in columns.items() if any(v is not None for v in values)}


def _gain(columns: Mapping[str, list[float | None]], at: int) -> str:
    everywhere, own = (columns[name][at] if name in columns else None for name in (_GLOBAL, _OWN))
    return "-" if everywhere is None or own is None else f"{everywhere - own:+.3f}"


def _worst(result: EvaluationRecord) -> str:
    known = {name: organ.dice for name, organ in result.organs.items() if organ.dice is not None}
    if not known:
        return "-"
    name = min(known, key=lambda one: known[one])
    return f"{name} {dice(known[name])}"


def _range(record: RunRecord) -> str:
    means = {site: shown_model(models).mean for site, models in record.evaluation.items()}
    known = {site: mean for site, mean in means.items() if mean is not None}
    if len(known) < 2:
        return "Fewer than two sites have scores, so that there is nothing to compare between sites."
    low, high = (pick(known, key=lambda one: known[one]) for pick in (min, max))
    return (
        f"The global model's mean Dice is lowest at {_named(record, low)} with {dice(known[low])} and "
        f"highest at {_named(record, high)} with {dice(known[high])}: "
        f"{known[high] - known[low]:.3f} apart."
    )


def _training(record: RunRecord) -> Section:
    rows = [row for number in sorted(record.rounds) for row in _contributions(record, number)]
    table = Table(
        "Every site in every round",
        ("round", "site", "in the average", "slices", "loss", "Dice before", "Dice after", "seconds"),
        tuple(rows),
        folded=True,
    )
    drawn = (charts.participation(record), charts.curves(record)) if record.sites else ()
    return Section("training", "Training, round by round", charts=drawn, tables=(table,))


def _contributions(record: RunRecord, number: int) -> Iterator[tuple[str, ...]]:
    parts = record.rounds[number].sites
    for site in sorted(record.sites):
        part = parts.get(site)
        if part is None:
            yield (str(number + 1), site, "absent", "-", "-", "-", "-", "-")
        else:
            yield (
                str(number + 1), site, "yes" if part.accepted else "not accepted", f"{part.slices:,}",
                f"{part.loss:.3f}", dice(part.global_dice), dice(part.local_dice), f"{part.seconds:.0f}",
            )  # fmt: skip


def _versions(record: RunRecord) -> Section:
    tables = []
    if record.versions:
        tables.append(Table("Packages at the server", ("", ""), tuple(record.versions.items())))
    if record.models:
        rows = tuple(record.models.items())
        tables.append(Table("Weights of the global models", ("file", "hash"), rows))
    return Section("versions", "Versions and hashes", tables=tuple(tables))
