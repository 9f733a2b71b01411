"""Kits made ready for Docker, Kubernetes and Slurm by `nvflare deploy prepare`; there is no engine here."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from nvflare.apis.app_validation import AppValidationKey
from nvflare.apis.fl_constant import FLContextKey, JobConstants, ReservedKey, SiteType
from nvflare.apis.fl_context import FLContext
from nvflare.apis.job_def import DEFAULT_STUDY, JobMetaKey
from nvflare.apis.job_launcher_spec import JobProcessArgs
from nvflare.apis.workspace import Workspace
from nvflare.app_opt.job_launcher.docker_launcher import ClientDockerJobLauncher, ServerDockerJobLauncher
from nvflare.app_opt.job_launcher.slurm import ClientSlurmJobLauncher
from nvflare.app_opt.job_launcher.study_runtime import (
    StudyRuntime,
    load_study_runtime_file,
    resolve_study_runtime,
)
from nvflare.fuel.sec.security_content_service import SecurityContentManager, SecurityContentService
from nvflare.private.fed.utils.app_authz import AppAuthzService
from nvflare.private.fed.utils.fed_utils import _check_secure_content
from nvflare.tool.deploy.deploy_common import WORKSPACE_MOUNT_PATH
from nvflare.utils.job_launcher_utils import (
    get_portable_resource_spec,
    get_resource_manager_spec,
    validate_portable_resource_spec,
)

from fedmodal import __version__
from fedmodal.data.site import read_site_file
from fedmodal.data.store import CACHE_VARIABLE
from tests.kits import ROOT, SERVER

DEPLOY = ROOT / "provisioning" / "deploy"
RUNTIMES = ("docker", "k8s", "slurm")
SITE = "site-1"
EVERY = [(runtime, name) for runtime in RUNTIMES for name in (SERVER, SITE)]
OWN_SCRIPTS = {
    "docker": {"start_docker.sh"},
    "k8s": set(),
    "slurm": {"start_slurm.sh", "parent.slurm"},
}
"""What `deploy prepare` adds to `startup`; the project's key has not signed it."""

STUDY = "study_runtime.yaml"
LOCAL_FILES = {
    ("docker", "site"): {"study_runtime.docker.yaml": STUDY, "fedmodal.json": "fedmodal.json"},
    ("docker", "server"): {"study_runtime.docker-server.yaml": STUDY},
    ("k8s", "site"): {
        "study_runtime.k8s.yaml": STUDY,
        "pod.yaml": "pod.yaml",
        "fedmodal.json": "fedmodal.json",
    },
    ("k8s", "server"): {"study_runtime.k8s-server.yaml": STUDY, "pod.yaml": "pod.yaml"},
    ("slurm", "site"): {"study_runtime.slurm.yaml": STUDY, "fedmodal.json": "fedmodal.json"},
    ("slurm", "server"): {},
}
"""What docs/containers.md tells a person to copy into `local` of a kit, before it is prepared."""

JOB = "0f5b1f3e-0d6c-4f6e-9a55-7a3c1f6f1b11"
Kits = dict[tuple[str, str], Path]


def read_json(path: Path) -> Any:
    return json.loads(path.read_text())


def config(runtime: str) -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((DEPLOY / f"{runtime}.yaml").read_text())
    return content


def nvflare_deploy(*words: str | Path, home: Path) -> None:
    command = [Path(sys.executable).with_name("nvflare"), "deploy", *words]
    own = {"HOME": str(home), "PATH": os.pathsep.join((str(home), os.environ["PATH"]))}
    done = subprocess.run(  # noqa: S603
        command, env=os.environ | own, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def prepare(kit: Path, configuration: Path, output: Path) -> None:
    nvflare_deploy("prepare", kit, "--config", configuration, "--output", output, home=output.parent)


def program(path: Path, script: str) -> str:
    """A stand-in for a program that is not here."""
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o700)
    return str(path)


