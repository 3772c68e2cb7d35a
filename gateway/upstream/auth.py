"""Whose token goes along with a request: the gateway's own for the tenant, or the caller's."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pydantic import SecretStr

    from gateway.deadline import Deadline
    from gateway.upstream.http import Answer, Exchange
    from gateway.upstream.service_tokens import ServiceTokens

__all__ = ["CallerTokenAuth", "ServiceTokenAuth"]


class ServiceTokenAuth:
    """Lends the tenant's service token; after a 401 drops it and exchanges once more with a new one.

    A refused request was not carried out, so that a write may be sent again too.
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


class CallerTokenAuth:
    """Lends the caller's own Emporix token as it came."""

    def __init__(self, access_token: SecretStr) -> None:
        self._access_token = access_token

    async def __call__(self, exchange: Exchange, deadline: Deadline) -> Answer:  # noqa: ARG002 - nothing to wait for
        """See `gateway.upstream.http.Auth`."""
        return await exchange(_bearer(self._access_token))


def _bearer(token: SecretStr) -> str:
    return f"Bearer {token.get_secret_value()}"
