"""Bugs in the gateway: the log has them under an id, and callers are told only this id."""

from __future__ import annotations

import uuid
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from structlog.stdlib import BoundLogger

__all__ = ["reported"]


def reported(defect: Exception, log: BoundLogger, **about: object) -> str:
    """Log a bug; returns the message for the caller."""
    incident = uuid.uuid4().hex
    log.error("defect", incident=incident, **about, exc_info=defect)
    return f"internal error; its id in the log is {incident}"
