"""A network from a task and a configuration."""

import hashlib
from collections.abc import Mapping
from typing import Annotated, Literal, Self

import torch
from monai.networks.layers import Conv
from monai.networks.nets import UNet
from pydantic import BaseModel, ConfigDict, Field, model_validator

from fedmodal.tasks import get_task


class NetworkConfig(BaseModel):
    """MONAI's U-Net.

    Instance norm is the default: it keeps no running statistics, so that there is nothing of one
    site's intensities to average into another's.

    Attributes:
        spatial_dims: 2 for slices, 3 for volumes.
        channels: feature channels per level, from fine to coarse; each further level halves the grid.
        residual_units: with 1 or more, that many convolutions a level with a skip around them. None
            is the default: on a CPU twice as many steps reach more (docs/results.md).
        head: "direct", class scores straight from the finest features; "monai", as MONAI has it, with
            a norm and, with residual units, convolutions on as many channels as there are classes.
            Direct learns small organs in far fewer steps; MONAI's is ahead on a modality that was
            not trained on (docs/results.md).
        activation: MONAI's default is "prelu"; the leaky one has no weights of its own.
        norm: normalization layer.
        dropout: probability of dropping a feature.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    spatial_dims: Literal[2, 3] = 2
    channels: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=2)] = (16, 32, 64, 128, 128)
    residual_units: Annotated[int, Field(ge=0)] = 0
    head: Literal["direct", "monai"] = "direct"
    activation: Literal["leakyrelu", "prelu"] = "leakyrelu"
    norm: Literal["instance", "batch"] = "instance"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0

    @model_validator(mode="after")
    def _fits_slices(self) -> Self:
        if len(self.channels) > 5:
            raise ValueError("at most 5 levels: slices are multiples of 16 voxels")
        return self


class SegmentationNetwork(UNet):  # type: ignore[misc]
    """A U-Net with one image channel in and a score per class (background first) out.

    Input (N, 1, *spatial), output (N, classes, *spatial); each spatial size must be a multiple of
    2 to the power of the number of levels less one. The initial weights depend on `seed` only, so
    that server, sites and a training without a federation start from the same network.
    """

    def __init__(self, task: str, seed: int, network: Mapping[str, object] | None = None) -> None:
        self.config = NetworkConfig.model_validate(network or {})
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            super().__init__(
                spatial_dims=self.config.spatial_dims,
                in_channels=1,
                out_channels=get_task(task).num_classes,
                channels=self.config.channels,
                strides=(2,) * (len(self.config.channels) - 1),
                num_res_units=self.config.residual_units,
                norm=self.config.norm,
                act=self.config.activation,
                dropout=self.config.dropout,
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores (N, classes, *spatial) of images (N, 1, *spatial) on any intensity scale."""
        scores: torch.Tensor = super().forward(standardize(x))
        return scores

    def _get_up_layer(
        self, in_channels: int, out_channels: int, strides: int, is_top: bool
    ) -> torch.nn.Module:
        """MONAI's layers, but for the direct head: class scores straight from the finest features.

        MONAI ends in a norm and a residual unit on as many channels as there are classes, on the
        full grid. Instance norm there brings every class to the same mean and variance in each
        slice, so that "no gallbladder in this slice" is hard to say.
        """
        if not is_top or self.config.head == "monai":
            layer: torch.nn.Module = super()._get_up_layer(in_channels, out_channels, strides, is_top)
            return layer
        transposed = Conv[Conv.CONVTRANS, self.dimensions]
        head: torch.nn.Module = transposed(in_channels, out_channels, kernel_size=strides, stride=strides)
        return head


def standardize(images: torch.Tensor) -> torch.Tensor:
    """Each image and channel of (N, C, *spatial) to mean 0 and standard deviation 1; a constant to 0."""
    axes = tuple(range(2, images.ndim))
    centred = images - images.mean(axes, keepdim=True)
    return centred / (centred.square().mean(axes, keepdim=True).sqrt() + 1e-5)


def weights_hash(weights: Mapping[str, torch.Tensor]) -> str:
    """A short fingerprint of a state dict: names, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name}{tuple(tensor.shape)}{tensor.dtype}".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:16]
