"""Limits of the gRPC listener, for one caller and for all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import grpc

__all__ = ["Limits"]

_HANDSHAKE: Final = 10.0
"""Seconds for the handshakes of TLS and HTTP/2; gRPC's own limit is two minutes."""
_UNCOMPRESSED: Final = 1 << grpc.Compression.NoCompression.value
_MAX_PENDING: Final = 3_000
"""Calls that wait to be begun with."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Times are in seconds, sizes in bytes."""

    max_message: int
    """Largest request."""
    max_answer: int
    """Largest answer."""
    max_metadata: int
    """Largest metadata of one call: names, values, and 32 for each entry (RFC 9113, 6.5.2)."""
    max_calls: int
    """Calls at a time, of all callers."""
    max_calls_per_connection: int
    """Calls at a time on one connection; a client holds back further ones."""
    max_connections: int
    """Connections at a time."""
    max_age: float
    """How long a connection lasts, give or take a tenth."""
    max_age_grace: float
    """How long calls on it may take after that."""
    max_idle: float
    """How long a connection lasts without a call."""
    keepalive_time: float
    """After so long without data from the client, the connection is pinged."""
    keepalive_timeout: float
    """How long the answer may take."""

    def options(self) -> tuple[tuple[str, int], ...]:
        """The limits that gRPC's core enforces, as its options."""
        return (
            ("grpc.max_receive_message_length", self.max_message),
            # No compressed requests: 1 KB can stand for 1 MiB, which takes 50 ms to decode before anybody knows whose
            # it is, and goes on to upstream with whatever token came along.
            ("grpc.compression_enabled_algorithms_bitset", _UNCOMPRESSED),
            # Between the two, gRPC refuses at random. Here they are the same.
            ("grpc.max_metadata_size", self.max_metadata),
            ("grpc.absolute_max_metadata_size", self.max_metadata),
            ("grpc.max_concurrent_streams", self.max_calls_per_connection),
            # Streams that have ended still count until gRPC has removed them: otherwise it would begin every call of a
            # flood that is opened and cancelled (CVE-2023-44487). A client that respects the limit may have as many of
            # these as calls, and without this its next calls would be refused.
            ("grpc.http2.max_deallocating_streams", self.max_calls_per_connection),
            # Calls that nobody has begun with. Beyond 3,000 gRPC cancels them, as each may take 30 KB. By default it
            # would also cancel some beyond 1,000, at random: twenty clients with a hundred calls each come to that in a
            # moment, and whose call is CANCELLED cannot know that nothing was done.
            ("grpc.server.max_pending_requests", _MAX_PENDING),
            ("grpc.server.max_pending_requests_hard_limit", _MAX_PENDING),
            ("grpc.max_allowed_incoming_connections", self.max_connections),
            ("grpc.server_handshake_timeout_ms", _milliseconds(_HANDSHAKE)),
            ("grpc.max_connection_age_ms", _milliseconds(self.max_age)),
            ("grpc.max_connection_age_grace_ms", _milliseconds(self.max_age_grace)),
            ("grpc.max_connection_idle_ms", _milliseconds(self.max_idle)),
            ("grpc.keepalive_time_ms", _milliseconds(self.keepalive_time)),
            ("grpc.keepalive_timeout_ms", _milliseconds(self.keepalive_timeout)),
            ("grpc.http2.ping_timeout_ms", _milliseconds(self.keepalive_timeout)),  # else its own applies, a minute
            ("grpc.keepalive_permit_without_calls", 1),  # from us too
            # A client may ping as often as it likes, which costs about a microsecond each. By default gRPC closes the
            # connection if that is too often; but while its own writes are blocked, each further ping makes the error
            # message longer, in quadratic time: 4 MB of pings take half a minute of a core.
            ("grpc.http2.max_ping_strikes", 0),
        )


def _milliseconds(seconds: float) -> int:
    return round(seconds * 1000)
