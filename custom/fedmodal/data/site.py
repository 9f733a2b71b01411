"""Where a site's data lie, and the phantoms that stand in for them in the simulator."""

import json
import os
import re
from collections.abc import Callable
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from fedmodal.data.dataset import DATASET_FILE, Dataset, Split, read_dataset
from fedmodal.data.phantom import PHANTOM_VERSION, write_phantoms
from fedmodal.data.store import CACHE_VARIABLE, default_cache
from fedmodal.errors import UserError
from fedmodal.tasks import Modality, Task

DATA_VARIABLE = "FEDMODAL_DATA"
SITE_FILE = "fedmodal.json"
COMMENT = "//"
PHANTOM_COUNTS = {Split.TRAIN: 16, Split.VALIDATION: 3, Split.TEST: 5}
PHANTOM_SEED = 2602


class SiteFile(BaseModel):
    """A site's own `local/fedmodal.json`; entries whose name begins with `//` are comments.

    Attributes:
        data: the folder with the site's `dataset.json`.
        cache: where prepared slices are kept; None for the default.
        phantoms: train on synthetic patients if there are no data; only ever by the site's own word.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    data: Path | None = None
    cache: Path | None = None
    phantoms: bool = False


def read_site_file(local: Path) -> SiteFile:
    """Read `fedmodal.json` in a site's `local` folder; without one, nothing is set.

    Raises:
        UserError: the file is not JSON or holds an unknown or wrong entry.
    """
    path = local / SITE_FILE
    if not path.exists():
        return SiteFile()
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            content = {name: value for name, value in content.items() if not name.startswith(COMMENT)}
        return SiteFile.model_validate(content)
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from error
    except ValidationError as error:
        first = error.errors()[0]
        raise UserError(f"{path}: {'.'.join(map(str, first['loc']))}: {first['msg']}") from error


def cache_of(site_file: SiteFile) -> Path:
    """Where the site keeps prepared slices: FEDMODAL_CACHE, else its site file, else the default."""
    if site_file.cache is None or os.environ.get(CACHE_VARIABLE):
        return default_cache()
    return site_file.cache


def find_dataset(
    site: str,
    task: Task,
    site_file: SiteFile,
    cache: Path,
    *,
    simulator: bool,
    progress: Callable[[int, int], None] | None = None,
) -> Dataset:
    """The site's data set.

    First the folder in the environment variable FEDMODAL_DATA (itself, or its subfolder named
    after the site), then the site file's. With neither, the simulator makes phantoms: CT for odd
    sites, MRI for even ones. Outside the simulator only the site file can ask for phantoms.

    Raises:
        UserError: nothing is set, the folder holds no data set, or it is for another task.
    """
    folder = configured_folder(site, site_file)
    if folder is None:
        if not (simulator or site_file.phantoms):
            raise UserError(no_data(site))
        return phantoms_for(site, task, cache, progress)
    dataset = read_dataset(folder)
    if dataset.task != task.name:
        raise UserError(
            f"{folder}: the data set is for task '{dataset.task}', the job trains '{task.name}'; "
            f"point {DATA_VARIABLE} or local/{SITE_FILE} to one for '{task.name}'"
        )
    return dataset


def no_data(site: str) -> str:
    """What to tell a site that names no data."""
    return (
        f"site '{site}' has no data: set {DATA_VARIABLE} or \"data\" in local/{SITE_FILE} "
        f"to the folder that holds {DATASET_FILE}"
    )


def configured_folder(site: str, site_file: SiteFile) -> Path | None:
    """The folder that the environment or the site file names, or None.

    Raises:
        UserError: the environment names one without a data set in it.
    """
    variable = os.environ.get(DATA_VARIABLE)
    if not variable:
        return site_file.data
    folder = Path(variable)
    if (folder / DATASET_FILE).is_file():
        return folder
    if (folder / site / DATASET_FILE).is_file():
        return folder / site
    raise UserError(
        f"{DATA_VARIABLE}={folder}: found neither {DATASET_FILE} nor {site}/{DATASET_FILE} in it; "
        "see docs/data.md for how to make one"
    )


def phantoms_for(
    site: str, task: Task, cache: Path, progress: Callable[[int, int], None] | None = None
) -> Dataset:
    """Synthetic patients for a site, made once and kept in the cache: odd sites CT, even ones MRI."""
    folder, modality, seed = _phantoms(site, task, cache)
    return find_phantoms(site, task, cache) or write_phantoms(
        folder, task, modality, PHANTOM_COUNTS, seed, progress
    )


def find_phantoms(site: str, task: Task, cache: Path) -> Dataset | None:
    """The site's synthetic patients where the cache holds them already, else None."""
    folder, _, _ = _phantoms(site, task, cache)
    return read_dataset(folder) if (folder / DATASET_FILE).is_file() else None


def _phantoms(site: str, task: Task, cache: Path) -> tuple[Path, Modality, int]:
    """Their folder, modality and seed."""
    number = int(match.group()) if (match := re.search(r"\d+$", site)) else 1
    modality = Modality.CT if number % 2 else Modality.MRI
    seed = PHANTOM_SEED + (number - 1) // 2
    counts = "-".join(str(PHANTOM_COUNTS[split]) for split in Split)
    name = f"{task.name}-{modality.lower()}-{seed}-{counts}-v{PHANTOM_VERSION}"
    return cache / "phantoms" / name, modality, seed
