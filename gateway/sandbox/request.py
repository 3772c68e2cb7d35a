"""What the operations see of an HTTP request."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote_to_bytes

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Request", "split_path"]


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `segments` are those of the raw path, decoded one by one, so that `%2F` stays inside its segment."""

    method: str
    segments: tuple[str, ...]
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes

    @property
    def bearer(self) -> str:
        """The bearer token; empty when there is none."""
        scheme, _, token = self.headers.get("authorization", "").partition(" ")
        return token if scheme.lower() == "bearer" else ""


def split_path(raw_path: bytes) -> tuple[str, ...]:
    """Split a path as it came over the wire."""
    return tuple(unquote_to_bytes(each).decode("utf-8", "replace") for each in raw_path.split(b"/")[1:])