@pytest.fixture(scope="module")
def prepared(kits: Path, tmp_path_factory: pytest.TempPathFactory) -> Kits:
    """Server and site for each runtime, as docs/containers.md says; the image of Slurm is an empty file."""
    folder = tmp_path_factory.mktemp("prepared")
    image = folder / "fedmodal.sif"
    image.touch()
    result = {}
    for runtime, name in EVERY:
        kit = shutil.copytree(kits / name, folder / f"{runtime}-{name}-kit")
        for file, target in LOCAL_FILES[runtime, "server" if name == SERVER else "site"].items():
            shutil.copy(DEPLOY / file, kit / "local" / target)
        configuration = folder / f"{runtime}.yaml"
        text = (DEPLOY / configuration.name).read_text()
        configuration.write_text(re.sub(r"image: /\S+\.sif", f"image: {image}", text))
        result[runtime, name] = folder / f"{runtime}-{name}"
        prepare(kit, configuration, result[runtime, name])
    return result


def resources(kit: Path) -> dict[str, Any]:
    content: dict[str, Any] = read_json(kit / "local" / "resources.json.default")
    return content


def launcher_args(kit: Path, runtime: str) -> dict[str, Any]:
    (found,) = (part for part in resources(kit)["components"] if part["id"] == f"{runtime}_launcher")
    args: dict[str, Any] = found["args"]
    return args


def study_runtime(kit: Path, runtime: str) -> StudyRuntime:
    file = kit / "local" / "study_runtime.yaml"
    loaded = load_study_runtime_file(str(file), launcher_mode=runtime)
    return resolve_study_runtime(loaded, DEFAULT_STUDY, str(file))


# What every prepared kit keeps


@pytest.mark.parametrize(("runtime", "name"), EVERY)
def test_what_was_written_can_be_read(prepared: Kits, runtime: str, name: str) -> None:
    kit = prepared[runtime, name]
    for path in (*kit.rglob("*.json"), *kit.rglob("*.json.default")):
        read_json(path)
    for path in (*(kit / "local").glob("*.yaml"), *kit.glob("helm_chart/*.yaml")):
        assert yaml.safe_load(path.read_text())
    scripts = [*(kit / "startup").glob("*.sh"), *(kit / "startup").glob("*.slurm")]
    assert len(scripts) == {"docker": 1, "k8s": 0, "slurm": 2}[runtime]
    for path in scripts:
        subprocess.run(["bash", "-n", path], check=True)  # noqa: S603, S607


@pytest.mark.parametrize(("runtime", "name"), EVERY)
def test_policies_stay_as_provisioned(prepared: Kits, kits: Path, runtime: str, name: str) -> None:
    kit = prepared[runtime, name]
    for file in ("authorization.json.default", "privacy.json"):
        assert (kit / "local" / file).read_bytes() == (kits / name / "local" / file).read_bytes()
    before, after = resources(kits / name), resources(kit)
    for entry in ("class_allow_list", "class_list_enforcement_mode"):
        assert after[entry] == before[entry]
    assert after.get("allow_log_streaming") == before.get("allow_log_streaming")
    assert not (kit / "local" / "resources.json").exists()  # it would take the place of the default


def test_a_sites_own_policies_stay_but_its_resources_do_not(kits: Path, tmp_path: Path) -> None:
    kit = shutil.copytree(kits / SITE, tmp_path / "kit")
    own = {"authorization.json": "{}", "privacy.json": "{}", "resources.json": '{"components": []}'}
    for name, text in own.items():
        (kit / "local" / name).write_text(text)
    shutil.copy(DEPLOY / "comm_config.json", kit / "local")
    prepare(kit, DEPLOY / "docker.yaml", tmp_path / "prepared")
    local = tmp_path / "prepared" / "local"
    assert {name for name in own if (local / name).exists()} == {"authorization.json", "privacy.json"}
    ours = read_json(DEPLOY / "comm_config.json")
    assert ours.items() <= read_json(local / "comm_config.json").items()


