"""The learning rate as a pure function of the step."""

import math


def one_cycle(step: int, total_steps: int, peak: float, warmup: float) -> float:
    """One-cycle rate with cosine ramps: up from peak/25 during `warmup`, then down to peak/1e4.

    A pure function of the step, so that a resumed round needs no scheduler state. After Smith and
    Topin, "Super-Convergence" (arXiv 1708.07120), with the ratios of torch's OneCycleLR.
    """
    position = min(max(step, 0), total_steps) / max(total_steps, 1)
    if position < warmup:
        low, high, part = peak / 25, peak, position / warmup
    else:
        low, high, part = peak, peak / 1e4, (position - warmup) / (1 - warmup)
    return high + (low - high) * (1 + math.cos(math.pi * part)) / 2
