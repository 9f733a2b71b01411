"""Domain-specific normalization: batch norm stays where the images are.

After FedBN (Li et al., ICLR 2021, arXiv 2102.07623: weights and statistics stay), SiloBN (Andreux
et al., DART 2020, arXiv 2008.07424: the statistics alone) and, where data are pooled, DSBN (Chang
et al., CVPR 2019, arXiv 1906.03950: one batch norm a domain in one network).
"""

import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, cast, get_args

import torch
from torch import Tensor
from torch.nn.modules.batchnorm import _BatchNorm

from fedmodal.errors import UserError

Kept = Literal["layers", "statistics"]
NORMLOCAL = "normlocal"
"""The arm's name."""

NORM_SETS_FILE = "norm_sets.pt"
"""Per site, its modality and norm layers, beside the record of a run."""


class NormLocal:
    """The arm: images stay as they are, and batch norm stays at the site.

    Args:
        keep: what stays: "layers" (weights and statistics, FedBN) or "statistics" (SiloBN).

    Raises:
        ValueError: another `keep`.
    """

    def __init__(self, keep: Kept = "layers") -> None:
        if keep not in get_args(Kept):
            raise ValueError(f"keep must be one of {', '.join(get_args(Kept))}, got {keep!r}")
        self.keep = keep

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:  # noqa: ARG002
        """Return the images as they are."""
        return images

    def local_names(self, network: torch.nn.Module) -> frozenset[str]:
        """Names in the network's state dict that stay at the site; norm layers are found by type.

        Raises:
            UserError: the network has no batch norm.
        """
        names = frozenset(
            f"{place}.{name}"
            for place, layer in _layers(network)
            for name in (layer.state_dict() if self.keep == "layers" else dict(layer.named_buffers()))
        )
        if not names:
            raise UserError(
                f"arm '{NORMLOCAL}' keeps batch norm at the site, but the network has none: "
                'set "network": {"norm": "batch"} in the training settings'
            )
        return names


def _layers(network: torch.nn.Module) -> Iterable[tuple[str, _BatchNorm]]:
    return ((name, layer) for name, layer in network.named_modules() if isinstance(layer, _BatchNorm))


class DomainNorm(torch.nn.Module):
    """Batch norm with weights and statistics for each domain; one of them is in force at a time."""

    def __init__(self, layer: _BatchNorm, domains: Iterable[str]) -> None:
        super().__init__()
        self.domains = torch.nn.ModuleDict({domain: copy.deepcopy(layer) for domain in domains})
        self.selected = next(iter(self.domains))

    def forward(self, features: Tensor) -> Tensor:
        """Normalize (N, C, *spatial) by the selected domain's layer."""
        return cast("Tensor", self.domains[self.selected](features))


def split_domains(network: torch.nn.Module, domains: Iterable[str]) -> None:
    """Replace every batch norm of the network by one batch norm a domain, all with its present state."""
    domains = tuple(domains)
    for place, layer in list(_layers(network)):
        parent, _, name = place.rpartition(".")
        setattr(network.get_submodule(parent), name, DomainNorm(layer, domains))


def select_domain(network: torch.nn.Module, domain: str) -> None:
    """Put a domain's norm layers into force; a network without `DomainNorm` stays as it is.

    Raises:
        KeyError: the network has layers for other domains only.
    """
    for layer in network.modules():
        if isinstance(layer, DomainNorm):
            if domain not in layer.domains:
                raise KeyError(f"no norm layers for {domain}, only for {', '.join(layer.domains)}")
            layer.selected = domain


@dataclass(frozen=True)
class NormSet:
    """One site's part of a network: its modality and its entries of the state dict."""

    modality: str
    weights: Mapping[str, Tensor]


def write_norm_sets(sets: Mapping[str, NormSet], folder: Path) -> Path:
    """Write the sites' sets into a run's folder, as a whole or not at all."""
    content = {site: {"modality": one.modality, "weights": dict(one.weights)} for site, one in sets.items()}
    partial = folder / (NORM_SETS_FILE + ".partial")
    torch.save(content, partial)
    return partial.replace(folder / NORM_SETS_FILE)


def read_norm_sets(folder: Path) -> dict[str, NormSet]:
    """The sites' sets in a run's folder; empty if the run has none."""
    path = folder / NORM_SETS_FILE
    if not path.exists():
        return {}
    content = torch.load(path, map_location="cpu", weights_only=True)
    return {site: NormSet(**one) for site, one in content.items()}


def choose_set(sets: Mapping[str, NormSet], site: str, modality: str) -> NormSet:
    """The set for a site's images: its own, else the first of their modality, else the first of all.

    One of another modality is no more than a start: the site's own statistics must replace its own
    (`recompute_statistics`).
    """
    if site in sets:
        return sets[site]
    same = [one for _, one in sorted(sets.items()) if one.modality == modality]
    return (same or [one for _, one in sorted(sets.items())])[0]


@torch.no_grad()
def recompute_statistics(network: torch.nn.Module, batches: Iterable[Tensor]) -> None:
    """Replace the running statistics of every batch norm by those of these images; no labels needed.

    Means over the batches, each with the same weight: a new site's way to join (AdaBN, Li et al.,
    arXiv 1603.04779). Everything else stays as it is.

    Args:
        network: with batch norm.
        batches: images (N, 1, *spatial), at least one batch, on the network's device.
    """
    was_training = network.training
    network.eval()
    layers = [layer for _, layer in _layers(network)]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None
        layer.train()
    for images in batches:
        network(images)
    for layer, momentum in zip(layers, momenta, strict=True):
        layer.momentum = momentum
    network.train(was_training)
