"""`metadata.json`, after MONAI's schema for bundles."""

from importlib.metadata import version
from typing import Any

from fedmodal import __version__
from fedmodal.inference.bundle.facts import Facts
from fedmodal.inference.model import Model
from fedmodal.tasks import Modality

SCHEMA = (
    "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
)
BUNDLE_VERSION = "1.0.0"
IGNITE = "0.5.5"
"""What MONAI's evaluator needs; this package does not use it, so it may not be installed here."""
INTENDED_USE = (
    "Research: outlines of organs in CT and MRI for a person to check. "
    "Not a medical device, not for diagnosis or treatment."
)
PHANTOMS = "Trained on phantoms, synthetic patients drawn by a program: for trying the software only."
REFERENCES = [
    "Federated Learning for Cross-Modality Medical Image Segmentation "
    "via Augmentation-Driven Generalization. arXiv 2602.20773",
    "Ouyang et al. Causality-inspired Single-source Domain Generalization "
    "for Medical Image Segmentation. arXiv 2111.12525",
]


def bundle_metadata(model: Model, facts: Facts, modalities: tuple[Modality, ...]) -> dict[str, Any]:
    """What MONAI's schema asks for, and under `training` where the model comes from.

    Args:
        model: whose task and fingerprint.
        facts: of its training.
        modalities: of the images that it takes.
    """
    organs = ", ".join(f"{organ.id} {organ.name}" for organ in model.task.organs)
    sites = ", ".join(site.name for site in facts.sites) or "not recorded"
    return {
        "schema": SCHEMA,
        "version": BUNDLE_VERSION,
        "changelog": {BUNDLE_VERSION: f"weights {model.fingerprint}, written by fedmodal {__version__}"},
        "monai_version": version("monai"),
        "pytorch_version": version("torch"),
        "numpy_version": version("numpy"),
        "required_packages_version": {"nibabel": version("nibabel"), "pytorch-ignite": IGNITE},
        "name": bundle_name(model),
        "task": f"Segmentation of {len(model.task.organs)} label(s) of the {model.task.name} in CT and MRI",
        "description": f"{_warning(facts)}2D U-Net, slice by slice. Labels: {organs}.",
        "authors": f"trained with fedmodal by the sites: {sites}",
        "copyright": "of the sites that trained it; see LICENSE",
        "data_source": PHANTOMS if facts.phantoms else "the training sites; the images are not available",
        "data_type": "nibabel",
        "image_classes": "one channel; on the network's side 0 to 1",
        "pred_classes": f"{model.task.num_classes} channels of scores; postprocessed one: {organs}",
        "eval_metrics": {"mean_dice": {score.data: score.mean for score in facts.scores}},
        "intended_use": INTENDED_USE,
        "references": REFERENCES,
        "training": _training(facts),
        "network_data_format": _network_format(model, modalities),
    }


def bundle_name(model: Model) -> str:
    """MONAI Label takes the kind of task from the name."""
    return f"fedmodal_{model.task.name}_segmentation"


def _warning(facts: Facts) -> str:
    return f"{PHANTOMS} " if facts.phantoms else ""


def _training(facts: Facts) -> dict[str, Any]:
    return {
        "kind": facts.kind,
        "job": facts.name,
        "augmentation": facts.arm,
        "rounds": facts.rounds,
        "model": facts.chosen,
        "modalities": list(facts.modalities),
        "phantoms": facts.phantoms,
        "sites": {
            site.name: {key: vars(site)[key] for key in vars(site) if key != "name"} for site in facts.sites
        },
        "dice": {
            score.data: {key: vars(score)[key] for key in vars(score) if key != "data"}
            for score in facts.scores
        },
    }


def _network_format(model: Model, modalities: tuple[Modality, ...]) -> dict[str, Any]:
    names = ["background", *(organ.name for organ in model.task.organs)]
    shared = {
        "type": "image",
        "spatial_shape": list(model.task.slice_size),
        "dtype": "float32",
        "is_patch_data": True,
    }
    image = {
        "format": "magnitude",
        "modality": " or ".join("MR" if one is Modality.MRI else "CT" for one in modalities),
        "num_channels": 1,
        "value_range": [0, 1],
        "channel_def": {"0": "image"},
    }
    pred = {
        "format": "segmentation",
        "num_channels": model.task.num_classes,
        "value_range": [],
        "channel_def": {str(index): name for index, name in enumerate(names)},
    }
    return {"inputs": {"image": shared | image}, "outputs": {"pred": shared | pred}}
