"""What a freshly provisioned kit holds."""

import json
import shutil
from pathlib import Path

import pytest
from nvflare.app_common.default_component_policy import DEFAULT_CLASS_ALLOW_LIST
from nvflare.lighter.utils import verify_folder_signature

from fedmodal import __version__
from fedmodal.data.site import SiteFile, read_site_file
from fedmodal.errors import UserError
from fedmodal.flare.kits import KitBuilder, site_requirements
from fedmodal.flare.policy import OUR_CLASSES, authorization
from tests.kits import ADMIN, LEAD, ORG_ADMIN, ROOT, SERVER, local_project, provision

SITES = ("site-1", "site-2", "site-3")


def read(path: Path) -> dict[str, object]:
    content: dict[str, object] = json.loads(path.read_text())
    return content


@pytest.mark.parametrize("name", [SERVER, *SITES])
def test_server_and_sites_build_only_listed_classes(kits: Path, name: str) -> None:
    resources = read(kits / name / "local" / "resources.json.default")
    assert resources["class_allow_list"] == [*DEFAULT_CLASS_ALLOW_LIST, *OUR_CLASSES]
    assert resources["class_list_enforcement_mode"] == "enforce"


def test_no_class_of_ours_stands_for_many() -> None:
    assert not [name for name in OUR_CLASSES if name.endswith((".", "*"))]


@pytest.mark.parametrize("name", [SERVER, *SITES])
def test_nobody_may_bring_code(kits: Path, name: str) -> None:
    policy = read(kits / name / "local" / "authorization.json.default")
    assert policy == authorization()
    permissions = policy["permissions"]
    assert isinstance(permissions, dict)
    assert [rights["byoc"] for rights in permissions.values()] == ["none"] * 4


@pytest.mark.parametrize("name", [SERVER, *SITES])
def test_signed_jobs_are_required(kits: Path, name: str) -> None:
    (config,) = (kits / name / "startup").glob("fed_*.json")
    assert read(config)["require_signed_jobs"] is True


@pytest.mark.parametrize("name", [SERVER, *SITES, ADMIN, LEAD, ORG_ADMIN])
def test_startup_and_packages_are_signed_and_the_key_is_private(kits: Path, name: str) -> None:
    kit = kits / name
    authority = str(kit / "startup" / "rootCA.pem")
    for folder in (kit / "startup", kit / "packages"):
        assert verify_folder_signature(str(folder), authority, True, "signature.json")
    (key,) = (kit / "startup").glob("*.key")
    assert key.stat().st_mode & 0o077 == 0


def test_an_altered_package_is_noticed(kits: Path, tmp_path: Path) -> None:
    kit = shutil.copytree(kits / "site-1", tmp_path / "site-1")
    (wheel,) = (kit / "packages").glob("*.whl")
    wheel.write_bytes(b"another program")
    assert not verify_folder_signature(
        str(kit / "packages"), str(kit / "startup" / "rootCA.pem"), True, "signature.json"
    )


def test_logs_stay_at_the_site(kits: Path) -> None:
    resources = read(kits / "site-1" / "local" / "resources.json.default")
    assert resources["allow_log_streaming"] is False
    assert "site_log_streamer" not in str(resources["components"])


def test_the_server_keeps_jobs_where_a_restart_leaves_them(kits: Path) -> None:
    text = (kits / SERVER / "local" / "resources.json.default").read_text()
    assert "/tmp/nvflare" not in text  # noqa: S108
    assert str(kits.parents[1] / "storage" / "jobs") in text


@pytest.mark.parametrize(("name", "modality", "org"), [("site-1", "CT", "a"), ("site-2", "MRI", "b")])
def test_the_guide_is_the_sites_own(kits: Path, name: str, modality: str, org: str) -> None:
    guide = (kits / name / "SITE-GUIDE.md").read_text()
    assert f"**{name}** (hospital_{org}, {modality} images)" in guide
    assert f"admin@hospital-{org}.example.org" in guide
    assert "{{" not in guide


def test_what_the_guide_names_is_in_the_kit(kits: Path) -> None:
    kit = kits / "site-1"
    guide = (kit / "SITE-GUIDE.md").read_text()
    for name in ("startup/start.sh", "startup/stop_fl.sh", "startup/sub_start.sh", "startup/client.key",
                 "packages/requirements.txt", "local/fedmodal.json.sample", "local/privacy.json",
                 "local/resources.json.default", "local/authorization.json.default"):  # fmt: skip
        assert name in guide
        assert (kit / name).is_file()


def test_the_sample_is_a_valid_site_file(kits: Path, tmp_path: Path) -> None:
    shutil.copy(kits / "site-2" / "local" / "fedmodal.json.sample", tmp_path / "fedmodal.json")
    site_file = read_site_file(tmp_path)
    assert site_file == SiteFile(data=Path("/data/fedmodal/mri"), cache=Path("/var/cache/fedmodal"))


def test_an_unknown_entry_of_a_site_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "fedmodal.json").write_text('{"// data": "a comment", "dta": "/data"}')
    with pytest.raises(UserError, match="dta"):
        read_site_file(tmp_path)


def test_a_site_installs_our_wheel_with_pins_and_no_test_tools() -> None:
    lines = site_requirements((ROOT / "requirements.txt").read_text()).splitlines()
    pins = [line for line in lines if line and not line.startswith("#")]
    assert f"fedmodal=={__version__}" in pins
    assert all("==" in line for line in pins)
    assert not [line for line in pins if line.startswith(("pytest", "hypothesis", "-e"))]


def test_a_site_added_later_leaves_the_others_as_they_are(tmp_path: Path) -> None:
    project = local_project(tmp_path)
    first = provision(project, tmp_path)
    site = {"name": "site-4", "type": "client", "org": "hospital_d", "modality": "MRI"}
    second = provision(project | {"participants": [*project["participants"], site]}, tmp_path)
    assert second.name == "prod_01"
    for name in (SERVER, *SITES):
        for path in ("rootCA.pem", "*.crt", "*.key", "fed_*.json"):
            (old,), (new,) = ((kits / name / "startup").glob(path) for kits in (first, second))
            assert old.read_bytes() == new.read_bytes()
    authority = str(first / "site-1" / "startup" / "rootCA.pem")
    assert verify_folder_signature(str(second / "site-4" / "startup"), authority, True, "signature.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"guide": "nowhere.md"}, "type this in the root of the repository"),
        ({"wheels": "nowhere"}, "make wheel"),
        ({"server_storage": "storage"}, "absolute"),
    ],
)
def test_provisioning_says_what_is_missing(tmp_path: Path, change: dict[str, str], message: str) -> None:
    project = local_project(tmp_path)
    project["builders"][-1]["args"] |= change
    with pytest.raises(SystemExit, match=message):
        provision(project, tmp_path)


def test_a_site_without_modality_is_refused(tmp_path: Path) -> None:
    project = local_project(tmp_path)
    site = next(one for one in project["participants"] if one["type"] == "client")
    del site["modality"]
    with pytest.raises(SystemExit, match="participant site-1: set modality"):
        provision(project, tmp_path)


def test_the_builder_is_the_last_in_the_project(tmp_path: Path) -> None:
    assert local_project(tmp_path)["builders"][-1]["path"] == f"{KitBuilder.__module__}.KitBuilder"
