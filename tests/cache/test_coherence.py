"""Random histories of reads and writes by several processes, checked against what each caller may expect."""

from __future__ import annotations

import asyncio
import itertools
import random
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest
from cache.cache_stage import SOON, Process, Upstream, process
from pydantic import SecretStr

from gateway.cache.contexts import session_key
from gateway.cache.freshness import Policy, ReadOptions
from gateway.errors import UpstreamTimeout

if TYPE_CHECKING:
    from cache.redis_server import RedisServer

    from gateway.cache.contexts import CachedOwnSession, CachedSession

SESSIONS = ("a", "b", "c", "d", "e")
CLIENTS_EACH = 12
OPERATIONS_EACH = 170


@dataclass
class History:
    """What has been acknowledged and seen, and what should not have been."""

    acknowledged: dict[tuple[int, str], int] = field(default_factory=dict)
    """The highest version of an acknowledged write, by process and session."""
    shown: dict[tuple[int, str], int] = field(default_factory=dict)
    """The highest version that anybody has been shown, by process and session."""
    faults: list[str] = field(default_factory=list)
    hits: int = 0
    reads: int = 0
    writes: int = 0


@dataclass
class Client:
    """Reads and writes by way of one process, and remembers what it has seen."""

    number: int
    at: int
    gateway: Process
    upstream: Upstream
    history: History
    chance: random.Random
    seen: dict[str, int] = field(default_factory=dict)

    async def run(self) -> None:
        for _ in range(OPERATIONS_EACH):
            session_id = self.chance.choice(SESSIONS)
            resource: CachedSession | CachedOwnSession = (
                self.gateway.client.own_session("acme", SecretStr(f"token-{session_id}"))
                if self.chance.random() < 0.3
                else self.gateway.client.session("acme", session_id)
            )
            what = self.chance.random()
            if what < 0.1:
                await self._write(resource, session_id)
            elif what < 0.15:
                self._write_behind(session_id)
            else:
                await self._read(resource, session_id)

    async def _read(self, resource: CachedSession | CachedOwnSession, session_id: str) -> None:
        seen = self.seen.get(session_id, 0)
        insists = self.chance.random() < 0.5
        options = ReadOptions(
            max_age=self.chance.choice([None, None, None, 0.0, 0.01]), min_version=seen if insists else None
        )
        key = self.at, session_id
        acknowledged, shown = self.history.acknowledged.get(key, 0), self.history.shown.get(key, 0)
        try:
            found = await resource.get(options, SOON)
        except UpstreamTimeout:
            return
        version = found.context.metadata.version
        self.history.reads += 1
        self.history.hits += found.status.hit
        if version < acknowledged:
            self._fault(f"{session_id} at {version} after a write of {acknowledged}, {found.status}")
        if version < shown:
            self._fault(f"{session_id} at {version} after {shown} was shown, {found.status}")
        self.history.shown[key] = max(version, self.history.shown.get(key, 0))
        if insists and version < seen:
            self._fault(f"{session_id} at {version} after {seen} was seen, {found.status}")
        self.seen[session_id] = max(version, seen)

    async def _write(self, resource: CachedSession | CachedOwnSession, session_id: str) -> None:
        document = f"{self.number}-{next(_documents)}".encode()
        self.history.writes += 1
        try:
            async with asyncio.timeout(self.chance.choice([None, None, None, 0.003])):
                await resource.write(document, SOON)
        except (UpstreamTimeout, TimeoutError):
            return
        version = self.upstream.versions[document]
        key = self.at, session_id
        self.history.acknowledged[key] = max(version, self.history.acknowledged.get(key, 0))
        self.seen[session_id] = max(version, self.seen.get(session_id, 0))

    def _write_behind(self, session_id: str) -> None:
        """Another service of the platform's."""
        self.upstream.have(session_id, self.upstream.contexts["acme", session_id].metadata.version + 1)

    def _fault(self, what: str) -> None:
        self.history.faults.append(f"client {self.number} of process {self.at} read {what}")


_documents = itertools.count()


async def watch_redis(gateway: Process, history: History) -> None:
    """Entries in Redis never go back."""
    assert gateway.store is not None
    highest = dict.fromkeys(SESSIONS, 0)
    for number in itertools.count():
        for session_id in SESSIONS:
            entry, _ = await gateway.store.get(session_key("acme", session_id), lease=f"watch-{number}", ttl=20)
            if entry is not None:
                if entry.version < highest[session_id]:
                    history.faults.append(f"Redis went back to {entry.version} of {session_id}")
                highest[session_id] = max(highest[session_id], entry.version)


@pytest.mark.parametrize(
    ("processes", "redis", "memory"),
    [(1, False, True), (2, True, False), (2, True, True)],
    ids=["memory", "redis", "two tiers"],
)
@pytest.mark.parametrize(
    "policy",
    [Policy(ttl=0.5), Policy(ttl=0.02, stale_while_revalidate=0.2, stale_if_error=1.0, missing_ttl=0.05)],
    ids=["fresh", "stale"],
)
async def test_no_caller_is_shown_less_than_it_may_expect(  # noqa: PLR0917
    request: pytest.FixtureRequest, prefix: str, processes: int, redis: bool, memory: bool, policy: Policy
) -> None:
    server: RedisServer | None = request.getfixturevalue("server") if redis else None
    chance = random.Random(20_261_124)
    upstream, history = busy_upstream(chance), History()
    async with AsyncExitStack() as stack:
        gateways = [
            await stack.enter_async_context(
                process(upstream, redis=server, prefix=prefix, memory=memory, policy=policy, open_for=0.1)
            )
            for _ in range(processes)
        ]
        clients = [
            Client(number, number % processes, gateways[number % processes], upstream, history, random.Random(number))
            for number in range(CLIENTS_EACH)
        ]
        watching = asyncio.create_task(watch_redis(gateways[0], history)) if redis else None
        async with asyncio.timeout(30):
            await asyncio.gather(*(each.run() for each in clients))
        if watching is not None:
            watching.cancel()
            await asyncio.wait([watching])
            assert watching.cancelled()
        for gateway in gateways:
            assert gateway.observer.failures == []
    assert history.faults == []
    assert history.reads > 1_500
    assert history.writes > 100
    assert history.hits > 200
    assert len(upstream.reads) < history.reads + history.writes


def busy_upstream(chance: random.Random) -> Upstream:
    """Has latency, and loses the answers of some writes."""
    upstream = Upstream(tokens={f"token-{each}": each for each in SESSIONS})
    for session_id in SESSIONS:
        upstream.have(session_id, 1)

    async def latency() -> None:
        await asyncio.sleep(chance.choice([0.0, 0.0, 0.0005, 0.002, 0.005]))
        if chance.random() < 0.001:
            raise UpstreamTimeout("on the way")

    upstream.latency = latency
    return upstream
