"""The lines that a person watching a run reads."""

from fedmodal.report.record import RunRecord


def describe_contribution(record: RunRecord, number: int, site: str) -> str:
    """One site's round: its loss, and the Dice before and after its training."""
    contribution = record.rounds[number].sites[site]
    modality = record.sites[site].modality
    refused = "" if contribution.accepted else ", NOT ACCEPTED"
    return (
        f"  round {number + 1}/{record.num_rounds}  {site} ({modality})  loss {contribution.loss:.3f}  "
        f"Dice global {_dice(contribution.global_dice)}, local {_dice(contribution.local_dice)}  "
        f"{contribution.slices} slices, {contribution.seconds:.0f} s{refused}"
    )


def describe_round(record: RunRecord, number: int) -> str:
    """A finished round: who took part, the global model's Dice, and the time left."""
    done = record.rounds[number]
    scores = [site.global_dice for site in done.sites.values() if site.global_dice is not None]
    mean = sum(scores) / len(scores) if scores else None
    absent = sorted(set(record.sites) - set(done.sites))
    missing = f", WITHOUT {', '.join(absent)}" if absent else ""
    return (
        f"round {number + 1}/{record.num_rounds} done in {done.seconds:.0f} s with {len(done.sites)} "
        f"site{'s' * (len(done.sites) != 1)}{missing}; Dice of the global model it began with "
        f"{_dice(mean)}; {_left(record)} of training left"
    )


def _left(record: RunRecord) -> str:
    seconds = [done.seconds for done in record.rounds.values() if done.seconds]
    left = (record.num_rounds - len(seconds)) * sum(seconds) / len(seconds)
    return f"{left / 60:.0f} min" if left >= 90 else f"{left:.0f} s"


def _dice(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
