"""The Dockerfile, without an engine: its build stage is carried out, and what comes of it runs as it would in a pod."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from processes import running
from shipping.shipped import BIN, ROOT, addresses, currencies, instruction, instructions

from gateway.sandbox import seed

if TYPE_CHECKING:
    from processes import Process

PYTHON = Path(sys.base_prefix) / f"bin/python{sys.version_info.major}.{sys.version_info.minor}"
BUILD = 1
PLAYGROUND = "gateway/graphql/static/playground"
ENVIRONMENT = "/opt/gateway"
USER = 65532


def test_a_user_that_is_not_root_gets_signals_itself() -> None:
    assert instruction("USER") == f"{USER}:{USER}"
    assert instruction("STOPSIGNAL") == "SIGTERM"
    assert json.loads(instruction("ENTRYPOINT")) == ["session-gateway"]
    assert json.loads(instruction("CMD")) == ["serve"]


def test_images_are_of_a_version_and_python_is_one_that_the_gateway_takes() -> None:
    stages = [instruction("FROM", stage).split()[0] for stage in range(3)]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    lower, upper = re.findall(r"3\.(\d+)", project["requires-python"])

    for each in stages:
        assert re.fullmatch(r"\w+:\d+(\.\d+)?-[\w-]+", each), "latest is no version"
    assert stages[1] == stages[2], "the environment refers to the Python that it was made with"
    assert int(lower) <= int(stages[1].partition("3.")[2].partition("-")[0]) < int(upper)


def test_the_label_and_uv_are_of_the_versions_that_the_project_has() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    (uv,) = re.findall(r"^UV\s*:= (uv==\S+)$", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE)

    assert f'image.version="{version}"' in instruction("LABEL")
    assert any(rest.endswith(f" {uv}") for name, rest in instructions(BUILD) if name == "RUN")


def test_nothing_lies_in_a_layer_that_should_not() -> None:
    """The context is what .dockerignore lets in, and the image has the environment alone."""
    let_in = {line[1:] for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line.startswith("!")}
    taken = {source.strip("/").partition("/")[0] for stage in (0, 1) for source, _ in _copies(stage)}

    assert taken == let_in
    assert [rest for name, rest in instructions() if name == "COPY"] == [f"--from=build {ENVIRONMENT} {ENVIRONMENT}"]
    assert [rest for stage in range(3) for name, rest in instructions(stage) if name == "ARG"] == ["EXTRAS="]


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What /opt/gateway is in the image: the build stage, instruction by instruction, in a folder."""
    if sys.platform != "linux" or os.geteuid() != 0:
        pytest.skip("needs Linux, and root to make what a container gets")
    top = tmp_path_factory.mktemp("image")
    folders = {"/src": top / "src", "/dist": top / "dist", ENVIRONMENT: top / "environment"}
    source = folders["/src"]
    source.mkdir()
    variables = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "UV_PYTHON": str(PYTHON)}
    for name, rest in instructions(BUILD):
        here = re.sub(r"(?<=[ =])(/src|/dist|/opt/gateway)\b", lambda found: str(folders[found[0]]), f" {rest}").strip()
        if name == "ENV":
            variables |= dict(each.split("=", 1) for each in here.split())
        elif name == "COPY":
            _copy(here, source)
        elif name == "RUN" and "pip install --disable" not in here:  # uv itself, which is here already
            command = re.sub(r"--mount=\S+ ", "", here)
            subprocess.run(["sh", "-ec", command], cwd=source, env=variables, check=True)
    shutil.rmtree(source)
    script = folders[ENVIRONMENT] / "bin/session-gateway"
    script.write_text(script.read_text().replace(str(script.parent), f"{ENVIRONMENT}/bin"))  # where it will be
    return folders[ENVIRONMENT]


def _copies(stage: int) -> list[tuple[str, str]]:
    """Sources in the context, and where they go."""
    copies = (rest.split() for name, rest in instructions(stage) if name == "COPY" and "--from" not in rest)
    return [(source, to) for *sources, to in copies for source in sources]


def _copy(arguments: str, to: Path) -> None:
    *sources, target = arguments.split()
    if sources[0].startswith("--from=playground"):
        shutil.copytree(ROOT / PLAYGROUND, to / target)  # as `make playground` has built it
        return
    unwanted = shutil.ignore_patterns("__pycache__", "node_modules", "playground")
    for each in sources:
        if (ROOT / each).is_dir():
            shutil.copytree(ROOT / each, to / target, ignore=unwanted)
        else:
            shutil.copy(ROOT / each, to / target)


