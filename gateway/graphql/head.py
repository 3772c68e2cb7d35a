"""The head of a request, and what its headers mean: parsed when first needed, and only once."""

from __future__ import annotations

import re
from contextlib import suppress
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, ClassVar, Final

from gateway.cache.freshness import parse_cache_control
from gateway.credentials import CallerCredentials

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.direct import Headers

__all__ = ["LEGACY", "MODERN", "Head", "Refused"]

MODERN: Final = "application/graphql-response+json"
LEGACY: Final = "application/json"


_PARAMETER: Final = re.compile(r';(?:([^;="]*)=(?:[ \t]*"((?:[^"\\]|\\.)*)"|([^;]*)))?[^;]*')
"""What follows a semicolon: a parameter whose value is quoted or not, or none (RFC 9110, 5.6.6)."""
_QUOTED_PAIR: Final = re.compile(r"\\(.)")


class Refused(Exception):
    """The request is not one of GraphQL over HTTP. `headers` go into the response."""

    code: ClassVar[str] = "BAD_REQUEST"
    """What the response calls it, as `extensions.code`."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or {}


class Head:
    """Headers, by their names in lower case. Several requests of a connection may share one (`gateway.direct`)."""

    def __init__(self, headers: Headers) -> None:
        self._all = headers
        self._first = dict(reversed(headers))

    def header(self, name: str) -> str | None:
        """The first header of this name; None when it was not sent."""
        value = self._first.get(name.encode())
        return None if value is None else value.decode("latin-1")

    def joined(self, name: str) -> str | None:
        """All headers of this name, as one (RFC 9110, 5.3)."""
        key = name.encode()
        if key not in self._first:
            return None
        return ", ".join([value.decode("latin-1") for each, value in self._all if each == key])

    @cached_property
    def credentials(self) -> CallerCredentials:
        """The caller's credentials."""
        return CallerCredentials.read(self.header)

    @cached_property
    def max_age(self) -> float | None:
        """What the caller accepts from a cache, in seconds (RFC 9111, 5.2.1)."""
        return parse_cache_control(self.joined("cache-control"))

    @cached_property
    def accepted(self) -> str:
        """The media type for the answer. Raises Refused when none of ours is accepted."""
        return _media_type_for(self.joined("accept") or "*/*")

    @cached_property
    def media_type(self) -> str:
        """The media type of the body, in lower case and without parameters; empty if not given."""
        return self._content_type[0]

    @cached_property
    def charset(self) -> str:
        """The charset of the body, in lower case; UTF-8 if not given."""
        return _parameters(self._content_type[1]).get("charset", "utf-8").lower()

    @cached_property
    def content_coding(self) -> str:
        """How the body is compressed, in lower case: `identity` if it is not (RFC 9110, 8.4)."""
        return (self.joined("content-encoding") or "identity").lower()

    @property
    def _content_type(self) -> tuple[str, str]:
        media_type, semicolon, parameters = (self.header("content-type") or "").partition(";")
        return media_type.strip().lower(), semicolon + parameters


@lru_cache(maxsize=256)
def _media_type_for(accept: str) -> str:
    """The one of ours that the client prefers (RFC 9110, 12.5.1), by the most specific range for each.

    If it prefers neither, it gets the one that it names first; if it names neither, the legacy one. Raises Refused if
    it accepts neither.
    """
    ranges = [_range(each) for each in accept.split(",")]
    names = [name for name, _ in ranges]

    def rank(media_type: str) -> tuple[float, int]:
        for name in (media_type, "application/*", "*/*"):
            if name in names:
                place = names.index(name)
                return -ranges[place][1], place
        return 0.0, 0

    best = min((LEGACY, MODERN), key=rank)
    if rank(best)[0] >= 0:
        raise Refused(406, f"none of {accept!r} can be had: accept {MODERN} or {LEGACY}")
    return best


def _parameters(text: str) -> dict[str, str]:
    """Parameters by their names in lower case; anything else is ignored.

    Of two with the same name the first counts (WHATWG MIME Sniffing, 4.4).
    """
    found: dict[str, str] = {}
    for name, quoted, plain in _PARAMETER.findall(text):
        found.setdefault(name.strip().lower(), _QUOTED_PAIR.sub(r"\1", quoted) or plain.strip())
    return found


def _range(text: str) -> tuple[str, float]:
    name, _, parameters = text.partition(";")
    quality = f";{parameters.replace(' ', '')}".lower().partition(";q=")[2].partition(";")[0]
    with suppress(ValueError):
        return name.strip().lower(), float(quality or 1)
    return name.strip().lower(), 0.0
