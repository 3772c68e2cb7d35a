"""What the parts below the settings are given where nothing is set: defaults stand in the settings alone."""

from __future__ import annotations

from typing import Final

from gateway.parts.documents import limits_of
from gateway.settings import GraphQL

__all__ = ["LIMITS", "MEMORY"]

LIMITS: Final = limits_of(GraphQL())
"""Of GraphQL documents."""
MEMORY: Final = GraphQL().documents_memory
"""For GraphQL documents."""
