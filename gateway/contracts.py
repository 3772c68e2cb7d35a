"""The published contracts, as files: `proto/` and `schema/` of the checkout, which the wheel carries too."""

from __future__ import annotations

from pathlib import Path
from typing import Final

__all__ = ["example_operations", "proto", "service_config"]

_PACKAGED: Final = Path(__file__).parent / "_contracts"
_CHECKOUT: Final = Path(__file__).parent.parent


def proto() -> str:
    """The protobuf source of both services."""
    return _path("proto/emporix/sessioncontext/v1/session_context.proto").read_text("utf-8")


def service_config() -> str:
    """The service config for gRPC channels, in JSON (grpc.service_config.ServiceConfig)."""
    return _path("proto/emporix/sessioncontext/v1/session_context_grpc_service_config.json").read_text("utf-8")


def example_operations() -> dict[str, str]:
    """One GraphQL document for each root field, by the file's name. Each runs unchanged in `dev`.

    Reads come before writes, and operations on any session before those on the shopper's own.
    """
    files = sorted(_path("schema/operations").glob("*.graphql"), key=_place)
    return {file.stem: file.read_text("utf-8") for file in files}


def _place(file: Path) -> tuple[bool, bool, str]:
    return "mutation" in file.read_text("utf-8"), "my" in file.stem.lower(), file.stem


def _path(name: str) -> Path:
    packaged = _PACKAGED / name
    return packaged if packaged.exists() else _CHECKOUT / name
