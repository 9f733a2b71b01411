"""Write a bundle, as a whole or not at all."""

import io
import json
import tempfile
import warnings
import zipfile
from collections.abc import Mapping
from importlib.metadata import distribution
from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from monai.data import save_net_with_metadata
from torch.jit._trace import TracerWarning

from fedmodal.errors import UserError
from fedmodal.inference.bundle.card import model_card
from fedmodal.inference.bundle.config import inference_config
from fedmodal.inference.bundle.facts import Facts, find_facts
from fedmodal.inference.bundle.metadata import bundle_metadata
from fedmodal.inference.model import Model
from fedmodal.tasks import Modality

LICENSE_FILE = "LICENSE"
LOGGING = "templates/logging.conf"


def write_bundle(model: Model, out: Path, modality: Modality | None = None) -> Facts:
    """Write configurations, weights, TorchScript, licence and model card into a new folder.

    Args:
        model: of `load_model`.
        out: the bundle's folder; new or empty.
        modality: whose intensity rule applies where nobody names one; by default the one that the
            model was trained on, CT if on both. With arm `normlocal`, the one whose network it is.

    Returns:
        What the model card says of the training.

    Raises:
        UserError: the folder holds something, the disk is full, or of `normlocal` no modality is named.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out}: exists and is not empty; remove it or name another folder for the bundle")
    facts = find_facts(model)
    _put(_contents(model, facts, _modality(model, facts, modality)), out)
    return facts


def _put(contents: Mapping[str, bytes], out: Path) -> None:
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
            partial = Path(scratch) / out.name
            for name, content in contents.items():
                (partial / name).parent.mkdir(parents=True, exist_ok=True)
                (partial / name).write_bytes(content)
            partial.replace(out)
    except OSError as error:
        raise UserError(
            f"{out}: cannot be written ({error.strerror}); make room or name another place"
        ) from error


def _modality(model: Model, facts: Facts, given: Modality | None) -> Modality:
    if given:
        return given
    if model.norm_sets:
        held = sorted({one.modality for one in model.norm_sets.values()})
        raise UserError(
            f"{model.path}: has a network a modality, and a bundle holds one; "
            f"add --modality {' or --modality '.join(held)}"
        )
    return Modality(facts.modalities[0]) if len(facts.modalities) == 1 else Modality.CT


def _contents(model: Model, facts: Facts, modality: Modality) -> dict[str, bytes]:
    """The bundle's files by their place in it."""
    only = bool(model.norm_sets)
    network = model.network(modality).cpu()
    config = inference_config(model.task, modality, only)
    metadata = bundle_metadata(model, facts, (modality,) if only else tuple(Modality))
    weights = io.BytesIO()
    torch.save(network.state_dict(), weights)
    return {
        "configs/inference.json": _json(config),
        "configs/metadata.json": _json(metadata),
        "configs/logging.conf": files(__package__).joinpath(LOGGING).read_bytes(),
        "models/model.pt": weights.getvalue(),
        "models/model.ts": torchscript(network, model.task.slice_size, metadata, config),
        "docs/README.md": model_card(model, facts, metadata, modality, only).encode(),
        LICENSE_FILE: _license(),
    }


def _json(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=2) + "\n").encode()


def torchscript(
    network: torch.nn.Module, size: tuple[int, int], metadata: Mapping[str, Any], config: Mapping[str, Any]
) -> bytes:
    """The network as TorchScript for slices of any number and size, with the configurations inside.

    Args:
        network: in evaluation mode, on the CPU.
        size: rows and columns of the slice that it is traced with.
        metadata: for `extra/metadata.json`.
        config: for `extra/inference.json`.
    """
    archive = io.BytesIO()
    extra = {"inference.json": _json(config)}
    with warnings.catch_warnings(), torch.inference_mode():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.export has no file that MONAI reads
        warnings.simplefilter("ignore", TracerWarning)  # of checks of a norm's size, which stays
        traced = torch.jit.trace(network, torch.zeros(2, 1, *size))  # type: ignore[no-untyped-call]
        save_net_with_metadata(
            traced, archive, include_config_vals=False, meta_values=metadata, more_extra_files=extra
        )
    return _without_paths(archive.getvalue())


def _without_paths(archive: bytes) -> bytes:
    """Leave out the tables of source lines, which hold this machine's paths; the root becomes `model`.

    MONAI Deploy looks for the configurations under the file's own name.
    """
    cleaned = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(archive)) as old,
        zipfile.ZipFile(cleaned, "w", zipfile.ZIP_STORED) as new,
    ):
        for name in old.namelist():
            if not name.endswith(".debug_pkl"):
                new.writestr(zipfile.ZipInfo(f"model/{name.partition('/')[2]}"), old.read(name))
    return cleaned.getvalue()


def _license() -> bytes:
    text = distribution("fedmodal").read_text(f"licenses/{LICENSE_FILE}")
    if text is None:
        raise UserError("the package's licence is not installed; run `pip install -r requirements.txt` again")
    return text.encode()
