"""The gateway's own access tokens for upstream, one per tenant: kept, shared by all requests, and renewed.

At most one token request per tenant is in progress, however many callers wait for it. A token in use is renewed before
it expires, so that no caller waits for that (there are no refresh tokens, so a new one is requested). After a failure
all callers get the error at once, and the next request is made after a back-off.
"""

from __future__ import annotations

import asyncio
import copy
import random
import time
from contextvars import copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from gateway.errors import (
    GatewayCredentialsRefused,
    RateLimited,
    TenantNotConfigured,
    UpstreamError,
    UpstreamNotAsked,
    UpstreamSpared,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from gateway.tasks import TaskGroup
from gateway.telemetry import TokenRequested
from gateway.upstream.http import cause_of
from gateway.upstream.token_endpoint import ServiceToken, obtain_token

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from gateway.deadline import Deadline
    from gateway.stores import MemoryStore
    from gateway.telemetry import UpstreamObserver
    from gateway.upstream.http import Http
    from gateway.upstream.token_endpoint import ClientCredentials

__all__ = ["ServiceTokens"]

_YOUNG: Final = 10.0
"""If a token is refused within so many seconds of being issued, a new one will probably not help."""


class ServiceTokens:
    """The service tokens of all tenants. Enter it before use: it owns the tasks that fetch and renew."""

    def __init__(
        self,
        http: Http,
        store: MemoryStore[ServiceToken],
        credentials: Mapping[str, ClientCredentials],
        observer: UpstreamObserver,
    ) -> None:
        self._tasks = TaskGroup()
        self._tenants = _Tenants(
            (tenant, _TenantToken(tenant, each, http, store, self._tasks, observer=observer))
            for tenant, each in credentials.items()
        )

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        return self

    async def __aexit__(self, *ended: object) -> None:
        await self._tasks.__aexit__(*ended)

    async def get(self, tenant: str, deadline: Deadline) -> ServiceToken:
        """The tenant's token, requested now if there is none.

        Raises TenantNotConfigured; GatewayCredentialsRefused if the token endpoint refuses the credentials;
        UpstreamNotAsked if there is none by the deadline, and another UpstreamError if it cannot be obtained. None of
        them leaves doubt about the request that needed it. Cancelling a caller does not stop the token request.
        """
        mine = self._tenants[tenant]
        return mine.held() or await mine.obtained(deadline)

    async def drop(self, tenant: str, token: ServiceToken) -> None:
        """Forget a token that upstream refused, unless another has taken its place."""
        await self._tenants[tenant].drop(token)

    def accepted(self, tenant: str) -> None:
        """Upstream accepted the tenant's token: whatever was refused before, the credentials are valid."""
        self._tenants[tenant].accepted()

    def renew_with(self, credentials: Mapping[str, ClientCredentials]) -> None:
        """Use other credentials from now on, for known tenants. A token stays in use until there is a new one."""
        for tenant, each in credentials.items():
            self._tenants[tenant].renew_with(each)

    def troubles(self) -> dict[str, str]:
        """Tenants that cannot be served, or will not be when their token has expired, and why."""
        return {name: trouble for name, each in self._tenants.items() if (trouble := each.trouble()) is not None}

    def check(self, tenant: str) -> None:
        """Raise TenantNotConfigured for a tenant without credentials."""
        self._tenants[tenant]


class _Tenants(dict[str, "_TenantToken"]):
    """Looking up an unknown tenant raises TenantNotConfigured."""

    def __missing__(self, tenant: str) -> _TenantToken:
        raise TenantNotConfigured(tenant)


@dataclass(slots=True)
class _Backoff:
    """When the next request may be made, and the error until then."""

    error: UpstreamError | None = None
    cause: str | None = None
    """Why there was no connection, if that is it, for operators."""
    until: float = 0.0
    failures: int = 0

    def start(self, error: UpstreamError, cause: str | None = None) -> float:
        """Count a failure; return the seconds to wait: doubling from 0.5 to 30, with jitter, or as upstream asks."""
        delay = min(30.0, 0.5 * 2**self.failures) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
        self.failures = min(self.failures + 1, 10)
        self.error, self.cause = error, cause
        self.until = time.monotonic() + max(delay, error.retry_after or 0.0)
        return self.until - time.monotonic()

    def check(self) -> None:
        """Raise a copy of the error while it is too early to try again."""
        if self.error is not None and (remaining := self.until - time.monotonic()) > 0:
            raise _again(self.error, remaining)


class _TenantToken:
    """One tenant's token: kept in the store, fetched by one task at a time, and renewed by another."""

    def __init__(
        self,
        tenant: str,
        credentials: ClientCredentials,
        http: Http,
        store: MemoryStore[ServiceToken],
        tasks: asyncio.TaskGroup,
        *,
        observer: UpstreamObserver,
    ) -> None:
        self._observer = observer
        self._context = copy_context()
        self._tenant = tenant
        self._credentials = credentials
        self._http = http
        self._store = store
        self._tasks = tasks
        self._fetching: asyncio.Task[ServiceToken | UpstreamError] | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._failures = _Backoff()
        self._refusals = _Backoff()
        self._refused_young = False
        self._used = asyncio.Event()
        """Whether the token has been used since it was obtained."""
        self._log = structlog.stdlib.get_logger(__name__).bind(tenant=tenant)

    def held(self) -> ServiceToken | None:
        """The token, if there is one, which is all that nearly every request needs."""
        self._used.set()
        return self._store.peek(self._tenant)

    async def obtained(self, deadline: Deadline) -> ServiceToken:
        self._failures.check()
        self._refusals.check()
        try:
            with deadline.bound("waiting for a token"):
                result = await self._fetched()
        except UpstreamTimeout as error:
            raise UpstreamNotAsked(error.message) from error
        if isinstance(result, UpstreamError):
            raise copy.copy(result)  # a copy for each caller, so that their tracebacks do not mix
        return result

    async def drop(self, token: ServiceToken) -> None:
        if self._store.peek(self._tenant) is not token:
            return
        await self._store.delete(self._tenant)
        self._count_refusal(young=time.monotonic() - token.obtained_at < _YOUNG)

    def accepted(self) -> None:
        self._refused_young = False

    def trouble(self) -> str | None:
        """Why the last token request failed, or why upstream refuses the token."""
        if self._failures.error is not None:
            cause = self._failures.cause
            return self._failures.error.message + (f": {cause}" if cause is not None else "")
        if self._refused_young and self._refusals.error is not None:
            return self._refusals.error.message
        token = self._store.peek(self._tenant)
        if token is not None and token.missing_scope is not None:
            return f"the client lacks the scope {token.missing_scope}"
        return None

    def renew_with(self, credentials: ClientCredentials) -> None:
        if credentials == self._credentials:
            return
        self._credentials = credentials
        self._failures = _Backoff()
        self._refusals = _Backoff()
        self._refused_young = False
        self._tasks.create_task(self._fetch_anew(), name=f"fetch token of {self._tenant} with new credentials")

    async def _fetch_anew(self) -> None:
        if self._fetching is not None and not self._fetching.done():
            await asyncio.wait([self._fetching])  # with the old credentials
        self._failures = _Backoff()
        await self._fetched()

    def _count_refusal(self, *, young: bool) -> None:
        """A token may be revoked at any time; but if new ones are refused in a row, back off."""
        if young and self._refused_young:
            self._refusals.start(
                GatewayCredentialsRefused("upstream refuses one new token of the gateway after another")
            )
        if not young:
            self._refusals = _Backoff()
        self._refused_young = young

    async def _fetched(self) -> ServiceToken | UpstreamError:
        """Join the request in progress, or start one. Failures are returned: no task of the group ever raises."""
        if self._fetching is None or self._fetching.done():
            self._fetching = self._tasks.create_task(self._fetch(), name=f"fetch token of {self._tenant}")
        return await asyncio.shield(self._fetching)

    async def _fetch(self) -> ServiceToken | UpstreamError:
        result = await self._asked()
        outcome = "ok" if isinstance(result, ServiceToken) else result.reason
        self._observer.token_requested(TokenRequested(outcome))
        return result

    async def _asked(self) -> ServiceToken | UpstreamError:
        try:
            token = await obtain_token(self._http, self._tenant, self._credentials)
        except UpstreamError as cause:
            error = _without_token(cause)
            found = cause_of(cause)
            delay = self._failures.start(error, found)
            why = {} if found is None else {"cause": found}
            self._log.warning(
                "token_not_obtained", reason=error.reason, error=error.message, **why, retry_in=round(delay, 1)
            )
            return error
        except Exception:  # noqa: BLE001 - a task of the group that raises would end the whole process
            self._log.exception("defect")
            error = UpstreamUnreachable("no token could be obtained")
            self._failures.start(error)
            return error
        self._failures = _Backoff()
        await self._keep(token)
        return token

    async def _keep(self, token: ServiceToken) -> None:
        if token.missing_scope:
            self._log.warning("token_lacks_scope", scope=token.missing_scope)
        await self._store.set(self._tenant, token, ttl=token.expires_at - time.monotonic())
        self._used.clear()
        if self._renewing is not None:
            self._renewing.cancel()
        # It outlives the request that happened to need the first token, and is not part of it.
        self._renewing = self._tasks.create_task(
            self._renew(token), name=f"renew token of {self._tenant}", context=self._context.copy()
        )

    async def _renew(self, token: ServiceToken) -> None:
        """Fetch a new token before this one expires, if it has been used; otherwise let it expire."""
        await asyncio.sleep(token.renew_at - time.monotonic())
        try:
            async with asyncio.timeout(token.expires_at - time.monotonic()):
                await self._used.wait()
        except TimeoutError:
            return
        while time.monotonic() < token.expires_at:
            result = await self._fetched()  # success also starts a new task in place of this one
            if isinstance(result, ServiceToken):
                return
            await asyncio.sleep(max(0.0, self._failures.until - time.monotonic()))


def _again(error: UpstreamError, remaining: float) -> UpstreamError:
    """A copy for another caller, who may try again after so many seconds."""
    another = copy.copy(error)
    another.retry_after = remaining
    return another


def _without_token(error: UpstreamError) -> UpstreamError:
    """The error of a request that cannot be sent without a token. Unlike its cause, it leaves no doubt."""
    if isinstance(error, GatewayCredentialsRefused | RateLimited):
        return error
    message = f"no token could be obtained: {error.message}"
    if isinstance(error, UpstreamSpared):
        return UpstreamSpared(message, retry_after=error.retry_after or 0.0)
    return UpstreamUnreachable(message, retry_after=error.retry_after)
