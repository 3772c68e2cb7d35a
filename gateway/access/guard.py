"""The one place where callers are checked: both doors go through it, before a cache or upstream is touched.

Reading and writing any session of a tenant needs a permission of this gateway's. One's own session needs none: the
shopper's Emporix token is passed on, and upstream decides.

Callers are authenticated and authorized before their input is looked at (AIP-193, AIP-211): so a door passes a
function that converts the input, which is called once the caller is let in.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from copy import copy
from typing import TYPE_CHECKING, Final

from gateway.access.principal import ANYBODY, Permission, Principal
from gateway.cache.freshness import FRESH_ENOUGH
from gateway.errors import (
    CallerRateLimited,
    CallerUnauthenticated,
    GatewayError,
    IssuerUnavailable,
    PermissionDenied,
    Unauthenticated,
)
from gateway.request import current

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

    from pydantic import SecretStr

    from gateway.access.audit import Audit
    from gateway.access.keys import KeyRing
    from gateway.access.limits import RateLimits
    from gateway.access.tokens import TokenIssuers
    from gateway.cache.freshness import ReadOptions
    from gateway.cache.readthrough import Found
    from gateway.credentials import CallerCredentials
    from gateway.deadline import Deadline
    from gateway.model import JSON, Replacement
    from gateway.sessions.changes import Patch
    from gateway.sessions.service import OwnSessionContexts, SessionContexts
    from gateway.sessions.writer import WriteOptions, Written

__all__ = ["Authenticator", "Guard", "GuardedOwnSession", "GuardedSessions"]

_SHOPPER: Final = Principal.of("shopper", "emporix-token", [], [])
"""Anybody who acts on their own session; upstream knows who that is."""


class Authenticator:
    """Authenticates callers. If none are configured, every caller is `ANYBODY`."""

    def __init__(
        self,
        keys: KeyRing | None,
        issuers: TokenIssuers | None,
        certificates: Mapping[str, Principal],
    ) -> None:
        self._keys = keys
        self.issuers = issuers
        """Issuers whose tokens are accepted, if there are any."""
        self._certificates = certificates
        self.open_to_all = keys is None and issuers is None and not certificates
        """Whether no callers are configured."""

    def become(self, other: Authenticator) -> None:
        """Authenticate callers as `other` does, from now on."""
        self._keys, self.issuers, self._certificates = other._keys, other.issuers, other._certificates
        self.open_to_all = other.open_to_all

    async def principal(self, credentials: CallerCredentials, deadline: Deadline) -> Principal:
        """The caller, by the first credential that it sent: API key, token, client certificate.

        Raises CallerUnauthenticated, and IssuerUnavailable if a token cannot be verified for now.
        """
        if self.open_to_all:
            return ANYBODY
        if credentials.api_key is not None and self._keys is not None:
            return self._keys.principal(credentials.api_key)
        if credentials.access_token is not None and self.issuers is not None:
            return await self.issuers.principal(credentials.access_token, deadline)
        for name in credentials.certificate_names:
            if name in self._certificates:
                return self._certificates[name]
        if credentials.certificate_names and self._certificates:
            names = ", ".join(credentials.certificate_names)
            raise CallerUnauthenticated(f"no caller is configured for this client certificate, which is for {names}")
        raise CallerUnauthenticated(self._missing(credentials))

    def _missing(self, credentials: CallerCredentials) -> str:
        """The credentials that would be accepted. Frontends often send the shopper's token where it is of no use."""
        ways = {"`x-api-key`": self._keys, "a JWT in `authorization`": self.issuers}
        taken = [way for way, known in ways.items() if known is not None]
        if self._certificates:
            taken.append("a client certificate")
        missing = f"a credential of this gateway is missing: send {' or '.join(taken)}"
        if credentials.access_token is None:
            return missing
        return f"{missing}; the token in `authorization` is for operations on the shopper's own session alone"


