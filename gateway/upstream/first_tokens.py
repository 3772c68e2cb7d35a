"""Gets the first token of each tenant at startup, so that problems are known before a caller needs one."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from gateway.deadline import Deadline
from gateway.errors import UpstreamError
from gateway.tasks import TaskGroup

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Collection

    from gateway.upstream.service_tokens import ServiceTokens

__all__ = ["obtaining_first_tokens"]

_AT_A_TIME: Final = 10
_WAIT: Final = 1.0
"""Seconds until the next try, if the error does not say."""


@asynccontextmanager
async def obtaining_first_tokens(
    tokens: ServiceTokens, tenants: Collection[str], tell: Callable[[Collection[str]], None]
) -> AsyncIterator[None]:
    """While the block runs, try until each tenant has had a token; after each, `tell` which have not."""
    tell(tenants)
    async with TaskGroup() as tasks:
        tasks.create_task(_obtain(tokens, tenants, tell), name="obtain first tokens")
        yield


async def _obtain(tokens: ServiceTokens, tenants: Collection[str], tell: Callable[[Collection[str]], None]) -> None:
    missing = dict.fromkeys(tenants)
    turns = asyncio.Semaphore(_AT_A_TIME)

    async def obtain(tenant: str) -> None:
        while tenant in missing:
            async with turns:
                wait = await one_try(tenant)
            await asyncio.sleep(wait)

    async def one_try(tenant: str) -> float:
        """Returns the seconds to wait after a failure, which has been logged."""
        try:
            await tokens.get(tenant, Deadline.never())  # which is bounded by itself
        except UpstreamError as error:
            return error.retry_after or _WAIT
        del missing[tenant]
        tell(missing)
        return 0.0

    async with asyncio.TaskGroup() as tasks:
        for each in tenants:
            tasks.create_task(obtain(each), name=f"obtain the first token of {each}")
