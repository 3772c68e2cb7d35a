"""Whether a cached entry may answer a read. Pure: age, version and options in, a verdict out.

Terms are those of HTTP caching (RFC 9111), of its stale windows (RFC 5861), and of `Cache-Status` (RFC 9211).
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from msgspec import Struct

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["FRESH_ENOUGH", "CacheStatus", "Policy", "ReadOptions", "Use", "combined", "parse_cache_control", "use_of"]


class ReadOptions(Struct, frozen=True):
    """A caller's requirements for a read."""

    max_age: float | None = None
    """Maximum age of the answer, in seconds; 0 asks upstream. With None, the gateway's settings decide."""
    min_version: int | None = None
    """Minimum version: one that the caller has seen."""

    def stricter(self, max_age: float | None) -> ReadOptions:
        """These options, with this maximum age if it is lower."""
        if max_age is None:
            return self
        return ReadOptions(max_age if self.max_age is None else min(max_age, self.max_age), self.min_version)


FRESH_ENOUGH: Final = ReadOptions()
"""No requirements: the settings decide."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How long entries are used. All times are in seconds."""

    ttl: float
    """An entry is fresh for so long."""
    stale_while_revalidate: float = 0.0
    """For so long after that, it is served at once while it is refreshed in the background (RFC 5861, 3)."""
    stale_if_error: float = 0.0
    """For so long after `ttl`, it is served if upstream fails (RFC 5861, 4)."""
    missing_ttl: float = 0.0
    """How long the absence of a session context is remembered; 0 means not at all."""

    @property
    def lifetime(self) -> float:
        """How long an entry can be used at all."""
        return max(self.ttl + max(self.stale_while_revalidate, self.stale_if_error), self.missing_ttl)


class Use(enum.Enum):
    """What an entry may be used for."""

    FRESH = enum.auto()
    STALE = enum.auto()
    """May be served now, and has to be refreshed in the background."""
    IF_ERROR = enum.auto()
    """May be served if upstream fails."""
    NONE = enum.auto()


def use_of(age: float, version: int | None, policy: Policy, options: ReadOptions) -> Use:
    """Decide how an entry of this age, in seconds, may be used. `version` is None if there is no session context.

    A caller that sets a maximum age gets no stale answer (RFC 9111, 5.2.1.1: not without `max-stale`).
    """
    if options is FRESH_ENOUGH and version is not None and age < policy.ttl:  # nearly always
        return Use.FRESH
    if version is None:
        fresh = age < policy.missing_ttl and options.min_version is None
        return Use.FRESH if fresh and _young_enough(age, options) else Use.NONE
    if version < (options.min_version or 0) or not _young_enough(age, options):
        return Use.NONE
    if age < policy.ttl:
        return Use.FRESH
    if options.max_age is not None:
        return Use.NONE
    if age < policy.ttl + policy.stale_while_revalidate:
        return Use.STALE
    return Use.IF_ERROR if age < policy.ttl + policy.stale_if_error else Use.NONE


def _young_enough(age: float, options: ReadOptions) -> bool:
    return options.max_age is None or age < options.max_age


class CacheStatus(Struct, frozen=True):
    """Where an answer came from, in the terms of RFC 9211.

    `hit` means that it was served without asking upstream; otherwise `fwd` says why upstream was asked: `miss`,
    `stale`, `request` (the caller did not accept a fresh entry), or `bypass` (no cache). `ttl` is the remaining
    freshness in seconds, negative if stale; `age` is the answer's age in seconds.
    """

    hit: bool = False
    fwd: str = ""
    stored: bool = False
    collapsed: bool = False
    ttl: float | None = None
    age: float = 0.0
    detail: str = ""

    def header(self) -> str:
        """The value of a `Cache-Status` header field (RFC 9211, 2): one member, parameters in its order."""
        if self.hit and self.ttl is not None and not self.detail:  # nearly always
            return f"session-gateway; hit; ttl={math.floor(self.ttl)}"
        parts = ["session-gateway"]
        if self.hit:
            parts.append("hit")
        if self.fwd:
            parts.append(f"fwd={self.fwd}")
        if self.ttl is not None:
            parts.append(f"ttl={math.floor(self.ttl)}")
        if self.stored:
            parts.append("stored")
        if self.collapsed:
            parts.append("collapsed")
        if self.detail:
            parts.append(f"detail={self.detail}")
        return "; ".join(parts)


def combined(statuses: Iterable[CacheStatus]) -> CacheStatus:
    """The status of an answer made of several reads: as old as the oldest, and a hit if all are."""
    all_of_them = list(statuses)
    if not all_of_them:
        return CacheStatus()
    worst = next((each for each in all_of_them if not each.hit), all_of_them[0])
    return CacheStatus(
        hit=worst.hit,
        fwd=worst.fwd,
        stored=not worst.hit and all(each.stored for each in all_of_them if not each.hit),
        collapsed=any(each.collapsed for each in all_of_them),
        ttl=min((each.ttl for each in all_of_them if each.ttl is not None), default=None),
        age=max(each.age for each in all_of_them),
        detail=worst.detail,
    )


def parse_cache_control(value: str | None) -> float | None:
    """The maximum age, in seconds, that a request's `Cache-Control` allows (RFC 9111, 5.2.1); None if it has none.

    `no-cache` and `no-store` ask upstream. Unknown and invalid directives are ignored, as the RFC says.
    """
    if not value:
        return None
    allowed: list[float] = []
    for directive in value.split(","):
        name, given, argument = (part.strip() for part in directive.partition("="))
        match name.lower(), given:
            case "no-cache" | "no-store", "":
                allowed.append(0.0)
            case "max-age", "=" if (number := argument.strip('"')).isascii() and number.isdigit():
                allowed.append(float(number))
    return min(allowed, default=None)
