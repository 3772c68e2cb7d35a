"""The audit log: one line for every write, refusal and failed authentication. No token, no attribute, no session id."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import structlog

from gateway.tenants import printable, readable

if TYPE_CHECKING:
    from gateway.access.principal import Principal
    from gateway.errors import GatewayError

__all__ = ["Audit", "fingerprint"]


class Audit:
    """Writes the lines. `principal` is None if the caller was not authenticated."""

    def __init__(self) -> None:
        self._log = structlog.stdlib.get_logger("gateway.audit")

    def wrote(self, principal: Principal, operation: str, tenant: str, session_id: str | None, outcome: str) -> None:
        """A write has ended: `applied`, `cancelled`, or the reason of the error."""
        self._log.info("write", **_about(principal, operation, tenant, session_id), outcome=outcome)

    def refused(
        self,
        principal: Principal | None,
        operation: str,
        tenant: str,
        session_id: str | None,
        error: GatewayError,
    ) -> None:
        """A caller was not authenticated, or may not do this."""
        event = "authentication_failed" if principal is None else "refused"
        why = {} if error.__cause__ is None else {"why": type(error.__cause__).__name__}
        self._log.warning(event, **_about(principal, operation, tenant, session_id), outcome=error.reason, **why)


def _about(principal: Principal | None, operation: str, tenant: str, session_id: str | None) -> dict[str, str | None]:
    return {
        "principal": None if principal is None else printable(principal.name),
        "kind": None if principal is None else principal.kind,
        "tenant": readable(tenant),
        "operation": operation,
        "session": None if session_id is None else fingerprint(session_id),
    }


def fingerprint(session_id: str) -> str:
    """Stands for a session id: whoever knows the id can find its lines, but nobody learns it from them."""
    return hashlib.sha256(session_id.encode("utf-8", "surrogatepass")).hexdigest()[:16]
