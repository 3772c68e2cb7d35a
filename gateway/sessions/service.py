"""The use cases: what callers can do with session contexts, the same for both doors.

Every method checks all of its input before anything is sent: InvalidArgument names every violation. A write returns the
session context as it is afterwards, unless the options say that it is not needed. All other errors are passed on from
below.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Final

from gateway import validation
from gateway.cache.freshness import FRESH_ENOUGH
from gateway.errors import GatewayError, InvalidArgument, SessionNotFound, Unauthenticated, Violation
from gateway.model import SCALAR_FIELDS
from gateway.sessions import checks
from gateway.sessions.changes import CLEAR, Assignment, Patch, Replace
from gateway.sessions.writer import Change

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from pydantic import SecretStr

    from gateway.cache.contexts import CachedClient, CachedOwnSession, CachedSession
    from gateway.cache.freshness import ReadOptions
    from gateway.cache.readthrough import Found
    from gateway.deadline import Deadline
    from gateway.model import JSON, Replacement
    from gateway.sessions.changes import Clear
    from gateway.sessions.writer import WriteOptions, Writer, Written

__all__ = ["OWN_WRITABLE", "WRITABLE", "OwnSessionContexts", "SessionContexts"]

WRITABLE: Final = frozenset({*SCALAR_FIELDS, "context"})
OWN_WRITABLE: Final = frozenset({"site_code", "currency", "target_location", "language", "context"})
"""What upstream's PATCH applies; it ignores all else (API reference, operation 6)."""
_READABLE: Final = 512
"""Sessions whose tenant and id are known to be valid."""


class SessionContexts:
    """The management side: any session of a tenant.

    `max_batch` is how many session contexts one call reads at most, and `batch_concurrency` how many of them at a time.
    """

    def __init__(self, client: CachedClient, writer: Writer, *, max_batch: int, batch_concurrency: int) -> None:
        self._client = client
        self._writer = writer
        self._max_batch = max_batch
        self._batch_concurrency = batch_concurrency
        self._readable = lru_cache(_READABLE)(self._session)

    async def get(self, tenant: str, session_id: str, deadline: Deadline, options: ReadOptions = FRESH_ENOUGH) -> Found:
        """Read one, from the cache where the options allow."""
        session = (
            self._readable(tenant, session_id)
            if options is FRESH_ENOUGH
            else self._session(tenant, session_id, checks.read_options(options))
        )
        return await session.get(options, deadline)

    async def batch_get(
        self, tenant: str, session_ids: Sequence[str], deadline: Deadline, options: ReadOptions = FRESH_ENOUGH
    ) -> list[Found | GatewayError]:
        """Read several concurrently: what was found, or the error, in the order of the ids. Each id is read once."""
        validation.check(
            validation.tenant(tenant), checks.batch(session_ids, self._max_batch), checks.read_options(options)
        )
        slots = asyncio.Semaphore(self._batch_concurrency)

        async def read(session_id: str) -> Found | GatewayError:
            async with slots:
                try:
                    return await self._client.session(tenant, session_id).get(options, deadline)
                except GatewayError as error:
                    return error

        async with asyncio.TaskGroup() as tasks:
            reads = {each: tasks.create_task(read(each)) for each in dict.fromkeys(session_ids)}
        return [reads[each].result() for each in session_ids]

    async def replace(
        self,
        tenant: str,
        session_id: str,
        replacement: Replacement,
        options: WriteOptions,
        *,
        upsert: bool = False,
        saas_token: SecretStr | None = None,
    ) -> Written:
        """Replace the expected version, or with `upsert` create a session context that does not exist."""
        session = self._session(
            tenant,
            session_id,
            checks.expected_version(options.expected_version, required=not upsert),
            checks.replacement(replacement, session_id, options.expected_version),
            checks.saas_token(saas_token),
        )
        creates = options.expected_version is None
        if creates:
            await _check_absent(session, options.deadline)
        change = Replace(session_id, replacement, options.expected_version)
        send = partial(session.write, saas_token=saas_token, upsert=upsert)
        try:
            return await self._writer.replace(tenant, session, change, send, options, upsert=upsert)
        except InvalidArgument:
            if creates:  # another may have done so meanwhile
                await _check_absent(session, options.deadline)
            raise

    async def patch(
        self, tenant: str, session_id: str, patch: Patch, options: WriteOptions, *, saas_token: SecretStr | None = None
    ) -> Written:
        """Change some fields and attributes, and leave the others unchanged, byte for byte."""
        checked = checks.patch(patch, WRITABLE, session_id, options.expected_version)
        return await self._patch(tenant, session_id, patch, options, saas_token, checked)

    async def add_attribute(
        self,
        tenant: str,
        session_id: str,
        name: str,
        value: JSON,
        options: WriteOptions,
        *,
        saas_token: SecretStr | None = None,
    ) -> Written:
        """Set an attribute, whether or not it exists."""
        named = validation.segment("attribute_name", name)
        with _blaming("value"):
            if options.expected_version is not None:
                return await self._patch(tenant, session_id, _setting(name, value), options, saas_token, named)
            session = self._session(tenant, session_id, named)
            return await self._writer.add_attribute(session, name, value, options)

    async def remove_attribute(
        self,
        tenant: str,
        session_id: str,
        name: str,
        options: WriteOptions,
        *,
        saas_token: SecretStr | None = None,
    ) -> Written:
        """Remove an attribute; a missing one is no failure."""
        named = validation.segment("attribute_name", name)
        with _blaming("attribute_name"):
            if options.expected_version is not None:
                return await self._patch(tenant, session_id, _setting(name, CLEAR), options, saas_token, named)
            session = self._session(tenant, session_id, named)
            return await self._writer.remove_attribute(session, name, options)

    async def _patch(
        self,
        tenant: str,
        session_id: str,
        patch: Patch,
        options: WriteOptions,
        saas_token: SecretStr | None,
        *violations: Iterable[Violation],
    ) -> Written:
        expected = checks.expected_version(options.expected_version)
        session = self._session(tenant, session_id, expected, *violations, checks.saas_token(saas_token))
        change = Change(patch.whole, partial(session.write, saas_token=saas_token), patch.is_in)
        return await self._writer.change(tenant, session, change, options)

    def _session(self, tenant: str, session_id: str, *violations: Iterable[Violation]) -> CachedSession:
        """The session. Raises InvalidArgument for any violation."""
        validation.check(validation.tenant(tenant), validation.segment("session_id", session_id), *violations)
        return self._client.session(tenant, session_id)


