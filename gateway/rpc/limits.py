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
    min_ping_interval: float | None = None
    """How often a client may ask for a sign of life."""
    max_ping_strikes: int | None = None
    """How many times it may do so sooner, before its connection is closed."""
    pings_without_calls: bool | None = None
    """Whether it may do so while it has no call."""

    def options(self) -> Iterator[tuple[str, int]]:
        """As gRPC's core takes them."""
        yield "grpc.server_handshake_timeout_ms", _milliseconds(_HANDSHAKE)
        # That would also count streams whose end gRPC has not got round to, and refuse the next ones of a client that
        # keeps to what it was told. Those that do not are refused all the same (RFC 9113, 5.1.2).
        yield "grpc.http.overload_protection", 0
        if self.max_metadata is not None:
            # Between the two, gRPC refuses by chance. Here it either does or does not.
            yield "grpc.max_metadata_size", self.max_metadata
            yield "grpc.absolute_max_metadata_size", self.max_metadata
        for name, number in (
            ("grpc.max_concurrent_streams", self.max_calls_per_connection),
            ("grpc.max_allowed_incoming_connections", self.max_connections),
            ("grpc.http2.max_ping_strikes", self.max_ping_strikes),
            ("grpc.keepalive_permit_without_calls", self.pings_without_calls),
        ):
            if number is not None:
                yield name, int(number)
        for name, seconds in (
            ("grpc.max_connection_age_ms", self.max_age),
            ("grpc.max_connection_age_grace_ms", self.max_age_grace),
            ("grpc.max_connection_idle_ms", self.max_idle),
            ("grpc.keepalive_time_ms", self.keepalive_time),
            ("grpc.keepalive_timeout_ms", self.keepalive_timeout),
            ("grpc.http2.ping_timeout_ms", self.keepalive_timeout),  # a minute by itself, and then that is what counts
            ("grpc.http2.min_ping_interval_without_data_ms", self.min_ping_interval),
        ):
            if seconds is not None:
                yield name, _milliseconds(seconds)


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
