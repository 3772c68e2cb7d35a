"""The limits of the gRPC listener."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.rpc.limits import Limits

if TYPE_CHECKING:
    from gateway.settings import Grpc

__all__ = ["limits_of"]


def limits_of(grpc: Grpc) -> Limits:
    """The limits, from the settings."""
    connections = grpc.connections
    return Limits(
        max_message=grpc.max_message,
        max_answer=grpc.max_answer,
        max_metadata=grpc.max_metadata,
        max_calls=grpc.max_calls,
        max_calls_per_connection=grpc.max_calls_per_connection,
        max_connections=connections.max_number,
        max_age=connections.max_age,
        max_age_grace=max(connections.max_age_grace, grpc.budget),
        max_idle=connections.max_idle,
        keepalive_time=connections.keepalive_time,
        keepalive_timeout=connections.keepalive_timeout,
    )
