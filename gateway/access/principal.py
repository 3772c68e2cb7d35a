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
    """What one may do with the sessions of a tenant."""

    READ = "sessions:read"
    WRITE = "sessions:write"


@dataclass(frozen=True, slots=True)
class Principal:
    """A caller who has been recognised. `tenants` is None for all tenants."""

    name: str
    kind: str
    """How it was recognised: `key`, `jwt`, `certificate`, or `anybody` where access is not configured."""
    permissions: frozenset[Permission]
    tenants: frozenset[str] | None
    rate: Rate | None = None
    """How many calls it may make for each tenant, if that is not what all may."""

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
"""Whoever calls, where access is not configured."""
