"""What a reader must know before trusting a run's figures."""

from collections.abc import Iterator, Sequence

from fedmodal.report.record import EvaluationRecord, RunRecord
from fedmodal.report.scores import BEST_GLOBAL, shown_model
from fedmodal.training.measures import FEW_PATIENTS

WORSE_THAN_OWN = 0.05
"""Mean Dice by which a site's own model may be better there than the global one without a warning."""


def warnings_of(record: RunRecord) -> list[str]:
    """One line each: of the run, of its sites and rounds, of the organs on each site."""
    return [*_of_run(record), *_of_rounds(record), *_of_sites(record)]


def _of_run(record: RunRecord) -> Iterator[str]:
    yield from record.refusals
    if record.problem:
        yield f"the run ended early: {record.problem}"
    elif not record.finished:
        yield "the run has not come to its end: what follows is what is known so far"
    if record.rounds and record.best_round is None:
        yield "no best global model: no site scored a global model on its validation patients"
    if any(site.phantoms for site in record.sites.values()):
        yield "trained on phantoms (synthetic patients): the network is not for people"


def _of_rounds(record: RunRecord) -> Iterator[str]:
    took_part = {
        number + 1: {site for site, part in done.sites.items() if part.accepted}
        for number, done in sorted(record.rounds.items())
    }
    for site in sorted(record.sites):
        if missing := [number for number, sites in took_part.items() if site not in sites]:
            yield f"{rounds_in_words(missing)} went without {site}"
    if short := [number for number, sites in took_part.items() if len(sites) < record.quorum]:
        yield f"{rounds_in_words(short)} ended below the quorum of {record.quorum} sites"


def rounds_in_words(numbers: Sequence[int]) -> str:
    """`round 3`, or `rounds 2, 4 to 7`."""
    parts: list[tuple[int, int]] = []
    for number in numbers:
        if parts and parts[-1][1] == number - 1:
            parts[-1] = (parts[-1][0], number)
        else:
            parts.append((number, number))
    words = ", ".join(str(first) if first == last else f"{first} to {last}" for first, last in parts)
    return f"round{'s' * (len(numbers) > 1)} {words}"


def _of_sites(record: RunRecord) -> Iterator[str]:
    for site, models in sorted(record.evaluation.items()):
        shown = shown_model(models)
        if shown.split != "test":
            yield f"{site} has no test patients: its Dice is from {shown.split} patients"
        yield from _few_patients(site, shown)
        yield from _doubtful_organs(site, shown)
        own, best = models.get(site), models.get(BEST_GLOBAL)
        if own and best and own.mean is not None and best.mean is not None:
            behind = own.mean - best.mean
            if behind > WORSE_THAN_OWN:
                yield f"{site}: its own model is better there than the global one, by {behind:.3f} mean Dice"


def _few_patients(site: str, shown: EvaluationRecord) -> Iterator[str]:
    few = {name: organ.n for name, organ in shown.organs.items() if 0 < organ.n < FEW_PATIENTS}
    if not few:
        return
    if shown.patients < FEW_PATIENTS:
        who = f"{shown.patients} patient{'s' * (shown.patients != 1)}"
        yield f"{site}: its figures are of {who} only, too few for intervals"
    else:
        organs = ", ".join(f"{name} ({n})" for name, n in few.items())
        yield f"{site}: few of its patients have {organs}; no interval is given for these"


def _doubtful_organs(site: str, shown: EvaluationRecord) -> Iterator[str]:
    for organ, result in shown.organs.items():
        if result.n == 0:
            yield f"{site}: no label map holds the {organ}; it is left out of the mean"
        if result.missed:
            yield f"{site}: {organ} missed entirely in {result.missed} of {result.n} patients"
        if result.invented:
            yield f"{site}: {organ} predicted in {result.invented} of {result.absent} patients without it"
