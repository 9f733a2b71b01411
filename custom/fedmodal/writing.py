"""Results written to disk as a whole or not at all."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from fedmodal.errors import UserError


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A partial file beside `path` to write to; it gets its name at the end, or is taken away.

    Raises:
        UserError: the folder cannot be made or written, or the disk is full.
    """
    partial = path.with_name(f".partial-{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield partial
        partial.replace(path)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); make room or name another place"
        ) from error
