"""What `session-gateway check` tries: trusted documents, and what the gateway depends on. It prints what it finds."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import click

from gateway.deadline import Deadline
from gateway.errors import GatewayError
from gateway.graphql.schema import make_schema
from gateway.tasks import TaskGroup
from gateway.wiring.access import open_authenticator
from gateway.wiring.cache import ask_redis
from gateway.wiring.documents import prepare_documents
from gateway.wiring.telemetry import open_tracing
from gateway.wiring.upstream import open_upstream

if TYPE_CHECKING:
    from gateway.settings import Settings

__all__ = ["check_dependencies", "check_documents"]

_REDIS_TIME: Final = 5.0
"""Seconds for Redis to show that it works."""
_TENANTS_AT_ONCE: Final = 10


def check_documents(settings: Settings) -> None:
    """Prepare the trusted documents, as the gateway would. Raises ConfigurationError."""
    prepare_documents(settings, make_schema(introspection=settings.graphql.introspection))


async def check_dependencies(settings: Settings) -> list[str]:
    """Try what the gateway depends on; returns the problems that this leads to."""
    problems = []
    if unserved := await _check_tenants(settings):
        problems.append(f"{unserved} of the tenants cannot be served")
    if unknown := await _check_issuers(settings):
        problems.append(f"tokens of {unknown} of the issuers cannot be verified")
    if settings.cache.in_redis and not await _check_cache(settings):
        problems.append("the cache cannot be used")
    return problems


async def _check_tenants(settings: Settings) -> int:
    """Try every tenant's credentials, some at a time; returns how many do not work."""
    problems = 0
    turns = asyncio.Semaphore(min(_TENANTS_AT_ONCE, settings.upstream.max_concurrent))
    async with open_tracing(settings), open_upstream(_without_breaker(settings)) as (_, tokens), TaskGroup() as tasks:

        async def tried(tenant: str) -> str | None:
            async with turns:
                with suppress(GatewayError):
                    await tokens.get(tenant, Deadline.never())
            return tokens.troubles().get(tenant)

        trying = {name: tasks.create_task(tried(name), name=f"try tenant {name}") for name in settings.tenants}
        for tenant, each in trying.items():
            found = await each
            problems += found is not None
            click.echo(f"tenant {tenant}: {found or 'ok'}")
    return problems


def _without_breaker(settings: Settings) -> Settings:
    """Each tenant is to be tried, however many have failed before it."""
    breaker = settings.upstream.breaker.model_copy(update={"enabled": False})
    return settings.model_copy(update={"upstream": settings.upstream.model_copy(update={"breaker": breaker})})


async def _check_issuers(settings: Settings) -> int:
    """Fetch every issuer's keys; returns for how many that fails."""
    async with open_authenticator(settings) as authenticator:
        if authenticator.issuers is None:
            return 0
        await authenticator.issuers.tried()
        troubles = authenticator.issuers.troubles()
    for name in settings.access.issuers:
        click.echo(f"issuer {name}: {troubles.get(name, 'ok')}")
    return len(troubles)


async def _check_cache(settings: Settings) -> bool:
    """Read and write in Redis; returns whether that works."""
    found = "ok"
    try:
        await ask_redis(settings, lambda store: store.probe(), within=_REDIS_TIME)
    except OSError as error:
        found = str(error)
    click.echo(f"cache: {found}")
    return found == "ok"
