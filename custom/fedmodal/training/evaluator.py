"""Evaluation on whole volumes, slice by slice, in each image's own space."""

from collections.abc import Callable, Sequence

import numpy as np
import torch

from fedmodal.data.preprocess import restore
from fedmodal.data.store import StoredCase
from fedmodal.normlocal import select_domain
from fedmodal.tasks import Task
from fedmodal.training.metrics import PatientScore, score_patient


class Stopped(Exception):  # noqa: N818 - not an error: someone asked to stop
    """Training or evaluation was asked to stop and did so within one batch."""


def never() -> bool:
    """Nobody asks to stop."""
    return False


def predict_scores(
    network: torch.nn.Module,
    image: np.ndarray,
    device: torch.device,
    *,
    batch_size: int = 16,
    should_stop: Callable[[], bool] = never,
) -> torch.Tensor:
    """Class probabilities (classes, S, H, W), float32 on the CPU, of a stored image (S, H, W).

    Raises:
        Stopped: `should_stop` said so between two batches.
    """
    parts = []
    with torch.inference_mode():
        for start in range(0, len(image), batch_size):
            if should_stop():
                raise Stopped
            slices = torch.from_numpy(image[start : start + batch_size].astype(np.float32))
            parts.append(network(slices[:, None].to(device)).softmax(dim=1).cpu())
    return torch.cat(parts).movedim(0, 1)


def evaluate(
    network: torch.nn.Module,
    cases: Sequence[StoredCase],
    task: Task,
    device: torch.device,
    should_stop: Callable[[], bool] = never,
    *,
    thorough: bool = False,
) -> list[PatientScore]:
    """Score every patient on the grid of the image as the hospital stored it.

    Dice only, or with `thorough` every measure of `metrics`.

    Raises:
        Stopped: `should_stop` said so between two batches.
    """
    was_training = network.training
    network.eval()
    try:
        scores = []
        for case in cases:
            select_domain(network, case.modality.value)
            probabilities = predict_scores(network, case.image, device, should_stop=should_stop)
            prediction = restore(probabilities, case.geometry)
            affine = np.array(case.geometry.affine) if thorough else None
            scores.append(
                score_patient(case.patient, prediction, case.reference, task, case.annotated, affine)
            )
        return scores
    finally:
        network.train(was_training)
