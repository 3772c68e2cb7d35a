"""Session contexts, read through the cache: wraps the client for upstream, with the same methods and more.

`get` may answer from the cache. `read` always asks upstream, and keeps the answer. Writes mark the session before and
after. Callers have been authorized already.

A shopper's own session and the same session by its id are cached separately: they are read with different tokens, and
may not be shown to the same people. But a write by either way counts for both.
"""

from __future__ import annotations

import base64
import hashlib
import math
import secrets
from contextlib import asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Annotated, Final, Protocol

import msgspec

from gateway.cache.freshness import CacheStatus
from gateway.cache.readthrough import found, new_enough
from gateway.errors import GatewayError, SessionNotFound, Unauthenticated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Container
    from contextlib import AbstractAsyncContextManager

    from pydantic import SecretStr

    from gateway.cache.entry import Entry
    from gateway.cache.freshness import ReadOptions
    from gateway.cache.readthrough import Found, ReadThrough, Subject
    from gateway.deadline import Deadline
    from gateway.model import JSON, SessionContext
    from gateway.stores import MemoryStore

__all__ = ["CachedClient", "CachedOwnSession", "CachedSession", "Client", "Readable", "Resource", "marked_by"]

_SESSION_IDS_KEPT: Final = 3_600.0
"""Seconds for which it is remembered which session a token belongs to. That never changes (API reference)."""


class Readable(Protocol):
    """A session context that can be read."""

    def read(self, deadline: Deadline) -> Awaitable[SessionContext]:
        """Read it from upstream."""
        ...


class Resource(Readable, Protocol):
    """One whose attributes can also be written. No version is checked."""

    async def add_attribute(self, name: str, value: JSON, deadline: Deadline) -> None:
        """Set an attribute."""
        ...

    async def remove_attribute(self, name: str, deadline: Deadline) -> bool:
        """Remove an attribute; false when there was nothing to remove."""
        ...


class ManagedResource(Resource, Protocol):
    """Any session context, by its id."""

    async def write(
        self, document: bytes, deadline: Deadline, *, saas_token: SecretStr | None = None, upsert: bool = False
    ) -> None: ...


class OwnResource(Resource, Protocol):
    """The session context that a token belongs to."""

    async def write(self, document: bytes, deadline: Deadline) -> None: ...


class Client(Protocol):
    """The way to upstream."""

    def session(self, tenant: str, session_id: str) -> ManagedResource:
        """Any session of a tenant."""
        ...

    def own_session(self, tenant: str, access_token: SecretStr) -> OwnResource:
        """The session that a token belongs to."""
        ...


class CachedClient:
    """Reads through `managed`, and shoppers' own sessions through `own`; without these, upstream is always asked.

    There is no `own` without `managed`, which marks writes. `uncached` are tenants for which nothing is kept;
    `session_ids` remembers which session a token belongs to.
    """

    def __init__(
        self,
        client: Client,
        managed: ReadThrough | None,
        own: ReadThrough | None,
        session_ids: MemoryStore[str],
        *,
        uncached: Container[str] = (),
    ) -> None:
        self._client = client
        self._managed = managed
        self._own = own
        self._session_ids = session_ids
        self._uncached = uncached
        self._hash_key = secrets.token_bytes(32)

    def session(self, tenant: str, session_id: str) -> CachedSession:
        """Any session of a tenant."""
        cache = None if tenant in self._uncached else self._managed
        return CachedSession(self._client, cache, tenant, session_id)

    def own_session(self, tenant: str, access_token: SecretStr) -> CachedOwnSession:
        """The session that the caller's Emporix token belongs to. Raises TenantNotConfigured."""
        inner = self._client.own_session(tenant, access_token)
        cached = tenant not in self._uncached
        return CachedOwnSession(
            inner,
            self._managed if cached else None,
            self._own if cached else None,
            self._session_ids,
            tenant=tenant,
            key=self._own_key(tenant, access_token),
            expires_at=_expiry(access_token),
        )

    def _own_key(self, tenant: str, access_token: SecretStr) -> str:
        """Stands for a token, and reveals nothing: a keyed hash, whose key exists only in this process."""
        digest = hashlib.blake2b(access_token.get_secret_value().encode(), key=self._hash_key, digest_size=24)
        return f"own:{tenant}:{digest.hexdigest()}"


