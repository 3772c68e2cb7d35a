"""The shared cache in Redis or Valkey: for each key a versioned entry, or the mark that a write or a read has left.

Each key is a hash that is either an entry or a mark, and changes in one step, by a script:

    entry   kind=e  version  stored_at (Unix time, seconds)  data
    mark    kind=m  generation  floor (highest version known)  writer:<id>=<until, ms> for each write under way

A write replaces the entry by a mark before it is sent, and again when it has ended; a reader that finds nothing leaves
a mark too. A new entry may replace only the mark that its reader saw, and never while a write is in progress; or
another entry, if that is no newer. If the key is missing, no entry is accepted: there may have been the mark of a
write, lost in a restart or evicted. All this holds across processes.

Every key expires. One that does not is not ours, and is treated as missing.
"""

from __future__ import annotations

import hashlib
import math
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, TypeAlias
from urllib.parse import urlsplit, urlunsplit

from redis.asyncio import BlockingConnectionPool, Redis, RedisCluster
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, ReadOnlyError, RedisClusterException, RedisError, ResponseError

from gateway.stores.base import BaseCache
from gateway.stores.stored import MAX_WRITERS, StoredEntry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from pydantic import SecretStr

__all__ = [
    "CONNECT_TIMEOUT",
    "Client",
    "RedisClusterException",
    "RedisConnections",
    "RedisError",
    "RedisStore",
    "open_redis",
]

Client: TypeAlias = "Redis | RedisCluster"

CONNECT_TIMEOUT: Final = 1.0
"""Seconds to open a connection, or to wait for a free one. Operations have less time than that (`cache.budget`)."""
_MAX_CONNECTIONS: Final = 32
"""Connections of one process. More are not faster: with 256, a thousand concurrent reads took 7 times as long."""

_PRELUDE: Final = """
local function higher(a, b)  -- versions as decimals: a double would round those beyond 2^53
  if #a ~= #b then return #a > #b end
  return a > b
end
local function decimal(value)
  return type(value) == 'string' and string.find(value, '^%d+$') and value or '0'
end
local function field(name)
  local value = redis.pcall('HGET', KEYS[1], name)
  if type(value) == 'table' then redis.call('DEL', KEYS[1]) return false end  -- something of another type: not ours
  return value
end
if redis.call('PTTL', KEYS[1]) == -1 then redis.call('DEL', KEYS[1]) end  -- nor is what does not expire
"""

# In these scripts, commands that take no memory come first: when Redis is full, it refuses a script only if its first
# write takes memory. And keys are changed, not deleted and created again: while a cluster migrates a slot, a server
# does not go on with a key that is gone.

_PUT: Final = f"""{_PRELUDE}
local lease, version, stored_at, data, ttl = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local kind = field('kind')
if kind == 'm' then
  if field('generation') ~= lease or higher(decimal(field('floor')), version) then return 0 end
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local fields = redis.call('HGETALL', KEYS[1])
  for i = 1, #fields, 2 do
    if string.sub(fields[i], 1, 7) == 'writer:' then
      if tonumber(decimal(fields[i + 1])) > now then return 0 end
      redis.call('HDEL', KEYS[1], fields[i])
    end
  end
elseif kind == 'e' then
  local there = decimal(field('version'))
  if higher(there, version) then return 0 end
  if there == version and (tonumber(field('stored_at') or '') or 0) > tonumber(stored_at) then return 0 end
else
  return 0
end
redis.call('PEXPIRE', KEYS[1], ttl)
redis.call('HDEL', KEYS[1], 'generation', 'floor')
redis.call('HSET', KEYS[1], 'kind', 'e', 'version', version, 'stored_at', stored_at, 'data', data)
return 1
"""

