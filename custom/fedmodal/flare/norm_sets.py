"""The norm layers that stayed at the sites, saved with the result of a run of arm `normlocal`."""

from pathlib import Path

import torch
from nvflare.apis.dxo import from_shareable
from nvflare.apis.fl_constant import ReturnCode
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.app_constant import AppConstants
from nvflare.app_common.app_event_type import AppEventType
from nvflare.widgets.widget import Widget

from fedmodal.flare.payload import NORM_SET
from fedmodal.normlocal import NormSet, read_norm_sets, write_norm_sets


class NormSets(Widget):  # type: ignore[misc]
    """Keeps each site's norm set, as it is sent once, with the site's own model, after the last round."""

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Act on a site's own model."""
        if event_type == AppEventType.RECEIVE_BEST_MODEL:
            self._keep(fl_ctx)

    def _keep(self, fl_ctx: FLContext) -> None:
        result = fl_ctx.get_prop(AppConstants.RECEIVED_MODEL)
        if result.get_return_code() not in (None, ReturnCode.OK):
            return
        found = from_shareable(result).get_meta_prop(NORM_SET)
        if found is None:
            return
        weights = {name: torch.as_tensor(values) for name, values in found["weights"].items()}
        folder = Path(fl_ctx.get_engine().get_workspace().get_run_dir(fl_ctx.get_job_id()))
        site = fl_ctx.get_prop(AppConstants.RECEIVED_MODEL_OWNER)
        write_norm_sets(read_norm_sets(folder) | {site: NormSet(found["modality"], weights)}, folder)
