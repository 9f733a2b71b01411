"""What a startup kit gets beyond FLARE's own: policies, the package, the guide, signatures."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from nvflare.lighter.constants import CtxKey, PropKey, ProvFileName, ProvisionMode
from nvflare.lighter.ctx import ProvisionContext
from nvflare.lighter.entity import Participant, Project
from nvflare.lighter.spec import Builder
from nvflare.lighter.utils import sign_folders

from fedmodal import __version__
from fedmodal.data.site import SITE_FILE
from fedmodal.flare.policy import authorization, class_allow_list, privacy
from fedmodal.tasks import Modality

PACKAGES = "packages"
"""The kit's folder with the wheels and their pinned versions."""

REQUIREMENTS = "requirements.txt"
GUIDE = "SITE-GUIDE.md"
TEST_SECTION = "# What the tests use"
PRIVATE_KEYS = "*.key"

Change = Callable[[dict[str, Any]], dict[str, Any]]


class KitBuilder(Builder):  # type: ignore[misc]
    """Completes the kits; the last of the builders in `project.yml`, whose files it signs.

    Every kit with a server or a site in it gets the class allow list, the authorization and the
    privacy policy of `fedmodal.flare.policy` as its defaults, and every kit the package with its
    pinned requirements. A site also gets its guide and a sample of its `fedmodal.json`. What is in
    `startup` and `packages` is signed by the project's root key; `local` is the site's own and is not.

    Args:
        guide: the template of the sites' guide (Jinja2), from where the command is typed.
        requirements: the pinned requirements, from where the command is typed.
        wheels: the folder with the package's wheel, and with those of all requirements where sites
            install without a network.
        server_storage: the folder at the server for jobs, results and snapshots; absolute.
    """

    def __init__(self, guide: str, requirements: str, wheels: str, server_storage: str) -> None:
        self.guide = Path(guide)
        self.requirements = Path(requirements)
        self.wheels = Path(wheels)
        self.server_storage = Path(server_storage)

    def initialize(self, project: Project, ctx: ProvisionContext) -> None:
        """Look at what is needed before anything is written.

        Raises:
            SystemExit: a file or the package's wheel is missing, or a participant lacks its modality;
                any other exception FLARE would print with its traceback.
        """
        for path in (self.guide, self.requirements):
            if not path.is_file():
                raise SystemExit(f"fedmodal: {path} not found: type this in the root of the repository")
        if not self.server_storage.is_absolute():
            raise SystemExit(f"fedmodal: server_storage: {self.server_storage} must be an absolute folder")
        for site in project.get_clients():
            if site.get_prop("modality") not in set(Modality):
                raise SystemExit(f"fedmodal: participant {site.name}: set modality: CT or modality: MRI")
        self.with_packages = ctx.get_provision_mode() != ProvisionMode.POC  # there, all is installed
        if self.with_packages:
            self.packages = _checked_wheels(self.wheels)

    def build(self, project: Project, ctx: ProvisionContext) -> None:
        """Write policies, packages and guides."""
        server, sites = project.get_server(), project.get_clients()
        self._policies(Path(ctx.get_local_dir(server)), self._server_resources)
        for site in sites:
            self._policies(Path(ctx.get_local_dir(site)), _site_resources)
            self._site_files(site, project, ctx)
        for participant in (server, *sites, *project.get_admins()):
            if self.with_packages:
                self._packages(Path(ctx.get_ws_dir(participant)) / PACKAGES)
            _finish(participant, ctx)

    def _policies(self, local: Path, change: Change) -> None:
        resources = local / ProvFileName.RESOURCES_JSON_DEFAULT
        content = json.loads(resources.read_text(encoding="utf-8"))
        _write_json(resources, change(content | {"class_allow_list": class_allow_list()}))
        _write_json(local / ProvFileName.AUTHORIZATION_JSON_DEFAULT, authorization())
        (local / ProvFileName.PRIVACY_JSON_SAMPLE).unlink()
        _write_json(local / "privacy.json", privacy())

    def _server_resources(self, resources: dict[str, Any]) -> dict[str, Any]:
        """FLARE keeps jobs and snapshots in /tmp, which a restart of the machine empties."""
        snapshots = resources["snapshot_persistor"]["args"]["storage"]["args"]
        snapshots["root_dir"] = str(self.server_storage / "snapshots")
        (manager,) = (part for part in resources["components"] if part["id"] == "job_manager")
        manager["args"]["uri_root"] = str(self.server_storage / "jobs")
        return resources

    def _site_files(self, site: Participant, project: Project, ctx: ProvisionContext) -> None:
        template = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)  # noqa: S701 - Markdown
        text = template.from_string(self.guide.read_text(encoding="utf-8"))
        modality = site.get_prop("modality")
        guide = text.render(
            site=site.name,
            org=site.org,
            modality=modality,
            project=project.name,
            server=project.get_server().get_default_host(),
            port=ctx.get(CtxKey.FED_LEARN_PORT),
            admins=[
                admin.name
                for admin in project.get_admins()
                if admin.get_prop(PropKey.ROLE) == "project_admin"
            ],
            own_admins=[admin.name for admin in project.get_admins() if admin.org == site.org],
            version=__version__,
        )
        folder = Path(ctx.get_ws_dir(site))
        (folder / GUIDE).write_text(guide, encoding="utf-8")
        sample = {
            "// data": f"the folder that holds dataset.json, with {modality} images",
            "data": f"/data/fedmodal/{modality.lower()}",
            "// cache": "a fast disk with room for the prepared slices",
            "cache": "/var/cache/fedmodal",
        }
        _write_json(folder / "local" / f"{SITE_FILE}.sample", sample)

    def _packages(self, folder: Path) -> None:
        folder.mkdir()
        for wheel in self.packages:
            _link_or_copy(wheel, folder / wheel.name)
        text = site_requirements(self.requirements.read_text(encoding="utf-8"))
        (folder / REQUIREMENTS).write_text(text, encoding="utf-8")


