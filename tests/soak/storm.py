"""A thousand requests by many clients at a time while all sorts of faults strike at once: a round of the soak's."""

from __future__ import annotations

import asyncio
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from prometheus_client.parser import text_string_to_metric_families

from soak.history import Outcome, Read, Write
from soak.shoppers import Setting, play
from soak.tally import Tally
from soak.upstream import Upstream

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import httpx

    from doors import Door
    from soak.shoppers import Round
    from stage import Dev

__all__ = ["MAX_AGE", "TIMEOUT", "TTL", "Storm", "weather_a_storm"]

TIMEOUT: Final = 0.5
"""What the gateway's `upstream.timeout` is to be, in seconds: less than the longest latency below."""
TTL: Final = 2.0
"""What its `cache.ttl` is to be, if it has a cache."""
MAX_AGE: Final = TTL + TIMEOUT

_REQUESTS: Final = 1_000
_CLIENTS: Final = 16

_LATE: Final = {"latency=700ms": 0.01}
"""The gateway has given up by then; what it sent arrives all the same. Upstream checks the version of these alone."""
_WRITE_FAULTS: Final = {
    "drop-after-write": 0.04,
    "drop": 0.02,
    "status=504-after-write": 0.04,
    "status=504": 0.02,
    "status=502-after-write": 0.02,
    "status=503": 0.02,
    "status=500-after-write": 0.01,
    "status=500": 0.01,
    "truncated": 0.02,
    "hang": 0.005,
    "latency=15ms": 0.2,
    "latency=30ms;drop-after-write": 0.02,
}
_READ_FAULTS: Final = {
    "status=503": 0.03,
    "drop": 0.01,
    "hang": 0.003,
    "latency=10ms": 0.2,
}
_OWN_FAULTS: Final = {"status=401": 0.01}
"""A shopper's token that is refused is the shopper's to renew."""
_FAULTS: Final = {
    (fault, operation): chance
    for faults, operations in (
        (_LATE, ("put", "patch-own")),
        (_WRITE_FAULTS, ("put", "patch-own", "add-attribute", "remove-attribute")),
        (_READ_FAULTS, ("get", "get-own")),
        (_OWN_FAULTS, ("get-own", "patch-own", "add-own-attribute")),
    )
    for operation in operations
    for fault, chance in faults.items()
}

_REASONS: Final = {
    "UPSTREAM_UNAVAILABLE",
    "UPSTREAM_TIMEOUT",
    "UPSTREAM_FAULT",
    "GATEWAY_CREDENTIALS_REFUSED",
    "UNAUTHENTICATED",
    "WRITE_OUTCOME_UNKNOWN",
}
"""Why a request may fail; and for a conflict."""


@dataclass(frozen=True)
class Storm:
    """How it went."""

    tally: Tally
    played: Round
    lost: int
    """Answers of writes that did not reach the gateways, by their own count."""

    def __str__(self) -> str:
        return (
            f"{self.tally.requests:,} requests: {self.applied:,} writes applied, {self.reads:,} reads, "
            f"{self.lost:,} answers lost; errors {dict(self.tally.errors)}"
        )

    @property
    def applied(self) -> int:
        """Writes that were acknowledged."""
        return sum(isinstance(each, Write) and each.outcome is Outcome.APPLIED for each in self.played.history.events)

    @property
    def reads(self) -> int:
        """Reads that were answered."""
        return sum(isinstance(each, Read) for each in self.played.history.events)


async def weather_a_storm(
    gateways: Sequence[Dev], doors: Sequence[Door], client: httpx.AsyncClient, seed: int
) -> Storm:
    """Have clients use all doors of gateways before one sandbox, whose service tokens are revoked half-way."""
    upstream, tally = Upstream(client, gateways[0].sandbox_url), Tally()
    setting = Setting(upstream, doors, tally, _explains, MAX_AGE, gateways[0].sandbox.saas_token)
    before = await _answers_lost(client, gateways)
    await upstream.arm(_FAULTS)
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(_revoke(upstream, lambda: tally.requests >= _REQUESTS // 2))
        ends = lambda: tally.requests >= _REQUESTS  # noqa: E731
        played = await play(setting, random.Random(seed), f"storm-{seed}", ends, _CLIENTS)
    return Storm(tally, played, await _answers_lost(client, gateways) - before)


def _explains(reason: str, _began: float) -> bool:
    return reason in _REASONS


async def _revoke(upstream: Upstream, due: Callable[[], bool]) -> None:
    while not due():
        await asyncio.sleep(0.01)
    await upstream.revoke()


async def _answers_lost(client: httpx.AsyncClient, gateways: Sequence[Dev]) -> int:
    texts = [(await client.get(f"{each.doors.admin}/metrics")).text for each in gateways]
    return int(
        sum(
            sample.value
            for text in texts
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "session_gateway_write_answers_lost_total"
        )
    )
