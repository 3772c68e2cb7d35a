"""The way to upstream: its transport, the policies around it, and the tokens for it."""

from __future__ import annotations

import math
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from gateway.proxy import Proxy
from gateway.settings import ConfigurationError
from gateway.stores import MemoryStore
from gateway.telemetry import Unobserved
from gateway.tracing import Untraced
from gateway.upstream.attempts import Attempts
from gateway.upstream.breaker import Breaker, Rules
from gateway.upstream.http import Http
from gateway.upstream.limiter import Limiter
from gateway.upstream.retries import Budget, Retrying
from gateway.upstream.service_tokens import ServiceTokens
from gateway.upstream.token_endpoint import ClientCredentials, ServiceToken
from gateway.upstream.transport import Transport

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection, Sequence

    from gateway.readiness import Readiness
    from gateway.settings import Settings, Upstream
    from gateway.telemetry import UpstreamObserver
    from gateway.tracing import Tracing
    from gateway.upstream.http import Send
    from gateway.upstream.http2 import Http2Connection

__all__ = ["clients_of", "open_upstream", "state_of_tokens", "tell_of_tokens"]

_CONNECT_SHARE: Final = 0.6
"""Share of an exchange's time that connecting may take: less than all, so that a request that was never sent can be
told from one that was not answered."""
_AS_GOOD_AS: Final = 0.9
"""A call that took this share of an exchange's time counts as timed out."""
_FEWEST: Final = 2
"""Calls on which the breaker may open: one that fails says little."""
_FEW: Final = 5

_UNOBSERVED: Final = Unobserved()
_UNTRACED: Final = Untraced()


@asynccontextmanager
async def open_upstream(
    settings: Settings, observer: UpstreamObserver = _UNOBSERVED, tracing: Tracing = _UNTRACED
) -> AsyncIterator[tuple[Http, ServiceTokens]]:
    """The way to upstream, and the gateway's own tokens for it, while the block runs.

    Token requests use the same policies but for retries: they have a back-off of their own, which all callers share.
    Raises ConfigurationError if a package that it needs is not installed.
    """
    upstream = settings.upstream
    credentials = clients_of(settings)
    guarded, retried = _upstream_policies(upstream, observer)
    async with Transport(
        connect_timeout=_CONNECT_SHARE * upstream.timeout,
        ca_file=upstream.ca_file,
        proxy=None if upstream.proxy is None else Proxy.of(upstream.proxy),
        http2=_http2() if upstream.http2 else None,
    ) as transport:
        base_url, timeout = str(upstream.base_url), upstream.timeout
        traced = tracing.transport(transport)
        once = Http(traced, base_url, timeout=timeout, policy=guarded)
        store = MemoryStore[ServiceToken](max_entries=len(credentials))
        async with ServiceTokens(once, store, credentials, observer) as tokens:
            yield Http(traced, base_url, timeout=timeout, max_answer=upstream.max_answer, policy=retried), tokens


def _http2() -> type[Http2Connection]:
    try:
        from gateway.upstream.http2 import Http2Connection  # noqa: PLC0415 - h2 is an extra
    except ModuleNotFoundError:
        raise ConfigurationError("upstream.http2: h2 is not installed: install session-gateway[http2]") from None
    return Http2Connection


def _upstream_policies(
    upstream: Upstream, observer: UpstreamObserver
) -> tuple[Callable[[Send], Send], Callable[[Send], Send]]:
    """What wraps an exchange, without and with retries."""
    limiter = Limiter(
        max_concurrent=upstream.max_concurrent,
        max_queued=upstream.max_queued,
        max_wait=upstream.max_queue_wait,
    )
    observer.watch_upstream(lambda: limiter.in_flight)
    rules = upstream.breaker
    opens_at = rules.failure_rate if rules.enabled else math.inf
    # While upstream hangs, no more calls end than have a place: a breaker that waited for more would never open.
    min_calls = min(rules.min_calls, max(_FEWEST, upstream.max_concurrent))
    breaker = Breaker(Rules(opens_at, min_calls, rules.window, rules.open_for, rules.probes))
    slow = min(rules.slow_call, _AS_GOOD_AS * upstream.timeout)
    budget = Budget(upstream.retries.budget, upstream.retries.min_per_second, time.monotonic())

    def guarded(send: Send) -> Send:
        return Attempts(send, breaker, limiter, observer, slow=slow)

    def retried(send: Send) -> Send:
        if upstream.retries.max_attempts == 1:
            return guarded(send)
        return Retrying(guarded(send), budget, observer, max_attempts=upstream.retries.max_attempts)

    return guarded, retried


def clients_of(settings: Settings) -> dict[str, ClientCredentials]:
    """Tenants' clients at the token endpoint."""
    return {
        name: ClientCredentials(tenant.client_id, tenant.client_secret) for name, tenant in settings.tenants.items()
    }


def tell_of_tokens(readiness: Readiness, missing: Collection[str]) -> None:
    """Set the condition for readiness: there has been a token for every tenant."""
    readiness.set("tokens", f"none yet for {_few(sorted(missing), ', ')}" if missing else "ok", met=not missing)


async def state_of_tokens(tokens: ServiceTokens) -> str | None:
    """What is wrong with tokens now, if anything. It does not affect readiness: other tenants are served."""
    troubles = tokens.troubles()
    return _few([f"{tenant}: {troubles[tenant]}" for tenant in sorted(troubles)], "; ") or None


def _few(all_of_them: Sequence[str], separator: str) -> str:
    """The first few, as there may be very many tenants, and the number of the others."""
    left = len(all_of_them) - _FEW
    return separator.join(all_of_them[:_FEW]) + (f" and {left} more" if left > 0 else "")
