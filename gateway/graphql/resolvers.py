"""What each root field does: it converts, calls the use case, and converts back.

Strawberry's fields and compiled operations (`gateway.graphql.compiled`) call the same functions. They answer with the
model itself, whose attributes are the fields of the GraphQL types.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias

from msgspec import Struct

from gateway.cache.freshness import FRESH_ENOUGH, ReadOptions
from gateway.cache.readthrough import NotThere
from gateway.graphql import inputs, types
from gateway.sessions.writer import WriteOptions

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence

    from graphql import DocumentNode

    from gateway.access.guard import GuardedOwnSession, GuardedSessions
    from gateway.cache.freshness import CacheStatus
    from gateway.cache.readthrough import Found
    from gateway.deadline import Deadline
    from gateway.errors import GatewayError
    from gateway.model import SessionContext

__all__ = [
    "RESOLVERS",
    "Call",
    "Context",
    "FieldRead",
    "Resolver",
    "add_my_session_context_attribute",
    "add_session_context_attribute",
    "my_session_context",
    "patch_session_context",
    "remove_my_session_context_attribute",
    "remove_session_context_attribute",
    "replace_session_context",
    "session_context",
    "session_contexts",
    "update_my_session_context",
]


class Context(Struct, frozen=True):
    """What resolvers need of a request: its document, its deadline, and the use cases as its caller may use them."""

    document: DocumentNode
    """Holds the operation: parsed, valid, within the limits."""
    sessions: GuardedSessions
    own: GuardedOwnSession
    deadline: Deadline
    max_age: float | None = None
    """From the header `Cache-Control`."""
    reads: list[FieldRead] = []
    """Where what was read came from, as it is read."""

    @property
    def let_in(self) -> int:
        """How many of the request's calls went through to the use cases."""
        return self.sessions.let_in + self.own.let_in

    def read_options(self, max_age: float | None, min_version: int | None) -> ReadOptions:
        """The options of one read, from its arguments and from the request's header."""
        if max_age is None and min_version is None and self.max_age is None:
            return FRESH_ENOUGH
        return ReadOptions(max_age, min_version).stricter(self.max_age)


class FieldRead(Struct, frozen=True):
    """Where what was read for one field came from."""

    path: list[str | int]
    status: CacheStatus
    size: int = 0
    """Bytes of the session context, as upstream has it."""


class Call(Struct, frozen=True):
    """One root field of a request."""

    context: Context
    key: str
    """Its name in the answer."""
    reads_back: bool
    """Whether the session context is wanted after a write."""

    def noted(self, found: Found) -> SessionContext:
        """The session context that was found; where it came from is recorded."""
        self.context.reads.append(FieldRead([self.key], found.status, len(found.context.source)))
        return found.context

    def note_missing(self, error: NotThere) -> None:
        """Record where it is known from that there is none."""
        self.context.reads.append(FieldRead([self.key], error.status))

    def write_options(self, expected_version: int | None) -> WriteOptions:
        """What is said about one write."""
        return WriteOptions(self.context.deadline, expected_version, self.reads_back)


Resolver: TypeAlias = "Callable[..., Awaitable[object]]"
"""Takes a call, and the field's arguments by name."""


async def session_context(
    call: Call, tenant: str, session_id: str, max_age: float | None = None, min_version: int | None = None
) -> SessionContext | None:
    """Read one; None when there is none."""
    context = call.context
    options = context.read_options(max_age, min_version)
    try:
        return call.noted(await context.sessions.get(tenant, session_id, context.deadline, options))
    except NotThere as error:
        call.note_missing(error)
        return None


async def session_contexts(
    call: Call, tenant: str, session_ids: Sequence[str], max_age: float | None = None, min_version: int | None = None
) -> list[SessionContext | GatewayError | None]:
    """Read several. An error that is returned, not raised, becomes that of its entry (graphql-core, complete_value)."""
    context = call.context
    options = context.read_options(max_age, min_version)
    found = await context.sessions.batch_get(tenant, session_ids, context.deadline, options)
    return [_entry(call, each) for each in found]


