"""MONAI for a client process, without optional packages that training never uses.

`import monai` imports all of MONAI, and with it, where they are installed, packages that parts of
it can use: about half of its time (benchmarks/startup.py). In the simulator with fewer threads
than sites, FLARE starts a client process for every task. MONAI is made to run without these
packages; here it finds them absent. Import this before anything else that imports MONAI.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

NOT_NEEDED = ("matplotlib", "scipy.signal", "requests", "tensorboard", "torch.utils.tensorboard")


@contextmanager
def absent(names: tuple[str, ...]) -> Iterator[None]:
    """Within, importing a package that is not loaded yet fails as if it were not installed."""
    hidden = [name for name in names if name not in sys.modules]
    # The import system takes None for "this module is not to be found".
    sys.modules.update(dict.fromkeys(hidden))  # type: ignore[arg-type]
    try:
        yield
    finally:
        for name in hidden:
            del sys.modules[name]


with absent(NOT_NEEDED):
    import monai.losses
    import monai.networks.nets
    import monai.transforms  # noqa: F401
