"""The one place where callers are checked: both doors go through it, before a cache or upstream is touched.

Reading and writing any session of a tenant needs a permission of this gateway's. One's own session needs none: the
shopper's Emporix token is passed on, and upstream decides.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from gateway.access.principal import ANYBODY, Permission, Principal
from gateway.cache.freshness import FRESH_ENOUGH
from gateway.errors import CallerUnauthenticated, GatewayError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping, Sequence

    from pydantic import SecretStr

    from gateway.access.audit import Audit
    from gateway.access.keys import KeyRing
    from gateway.access.tokens import TokenIssuers
    from gateway.cache.freshness import ReadOptions
    from gateway.cache.readthrough import Found
    from gateway.credentials import CallerCredentials
    from gateway.deadline import Deadline
    from gateway.model import JSON, Replacement
    from gateway.sessions.changes import Patch
    from gateway.sessions.service import OwnSessionContexts, SessionContexts
    from gateway.sessions.writer import WriteOptions, Written

__all__ = ["Access", "Guard", "GuardedOwnSession", "GuardedSessions"]

_SHOPPER: Final = Principal.of("shopper", "emporix-token", [], [])
"""Whoever acts on a session of their own; upstream knows who that is."""


class Access:
    """Recognises callers. With nothing configured, everybody is `ANYBODY`."""

    def __init__(
        self,
        keys: KeyRing | None,
        issuers: TokenIssuers | None,
        certificates: Mapping[str, Principal],
    ) -> None:
        self._keys = keys
        self._issuers = issuers
        self._certificates = certificates

    @property
    def open_to_all(self) -> bool:
        """Whether nothing is configured."""
        return self._keys is None and self._issuers is None and not self._certificates

    async def principal(self, credentials: CallerCredentials) -> Principal:
        """Who is calling, by the first credential that was sent: API key, token, client certificate.

        Raises CallerUnauthenticated.
        """
        if self.open_to_all:
            return ANYBODY
        if credentials.api_key is not None and self._keys is not None:
            return self._keys.principal(credentials.api_key)
        if credentials.access_token is not None and self._issuers is not None:
            return await self._issuers.principal(credentials.access_token)
        for name in credentials.certificate_names:
            if name in self._certificates:
                return self._certificates[name]
        raise CallerUnauthenticated("a credential of this gateway is missing: send `x-api-key` or `authorization`")


class Guard:
    """Lets callers through to the use cases, and keeps the audit log."""

    def __init__(self, access: Access, sessions: SessionContexts, own: OwnSessionContexts, audit: Audit) -> None:
        self._access = access
        self._sessions = sessions
        self._own = own
        self._audit = audit

    def sessions(self, credentials: CallerCredentials) -> GuardedSessions:
        """The management side, for one caller."""
        return GuardedSessions(self._access, self._sessions, self._audit, credentials)

    def own(self, credentials: CallerCredentials) -> GuardedOwnSession:
        """The storefront side, for one caller."""
        return GuardedOwnSession(self._own, self._audit, credentials)


class GuardedSessions:
    """`SessionContexts`, for one caller. Besides what that raises: CallerUnauthenticated, CallerNotPermitted."""

    def __init__(self, access: Access, sessions: SessionContexts, audit: Audit, credentials: CallerCredentials) -> None:
        self._access = access
        self._sessions = sessions
        self._audit = audit
        self._credentials = credentials

    async def get(self, tenant: str, session_id: str, deadline: Deadline, options: ReadOptions = FRESH_ENOUGH) -> Found:
        """Read one."""
        await self._permitted(Permission.READ, "get", tenant, session_id)
        return await self._sessions.get(tenant, session_id, deadline, options)

    async def batch_get(
        self, tenant: str, session_ids: Sequence[str], deadline: Deadline, options: ReadOptions = FRESH_ENOUGH
    ) -> list[Found | GatewayError]:
        """Read several."""
        await self._permitted(Permission.READ, "batch_get", tenant, None)
        return await self._sessions.batch_get(tenant, session_ids, deadline, options)

    async def replace(
        self, tenant: str, session_id: str, replacement: Replacement, options: WriteOptions, *, upsert: bool = False
    ) -> Written:
        """Replace, or create."""
        async with self._writing("replace", tenant, session_id):
            return await self._sessions.replace(
                tenant, session_id, replacement, options, upsert=upsert, saas_token=self._credentials.saas_token
            )

    async def patch(self, tenant: str, session_id: str, patch: Patch, options: WriteOptions) -> Written:
        """Change some fields and attributes."""
        async with self._writing("patch", tenant, session_id):
            return await self._sessions.patch(
                tenant, session_id, patch, options, saas_token=self._credentials.saas_token
            )

    async def add_attribute(
        self, tenant: str, session_id: str, name: str, value: JSON, options: WriteOptions
    ) -> Written:
        """Set an attribute."""
        async with self._writing("add_attribute", tenant, session_id):
            return await self._sessions.add_attribute(
                tenant, session_id, name, value, options, saas_token=self._credentials.saas_token
            )

    async def remove_attribute(self, tenant: str, session_id: str, name: str, options: WriteOptions) -> Written:
        """Remove an attribute."""
        async with self._writing("remove_attribute", tenant, session_id):
            return await self._sessions.remove_attribute(
                tenant, session_id, name, options, saas_token=self._credentials.saas_token
            )

    async def _permitted(
        self, permission: Permission, operation: str, tenant: str, session_id: str | None
    ) -> Principal:
        principal: Principal | None = None
        try:
            principal = await self._access.principal(self._credentials)
            principal.check(permission, tenant)
        except GatewayError as error:
            self._audit.refused(principal, operation, tenant, session_id, error)
            raise
        return principal

    @asynccontextmanager
    async def _writing(self, operation: str, tenant: str, session_id: str) -> AsyncIterator[None]:
        principal = await self._permitted(Permission.WRITE, operation, tenant, session_id)
        async with _audited(self._audit, principal, operation, tenant, session_id):
            yield


class GuardedOwnSession:
    """`OwnSessionContexts`, for one caller, whose Emporix token is passed on. Raises what that raises."""

    def __init__(self, own: OwnSessionContexts, audit: Audit, credentials: CallerCredentials) -> None:
        self._own = own
        self._audit = audit
        self._token: SecretStr | None = credentials.access_token

    async def get(self, tenant: str, deadline: Deadline, options: ReadOptions = FRESH_ENOUGH) -> Found:
        """Read it."""
        return await self._own.get(tenant, self._token, deadline, options)

    async def update(self, tenant: str, patch: Patch, options: WriteOptions) -> Written:
        """Change some fields and attributes."""
        async with self._writing("update_own", tenant):
            return await self._own.update(tenant, self._token, patch, options)

    async def add_attribute(self, tenant: str, name: str, value: JSON, options: WriteOptions) -> Written:
        """Set an attribute."""
        async with self._writing("add_own_attribute", tenant):
            return await self._own.add_attribute(tenant, self._token, name, value, options)

    async def remove_attribute(self, tenant: str, name: str, options: WriteOptions) -> Written:
        """Remove an attribute."""
        async with self._writing("remove_own_attribute", tenant):
            return await self._own.remove_attribute(tenant, self._token, name, options)

    @asynccontextmanager
    async def _writing(self, operation: str, tenant: str) -> AsyncIterator[None]:
        async with _audited(self._audit, _SHOPPER, operation, tenant, None):
            yield


@asynccontextmanager
async def _audited(
    audit: Audit, principal: Principal, operation: str, tenant: str, session_id: str | None
) -> AsyncIterator[None]:
    """Log the write however it ends; a caller who goes away is an end too."""
    outcome = "cancelled"
    try:
        yield
        outcome = "applied"
    except GatewayError as error:
        outcome = error.reason
        raise
    finally:
        audit.wrote(principal, operation, tenant, session_id, outcome)
