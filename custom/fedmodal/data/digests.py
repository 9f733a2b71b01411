"""Content hashes of a data set's files, remembered so that a second start reads no image again."""

import hashlib
import json
from contextlib import suppress
from pathlib import Path

from fedmodal.errors import UserError


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes.

    Raises:
        UserError: no such file, or not readable.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError as error:
        raise UserError(f"{path}: no such file; put it there or take the case out of dataset.json") from error
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); mend its permissions or disk") from error


class Digests:
    """The hashes of one data set's files.

    A remembered hash counts while the file's size, times and inode are those it was taken with.
    """

    def __init__(self, cache: Path, folder: Path) -> None:
        name = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()
        self._index = cache / "digests" / f"{name[:16]}.json"
        self._known = self._read()
        self._used: dict[str, list[object]] = {}

    def of(self, path: Path) -> str:
        """SHA-256 of a file, from memory if the file is unchanged.

        Raises:
            UserError: no such file, or not readable.
        """
        stamp = _stamp(path)
        name = str(path.resolve())
        known = self._known.get(name)
        entry = known if known and known[:-1] == stamp else [*stamp, file_digest(path)]
        self._used[name] = entry
        return str(entry[-1])

    def save(self) -> None:
        """Remember the hashes asked for; a cache that cannot be written costs time, not the run."""
        if self._used == self._known:
            return
        partial = self._index.with_suffix(".partial")
        with suppress(OSError):
            partial.write_text(json.dumps(self._used), encoding="utf-8")
            partial.replace(self._index)

    def _read(self) -> dict[str, list[object]]:
        with suppress(OSError, ValueError):
            known = json.loads(self._index.read_text(encoding="utf-8"))
            if isinstance(known, dict):
                return {name: entry for name, entry in known.items() if isinstance(entry, list)}
        return {}


def _stamp(path: Path) -> list[object]:
    try:
        status = path.stat()
    except OSError:
        return []  # the read that follows says what is wrong
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