_MARK: Final = f"""{_PRELUDE}
local generation, ttl, opened, closed, open_for, channel, message, if_entry =
  ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7], ARGV[8]
local kind = field('kind')
if if_entry == '1' and (kind ~= 'e' or field('data') == '') then return 0 end
local floor = decimal((kind == 'm' and field('floor')) or (kind == 'e' and field('version')))
if kind == 'm' then redis.call('HDEL', KEYS[1], 'writer:' .. closed)
elseif kind == 'e' then redis.call('HDEL', KEYS[1], 'version', 'stored_at', 'data')
else redis.call('DEL', KEYS[1]) end
redis.call('HSET', KEYS[1], 'kind', 'm', 'generation', generation, 'floor', floor)
if opened ~= '' then
  local time = redis.call('TIME')
  local ends = time[1] * 1000 + math.floor(time[2] / 1000) + open_for
  if redis.call('HLEN', KEYS[1]) > {MAX_WRITERS} then  -- they count as one, which ends no sooner than the last of them
    for _, name in ipairs(redis.call('HKEYS', KEYS[1])) do
      if string.sub(name, 1, 7) == 'writer:' then redis.call('HDEL', KEYS[1], name) end
    end
    redis.call('HSET', KEYS[1], 'writer:others', ends)
  end
  redis.call('HSET', KEYS[1], 'writer:' .. opened, ends)
end
redis.call('PEXPIRE', KEYS[1], ttl)
redis.call('PUBLISH', channel, message)
return 1
"""

_LOOK: Final = f"""{_PRELUDE}
local lease, ttl = ARGV[1], ARGV[2]
local kind = field('kind')
if kind == 'e' then return {{'e', redis.call('HGETALL', KEYS[1]), redis.call('PTTL', KEYS[1])}} end
if kind == 'm' then return {{'m', field('generation') or ''}} end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'kind', 'm', 'generation', lease, 'floor', '0')
redis.call('PEXPIRE', KEYS[1], ttl)
return {{'m', lease}}
"""

_SHA: Final = {
    script: hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest() for script in (_LOOK, _PUT, _MARK)
}
"""The digests by which Redis knows the scripts."""


class RedisStore:
    """Entries and marks under one prefix.

    Every method raises RedisError or OSError if Redis fails; RedisClusterException, which is neither, if no server of a
    cluster can be reached; and anything else if the server is not Redis.
    """

    def __init__(self, client: Client, prefix: str) -> None:
        self._cache = _RedisCache(client)
        self._client = client
        self._prefix = prefix
        self.channel = f"{prefix}marks"

    async def probe(self) -> bool:
        """Do what a write does: set a mark, which expires after a millisecond, and publish a message without meaning.

        A replica answers PING, but fails this, and so does a user who may not publish. Returns true, or raises.
        """
        await self.mark("probe", generation="probe", ttl=0.001)
        return True

    async def get(self, key: str, *, lease: str, ttl: float) -> tuple[StoredEntry | None, str]:
        """The entry, if there is one, and the lease that is needed to put one.

        If there is nothing, or nothing readable, a mark is set for `ttl` seconds. Its generation is `lease`, which is
        a name that nobody else uses.
        """
        match await self._run(_LOOK, key, lease, _milliseconds(ttl)):
            case [b"m", bytes(generation)]:
                return None, generation.decode("ascii", "replace")
            case [b"e", list(fields), int(left)]:
                entry = _entry(fields, left)
            case _:
                raise RedisError("this is no answer to what was asked")
        if entry is not None:
            return entry, ""
        await self.mark(key, generation=lease, ttl=ttl, if_entry=True)
        return None, lease

    async def put(self, key: str, entry: StoredEntry, lease: str, *, ttl: float) -> bool:
        """Keep an entry for so many seconds; false if a write or a higher version forbids it."""
        kept = await self._run(_PUT, key, lease, entry.version, repr(entry.stored_at), entry.data, _milliseconds(ttl))
        return bool(kept)

    async def mark(
        self,
        key: str,
        *,
        generation: str,
        ttl: float,
        opened: str = "",
        closed: str = "",
        open_for: float = 0.0,
        message: bytes = b"",
        if_entry: bool = False,
    ) -> None:
        """Replace whatever is there by a mark, and publish the message on the channel.

        `opened` and `closed` name a write that begins or has ended; one that begins counts as in progress for at most
        `open_for` seconds. With `if_entry`, only the entry of an existing session context is replaced.
        """
        await self._run(
            _MARK,
            key,
            generation,
            _milliseconds(ttl),
            opened,
            closed,
            round(open_for * 1000),
            self.channel,
            message,
            int(if_entry),
        )

    async def keys(self) -> AsyncIterator[bytes]:
        """All keys, including marks."""
        async for key in self._client.scan_iter(match=_escaped(self._prefix) + "*", count=500):
            yield key

    async def clear(self, message: bytes) -> int:
        """Remove everything under the prefix, and publish the message; returns how many keys there were."""
        removed = 0
        async for key in self.keys():
            removed += await self._client.unlink(key)
        await self._cache.raw("publish", self.channel, message)
        return removed

    async def stats(self) -> dict[str, int]:
        """The number of entries and marks, and the bytes of memory that they take."""
        counted = {"entries": 0, "marks": 0, "bytes": 0}
        async for key in self.keys():
            try:
                kind = await self._client.hget(key, "kind")
            except ResponseError:  # it is of another type
                kind = None
            counted["entries"] += kind == b"e"
            counted["marks"] += kind == b"m"
            counted["bytes"] += await self._client.memory_usage(key) or 0
        return counted

    async def _run(self, script: str, key: str, *arguments: str | int | bytes) -> Any:
        """Run a script by its digest, or send it if Redis does not have it."""
        sha = _SHA[script]
        try:
            return await self._cache.raw("evalsha", sha, 1, self._prefix + key, *arguments)
        except NoScriptError:
            return await self._cache.raw("eval", script, 1, self._prefix + key, *arguments)


