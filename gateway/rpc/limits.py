"""What one caller, or all of them, may take of the gRPC listener."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

__all__ = ["Limits"]

_HANDSHAKE: Final = 10.0
"""Seconds for TLS and HTTP/2 to be agreed on; gRPC's own is two minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Times are in seconds, sizes in bytes."""

    max_message: int
    """Largest request."""
    max_answer: int
    """Largest answer."""
    max_metadata: int
    """Most that one call's metadata may be: names, values, and 32 for each (RFC 9113, 6.5.2)."""
    max_calls: int
    """Calls at a time, of all callers."""
    max_calls_per_connection: int
    """Calls at a time that one connection has; a client keeps further ones waiting."""
    max_connections: int
    """Connections at a time."""
    max_age: float
    """How long a connection lasts, give or take a tenth."""
    max_age_grace: float
    """How long calls on it have after that."""
    max_idle: float
    """How long a connection lasts without a call."""
    keepalive_time: float
    """A connection on which nothing came for so long is asked for a sign of life."""
    keepalive_timeout: float
    """How long that may take."""

    def options(self) -> tuple[tuple[str, int], ...]:
        """Those that gRPC's core keeps to, as it takes them."""
        return (
            ("grpc.max_receive_message_length", self.max_message),
            # Between the two, gRPC refuses by chance. Here it either does or does not.
            ("grpc.max_metadata_size", self.max_metadata),
            ("grpc.absolute_max_metadata_size", self.max_metadata),
            ("grpc.max_concurrent_streams", self.max_calls_per_connection),
            # Streams that have ended count too until gRPC has put them away, or whoever cancels what it opens, in a
            # flood, would have it begin on all of them (CVE-2023-44487). A client that keeps to what it was told may
            # have as many of them as it has calls, and would be refused its next ones without this.
            ("grpc.http2.max_deallocating_streams", self.max_calls_per_connection),
            ("grpc.max_allowed_incoming_connections", self.max_connections),
            ("grpc.server_handshake_timeout_ms", _milliseconds(_HANDSHAKE)),
            ("grpc.max_connection_age_ms", _milliseconds(self.max_age)),
            ("grpc.max_connection_age_grace_ms", _milliseconds(self.max_age_grace)),
            ("grpc.max_connection_idle_ms", _milliseconds(self.max_idle)),
            ("grpc.keepalive_time_ms", _milliseconds(self.keepalive_time)),
            ("grpc.keepalive_timeout_ms", _milliseconds(self.keepalive_timeout)),
            ("grpc.http2.ping_timeout_ms", _milliseconds(self.keepalive_timeout)),  # else its own counts, a minute
            ("grpc.keepalive_permit_without_calls", 1),  # of ours too
            # A client may ask for a sign of life as often as it likes, which costs about a microsecond. By itself gRPC
            # closes its connection when that is too often; but while what it has written waits to be taken, gRPC adds
            # to its reason for that with each further one, in time that grows as their square: 4 MB of them take half a
            # minute of a core.
            ("grpc.http2.max_ping_strikes", 0),
        )


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