class Guard:
    """Lets callers through to the use cases, enforces their rate limits, and keeps the audit log."""

    def __init__(
        self,
        authenticator: Authenticator,
        limits: RateLimits,
        sessions: SessionContexts,
        own: OwnSessionContexts,
        audit: Audit,
    ) -> None:
        self._authenticator = authenticator
        self._limits = limits
        self._sessions = sessions
        self._own = own
        self._audit = audit

    def sessions(self, credentials: CallerCredentials) -> GuardedSessions:
        """The management side, for one request of one caller."""
        return GuardedSessions(self._authenticator, self._limits, self._sessions, self._audit, credentials)

    def own(self, credentials: CallerCredentials) -> GuardedOwnSession:
        """The storefront side, for one request of one caller."""
        return GuardedOwnSession(self._limits, self._own, self._audit, credentials)


class GuardedSessions:
    """`SessionContexts` for one request, which may make several calls.

    Besides what that raises: CallerUnauthenticated, IssuerUnavailable, CallerNotPermitted, CallerRateLimited.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        limits: RateLimits,
        sessions: SessionContexts,
        audit: Audit,
        credentials: CallerCredentials,
    ) -> None:
        self._authenticator = authenticator
        self._limits = limits
        self._sessions = sessions
        self._audit = audit
        self._credentials = credentials
        self._caller: Principal | CallerUnauthenticated | IssuerUnavailable | None = None
        self.let_in = 0
        """How many calls went through to the use cases."""

    async def get(self, tenant: str, session_id: str, deadline: Deadline, options: ReadOptions = FRESH_ENOUGH) -> Found:
        """Read one."""
        await self._check(Permission.READ, "get", tenant, session_id, deadline)
        return await self._sessions.get(tenant, session_id, deadline, options)

    async def batch_get(
        self, tenant: str, session_ids: Sequence[str], deadline: Deadline, options: ReadOptions = FRESH_ENOUGH
    ) -> list[Found | GatewayError]:
        """Read several; each counts as a call."""
        await self._check(Permission.READ, "batch_get", tenant, None, deadline, cost=len(session_ids))
        return await self._sessions.batch_get(tenant, session_ids, deadline, options)

    async def replace(
        self,
        tenant: str,
        session_id: str,
        replacement: Callable[[], Replacement],
        options: WriteOptions,
        *,
        upsert: bool = False,
    ) -> Written:
        """Replace, or create."""
        async with self._writing("replace", tenant, session_id, options):
            return await self._sessions.replace(
                tenant, session_id, replacement(), options, upsert=upsert, saas_token=self._credentials.saas_token
            )

    async def patch(self, tenant: str, session_id: str, patch: Callable[[], Patch], options: WriteOptions) -> Written:
        """Change some fields and attributes."""
        async with self._writing("patch", tenant, session_id, options):
            return await self._sessions.patch(
                tenant, session_id, patch(), options, saas_token=self._credentials.saas_token
            )

    async def add_attribute(
        self, tenant: str, session_id: str, name: str, value: Callable[[], JSON], options: WriteOptions
    ) -> Written:
        """Set an attribute."""
        async with self._writing("add_attribute", tenant, session_id, options):
            return await self._sessions.add_attribute(
                tenant, session_id, name, value(), options, saas_token=self._credentials.saas_token
            )

    async def remove_attribute(self, tenant: str, session_id: str, name: str, options: WriteOptions) -> Written:
        """Remove an attribute."""
        async with self._writing("remove_attribute", tenant, session_id, options):
            return await self._sessions.remove_attribute(
                tenant, session_id, name, options, saas_token=self._credentials.saas_token
            )

    @asynccontextmanager
    async def _writing(
        self, operation: str, tenant: str, session_id: str, options: WriteOptions
    ) -> AsyncIterator[None]:
        principal = await self._check(Permission.WRITE, operation, tenant, session_id, options.deadline)
        async with _audited(self._audit, principal, operation, tenant, session_id):
            yield

    async def _check(
        self,
        permission: Permission,
        operation: str,
        tenant: str,
        session_id: str | None,
        deadline: Deadline,
        *,
        cost: int = 1,
    ) -> Principal:
        """Let the caller in, or log why not and raise that."""
        principal: Principal | None = None
        try:
            principal = await self._principal(deadline)
            principal.check(permission, tenant)
            await self._limits.check(principal, tenant, cost)
        except GatewayError as error:
            self._audit.refused(principal, operation, tenant, session_id, error)
            current().failed(error.reason)
            raise
        finally:
            current().is_of(tenant, None if principal is None else principal.name)
        self.let_in += 1
        return principal

    async def _principal(self, deadline: Deadline) -> Principal:
        """The caller, authenticated once for all calls of the request."""
        if self._caller is None:
            try:
                self._caller = await self._authenticator.principal(self._credentials, deadline)
            except (CallerUnauthenticated, IssuerUnavailable) as error:
                self._caller = error
                raise
        if isinstance(self._caller, Principal):
            return self._caller
        raise copy(self._caller) from self._caller.__cause__


class GuardedOwnSession:
    """`OwnSessionContexts` for one request, whose Emporix token is passed on.

    Besides what that raises: CallerRateLimited.
    """

    def __init__(
        self, limits: RateLimits, own: OwnSessionContexts, audit: Audit, credentials: CallerCredentials
    ) -> None:
        self._limits = limits
        self._own = own
        self._audit = audit
        self._token: SecretStr | None = credentials.access_token
        self.let_in = 0
        """How many calls went through to the use cases."""

    async def get(self, tenant: str, deadline: Deadline, options: ReadOptions = FRESH_ENOUGH) -> Found:
        """Read it."""
        async with self._refusals_logged("get_own", tenant):
            return await self._own.get(tenant, self._checked(tenant), deadline, options)

    async def update(self, tenant: str, patch: Callable[[], Patch], options: WriteOptions) -> Written:
        """Change some fields and attributes."""
        async with self._writing("update_own", tenant) as token:
            return await self._own.update(tenant, token, patch(), options)

    async def add_attribute(self, tenant: str, name: str, value: Callable[[], JSON], options: WriteOptions) -> Written:
        """Set an attribute."""
        async with self._writing("add_own_attribute", tenant) as token:
            return await self._own.add_attribute(tenant, token, name, value(), options)

    async def remove_attribute(self, tenant: str, name: str, options: WriteOptions) -> Written:
        """Remove an attribute."""
        async with self._writing("remove_own_attribute", tenant) as token:
            return await self._own.remove_attribute(tenant, token, name, options)

    def _checked(self, tenant: str) -> SecretStr:
        """The caller's token. Raises Unauthenticated when there is none, and CallerRateLimited."""
        current().is_of(tenant, None if self._token is None else _SHOPPER.name)
        if self._token is None:
            raise Unauthenticated("the Emporix access token is missing: send `authorization: Bearer <token>`")
        self._limits.check_own(self._token, tenant)
        self.let_in += 1
        return self._token

    @asynccontextmanager
    async def _writing(self, operation: str, tenant: str) -> AsyncIterator[SecretStr]:
        async with self._refusals_logged(operation, tenant):
            token = self._checked(tenant)
            async with _audited(self._audit, _SHOPPER, operation, tenant, None, but=_REFUSALS):
                yield token

    @asynccontextmanager
    async def _refusals_logged(self, operation: str, tenant: str) -> AsyncIterator[None]:
        """Log if the caller is refused, by this gateway or by upstream."""
        try:
            yield
        except _REFUSALS as error:
            known = None if isinstance(error, Unauthenticated) else _SHOPPER
            self._audit.refused(known, operation, tenant, None, error)
            current().failed(error.reason)
            raise


_REFUSALS: Final = (Unauthenticated, PermissionDenied, CallerRateLimited)


@asynccontextmanager
async def _audited(
    audit: Audit,
    principal: Principal,
    operation: str,
    tenant: str,
    session_id: str | None,
    *,
    but: tuple[type[GatewayError], ...] = (),
) -> AsyncIterator[None]:
    """Log the write however it ends, except for errors in `but`, which are logged elsewhere."""
    outcome: str | None = "cancelled"
    try:
        yield
        outcome = "applied"
    except GatewayError as error:
        outcome = None if isinstance(error, but) else error.reason
        current().failed(error.reason)
        raise
    except Exception:
        outcome = GatewayError.reason
        raise
    finally:
        if outcome is not None:
            audit.wrote(principal, operation, tenant, session_id, outcome)
