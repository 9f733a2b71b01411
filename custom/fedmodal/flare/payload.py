"""What crosses the line between server and sites is checked before it is used."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from nvflare.apis.dxo import DXO, DataKind, MetaKey
from nvflare.apis.dxo_filter import DXOFilter
from nvflare.apis.fl_context import FLContext
from nvflare.apis.shareable import Shareable
from nvflare.app_common.app_constant import AppConstants

from fedmodal.errors import UserError

SITE_REPORT = "fedmodal"
"""Key of the DXO's meta under which a site reports its data, loss and Dice with its update."""

NORM_SET = "fedmodal_norm_set"
"""Key of the DXO's meta under which a site of arm `normlocal` adds its norm layers to its own model."""

REASON = "fedmodal_reason"
"""Header of a refusal that says why, in one line."""


def check_weights(received: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]], sender: str) -> None:
    """Check names, shapes and values of weights, or of differences of weights.

    Raises:
        UserError: the first fault found; the message names the sender.
    """
    missing, unknown = sorted(set(shapes) - set(received)), sorted(set(received) - set(shapes))
    if missing or unknown:
        raise UserError(
            f"weights from {sender} are for another network: "
            f"{len(missing)} missing{_first(missing)}, {len(unknown)} unknown{_first(unknown)}; "
            "server and sites must run the same job and the same version of fedmodal"
        )
    for name, shape in shapes.items():
        values = np.asarray(received[name])
        if tuple(values.shape) != tuple(shape):
            raise UserError(f"weights from {sender}: '{name}' has shape {values.shape}, expected {shape}")
        if not np.isfinite(values).all():
            raise UserError(f"weights from {sender}: '{name}' holds NaN or infinity; they are not used")


def _first(names: list[str]) -> str:
    return f" (first: {names[0]})" if names else ""


class CheckUpdate(DXOFilter):  # type: ignore[misc]
    """Server filter on training results: only whole, finite updates with a weight reach the average.

    Args:
        local: names of the weights that stay at the sites; an update that holds one is refused.
    """

    def __init__(self, local: Sequence[str] = ()) -> None:
        super().__init__([DataKind.WEIGHT_DIFF], [DataKind.WEIGHT_DIFF])
        self.local = frozenset(local)

    def process_dxo(self, dxo: DXO, shareable: Shareable, fl_ctx: FLContext) -> DXO | None:  # noqa: ARG002
        """Pass the update on unchanged.

        Raises:
            UserError: the update does not fit the global model, is not finite, or has no weight.
        """
        sender = fl_ctx.get_peer_context().get_identity_name(default="an unnamed site")
        learnable = fl_ctx.get_prop(AppConstants.GLOBAL_MODEL)
        shapes = {name: np.shape(values) for name, values in learnable["weights"].items()}
        shapes = {name: shape for name, shape in shapes.items() if name not in self.local}
        try:
            check_weights(dxo.data, shapes, sender)
            slices = dxo.get_meta_prop(MetaKey.NUM_STEPS_CURRENT_ROUND)
            if not isinstance(slices, int | float) or not 0 < slices < float("inf"):
                raise UserError(f"update from {sender} has no valid number of slices (got {slices!r})")
        except UserError as error:
            self.log_error(fl_ctx, str(error))
            raise
        return None
