"""Default limits for tests of single modules, from the settings, which alone define defaults."""

from __future__ import annotations

from typing import Final

from gateway.settings import GraphQL, Grpc
from gateway.wiring import documents, rpc

__all__ = ["LIMITS", "MEMORY", "RPC_LIMITS"]

LIMITS: Final = documents.limits_of(GraphQL())
"""Of GraphQL documents."""
RPC_LIMITS: Final = rpc.limits_of(Grpc())
"""Of the gRPC listener."""
MEMORY: Final = GraphQL().documents_memory
"""For GraphQL documents."""
