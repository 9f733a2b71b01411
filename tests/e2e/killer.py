"""A client component that kills its own process, as a power cut would, when FLARE swaps it out."""

import os
import signal

from nvflare.apis.event_type import EventType
from nvflare.apis.fl_context import FLContext
from nvflare.widgets.widget import Widget


class KillBetweenRounds(Widget):
    """SIGKILL after a task was answered: nothing is flushed, finalized or said good-bye to."""

    def handle_event(self, event_type: str, fl_ctx: FLContext) -> None:  # noqa: ARG002
        if event_type == EventType.SWAP_OUT:
            os.kill(os.getpid(), signal.SIGKILL)
