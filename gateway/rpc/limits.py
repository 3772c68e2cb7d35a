"""What one caller, or all of them, may take of the gRPC listener."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Limits"]

_HANDSHAKE: Final = 10.0
"""Seconds for TLS and HTTP/2 to be agreed on; gRPC's own is two minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """None leaves what gRPC has, which is mostly no limit. Times are in seconds, sizes in bytes."""

    max_answer: int | None = None
    """Largest answer."""
    max_metadata: int | None = None
    """Most that one call's metadata may be: names, values, and 32 for each (RFC 9113, 6.5.2)."""
    max_calls: int | None = None
    """Calls at a time, of all callers."""
    max_calls_per_connection: int | None = None
    """Calls at a time that one connection has; a client keeps further ones waiting."""
    max_connections: int | None = None
    """Connections at a time."""
    max_age: float | None = None
    """How long a connection lasts, give or take a tenth."""
    max_age_grace: float | None = None
    """How long calls on it have after that."""
    max_idle: float | None = None
    """How long a connection lasts without a call."""
    keepalive_time: float | None = None
    """A connection on which nothing came for so long is asked for a sign of life."""
    keepalive_timeout: float | None = None
    """How long that may take."""

    def options(self) -> Iterator[tuple[str, int]]:
        """As gRPC's core takes them."""
        yield "grpc.server_handshake_timeout_ms", _milliseconds(_HANDSHAKE)
        # A client may ask for a sign of life as often as it likes, which costs about a microsecond. By itself gRPC
        # closes its connection when that is too often; but while what it has written waits to be taken, gRPC adds to
        # its reason for that with each further one, in time that grows as their square: 4 MB of them take half a minute
        # of a core.
        yield "grpc.http2.max_ping_strikes", 0
        yield "grpc.keepalive_permit_without_calls", 1  # of ours too
        if self.max_metadata is not None:
            # Between the two, gRPC refuses by chance. Here it either does or does not.
            yield "grpc.max_metadata_size", self.max_metadata
            yield "grpc.absolute_max_metadata_size", self.max_metadata
        for name, number in (
            ("grpc.max_concurrent_streams", self.max_calls_per_connection),
            # Streams that have ended count too until gRPC has put them away, or whoever cancels what it opens, in a
            # flood, would have it begin on all of them (CVE-2023-44487). A client that keeps to what it was told may
            # have as many of them as it has calls, and would be refused its next ones without this.
            ("grpc.http2.max_deallocating_streams", self.max_calls_per_connection),
            ("grpc.max_allowed_incoming_connections", self.max_connections),
        ):
            if number is not None:
                yield name, number
        for name, seconds in (
            ("grpc.max_connection_age_ms", self.max_age),
            ("grpc.max_connection_age_grace_ms", self.max_age_grace),
            ("grpc.max_connection_idle_ms", self.max_idle),
            ("grpc.keepalive_time_ms", self.keepalive_time),
            ("grpc.keepalive_timeout_ms", self.keepalive_timeout),
            ("grpc.http2.ping_timeout_ms", self.keepalive_timeout),  # a minute by itself, and then that is what counts
        ):
            if seconds is not None:
                yield name, _milliseconds(seconds)


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
