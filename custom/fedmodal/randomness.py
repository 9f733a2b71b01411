"""Random numbers as a function of (seed, site, round), never of a process's history."""

import zlib

import numpy as np
import torch


def generator_for(seed: int, *keys: str | int) -> torch.Generator:
    """A CPU generator whose stream depends on the seed and the keys only.

    A restarted process that asks for the same (seed, site, round) draws the same numbers again,
    and a neighbouring site or round draws unrelated ones.
    """
    words = [zlib.crc32(key.encode()) if isinstance(key, str) else key for key in keys]
    state = np.random.SeedSequence([seed, *words]).generate_state(1, np.uint64)[0]
    generator = torch.Generator()
    generator.manual_seed(int(state))
    return generator