def _link_or_copy(source: Path, target: Path) -> None:
    """With all requirements the wheels take hundreds of megabytes, in every kit again."""
    try:
        target.hardlink_to(source)
    except OSError:
        shutil.copy2(source, target)


def site_requirements(requirements: str) -> str:
    """The repository's pinned requirements as a site installs them: our wheel, and nothing for tests."""
    paragraphs = [part for part in requirements.split("\n\n") if not part.startswith(TEST_SECTION)]
    lines = "\n\n".join(paragraphs).splitlines()
    kept = [f"fedmodal=={__version__}" if line == "-e ." else line for line in lines]
    kept[0] = "# Versions that this kit was tested with"
    return "\n".join(kept) + "\n"


def _checked_wheels(folder: Path) -> Sequence[Path]:
    wheels = sorted(folder.glob("*.whl"))
    ours = [wheel for wheel in wheels if wheel.name.startswith(f"fedmodal-{__version__}-")]
    if len(ours) != 1:
        raise SystemExit(f"fedmodal: {folder}: no wheel of fedmodal {__version__}; `make wheel` makes it")
    return wheels


def _site_resources(resources: dict[str, Any]) -> dict[str, Any]:
    """A site's logs name its files, so that they stay at the site."""
    kept = [part for part in resources["components"] if part["id"] != "site_log_streamer"]
    return resources | {"allow_log_streaming": False, "components": kept}


def _finish(participant: Participant, ctx: ProvisionContext) -> None:
    """Take private keys from other people's eyes, and sign what must not be altered."""
    startup = Path(ctx.get_kit_dir(participant))
    for path in startup.glob(PRIVATE_KEYS):
        path.chmod(0o600)
    key = ctx.get(CtxKey.ROOT_PRI_KEY)
    for folder in (startup, Path(ctx.get_ws_dir(participant)) / PACKAGES):
        if folder.is_dir():
            sign_folders(str(folder), key, signature_file=ProvFileName.SIGNATURE_JSON)


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
