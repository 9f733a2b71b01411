"""What arms share on a batch: a change of some samples in float32, and checks of what they are given."""

from collections.abc import Callable, Hashable

import torch
from torch import Tensor

from fedmodal.augment.warp import broadcast


@torch.no_grad()
def change(images: Tensor, applied: Tensor, effect: Callable[[Tensor], Tensor]) -> Tensor:
    """Put the effect on the chosen samples, without gradient, in float32 even under autocast.

    Args:
        images: (N, C, *spatial), floating point; not changed.
        applied: (N,) bool; the other samples stay as they are.
        effect: from the images in float32 to a new tensor of their shape.

    Returns:
        A new tensor of the images' shape, type and device.
    """
    with torch.autocast(images.device.type, enabled=False):
        changed = effect(images.float())
    return torch.where(per_sample(applied, images), changed.to(images.dtype), images)


def per_sample(values: Tensor, images: Tensor) -> Tensor:
    """(N,) values on the images' device, shaped to broadcast over them."""
    return broadcast(values.to(images.device), images)


def check_fit(what: str, drawn: Hashable, given: Hashable) -> None:
    """Refuse a draw for another kind of batch.

    Raises:
        ValueError: the two differ; `what` says in which terms they are given.
    """
    if drawn != given:
        raise ValueError(f"drawn for {what} {drawn}, but the images have {given}")


def checked_probability(prob: float) -> float:
    """`prob`, or a ValueError; MONAI would clip it silently."""
    if not 0 <= prob <= 1:
        raise ValueError(f"prob must be from 0 to 1, got {prob}")
    return prob
