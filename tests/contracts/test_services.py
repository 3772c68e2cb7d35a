"""What `docs/services.md` says is so: its commands generate code, and its names, limits and codes are ours."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from processes import ROOT

from gateway import contracts
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2 as pb
from gateway.sandbox import seed
from gateway.settings import Grpc

if TYPE_CHECKING:
    from stage import Dev

PAGE = (ROOT / "docs/services.md").read_text("utf-8")
README = (ROOT / "README.md").read_text("utf-8")
FILE = "emporix/sessioncontext/v1/session_context.proto"
GO_PACKAGE = "example.com/shop/gen/emporix/sessioncontext/v1;sessioncontextv1"

PLUGIN = """
import sys
from google.protobuf import json_format
from google.protobuf.compiler import plugin_pb2
request = plugin_pb2.CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
(options,) = [each.options for each in request.proto_file if each.name in request.file_to_generate]
answer = plugin_pb2.CodeGeneratorResponse()
answer.supported_features = plugin_pb2.CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL
answer.file.add(name=sys.argv[1] + ".parameter", content=request.parameter)
answer.file.add(name=sys.argv[1] + ".options", content=json_format.MessageToJson(options))
sys.stdout.buffer.write(answer.SerializeToString())
"""
"""Stands for a plugin of protoc's that there is no package for, and writes down what it is told."""
CALL = """
import sys, grpc
from emporix.sessioncontext.v1 import session_context_pb2, session_context_pb2_grpc
with grpc.insecure_channel(sys.argv[1]) as channel:
    stub = session_context_pb2_grpc.SessionContextServiceStub(channel)
    request = session_context_pb2.GetSessionContextRequest(tenant="acme", session_id=sys.argv[2])
    print(stub.GetSessionContext(request, metadata=(("x-api-key", "dev-key"),), timeout=10).session_context.session_id)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where a developer has the contract, and the tools that the page takes for granted are on the PATH."""
    source = tmp_path / "proto" / FILE
    source.parent.mkdir(parents=True)
    source.write_text(contracts.proto())
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "plugin.py").write_text(PLUGIN)
    programs = {"python": f'{sys.executable} "$@"', "protoc": f'{sys.executable} -m grpc_tools.protoc "$@"'}
    for plugin in ("go", "go-grpc", "java", "grpc-java"):
        programs[f"protoc-gen-{plugin}"] = f"{sys.executable} {tools}/plugin.py {plugin}"
    for name, line in programs.items():
        (tools / name).write_text(f"#!/bin/sh\nexec {line}\n")
        (tools / name).chmod(0o755)
    return tmp_path


async def test_its_commands_generate_code(folder: Path, dev: Dev) -> None:
    (commands,) = re.findall(r"```sh\n(FILE=.*?)```", PAGE, re.DOTALL)

    _run(folder, "sh", "-e", "-c", commands)

    for plugin in ("go", "go-grpc"):
        parameters = _told(folder, f"{plugin}.parameter").split(",")
        assert sorted(parameters) == [f"M{FILE}={GO_PACKAGE}", "paths=source_relative"]
    for plugin in ("java", "grpc-java"):
        assert "com.emporix.sessioncontext.v1" in _told(folder, f"{plugin}.options")
    command = (sys.executable, "-c", CALL, dev.doors.grpc, seed.CUSTOMER_SESSION)
    assert await asyncio.to_thread(_run, folder / "gen", *command) == f"{seed.CUSTOMER_SESSION}\n"


def test_buf_gives_go_the_same_package_and_java_what_it_has_without(folder: Path) -> None:
    (template,) = re.findall(r"```yaml\n(version: v2.*?)```", PAGE, re.DOTALL)
    (folder / "buf.gen.yaml").write_text(template)
    buf = str(Path(sys.executable).parent / "buf")

    _run(folder, buf, "generate", "proto")

    told = json.loads(_told(folder, "go.options"))
    assert told["goPackage"] == GO_PACKAGE
    options = pb.DESCRIPTOR.GetOptions()
    assert (options.java_package, options.java_outer_classname, options.java_multiple_files) == (
        told["javaPackage"],
        told["javaOuterClassname"],
        told["javaMultipleFiles"],
    )


def test_it_says_where_generated_code_is() -> None:
    table = dict(re.findall(r"^\| ([\w+#]+) \| `([^`]+)` \|", PAGE, re.MULTILINE))
    package = pb.DESCRIPTOR.package
    words = [each.capitalize() for each in package.split(".")]

    assert table == {
        "C++": package.replace(".", "::"),
        "C#": ".".join(words),
        "Java": pb.DESCRIPTOR.GetOptions().java_package,
        "Python": package,
        "Ruby": "::".join(words),
    }


def test_its_limits_are_the_defaults() -> None:
    settings = Grpc()
    said = {
        name: (int(number), unit) for number, unit, name in re.findall(r"(\d+) (MiB|KiB|s)[^(\d]*\(`grpc\.(\w+)`", PAGE)
    }
    by_name = dict(re.findall(r"`grpc\.(\w+)`, (\d+) s", PAGE))

    assert said == {
        "max_message": (settings.max_message >> 20, "MiB"),
        "max_metadata": (settings.max_metadata >> 10, "KiB"),
        "max_answer": (settings.max_answer >> 20, "MiB"),
    }
    assert by_name == {"budget": f"{settings.budget:g}"}
    assert f"after about {settings.connections.max_age:g} s" in PAGE
    assert f"up to {settings.max_calls_per_connection} calls at a" in PAGE


def test_its_reasons_have_the_status_that_the_readme_says() -> None:
    statuses = dict(re.findall(r"^\| [^|]+ \| `([A-Z_]+)` \| ([^|]+) \|", README, re.MULTILINE))
    rows = re.findall(r"^\| ([^|]*`[A-Z_]+`[^|]*) \| ([^|]*`[A-Z_]+`[^|]*) \|", PAGE, re.MULTILINE)

    assert len(rows) >= 6
    for codes, reasons in rows:
        for reason in re.findall(r"`([A-Z_]+)`", reasons):
            assert set(re.findall(r"`([A-Z_]+)`", codes)) <= set(re.findall(r"`([A-Z_]+)`", statuses[reason])), reason


def _run(folder: Path, *command: str) -> str:
    path = f"{folder / 'tools'}:{os.environ['PATH']}"
    done = subprocess.run(
        command, cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _told(folder: Path, name: str) -> str:
    return (folder / "gen" / name).read_text("utf-8")
