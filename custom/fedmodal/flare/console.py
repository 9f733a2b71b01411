"""A calm console in the simulator."""

import logging
from pathlib import Path

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_context import FLContext
from nvflare.fuel.utils.log_utils import LoggerNameFilter, dynamic_log_config
from nvflare.private.fed.simulator.simulator_const import SimulatorConstants
from nvflare.widgets.widget import Widget

EXPECTED_WARNINGS = ("Aggregation_weight missing for",)
"""Warnings of FLARE's about what our jobs mean: no weights by site's name beyond the slices' number."""


def in_simulator(fl_ctx: FLContext) -> bool:
    """Whether this job runs in FLARE's simulator; a provisioned federation gives each job its own id."""
    return bool(fl_ctx.get_job_id() == SimulatorConstants.JOB_NAME)


# The simulator builds this while its working directory is a deleted one, where torch cannot be
# loaded: nothing that imports torch may be imported here.
class ConsoleFilter(LoggerNameFilter):  # type: ignore[misc]
    """Our own lines, and all warnings and errors but the expected ones."""

    def __init__(self) -> None:
        super().__init__(logger_names=["fedmodal"])

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is shown."""
        expected = any(text in record.getMessage() for text in EXPECTED_WARNINGS)
        return bool(super().filter(record)) and not expected


class SimulatorConsole(Widget):  # type: ignore[misc]
    """Applies the simulator workspace's own `local/log_config.json` when a run starts.

    `nvflare simulator` always asks for its 'concise' log mode and so passes that file over; this
    puts it into force. Outside of the simulator the site's log configuration is left alone.
    """

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:
        """Act on the start of a run."""
        if event_type == EventType.START_RUN and in_simulator(fl_ctx):
            workspace = fl_ctx.get_engine().get_workspace()
            config = workspace.get_log_config_file_path()
            if config and Path(config).is_file():
                dynamic_log_config(config, workspace.get_root_dir(), config)
