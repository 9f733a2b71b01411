"""FedProx (Li et al., MLSys 2020, arXiv 1812.06127): a site is held near the global model."""

import copy

import torch
from nvflare.app_opt.pt.fedproxloss import PTFedProxLoss

from fedmodal.training.trainer import LossOf


class ProximalLoss:
    """A step's loss plus FLARE's proximal term, mu/2 times the squared distance to the global weights."""

    def __init__(self, loss_of: LossOf, mu: float) -> None:
        self.loss_of = loss_of
        self.proximal = PTFedProxLoss(mu)
        self._global: torch.nn.Module

    def start_round(self, network: torch.nn.Module) -> None:
        """Take the network's present weights as the global ones."""
        self._global = copy.deepcopy(network).requires_grad_(requires_grad=False)

    def __call__(self, network: torch.nn.Module, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """The loss of a batch, a scalar."""
        distance: torch.Tensor = self.proximal(network, self._global)
        return self.loss_of(network, images, labels) + distance
