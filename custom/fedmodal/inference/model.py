"""A trained model from a file or a run, ready to predict."""

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from fedmodal.errors import UserError
from fedmodal.networks import SegmentationNetwork, weights_hash
from fedmodal.normlocal import NormSet, choose_set, read_norm_sets
from fedmodal.report.record import find_record
from fedmodal.tasks import Modality, Task, get_task
from fedmodal.training.pooled import MODEL_FILE

SERVER_FOLDER = "app_server"
GLOBAL_MODELS = ("best_FL_global_model.pt", "FL_global_model.pt")
"""FLARE's files of a run's global models, the one to prefer first."""

SERVER_CONFIG = Path("config") / "config_fed_server.json"
NETWORK_CLASS = f"{SegmentationNetwork.__module__}.{SegmentationNetwork.__name__}"

Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Model:
    """A trained network and what it is for.

    Attributes:
        path: the file that it came from.
        task: what it segments.
        fingerprint: hash of its weights.
        norm_sets: of arm `normlocal`, each site's norm layers; else empty.
    """

    path: Path
    task: Task
    fingerprint: str
    norm_sets: Mapping[str, NormSet]
    _network: SegmentationNetwork

    def network(self, modality: Modality, site: str = "") -> torch.nn.Module:
        """The network for images of a modality, in evaluation mode.

        Args:
            modality: of the images.
            site: where they are from, whose own norm layers come first; empty for none that took part.

        Raises:
            UserError: norm layers stay at the sites, and none of that modality took part.
        """
        if self.norm_sets:
            chosen = choose_set(self.norm_sets, site, modality.value)
            if chosen.modality != modality:
                raise UserError(
                    f"{self.path}: has norm layers for {chosen.modality} only, not for {modality}"
                )
            self._network.load_state_dict({**self._network.state_dict(), **chosen.weights})
        network: torch.nn.Module = self._network.eval()
        return network


def load_model(path: Path) -> Model:
    """Load a model of `fedmodal train`, or a global model of a federated run.

    Args:
        path: `model.pt`; FLARE's `*FL_global_model.pt` where the run left it; or the folder of either,
            such as a simulator workspace or a downloaded job, of which the best global model is taken.

    Raises:
        UserError: no model there, a damaged file, weights of another network, or weights that are
            not those that were saved.
    """
    file = _file(path)
    content = _read(file)
    about = content.get("fedmodal") or _about(file)
    weights = content["model"]
    if "hash" in about and weights_hash(weights) != about["hash"]:
        raise UserError(f"{file}: the weights are not those that were saved; copy the file again")
    network = _network(file, about, weights)
    sets = read_norm_sets(file.parents[1]) if file.parent.name == SERVER_FOLDER else {}
    return Model(file, get_task(about["task"]), weights_hash(weights), sets, network)


def _file(path: Path) -> Path:
    if not path.exists():
        raise UserError(f"{path}: no such model; name a model file or the folder of a run")
    if path.is_file():
        return path
    if (path / MODEL_FILE).is_file():
        return path / MODEL_FILE
    found = global_models(find_record(path).parent)
    if not found:
        raise UserError(f"{path}: the run left no global model; name a model file")
    return found[0]


def global_models(folder: Path) -> tuple[Path, ...]:
    """The files of a federated run's global models, the best one first; `folder` holds its record."""
    files = (folder / SERVER_FOLDER / name for name in GLOBAL_MODELS)
    return tuple(file for file in files if file.is_file())


def hash_of_model(file: Path) -> str:
    """Hash of the weights in a model file.

    Raises:
        UserError: no model, or damaged.
    """
    return weights_hash(_read(file)["model"])


def _read(file: Path) -> dict[str, Any]:
    try:
        content: dict[str, Any] = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, LookupError, pickle.UnpicklingError) as error:
        raise UserError(f"{file}: not a model, or damaged; copy it from its run again") from error
    if not isinstance(content, dict) or "model" not in content:
        raise UserError(f"{file}: not a model of this package or of a federated run")
    return content


def _about(file: Path) -> dict[str, Any]:
    """Task, seed and network of a federated run, from the job's configuration beside its models."""
    config = file.parent / SERVER_CONFIG
    try:
        parts = json.loads(config.read_text(encoding="utf-8"))["components"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(
            f"{file}: the job's {SERVER_CONFIG} is not beside it, so its network is unknown; "
            "name the model where the run left it"
        ) from error
    found = [part["args"] for part in parts if part.get("path") == NETWORK_CLASS]
    if len(found) != 1:
        raise UserError(f"{config}: builds no network of this package")
    about: dict[str, Any] = found[0]
    return about


def _network(file: Path, about: Mapping[str, Any], weights: Weights) -> SegmentationNetwork:
    try:
        network = SegmentationNetwork(about["task"], about.get("seed", 0), about.get("network"))
        network.load_state_dict(dict(weights))
    except (RuntimeError, KeyError, ValidationError) as error:
        raise UserError(f"{file}: its weights are for another network than it says") from error
    return network