@pytest.fixture(scope="module")
def jail(environment: Path) -> list[str]:
    """Command that runs another one as in a container, from the image's environment."""
    root = environment.parent / "root"
    root.mkdir()
    variables = [each.replace("$PATH", "/usr/bin:/bin") for each in instruction("ENV").split()]
    script = str(Path(__file__).with_name("jail.sh"))
    return ["unshare", "--mount", "sh", script, str(root), sys.base_prefix, str(environment), *variables]


def test_the_jail_holds(jail: list[str], environment: Path) -> None:
    """What is tried below is not possible, so that to do without it means something."""
    script = """
import os, sys
for folder in ("/", "/etc", sys.prefix, sys.base_prefix, "/dev"):
    try:
        open(f"{folder}/written", "w")
    except OSError as error:
        print(error.strerror)
print(os.getuid(), os.getgid(), os.getgroups())
print(*(line for line in open("/proc/self/status") if line.startswith(("CapEff", "CapBnd", "NoNewPrivs"))), sep="")
"""
    done = subprocess.run([*jail, "python", "-c", script], check=True, capture_output=True, text=True)

    assert done.stdout.count("Read-only file system") == 5
    assert f"{USER} {USER} []" in done.stdout
    assert re.findall(r"(\w+):\s+(\w+)", done.stdout) == [
        ("CapEff", "0" * 16),
        ("CapBnd", "0" * 16),
        ("NoNewPrivs", "1"),
    ]


def test_all_is_compiled(environment: Path) -> None:
    """A container cannot do that later, and would compile at every start."""
    (package,) = environment.glob("lib/python3.*/site-packages/gateway")
    sources = list(package.rglob("*.py"))
    compiled = {each.name.partition(".")[0] for each in package.rglob("*.pyc")}

    assert sources
    assert {each.stem for each in sources} <= compiled
    assert (package / "graphql/static/playground/index.html").exists()


async def test_it_serves_by_both_doors_and_writes_only_what_workers_count(jail: list[str]) -> None:
    async with (
        running("session-gateway", "sandbox", "--port", "0", program=jail) as sandbox,
        running(*_settings(await sandbox.says(r"(http://\S+)")), *_command(), program=jail) as gateway,
    ):
        doors = await addresses(gateway)
        seen = await currencies(doors)
        async with httpx.AsyncClient() as client:
            playground = await client.get(doors.graphql, headers={"accept": "text/html"})
            ready = await client.get(f"{doors.admin}/readyz")
        written = _written(gateway)
        gateway.process.terminate()
        status = await gateway.end(within=15)

    assert seen == ["EUR", "EUR"]
    assert "addSessionContextAttribute" in playground.text
    assert ready.status_code == 200
    assert all(each.suffix == ".db" or each.name.startswith("session-gateway-") for each in written), written
    assert status == 0


def _command() -> list[str]:
    """What an engine starts."""
    return [*json.loads(instruction("ENTRYPOINT")), *json.loads(instruction("CMD"))]


def _written(gateway: Process) -> list[Path]:
    """What is in the one folder where it could write, as it sees it."""
    return list(Path(f"/proc/{gateway.process.pid}/root/tmp").rglob("*"))


def _settings(upstream: str) -> list[str]:
    """As `env` takes them."""
    hashed = "sha256:00000000000000000000000000000000:a0e92f9cdeef31382974c159aaf30c0645a9aea28fde414a509d9be3ad5cadef"
    settings = {
        "UPSTREAM__BASE_URL": upstream,
        "TENANTS__ACME__CLIENT_ID": seed.CLIENTS["acme"][0],
        "TENANTS__ACME__CLIENT_SECRET": seed.CLIENTS["acme"][1],
        "ACCESS__KEYS__DEV__HASH": hashed,
        "ACCESS__KEYS__DEV__PERMISSIONS": '["sessions:read"]',
        "ACCESS__KEYS__DEV__TENANTS": '["acme"]',
        "GRAPHQL__PLAYGROUND": "true",
        **{f"{each}__PORT": "0" for each in ("GRAPHQL", "GRPC", "ADMIN")},
    }
    return [f"SESSION_GATEWAY_{name}={value}" for name, value in settings.items()]
