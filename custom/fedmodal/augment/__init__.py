"""Augmentation: one method a file, as array modules on batches and as MONAI transforms."""

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import TYPE_CHECKING, Protocol, cast

from fedmodal.errors import UserError

if TYPE_CHECKING:
    import torch

ARMS: dict[str, str] = {
    "none": "fedmodal.augment.base:Identity",
    "gin": "fedmodal.augment.gin:GIN",
    "ipa": "fedmodal.augment.ipa:IPA",
    "randconv": "fedmodal.augment.randconv:RandomConvolution",
    "spectrum": "fedmodal.augment.spectrum:Spectrum",
    "normlocal": "fedmodal.normlocal:NormLocal",
}
"""The arms by name, as `module:class`; a module is imported when its arm is made."""


class Arm(Protocol):
    """An intensity augmentation of a batch of images (N, C, *spatial) of floating point.

    Returns a tensor of the same shape, type and device; every random number is drawn from the CPU
    generator, so that the result is a function of images and generator state.
    """

    def __call__(self, images: "torch.Tensor", generator: "torch.Generator") -> "torch.Tensor":
        """Augment a batch."""


def make_arm(name: str, options: Mapping[str, object] = MappingProxyType({})) -> Arm:
    """Make an arm from its name and its keyword arguments.

    Raises:
        UserError: there is no such arm (the message lists those that exist), or the arm does not
            take these options.
    """
    if name not in ARMS:
        raise UserError(f"unknown augmentation arm '{name}': choose one of {', '.join(ARMS)}")
    module, _, attribute = ARMS[name].partition(":")
    make = getattr(import_module(module), attribute)
    try:
        return cast("Arm", make(**options))
    except (TypeError, ValueError) as error:
        raise UserError(f"augmentation arm '{name}': {error}; correct its options") from error
