"""Who may call, and how often."""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Final

from gateway.access.guard import Authenticator
from gateway.access.keys import KeyRing
from gateway.access.limits import LeashedBuckets, RateLimits
from gateway.access.principal import Permission, Principal
from gateway.access.rates import Rate
from gateway.upstream.transport import Transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.access.tokens import TokenIssuers
    from gateway.settings import Access, Settings
    from gateway.settings import Limited as LimitedCaller
    from gateway.telemetry.prometheus import Metrics

__all__ = ["open_authenticator", "open_rate_limits", "state_of_issuers"]

_FETCH_TIME: Final = 5.0
"""Seconds for an issuer's document."""


@asynccontextmanager
async def open_authenticator(settings: Settings) -> AsyncIterator[Authenticator]:
    """Who may call, while the block runs: issuers' keys are fetched in the background."""
    access = settings.access
    keys = {
        name: (entry.hash, Principal.of(name, "key", map(Permission, entry.permissions), entry.tenants, _rate(entry)))
        for name, entry in access.keys.items()
    }
    certificates = {
        name: Principal.of(name, "certificate", map(Permission, entry.permissions), entry.tenants, _rate(entry))
        for name, entry in access.certificates.items()
    }
    ring = KeyRing(keys) if keys else None
    if not access.issuers:
        yield Authenticator(ring, None, certificates)
        return
    async with _open_issuers(access) as tokens:
        yield Authenticator(ring, tokens, certificates)


async def state_of_issuers(authenticator: Authenticator) -> str | None:
    """The state of issuers of tokens, if there are any."""
    issuers = authenticator.issuers
    if issuers is None:
        return None
    return "; ".join(f"{name}: {problem}" for name, problem in issuers.troubles().items()) or "ok"


@asynccontextmanager
async def _open_issuers(access: Access) -> AsyncIterator[TokenIssuers]:
    # cryptography takes 20 MB and a tenth of the startup time, which only JWTs need.
    from gateway.access.jwks import fetching  # noqa: PLC0415
    from gateway.access.tokens import Issuer, TokenIssuers  # noqa: PLC0415

    issuers = tuple(
        Issuer(
            name,
            entry.issuer,
            entry.audience,
            entry.algorithms,
            jwks_url=None if entry.jwks_url is None else str(entry.jwks_url),
            plain_http=entry.plain_http,
            leeway=entry.leeway,
            permissions_claim=entry.permissions_claim,
            permissions={word: Permission(meaning) for word, meaning in entry.permissions.items()},
            tenants_claim=entry.tenants_claim,
            tenants=entry.tenants,
            rate=_rate(entry),
        )
        for name, entry in access.issuers.items()
    )
    async with (
        Transport() as transport,
        TokenIssuers(issuers, fetching(transport, timeout=_FETCH_TIME)) as tokens,
    ):
        yield tokens


@asynccontextmanager
async def open_rate_limits(settings: Settings, metrics: Metrics) -> AsyncIterator[RateLimits]:
    """Rate limits, while the block runs; counted in Redis if the cache is there."""
    limits, cache = settings.rate_limits, settings.cache
    async with AsyncExitStack() as stack:
        shared = None
        if cache.in_redis and settings.limits_rates:
            # As in gateway.wiring.cache: redis-py takes 20 MiB.
            from gateway.stores.buckets import RedisBuckets  # noqa: PLC0415
            from gateway.stores.redis import open_redis  # noqa: PLC0415

            connections = await stack.enter_async_context(open_redis(cache.backend, cluster=cache.cluster))
            shared = LeashedBuckets(RedisBuckets(connections.client, cache.prefix), metrics, budget=cache.budget)
        yield RateLimits(
            settings.tenants.keys(),
            default=Rate.of(limits.rate, limits.burst),
            own=Rate.of(limits.own_rate, limits.own_burst),
            shared=shared,
        )


def _rate(entry: LimitedCaller) -> Rate | None:
    """The rate limit in a caller's own entry, if there is one."""
    return None if entry.rate is None else Rate.of(entry.rate, entry.burst)