async def my_session_context(
    call: Call, tenant: str, max_age: float | None = None, min_version: int | None = None
) -> SessionContext | None:
    """Read one's own; None when there is none yet."""
    context = call.context
    options = context.read_options(max_age, min_version)
    try:
        return call.noted(await context.own.get(tenant, context.deadline, options))
    except NotThere as error:
        call.note_missing(error)
        return None


async def replace_session_context(
    call: Call, input: inputs.ReplaceSessionContextInput
) -> types.ReplaceSessionContextPayload:
    """Replace, or create."""
    written = await call.context.sessions.replace(
        input.tenant,
        input.session_id,
        input.session_context.replacement,
        call.write_options(input.expected_version),
        upsert=input.upsert,
    )
    return types.ReplaceSessionContextPayload(session_context=written.session_context)


async def patch_session_context(call: Call, input: inputs.PatchSessionContextInput) -> types.PatchSessionContextPayload:
    """Change some fields and attributes."""
    written = await call.context.sessions.patch(
        input.tenant, input.session_id, input.patch.patch, call.write_options(input.expected_version)
    )
    return types.PatchSessionContextPayload(session_context=written.session_context, attempts=written.attempts)


async def add_session_context_attribute(
    call: Call, input: inputs.AddSessionContextAttributeInput
) -> types.AddSessionContextAttributePayload:
    """Set an attribute."""
    written = await call.context.sessions.add_attribute(
        input.tenant,
        input.session_id,
        input.name,
        partial(inputs.attribute_value, input.value),
        call.write_options(input.expected_version),
    )
    return types.AddSessionContextAttributePayload(session_context=written.session_context)


async def remove_session_context_attribute(
    call: Call, input: inputs.RemoveSessionContextAttributeInput
) -> types.RemoveSessionContextAttributePayload:
    """Remove an attribute."""
    written = await call.context.sessions.remove_attribute(
        input.tenant, input.session_id, input.name, call.write_options(input.expected_version)
    )
    return types.RemoveSessionContextAttributePayload(session_context=written.session_context)


async def update_my_session_context(
    call: Call, input: inputs.UpdateMySessionContextInput
) -> types.UpdateMySessionContextPayload:
    """Change some fields and attributes of one's own."""
    written = await call.context.own.update(input.tenant, input.patch.patch, call.write_options(input.expected_version))
    return types.UpdateMySessionContextPayload(session_context=written.session_context, attempts=written.attempts)


async def add_my_session_context_attribute(
    call: Call, input: inputs.AddMySessionContextAttributeInput
) -> types.AddMySessionContextAttributePayload:
    """Set an attribute of one's own."""
    written = await call.context.own.add_attribute(
        input.tenant,
        input.name,
        partial(inputs.attribute_value, input.value),
        call.write_options(input.expected_version),
    )
    return types.AddMySessionContextAttributePayload(session_context=written.session_context)


async def remove_my_session_context_attribute(
    call: Call, input: inputs.RemoveMySessionContextAttributeInput
) -> types.RemoveMySessionContextAttributePayload:
    """Remove an attribute of one's own."""
    written = await call.context.own.remove_attribute(
        input.tenant, input.name, call.write_options(input.expected_version)
    )
    return types.RemoveMySessionContextAttributePayload(session_context=written.session_context)


RESOLVERS: Final[Mapping[str, Resolver]] = {
    "sessionContext": session_context,
    "sessionContexts": session_contexts,
    "mySessionContext": my_session_context,
    "replaceSessionContext": replace_session_context,
    "patchSessionContext": patch_session_context,
    "addSessionContextAttribute": add_session_context_attribute,
    "removeSessionContextAttribute": remove_session_context_attribute,
    "updateMySessionContext": update_my_session_context,
    "addMySessionContextAttribute": add_my_session_context_attribute,
    "removeMySessionContextAttribute": remove_my_session_context_attribute,
}
"""By the names of the root fields."""


def _entry(call: Call, found: Found | GatewayError) -> SessionContext | GatewayError | None:
    if isinstance(found, NotThere):
        call.note_missing(found)
        return None
    return found if isinstance(found, Exception) else call.noted(found)
