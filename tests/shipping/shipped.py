"""Reads the files that an operator gets, without an engine or a cluster, and asks the gateway that they start."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import grpc
import httpx
import yaml

from doors import GraphQLDoor, GrpcDoor
from gateway.app import Addresses
from gateway.sandbox import seed

if TYPE_CHECKING:
    from processes import Process

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent

Document: TypeAlias = dict[str, Any]


def load(path: str) -> Document:
    """A file with one YAML document."""
    document: Document = yaml.safe_load((ROOT / path).read_text("utf-8"))
    return document


def render(folder: Path) -> str:
    """What `kubectl apply -k` would send."""
    return subprocess.run([BIN / "kubectl", "kustomize", folder], check=True, capture_output=True, text=True).stdout


def documents(rendered: str) -> list[Document]:
    return list(yaml.safe_load_all(rendered))


def instructions(stage: int = -1) -> list[tuple[str, str]]:
    """Instruction and arguments of a stage of the Dockerfile, arguments of the file itself filled in."""
    text = (ROOT / "Dockerfile").read_text("utf-8")
    lines = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^#.*\n", "", text)).splitlines()
    found = [(name, rest) for name, _, rest in (line.strip().partition(" ") for line in lines if line.strip())]
    defaults = dict(rest.split("=", 1) for name, rest in found if name == "ARG")
    found = [(name, re.sub(r"\$\{(\w+)\}", lambda match: defaults[match[1]], rest)) for name, rest in found]
    starts = [at for at, (name, _) in enumerate(found) if name == "FROM"]
    begin = starts[stage]
    end = next((at for at in starts if at > begin), len(found))
    return found[begin:end]


def instruction(name: str, stage: int = -1) -> str:
    """The one of this name in a stage of the Dockerfile."""
    (found,) = (rest for each, rest in instructions(stage) if each == name)
    return found


async def addresses(gateway: Process) -> Addresses:
    """Where a gateway of its own process listens, as it has logged."""
    line = json.loads(await gateway.says(r"(\{.*listening.*\})"))
    return Addresses(line["graphql"], line["grpc"], line["admin"])


async def currencies(doors: Addresses) -> list[str | None]:
    """The seeded session's, as each door tells it."""
    async with httpx.AsyncClient() as client, grpc.aio.insecure_channel(doors.grpc) as channel:
        both = (GraphQLDoor(client, doors.graphql), GrpcDoor(channel))
        seen = [await door.get("acme", seed.CUSTOMER_SESSION) for door in both]
    return [None if each is None else each.fields["currency"] for each in seen]
