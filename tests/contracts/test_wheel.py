"""The wheel works without the checkout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import httpx
import pytest

from gateway import contracts
from gateway.graphql.schema import make_schema

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).parent / "uv"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    subprocess.run([UV, "build", "--wheel", "--quiet", "--out-dir", out], cwd=ROOT, check=True)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The console script in an environment that holds the wheel and what it needs, as locked."""
    venv = tmp_path_factory.mktemp("installed") / "venv"
    locked = venv.parent / "requirements.txt"
    export: list[str | Path] = [
        UV,
        "export",
        "--quiet",
        "--frozen",
        "--no-dev",
        "--no-emit-project",
        "--output-file",
        locked,
    ]
    subprocess.run(export, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    subprocess.run([UV, "venv", "--quiet", "--python", sys.executable, venv], check=True)
    install: list[str | Path] = [UV, "pip", "install", "--quiet", "--python", venv / "bin/python"]
    subprocess.run([*install, "--only-binary", ":all:", "-r", locked, wheel], check=True)
    return venv / "bin/session-gateway"


def _run(script: Path, *arguments: str) -> str:
    done = subprocess.run([script, *arguments], cwd="/", check=True, capture_output=True, text=True)
    assert not done.stderr
    return done.stdout


def test_it_holds_the_contracts_and_the_playground(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())

    assert "gateway/_contracts/proto/emporix/sessioncontext/v1/session_context.proto" in names
    assert "gateway/_contracts/schema/session_context.graphql" in names
    assert "gateway/_contracts/schema/operations/sessionContext.graphql" in names
    assert "gateway/graphql/static/playground/index.html" in names
    assert not [each for each in names if each.startswith("tests/")]


def test_it_prints_the_contracts(installed: Path) -> None:
    assert _run(installed, "schema", "proto").strip() == contracts.proto().strip()
    assert _run(installed, "schema", "service-config").strip() == contracts.service_config().strip()
    assert _run(installed, "schema", "graphql").strip() == make_schema().as_str().strip()


def test_it_runs_with_the_sandbox_and_the_playground(installed: Path) -> None:
    ports = {f"SESSION_GATEWAY_{each}__PORT": "0" for each in ("GRAPHQL", "GRPC", "ADMIN", "SANDBOX")}
    with subprocess.Popen(
        [installed, "dev"], cwd="/", env={**os.environ, **ports}, stdout=subprocess.PIPE, text=True
    ) as dev:
        try:
            assert dev.stdout is not None
            url = next(found[0] for line in dev.stdout if (found := re.search(r"http://\S+/graphql", line)))
            page = httpx.get(url, headers={"accept": "text/html"})
            answer = httpx.post(
                url, json={"query": contracts.example_operations()["sessionContext"]}, headers={"x-api-key": "dev-key"}
            )
        finally:
            dev.terminate()

    assert "addSessionContextAttribute" in page.text
    assert answer.json()["data"]["sessionContext"]["currency"] == "EUR"
    assert dev.returncode == 0
