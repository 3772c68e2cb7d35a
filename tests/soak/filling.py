"""Fills what the gateway keeps up to a bound, so that memory which grows afterwards is none of that."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from gateway.graphql.compiled.plans import _TIMES
from soak.upstream import TENANT

if TYPE_CHECKING:
    from doors import Door
    from soak.upstream import Upstream

__all__ = ["fill"]

_AT_A_TIME: Final = 100
"""As many as one batch may read."""
_EPOCH: Final = datetime(2020, 1, 1, tzinfo=UTC)


async def fill(upstream: Upstream, graphql: Door) -> None:
    """Show GraphQL as many times as it keeps written out: two in each session.

    With the rounds' own it would take a while. The cache itself is so small that they fill it.
    """
    sessions = [f"filling-{number}" for number in range(_AT_A_TIME)]
    times = (_EPOCH + timedelta(milliseconds=number) for number in range(_TIMES))
    for _ in range(0, _TIMES, 2 * _AT_A_TIME):
        await asyncio.gather(*(upstream.put(each, next(times), next(times)) for each in sessions))
        await graphql.batch(TENANT, sessions, max_age=0)
    for each in sessions:
        await upstream.remove(each)
