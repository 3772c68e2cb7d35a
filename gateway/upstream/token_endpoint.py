"""The token endpoint: one request for an access token, and the meaning of the answer (RFC 6749, 4.4 and 5)."""

from __future__ import annotations

import random
import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Final
from urllib.parse import urlencode

import msgspec
from msgspec import Meta, Struct
from pydantic import SecretStr

from gateway.deadline import Deadline
from gateway.errors import (
    GatewayCredentialsRefused,
    RateLimited,
    UpstreamError,
    UpstreamMalformed,
    UpstreamUnavailable,
)
from gateway.upstream.mapping import retry_after

if TYPE_CHECKING:
    from gateway.upstream.http import Answer, Http

__all__ = ["ClientCredentials", "ServiceToken", "obtain_token"]

SCOPE: Final = "sessioncontext.context_manage"
_EARLIER_SCOPE: Final = "session_context.context_manage"
"""The scope's name until February 2026, which clients may still have."""
_WITHOUT_SCOPE: Final = 60.0
"""Seconds for which a token without the scope is used: the client may be granted it meanwhile."""

_TIMEOUT: Final = 10.0
"""Seconds that the request may take in total."""


@dataclass(frozen=True, slots=True)
class ClientCredentials:
    """A tenant's client at the token endpoint."""

    client_id: str
    client_secret: SecretStr


@dataclass(frozen=True, slots=True)
class ServiceToken:
    """An access token of the gateway's own. Times are on the monotonic clock, in seconds."""

    value: SecretStr
    obtained_at: float
    renew_at: float
    expires_at: float
    missing_scope: str | None = None


async def obtain_token(http: Http, tenant: str, credentials: ClientCredentials) -> ServiceToken:
    """Ask for a token once. Raises GatewayCredentialsRefused, RateLimited, and what `Http.send` raises."""
    return _parse(await _asked(http, tenant, credentials), tenant)


async def _asked(http: Http, tenant: str, credentials: ClientCredentials) -> Answer:
    """Separate from parsing the answer: the traceback of a failure there must not contain the form with the secret."""
    form = {
        "grant_type": "client_credentials",
        "client_id": credentials.client_id,
        "client_secret": credentials.client_secret.get_secret_value(),
        "scope": f"tenant={tenant} {SCOPE}",
    }
    return await http.send(
        "POST",
        "/oauth/token",
        deadline=Deadline.after(_TIMEOUT),
        headers={"content-type": "application/x-www-form-urlencoded", "accept": "application/json"},
        content=urlencode(form).encode(),
    )


class _TokenAnswer(Struct):
    """What the token endpoint answers (RFC 6749, 5.1). `expires_in` is in seconds; some endpoints send a string."""

    access_token: Annotated[str, Meta(pattern=r"^[\x21-\x7e]+\Z")]
    expires_in: Annotated[float, Meta(gt=0, le=sys.float_info.max)]
    scope: str = ""


def _parse(answer: Answer, tenant: str) -> ServiceToken:
    if answer.status != 200:
        raise _refusal(answer, tenant)
    try:
        parsed = msgspec.json.decode(answer.body, type=_TokenAnswer, strict=False)
    except (ValueError, RecursionError) as error:
        raise UpstreamMalformed("the token endpoint's answer is not a token") from error
    now = time.monotonic()
    granted = parsed.scope.split()
    missing_scope = None if not granted or {SCOPE, _EARLIER_SCOPE} & set(granted) else SCOPE
    good_for = parsed.expires_in if missing_scope is None else min(_WITHOUT_SCOPE, parsed.expires_in)
    return ServiceToken(
        value=SecretStr(parsed.access_token),
        obtained_at=now,
        renew_at=now + good_for * random.uniform(0.5, 0.75),  # noqa: S311 - jitter
        expires_at=now + parsed.expires_in - min(10.0, 0.1 * parsed.expires_in),
        missing_scope=missing_scope,
    )


def _refusal(answer: Answer, tenant: str) -> UpstreamError:
    if answer.status in {400, 401, 403}:
        return GatewayCredentialsRefused(
            f"the token endpoint refuses the client id, secret or scope of tenant {tenant!r}"
        )
    if answer.status == 429:
        return RateLimited("the token endpoint's rate limit is reached", retry_after=retry_after(answer))
    return UpstreamUnavailable(f"the token endpoint failed ({answer.status})", retry_after=retry_after(answer))