@dataclass(frozen=True, slots=True)
class RedisConnections:
    """Clients for Redis: one for commands, and one to listen to messages, which any server of a cluster passes on."""

    client: Client
    listener: Redis


@asynccontextmanager
async def open_redis(
    url: SecretStr, *, cluster: bool, patience: float = CONNECT_TIMEOUT
) -> AsyncIterator[RedisConnections]:
    """Connections to Redis or Valkey while the block runs, opened when they are first used.

    `url` is `redis://`, `rediss://` (TLS), `valkey://` or `valkeys://`, and may contain user and password; `patience`
    bounds connecting, in seconds. Callers bound the time for an answer, with `asyncio.timeout`.
    """
    address = _redis_url(url.get_secret_value())
    options: dict[str, Any] = {
        "socket_timeout": None,  # else commands use asyncio.wait_for, which loses cancellations before 3.12
        "socket_connect_timeout": patience,
        "protocol": 2,  # with RESP 3 a new connection takes two more round trips
        "retry": Retry(NoBackoff(), 0),  # callers have better to do than to wait for a retry
        "retry_on_error": [ReadOnlyError],  # only closes the connection: the name may have moved on
    }
    if cluster:
        client: Client = RedisCluster.from_url(address, **options)
    else:
        pool = BlockingConnectionPool.from_url(address, max_connections=_MAX_CONNECTIONS, timeout=patience, **options)
        client = Redis.from_pool(pool)
    listener = Redis.from_url(address, **options)
    try:
        yield RedisConnections(client, listener)
    finally:
        await listener.aclose()
        await client.aclose()


class _RedisCache(BaseCache):  # type: ignore[misc]  # aiocache is untyped
    """An aiocache cache over redis-py, one server or a cluster. Only `raw` is used: we keep more than a value."""

    def __init__(self, client: Client) -> None:
        super().__init__(timeout=None)
        self._client = client

    async def _raw(self, command: str, *arguments: object, **_: object) -> object:
        return await getattr(self._client, command)(*arguments)


def _entry(fields: list[bytes], left: int) -> StoredEntry | None:
    """An entry from a hash, names and values alternating, and its milliseconds left; None if it is not readable."""
    found = dict(zip(fields[::2], fields[1::2], strict=True))
    try:
        version, stored_at, data = int(found[b"version"]), float(found[b"stored_at"]), found[b"data"]
    except (KeyError, ValueError):
        return None
    return StoredEntry(version, stored_at, data, left / 1000) if version >= 0 and math.isfinite(stored_at) else None


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))


def _redis_url(url: str) -> str:
    scheme, *rest = urlsplit(url)
    return urlunsplit((scheme.replace("valkey", "redis"), *rest))


def _escaped(prefix: str) -> str:
    """The prefix as a pattern that matches only itself."""
    return "".join(f"\\{each}" if each in "*?[]\\" else each for each in prefix)
