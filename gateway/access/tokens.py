"""JSON Web Tokens (RFC 7519) of callers, by issuers that the settings name. Signatures are joserfc's business.

An issuer's keys are fetched in the background and kept; when it cannot be reached, those that are known stay good. A
key id that is not known has them fetched once more, but not more often than every ten seconds, so that made-up ids cost
the issuer nothing.
"""

from __future__ import annotations

import asyncio
import random
import time
from base64 import urlsafe_b64decode
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Protocol

import msgspec
import structlog
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from joserfc.jwt import JWTClaimsRegistry

from gateway.access.principal import Permission, Principal
from gateway.errors import CallerUnauthenticated, GatewayError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

    from pydantic import SecretStr

__all__ = ["Fetch", "Issuer", "TokenIssuers"]

_REFRESH: Final = 300.0
"""Seconds between fetches of an issuer's keys, give or take a tenth."""
_NO_SOONER: Final = 10.0
"""Seconds between fetches that callers bring about."""
_FIRST_FETCH: Final = 5.0
"""Seconds that a caller waits for keys that have never been fetched."""
_MAX_TOKEN: Final = 8_192


class Fetch(Protocol):
    """Fetches a document by GET."""

    async def __call__(self, url: str) -> bytes:
        """Fetch it. Raises UpstreamError when it cannot be had."""
        ...


@dataclass(frozen=True, slots=True)
class Issuer:
    """Whose tokens are taken, and what their claims mean."""

    name: str
    issuer: str
    audience: str
    algorithms: tuple[str, ...]
    jwks_url: str | None = None
    """Where its keys are; None asks its OIDC discovery document."""
    leeway: int = 30
    """Seconds that its clock and ours may differ."""
    permissions_claim: str = "scope"
    """Claim that holds what the caller may do, a list or words with spaces between."""
    permissions: Mapping[str, Permission] = field(default_factory=lambda: {each.value: each for each in Permission})
    """What stands for which permission."""
    tenants_claim: str | None = None
    """Claim that holds the tenants; None for `tenants`, whatever the token says."""
    tenants: tuple[str, ...] = ()


class TokenIssuers:
    """All issuers. Enter it before use: it owns the tasks that fetch keys."""

    def __init__(self, issuers: tuple[Issuer, ...], fetch: Fetch) -> None:
        self._tasks = asyncio.TaskGroup()
        self._keys = {each.issuer: (each, _Keys(each, fetch)) for each in issuers}
        self._refreshing: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        for issuer, keys in self._keys.values():
            task = self._tasks.create_task(keys.refresh_forever(), name=f"fetch keys of {issuer.name}")
            self._refreshing.append(task)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for task in self._refreshing:
            task.cancel()
        await self._tasks.__aexit__(None, None, None)  # else it would wrap the error in a group

    async def principal(self, token: SecretStr) -> Principal:
        """Whose token this is. Raises CallerUnauthenticated."""
        text = token.get_secret_value()
        try:
            issuer, keys = self._keys[_unverified_issuer(text)]
            claims = _verified(text, issuer, await keys.known_to(_unverified_key_id(text)))
        except (KeyError, ValueError, TypeError, RecursionError, JoseError) as error:
            raise CallerUnauthenticated("the access token is not good: get a new one") from error
        return _principal(issuer, claims)


class _Keys:
    """The keys of one issuer."""

    def __init__(self, issuer: Issuer, fetch: Fetch) -> None:
        self._issuer = issuer
        self._fetch = fetch
        self._keys: KeySet | None = None
        self._fetched_at = float("-inf")
        self._first = asyncio.Event()
        self._lock = asyncio.Lock()
        self._log = structlog.stdlib.get_logger(__name__).bind(issuer=issuer.name)

    async def refresh_forever(self) -> None:
        while True:
            await self._refresh()
            await asyncio.sleep(_REFRESH * random.uniform(0.9, 1.1))  # noqa: S311 - jitter

    async def known_to(self, key_id: str | None) -> KeySet:
        """The keys, fetched once more if none has this id. Raises CallerUnauthenticated when there are none at all."""
        with suppress(TimeoutError):
            async with asyncio.timeout(_FIRST_FETCH):
                await self._first.wait()
        if not self._has(key_id):
            async with self._lock:
                if not self._has(key_id) and time.monotonic() - self._fetched_at >= _NO_SOONER:
                    await self._refresh()
        if self._keys is None:
            raise CallerUnauthenticated("the issuer's keys cannot be had: try again later")
        return self._keys

    def _has(self, key_id: str | None) -> bool:
        return self._keys is not None and (key_id is None or any(each.kid == key_id for each in self._keys))

    async def _refresh(self) -> None:
        self._fetched_at = time.monotonic()
        try:
            url = self._issuer.jwks_url or await self._discovered()
            document = msgspec.json.decode(await self._fetch(url), type=dict[str, Any])
            self._keys = KeySet.import_key_set({"keys": document["keys"]})
        except (GatewayError, JoseError, ValueError, TypeError, KeyError) as error:
            self._log.warning("jwks_not_fetched", error=type(error).__name__, keys_known=self._keys is not None)
        self._first.set()

    async def _discovered(self) -> str:
        """The key set's URL by OpenID Connect Discovery 1.0, section 4."""
        url = f"{self._issuer.issuer.rstrip('/')}/.well-known/openid-configuration"
        return msgspec.json.decode(await self._fetch(url), type=_Discovery).jwks_uri


class _Discovery(msgspec.Struct):
    jwks_uri: str


class _Header(msgspec.Struct):
    kid: str | None = None


class _Claims(msgspec.Struct):
    iss: str


def _unverified_key_id(token: str) -> str | None:
    return msgspec.json.decode(_part(token, 0), type=_Header).kid


def _unverified_issuer(token: str) -> str:
    return msgspec.json.decode(_part(token, 1), type=_Claims).iss


def _part(token: str, index: int) -> bytes:
    """Raises ValueError for what is no JWT, or too long for one."""
    part = token.split(".")[index] if token.count(".") == 2 and len(token) <= _MAX_TOKEN else ""
    return urlsafe_b64decode(part + "=" * (-len(part) % 4))


def _verified(token: str, issuer: Issuer, keys: KeySet) -> Mapping[str, Any]:
    decoded = jwt.decode(token, keys, algorithms=list(issuer.algorithms))
    JWTClaimsRegistry(
        leeway=issuer.leeway,
        iss={"essential": True, "value": issuer.issuer},
        aud={"essential": True, "value": issuer.audience},
        exp={"essential": True},
    ).validate(decoded.claims)
    return decoded.claims


def _principal(issuer: Issuer, claims: Mapping[str, Any]) -> Principal:
    granted = _words(claims.get(issuer.permissions_claim))
    tenants = issuer.tenants if issuer.tenants_claim is None else _words(claims.get(issuer.tenants_claim))
    subject = claims.get("sub") or claims.get("client_id") or "?"
    permissions = [permission for word, permission in issuer.permissions.items() if word in granted]
    return Principal.of(f"{issuer.name}:{subject}", "jwt", permissions, tenants)


def _words(claim: object) -> tuple[str, ...]:
    match claim:
        case str():
            return tuple(claim.split())
        case list():
            return tuple(each for each in claim if isinstance(each, str))
        case _:
            return ()