@pytest.fixture
def integrity(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """`integrity(kit, kind)`: what FLARE finds altered when a participant of that kit starts."""

    def check(kit: Path, kind: str) -> list[str]:
        startup = str(kit / "startup")
        monkeypatch.setattr(SecurityContentService, "content_folder", startup)
        monkeypatch.setattr(
            SecurityContentService, "security_content_manager", SecurityContentManager(startup)
        )
        altered: list[str] = _check_secure_content(kind)
        return altered

    return check


@pytest.mark.parametrize(("runtime", "name"), EVERY)
def test_flare_still_finds_startup_as_signed(prepared: Kits, integrity: Any, runtime: str, name: str) -> None:
    kind = SiteType.SERVER if name == SERVER else SiteType.CLIENT
    assert integrity(prepared[runtime, name], kind) == []


def test_flare_still_notices_an_altered_kit(prepared: Kits, integrity: Any, tmp_path: Path) -> None:
    kit = shutil.copytree(prepared["docker", SITE], tmp_path / "altered")
    settings = kit / "startup" / "fed_client.json"
    settings.write_text(settings.read_text().replace("true", "false", 1))
    assert integrity(kit, SiteType.CLIENT) == ["fed_client.json"]


@pytest.mark.parametrize(("runtime", "name"), EVERY)
def test_only_flares_new_start_script_is_unsigned(
    prepared: Kits, kits: Path, runtime: str, name: str
) -> None:
    startup = prepared[runtime, name] / "startup"
    signed = read_json(startup / "signature.json")
    files = {path.name for path in startup.iterdir()} - {"signature.json"}
    assert files - set(signed) <= OWN_SCRIPTS[runtime]
    for file in files & set(signed):
        assert (startup / file).read_bytes() == (kits / name / "startup" / file).read_bytes()
    (key,) = startup.glob("*.key")
    assert key.stat().st_mode & 0o077 == 0


# The image, the data


def test_our_files_name_one_image_of_this_version() -> None:
    docker, k8s = (config(runtime)["parent"]["docker_image"] for runtime in ("docker", "k8s"))
    for image in (docker, k8s):
        assert image.endswith(f"fedmodal:{__version__}")
    assert f"fedmodal-{__version__}.sif" in config("slurm")["job_launcher"]["image"]
    for path in DEPLOY.glob("study_runtime.[dk]*.yaml"):
        study = yaml.safe_load(path.read_text())["studies"]["default"]
        assert study["container"]["image"] == (k8s if "k8s" in path.name else docker)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_images_are_mounted_read_only_where_the_site_file_points(prepared: Kits, runtime: str) -> None:
    kit = prepared[runtime, SITE]
    mounts = {one.dataset: one for one in study_runtime(kit, runtime).datasets}
    site_file = read_site_file(kit / "local")
    assert (mounts["images"].mount_path, mounts["images"].read_only) == (str(site_file.data), True)
    assert (mounts["cache"].mount_path, mounts["cache"].read_only) == (str(site_file.cache), False)


def test_our_jobs_name_no_image_which_would_count_as_code() -> None:
    for job in (ROOT / "jobs").iterdir():
        meta = read_json(job / "meta.json")
        assert not AppAuthzService.derive_local_app_info({}, meta, SITE).get(AppValidationKey.BYOC)
        meta["launcher_spec"] = {SITE: {"docker": {"image": "another"}}}
        assert AppAuthzService.derive_local_app_info({}, meta, SITE)[AppValidationKey.BYOC]


# A job as the launcher would start it; a stand-in takes the place of the engine


def launch_context(kit: Path, name: str) -> FLContext:
    """What a participant gives its launcher for a job."""
    folder = kit / JOB
    folder.mkdir(exist_ok=True)
    arguments = {
        JobProcessArgs.EXE_MODULE: ("-m", "nvflare.private.fed.app.client.worker_process"),
        JobProcessArgs.WORKSPACE: ("-m", str(kit)),
        JobProcessArgs.PARENT_URL: ("-p", "stcp://localhost:8102"),
        JobProcessArgs.PARENT_CONN_SEC: ("-pc", "mtls"),
    }
    context = FLContext()
    context.set_prop(ReservedKey.IDENTITY_NAME, name, private=True)
    context.set_prop(FLContextKey.JOB_PROCESS_ARGS, arguments, private=True)
    context.set_prop(FLContextKey.WORKSPACE_OBJECT, Workspace(str(kit), name), private=True)
    return context


def job_meta() -> dict[str, Any]:
    meta: dict[str, Any] = read_json(ROOT / "jobs" / "abdomen_gin" / "meta.json")
    return meta | {JobConstants.JOB_ID: JOB, JobMetaKey.STUDY.value: DEFAULT_STUDY}


class DockerEngine:
    """Keeps what it was asked to run, and calls it running."""

    def __init__(self) -> None:
        self.containers = self
        self.asked: dict[str, Any] = {}

    def run(self, image: str, **options: Any) -> Any:
        self.asked = {"image": image, **options}
        return SimpleNamespace(id="1", status="running", wait=lambda: {"StatusCode": 0})

    def get(self, name: str) -> Any:
        return SimpleNamespace(id=name, status="running")


@pytest.mark.parametrize(
    ("launcher_class", "name"), [(ClientDockerJobLauncher, SITE), (ServerDockerJobLauncher, SERVER)]
)
def test_a_job_in_docker(
    prepared: Kits, monkeypatch: pytest.MonkeyPatch, launcher_class: Any, name: str
) -> None:
    kit = prepared["docker", name]
    monkeypatch.setattr(launcher_class, "WORKSPACE_MOUNT", str(kit))
    launcher = launcher_class(workspace=str(kit), **launcher_args(kit, "docker"))
    engine = DockerEngine()
    monkeypatch.setattr(launcher, "_docker_client", engine)
    launcher.launch_job(job_meta(), launch_context(kit, name))
    asked = engine.asked
    assert asked["image"] == f"fedmodal:{__version__}"
    assert asked["command"][0] == "/usr/local/bin/python3"
    assert asked["user"] == f"{os.getuid()}:{os.getgid()}"
    assert (asked["read_only"], asked["cap_drop"]) == (True, ["ALL"])
    writable = {mount["Target"] for mount in asked["mounts"] if not mount["ReadOnly"]}
    read_only = {mount["Target"] for mount in asked["mounts"] if mount["ReadOnly"]}
    own = {str(kit), str(kit / JOB)}
    assert writable == own | ({"/data/default/cache"} if name == SITE else set())
    images = {"/data/default/images"} if name == SITE else set()
    assert read_only == images | {str(kit / "local"), str(kit / "startup")}


def test_a_job_in_slurm(prepared: Kits, tmp_path: Path) -> None:
    kit = prepared["slurm", SITE]
    scripts = {"sbatch": "echo 77", "squeue": "", "sacct": "", "scancel": ""}
    tools = {name: program(tmp_path / name, script) for name, script in scripts.items()}
    launcher = ClientSlurmJobLauncher(**launcher_args(kit, "slurm") | {"executables": tools})
    launcher.manager.initialize()
    launcher.launch_job(job_meta(), launch_context(kit, SITE))
    (batch,) = (kit / ".nvflare_slurm" / "jobs").glob("*/batch.sh")
    subprocess.run(["bash", "-n", batch], check=True)  # noqa: S603, S607
    text = batch.read_text()
    assert "--containall" in text
    for place in (
        ":/data/default/images:ro",
        f"{kit}/startup:ro",
        f"{kit}/local:ro",
        ":/data/default/cache:rw",
    ):
        assert place in text
    assert 'exec "${_nvfl_command[@]}"' in text


# Kubernetes


@pytest.mark.parametrize("name", [SERVER, SITE])
def test_the_chart_names_image_claim_and_a_user_that_is_not_root(prepared: Kits, name: str) -> None:
    chart = prepared["k8s", name] / "helm_chart"
    values = yaml.safe_load((chart / "values.yaml").read_text())
    parent = config("k8s")["parent"]
    assert "{repository}:{tag}".format(**values["image"]) == parent["docker_image"]
    assert values["securityContext"] == parent["pod_security_context"]
    assert values["securityContext"]["runAsNonRoot"] is True
    assert values["persistence"]["workspace"]["claimName"] == parent["workspace_pvc"]
    (deployment,) = chart.glob("templates/*deployment.yaml")
    text = deployment.read_text() + (chart / "templates" / "_helpers.tpl").read_text()
    for used in ("image.repository", "securityContext", "persistence.workspace.claimName", "resources"):
        assert f".Values.{used}" in text


@pytest.mark.parametrize("name", [SERVER, SITE])
def test_jobs_in_kubernetes_are_not_root_either(prepared: Kits, name: str) -> None:
    kit = prepared["k8s", name]
    assert launcher_args(kit, "k8s")["security_context"]["runAsNonRoot"] is True
    template = study_runtime(kit, "k8s").pod_template
    assert template is not None
    assert template["spec"]["automountServiceAccountToken"] is False
    (container,) = template["spec"]["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_namespace_and_claims_exist_under_the_names_that_are_used(prepared: Kits) -> None:
    objects = list(yaml.safe_load_all((DEPLOY / "k8s-namespace.yaml").read_text()))
    namespace = config("k8s")["namespace"]
    assert {one["metadata"].get("namespace", one["metadata"]["name"]) for one in objects} == {namespace}
    claims = {one["metadata"]["name"] for one in objects if one["kind"] == "PersistentVolumeClaim"}
    used = {one.source for one in study_runtime(prepared["k8s", SITE], "k8s").datasets}
    assert claims == used | {config("k8s")["parent"]["workspace_pvc"]}


def test_staging_puts_all_of_local_and_startup_into_the_cluster(prepared: Kits, tmp_path: Path) -> None:
    kit = shutil.copytree(prepared["k8s", SITE], tmp_path / "kit")
    program(tmp_path / "kubectl", f"cat >> {tmp_path}/applied.yaml; echo --- >> {tmp_path}/applied.yaml")
    nvflare_deploy("k8s", "stage", kit, home=tmp_path)
    configuration, secret, _ = yaml.safe_load_all((tmp_path / "applied.yaml").read_text())
    assert (configuration["kind"], secret["kind"]) == ("ConfigMap", "Secret")
    assert len(json.dumps(configuration)) < 1024**2  # the most that Kubernetes keeps in one object
    mounted = yaml.safe_load((kit / "helm_chart" / "values.yaml").read_text())["workspaceConfig"]
    for folder in ("local", "startup"):
        paths = {item["path"] for item in mounted[folder]["items"]}
        assert paths == {path.name for path in (kit / folder).iterdir()}


def test_what_a_job_may_ask_for() -> None:
    """The line in docs/containers.md."""
    (line,) = re.findall(r'^"resource_spec": (.*)$', (ROOT / "docs" / "containers.md").read_text(), re.M)
    spec = json.loads(line)
    validate_portable_resource_spec(spec)
    meta = job_meta() | {"resource_spec": spec}
    assert get_portable_resource_spec(meta, SITE) == {"num_of_cpus": 4, "memory": "8Gi", "num_of_gpus": 1}
    assert get_portable_resource_spec(meta, "server") == {"num_of_cpus": 4, "memory": "8Gi"}
    assert get_resource_manager_spec(meta, "site-2") == {}  # a plain process: nothing to reserve


def test_a_site_can_run_inside_slurm(kits: Path, tmp_path: Path) -> None:
    (tmp_path / "fedmodal.sif").touch()
    text = (DEPLOY / "slurm.yaml").read_text().replace("parent_host:", "# parent_host:")
    text = re.sub(r"image: /\S+", f"image: {tmp_path}/fedmodal.sif", text)
    block = re.search(r"^# parent:\n(#   .*\n)+", text, re.MULTILINE)
    assert block
    (tmp_path / "slurm.yaml").write_text(text + re.sub("^# ", "", block[0], flags=re.MULTILINE))
    prepare(kits / SITE, tmp_path / "slurm.yaml", tmp_path / "prepared")
    script = tmp_path / "prepared" / "startup" / "parent.slurm"
    subprocess.run(["bash", "-n", script], check=True)  # noqa: S603, S607
    assert "#SBATCH --time=7-00:00:00" in script.read_text()


# The image's recipe


@pytest.fixture(scope="module")
def dockerfile() -> list[tuple[str, str]]:
    """(instruction, what follows), comments left out and continued lines joined."""
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    text = "\n".join(line for line in lines if not line.lstrip().startswith("#"))
    joined = text.replace("\\\n", " ").splitlines()
    pairs = (line.split(maxsplit=1) for line in joined if line.strip())
    return [(instruction, rest) for instruction, rest in pairs]


def values_of(dockerfile: list[tuple[str, str]], instruction: str) -> list[str]:
    return [rest for found, rest in dockerfile if found == instruction]


def test_the_image_takes_in_no_file_and_runs_as_nobody(dockerfile: list[tuple[str, str]]) -> None:
    assert {"ADD", "COPY", "VOLUME", "HEALTHCHECK", "ENTRYPOINT"} & {name for name, _ in dockerfile} == set()
    (user,) = values_of(dockerfile, "USER")
    assert all(int(number) >= 1000 for number in user.split(":"))
    runs = " ".join(values_of(dockerfile, "RUN"))
    assert not [tool for tool in ("curl", "wget", "apt-get", "git ") if tool in runs]
    assert "uninstall --yes" in runs


def test_versions_are_pinned(dockerfile: list[tuple[str, str]]) -> None:
    arguments = dict(rest.split("=", 1) for rest in values_of(dockerfile, "ARG") if "=" in rest)
    assert re.fullmatch(r"python:\d+\.\d+\.\d+-slim-bookworm", arguments["BASE"])
    assert ":latest" not in (DEPLOY / "Dockerfile").read_text()
    extra = dict(pin.split("==") for pin in arguments["ADDITIONS"].strip('"').split())
    pinned = re.findall(r"^([\w.-]+)==", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert "torch" in pinned
    assert not set(extra) & {name.lower() for name in pinned}  # one pin for each package


def test_paths_are_those_that_flare_and_the_site_file_use(dockerfile: list[tuple[str, str]]) -> None:
    environment = dict(re.findall(r"(\w+)=(\S+)", " ".join(values_of(dockerfile, "ENV"))))
    assert environment["PYTHONUNBUFFERED"] == "1"
    assert environment[CACHE_VARIABLE] == read_json(DEPLOY / "fedmodal.json")["cache"]
    assert values_of(dockerfile, "WORKDIR") == [WORKSPACE_MOUNT_PATH]
    runs = " ".join(values_of(dockerfile, "RUN"))
    for place in (WORKSPACE_MOUNT_PATH, *map(read_json(DEPLOY / "fedmodal.json").get, ("data", "cache"))):
        assert place in runs


def test_shell_lines_of_the_image_are_valid(dockerfile: list[tuple[str, str]]) -> None:
    for line in values_of(dockerfile, "RUN"):
        command = re.sub(r"^--mount=\S+\s+", "", line)
        subprocess.run(["sh", "-n", "-c", command], check=True)  # noqa: S603, S607


def test_the_page_names_every_file() -> None:
    page = (ROOT / "docs" / "containers.md").read_text()
    assert [path.name for path in DEPLOY.iterdir() if path.name not in page] == []
