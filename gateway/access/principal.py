"""Callers, and what each may do. Pure."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from gateway.errors import CallerNotPermitted

if TYPE_CHECKING:
    from collections.abc import Iterable

    from gateway.access.rates import Rate

__all__ = ["ANYBODY", "Permission", "Principal"]


class Permission(enum.StrEnum):
    """What a caller may do with the sessions of a tenant."""

    READ = "sessions:read"
    WRITE = "sessions:write"


@dataclass(frozen=True, slots=True)
class Principal:
    """An authenticated caller. `tenants` is None for all tenants."""

    name: str
    kind: str
    """How it was authenticated: `key`, `jwt`, `certificate`, or `anybody` if access is not configured."""
    permissions: frozenset[Permission]
    tenants: frozenset[str] | None
    rate: Rate | None = None
    """Its own rate limit per tenant, if it has one."""

    @classmethod
    def of(
        cls, name: str, kind: str, permissions: Iterable[Permission], tenants: Iterable[str], rate: Rate | None = None
    ) -> Principal:
        """Make one; `*` among the tenants means all."""
        named = frozenset(tenants)
        return cls(name, kind, frozenset(permissions), None if "*" in named else named, rate)

    def check(self, permission: Permission, tenant: str) -> None:
        """Raise CallerNotPermitted unless this caller may do this with the tenant's sessions."""
        if permission not in self.permissions or (self.tenants is not None and tenant not in self.tenants):
            raise CallerNotPermitted(self.name, permission.value, tenant)


ANYBODY: Final = Principal.of("anybody", "anybody", Permission, ["*"])
"""Every caller, if access is not configured."""
