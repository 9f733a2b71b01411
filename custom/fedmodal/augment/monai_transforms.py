"""Arms as MONAI random transforms: coin flip, seeds and keys, so that an arm adds its options only."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Generic, Protocol, Self, TypeVar

import numpy as np
import torch
from monai.config import KeysCollection
from monai.data import get_track_meta
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import TransformBackends, convert_to_dst_type, convert_to_tensor
from torch import Tensor

from fedmodal.augment.samples import checked_probability

Draw = TypeVar("Draw")
Draw_co = TypeVar("Draw_co", covariant=True)


class Draws(Protocol[Draw_co]):
    """An arm that draws the random numbers of one call into a record."""

    def draw(self, batch_shape: Sequence[int], generator: torch.Generator) -> Draw_co:
        """Draw for a batch of shape (N, C, *spatial) from a CPU generator."""


class RandArm(RandomizableTransform, Generic[Draw]):  # type: ignore[misc]  # MONAI is not typed
    """An arm as a MONAI transform on one channel-first image (C, *spatial).

    Integer images become float32; a MetaTensor keeps its meta data.

    Args:
        arm: draws; its own probability is 1.
        apply: applies a draw to a batch of floating point.
        prob: probability that an image is changed.

    Raises:
        ValueError: the probability is out of its range.
    """

    backend = [TransformBackends.TORCH]  # noqa: RUF012  MONAI's convention

    def __init__(self, arm: Draws[Draw], apply: Callable[[Tensor, Draw], Tensor], prob: float) -> None:
        RandomizableTransform.__init__(self, checked_probability(prob))
        self.arm = arm
        self._apply = apply
        self._draw: Draw | None = None

    def randomize(self, data: Tensor | np.ndarray) -> None:
        """Decide whether to transform, and draw for an image of the data's shape."""
        super().randomize(None)
        if self._do_transform:
            generator = torch.Generator().manual_seed(int(self.R.randint(2**31)))
            self._draw = self.arm.draw((1, *data.shape), generator)

    def __call__(self, img: Tensor | np.ndarray, randomize: bool = True) -> Tensor:
        """Transform one image; with `randomize=False` by the last draw.

        Raises:
            RuntimeError: `randomize=False` before any draw.
            ValueError: the last draw was for another kind of image.
        """
        image: Tensor = convert_to_tensor(img, track_meta=get_track_meta())
        if randomize:
            self.randomize(image)
        if not self._do_transform:
            return image
        if self._draw is None:
            raise RuntimeError("call randomize() first")
        plain = image.as_subclass(torch.Tensor)
        plain = plain if plain.is_floating_point() else plain.float()
        changed = self._apply(plain[None], self._draw)[0]
        result: Tensor = convert_to_dst_type(changed, image, dtype=plain.dtype)[0]
        return result


class RandArmd(RandomizableTransform, MapTransform):  # type: ignore[misc]
    """A `RandArm` on the images of a dictionary, the same draw for all keys; other entries stay.

    Args:
        keys: the images; never name a label map here.
        rand_arm: the transform inside; its own probability is 1.
        prob: probability that the images of a dictionary are changed.
        allow_missing_keys: do not raise for a key that the dictionary lacks.

    Raises:
        ValueError: the probability is out of its range, or, at the call, a draw for the first
            image does not fit another one.
    """

    backend = RandArm.backend

    def __init__(
        self, keys: KeysCollection, rand_arm: RandArm[Draw], prob: float, allow_missing_keys: bool
    ) -> None:
        MapTransform.__init__(self, keys, allow_missing_keys)
        RandomizableTransform.__init__(self, checked_probability(prob))
        self.rand_arm = rand_arm

    def set_random_state(self, seed: int | None = None, state: np.random.RandomState | None = None) -> Self:
        """Seed this transform and the one inside."""
        super().set_random_state(seed, state)
        self.rand_arm.set_random_state(seed, state)
        return self

    def __call__(self, data: Mapping[Hashable, Tensor]) -> dict[Hashable, Tensor]:
        """Transform the images of one dictionary, which is not changed."""
        result = dict(data)
        self.randomize(None)
        first = self.first_key(result)
        if self._do_transform and first != ():
            self.rand_arm.randomize(result[first])
        for key in self.key_iterator(result):
            if self._do_transform:
                result[key] = self.rand_arm(result[key], randomize=False)
            else:
                result[key] = convert_to_tensor(result[key], track_meta=get_track_meta())
        return result