class CachedSession:
    """One session of a tenant, a `Subject` of the cache. Methods raise TenantNotConfigured."""

    __slots__ = ("_cache", "_client", "_tenant", "key", "session_id", "until")

    def __init__(self, client: Client, cache: ReadThrough | None, tenant: str, session_id: str) -> None:
        self._client = client
        self._cache = cache
        self._tenant = tenant
        self.session_id = session_id
        self.key = session_key(tenant, session_id)
        self.until = math.inf

    async def get(self, options: ReadOptions, deadline: Deadline) -> Found:
        """Read, from the cache where the options allow. Raises NotThere, MinVersionNotReached."""
        if self._cache is None:
            return await _uncached(self, options, deadline)
        return await self._cache.get(self, options, deadline)

    async def read(self, deadline: Deadline) -> SessionContext:
        """Read from upstream."""
        if self._cache is None:
            return await self.fetch(deadline)
        return await self._cache.read(self, deadline)

    async def write(
        self, document: bytes, deadline: Deadline, *, saas_token: SecretStr | None = None, upsert: bool = False
    ) -> None:
        """Replace the whole document."""
        inner = self._inner()
        async with self._writing():
            await inner.write(document, deadline, saas_token=saas_token, upsert=upsert)

    async def add_attribute(self, name: str, value: JSON, deadline: Deadline) -> None:
        """Set an attribute."""
        inner = self._inner()
        async with self._writing():
            await inner.add_attribute(name, value, deadline)

    async def remove_attribute(self, name: str, deadline: Deadline) -> bool:
        """Remove an attribute; false when there was nothing to remove."""
        inner = self._inner()
        async with self._writing():
            return await inner.remove_attribute(name, deadline)

    async def fetch(self, deadline: Deadline) -> SessionContext:
        """Ask upstream, without keeping the answer."""
        return await self._inner().read(deadline)

    def _writing(self) -> AbstractAsyncContextManager[None]:
        """Around a write."""
        return nullcontext() if self._cache is None else self._cache.writing(self.key)

    def _inner(self) -> ManagedResource:
        """The client for it, made when needed: most reads do not need it."""
        return self._client.session(self._tenant, self.session_id)


class CachedOwnSession:
    """The session that a token belongs to, also a `Subject`. Writes mark `managed`; reads go through `own`."""

    def __init__(
        self,
        inner: OwnResource,
        managed: ReadThrough | None,
        own: ReadThrough | None,
        session_ids: MemoryStore[str],
        *,
        tenant: str,
        key: str,
        expires_at: float,
    ) -> None:
        self._inner = inner
        self._managed = managed
        self._own = own
        self._session_ids = session_ids
        self._tenant = tenant
        self.session_id = None
        self.key = key
        self.until = expires_at

    async def get(self, options: ReadOptions, deadline: Deadline) -> Found:
        """Read, from the cache where the options allow. Raises NotThere, MinVersionNotReached."""
        if self._own is None:
            return await _uncached(self, options, deadline)
        return await self._own.get(self, options, deadline)

    async def read(self, deadline: Deadline) -> SessionContext:
        """Read from upstream."""
        if self._own is None:
            return await self.fetch(deadline)
        return await self._own.read(self, deadline)

    async def write(self, document: bytes, deadline: Deadline) -> None:
        """Change top-level fields."""
        async with self._writing(deadline):
            await self._inner.write(document, deadline)

    async def add_attribute(self, name: str, value: JSON, deadline: Deadline) -> None:
        """Set an attribute."""
        async with self._writing(deadline):
            await self._inner.add_attribute(name, value, deadline)

    async def remove_attribute(self, name: str, deadline: Deadline) -> bool:
        """Remove an attribute; false when there was nothing to remove."""
        async with self._writing(deadline):
            return await self._inner.remove_attribute(name, deadline)

    async def fetch(self, deadline: Deadline) -> SessionContext:
        """Ask upstream, without keeping the answer. If it refuses the token, what was kept for that is dropped."""
        try:
            context = await self._inner.read(deadline)
        except Unauthenticated:
            if self._own is not None:
                await self._own.forget(self.key)
            raise
        if self._managed is not None:
            await self._session_ids.set(self.key, context.session_id, ttl=_SESSION_IDS_KEPT)
            if self._own is None:
                self._managed.saw(session_key(self._tenant, context.session_id), context.metadata.version)
        return context

    @asynccontextmanager
    async def _writing(self, deadline: Deadline) -> AsyncIterator[None]:
        """Around a write. The session's id must be known first, since the session is also cached by its id."""
        if self._managed is None:
            yield
            return
        session_id = await self._session_ids.get(self.key) or await self._find_session_id(deadline)
        async with self._managed.writing(session_key(self._tenant, session_id)):
            yield

    async def _find_session_id(self, deadline: Deadline) -> str:
        """Ask upstream. A failure leaves no doubt about the write, since nothing has been written yet."""
        try:
            return (await self.fetch(deadline)).session_id
        except GatewayError as error:
            error.leaves_doubt = False
            raise


def session_key(tenant: str, session_id: str) -> str:
    """The key under which a session is kept, and under which writes mark it."""
    return f"ctx:{tenant}:{session_id}"


def marked_by(key: str, entry: Entry) -> str | None:
    """The key under which writes mark an own session's entry: that of the session by its id, if there is one."""
    tenant = key.split(":")[1]
    return None if entry.context is None else session_key(tenant, entry.context.session_id)


async def _uncached(subject: Subject, options: ReadOptions, deadline: Deadline) -> Found:
    """Ask upstream, without a cache. Raises as `ReadThrough.get`."""
    try:
        context = await subject.fetch(deadline)
    except SessionNotFound:
        context = None
    read = found(subject, context, CacheStatus(fwd="bypass"))
    new_enough(read.context, options)
    return read


class _Claims(msgspec.Struct):
    exp: Annotated[float, msgspec.Meta(gt=0)] = math.inf


def _expiry(token: SecretStr) -> float:
    """When a token expires, in Unix time, if it is a JWT that says so (RFC 7519, 4.1.4). It is verified by upstream."""
    try:
        _, claims, _ = token.get_secret_value().split(".")
        return msgspec.json.decode(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)), type=_Claims).exp
    except (ValueError, RecursionError):
        return math.inf