class OwnSessionContexts:
    """The storefront side: the session that the caller's Emporix token belongs to."""

    def __init__(self, client: CachedClient, writer: Writer) -> None:
        self._client = client
        self._writer = writer

    async def get(
        self, tenant: str, access_token: SecretStr, deadline: Deadline, options: ReadOptions = FRESH_ENOUGH
    ) -> Found:
        """Read it, from the cache where the options allow."""
        return await self._own(tenant, access_token, checks.read_options(options)).get(options, deadline)

    async def update(self, tenant: str, access_token: SecretStr, patch: Patch, options: WriteOptions) -> Written:
        """Change some fields and attributes; upstream replaces `context` as a whole, so all attributes are sent."""
        checked = checks.patch(patch, OWN_WRITABLE, None, options.expected_version)
        return await self._update(tenant, access_token, patch, options, checked)

    async def add_attribute(
        self, tenant: str, access_token: SecretStr, name: str, value: JSON, options: WriteOptions
    ) -> Written:
        """Set an attribute, whether or not it exists."""
        named = validation.segment("attribute_name", name)
        with _blaming("value"):
            if options.expected_version is not None:
                return await self._update(tenant, access_token, _setting(name, value), options, named)
            own = self._own(tenant, access_token, named)
            return await self._writer.add_attribute(own, name, value, options)

    async def remove_attribute(self, tenant: str, access_token: SecretStr, name: str, options: WriteOptions) -> Written:
        """Remove an attribute; a missing one is no failure."""
        named = validation.segment("attribute_name", name)
        with _blaming("attribute_name"):
            if options.expected_version is not None:
                return await self._update(tenant, access_token, _setting(name, CLEAR), options, named)
            own = self._own(tenant, access_token, named)
            return await self._writer.remove_attribute(own, name, options)

    async def _update(
        self,
        tenant: str,
        access_token: SecretStr,
        patch: Patch,
        options: WriteOptions,
        violations: Iterable[Violation],
    ) -> Written:
        own = self._own(tenant, access_token, checks.expected_version(options.expected_version), violations)
        return await self._writer.change(tenant, own, Change(patch.partial, own.write, patch.is_in), options)

    def _own(self, tenant: str, access_token: SecretStr, *violations: Iterable[Violation]) -> CachedOwnSession:
        """The caller's session. Raises InvalidArgument for any violation, Unauthenticated for a malformed token."""
        validation.check(validation.tenant(tenant), *violations)
        if any(validation.token("authorization", access_token)):
            raise Unauthenticated("the Emporix access token is missing: send `authorization: Bearer <token>`")
        return self._client.own_session(tenant, access_token)


def _setting(name: str, value: JSON | Clear) -> Patch:
    """One attribute, set or cleared."""
    return Patch((Assignment(("context", name), value),))


@contextmanager
def _blaming(field: str) -> Iterator[None]:
    """Name a field of the request in violations that are about the resulting session context.

    A change of one attribute is refused because of the whole document that results, by us for its size, and by upstream
    for any reason; but the request has no `session_context`.
    """
    try:
        yield
    except InvalidArgument as refusal:
        raise InvalidArgument(
            Violation(field, each.message) if each.field.partition(".")[0] == "session_context" else each
            for each in refusal.violations
        ) from None


async def _check_absent(session: CachedSession, deadline: Deadline) -> None:
    """Raise InvalidArgument if there is a session context: without a version it can only be created."""
    try:
        current = await session.read(deadline)
    except SessionNotFound:
        return
    raise InvalidArgument.of(
        "expected_version", f"is required: the session context exists, with version {current.metadata.version}"
    )
