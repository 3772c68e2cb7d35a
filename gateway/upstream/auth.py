"""Adds a token to requests, the gateway's own for the tenant or the caller's, and handles a 401."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from gateway.errors import Unauthenticated, UpstreamError, UpstreamUnreachable
from gateway.upstream.mapping import retry_after

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from pydantic import SecretStr

    from gateway.deadline import Deadline
    from gateway.upstream.http import Answer, Exchange
    from gateway.upstream.service_tokens import ServiceTokens

__all__ = ["BesideSaasTokenAuth", "CallerTokenAuth", "ServiceTokenAuth"]

_WHOSE: Final = "upstream refuses a token, and cannot be asked whose"


class ServiceTokenAuth:
    """Adds the tenant's service token; after a 401, drops it and repeats the request once with a new one.

    A refused request was not carried out, so a write may be repeated too.
    """

    def __init__(self, tokens: ServiceTokens, tenant: str) -> None:
        self._tokens = tokens
        self._tenant = tenant

    async def __call__(self, exchange: Exchange, deadline: Deadline) -> Answer:
        """See `gateway.upstream.http.Auth`. Raises what `ServiceTokens.get` raises."""
        token = await self._tokens.get(self._tenant, deadline)
        answer = await exchange(_bearer(token.value))
        if answer.status == 401:
            await self._tokens.drop(self._tenant, token)
            token = await self._tokens.get(self._tenant, deadline)
            answer = await exchange(_bearer(token.value))
        if answer.status != 401:
            self._tokens.accepted(self._tenant)
        return answer


class BesideSaasTokenAuth:
    """Adds the tenant's service token to a request that also has a customer's saas-token.

    A 401 can be about either of them. `alone` sends a request with the service token only, as `ServiceTokenAuth` does,
    which tells which one it is. Otherwise a customer with an expired token would make all others of the tenant wait for
    new service tokens, and fail if those do not help.
    """

    def __init__(self, tokens: ServiceTokens, tenant: str, alone: Callable[[Deadline], Awaitable[Answer]]) -> None:
        self._tokens = tokens
        self._tenant = tenant
        self._alone = alone

    async def __call__(self, exchange: Exchange, deadline: Deadline) -> Answer:
        """See `gateway.upstream.http.Auth`. Raises Unauthenticated besides what `ServiceTokens.get` raises."""
        answer = await self._exchanged(exchange, deadline)
        if answer.status == 401 and await self._is_own_good(deadline):
            answer = await self._exchanged(exchange, deadline)
            if answer.status == 401:
                raise Unauthenticated("the saas-token is expired, revoked or wrong: get a new one")
        return answer

    async def _is_own_good(self, deadline: Deadline) -> bool:
        """Raises UpstreamUnreachable if that cannot be found out: the refused request had no effect."""
        try:
            answer = await self._alone(deadline)
        except UpstreamError as error:
            if error.leaves_doubt:
                raise UpstreamUnreachable(_WHOSE, retry_after=error.retry_after) from error
            raise
        if answer.status == 429 or answer.status >= 500:
            raise UpstreamUnreachable(_WHOSE, retry_after=retry_after(answer))
        return answer.status != 401

    async def _exchanged(self, exchange: Exchange, deadline: Deadline) -> Answer:
        token = await self._tokens.get(self._tenant, deadline)
        answer = await exchange(_bearer(token.value))
        if answer.status != 401:
            self._tokens.accepted(self._tenant)
        return answer


class CallerTokenAuth:
    """Adds the caller's own Emporix token, unchanged."""

    def __init__(self, access_token: SecretStr) -> None:
        self._access_token = access_token

    async def __call__(self, exchange: Exchange, deadline: Deadline) -> Answer:  # noqa: ARG002 - nothing to wait for
        """See `gateway.upstream.http.Auth`."""
        return await exchange(_bearer(self._access_token))


def _bearer(token: SecretStr) -> str:
    return f"Bearer {token.get_secret_value()}"
