"""Which slices a round trains on: every organ as often as the others."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from fedmodal.data.store import StoredCase
from fedmodal.errors import UserError


class SliceSampler:
    """Organ-balanced draws of slices from stored cases.

    A part of the draws first picks an organ, each with the same chance, then one of the slices
    that hold it; the others pick any slice. So the gallbladder is seen as often as the liver, and
    slices without an organ are seen too.
    """

    def __init__(self, cases: Sequence[StoredCase], organ_fraction: float) -> None:
        if not cases:
            raise UserError("no training cases: dataset.json lists no case with split 'train'")
        self.cases = tuple(cases)
        self.organ_fraction = organ_fraction
        voxels = np.concatenate([case.voxels for case in self.cases])
        self._case_of = np.repeat(np.arange(len(self.cases)), [len(case.voxels) for case in self.cases])
        self._slice_of = np.concatenate([np.arange(len(case.voxels)) for case in self.cases])
        holders = (np.flatnonzero(voxels[:, organ]) for organ in range(1, voxels.shape[1]))
        self._holders = [slices for slices in holders if len(slices)]

    def __len__(self) -> int:
        """Slices of all cases."""
        return len(self._slice_of)

    def draw(self, count: int, generator: torch.Generator) -> list[int]:
        """`count` slice numbers, with replacement."""
        uniform = torch.rand((count, 3), generator=generator, dtype=torch.float64).tolist()
        return [self._pick(*numbers) for numbers in uniform]

    def _pick(self, coin: float, organ: float, position: float) -> int:
        if not self._holders or coin >= self.organ_fraction:
            return int(position * len(self))
        holders = self._holders[int(organ * len(self._holders))]
        return int(holders[int(position * len(holders))])

    def load(self, numbers: Sequence[int]) -> tuple[torch.Tensor, torch.Tensor]:
        """Slices as images (N, 1, H, W) float32 in 0 to 1 and labels (N, H, W) uint8."""
        places = [(self.cases[self._case_of[number]], self._slice_of[number]) for number in numbers]
        images = np.stack([case.image[position] for case, position in places]).astype(np.float32)
        labels = np.stack([case.label[position] for case, position in places])
        return torch.from_numpy(images)[:, None], torch.from_numpy(labels)

    def batches(
        self, steps: int, batch_size: int, generator: torch.Generator
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """`steps` batches of `batch_size` slices."""
        for _ in range(steps):
            yield self.load(self.draw(batch_size, generator))


def all_slices(cases: Sequence[StoredCase], batch_size: int = 16) -> Iterator[torch.Tensor]:
    """Every slice of every case once, as images (N, 1, H, W) float32 in 0 to 1."""
    for case in cases:
        for start in range(0, len(case.image), batch_size):
            yield torch.from_numpy(case.image[start : start + batch_size].astype(np.float32))[:, None]
