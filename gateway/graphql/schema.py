"""The schema: each resolver converts, calls the use case, and converts back."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import strawberry
from strawberry import ID
from strawberry.extensions import SchemaExtension
from strawberry.schema.config import StrawberryConfig
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

from gateway.cache.freshness import ReadOptions
from gateway.errors import SessionNotFound as SessionNotFoundError
from gateway.graphql import inputs, types
from gateway.graphql.errors import HANDLERS
from gateway.graphql.scalars import SCALARS, Version
from gateway.graphql.selection import selects
from gateway.sessions.writer import WriteOptions

if TYPE_CHECKING:
    from collections.abc import Iterator

    from graphql import DocumentNode, Executor, GraphQLError, GraphQLSchema
    from strawberry.types.execution import ExecutionContext

    from gateway import errors
    from gateway.access.guard import GuardedOwnSession, GuardedSessions
    from gateway.cache.freshness import CacheStatus
    from gateway.cache.readthrough import Found
    from gateway.deadline import Deadline
    from gateway.sessions.writer import Written

__all__ = ["CacheRead", "Context", "GatewaySchema", "make_schema"]


@dataclass(frozen=True, slots=True)
class Context:
    """What a request brings along, and whom it may ask."""

    document: DocumentNode
    """Holds the operation: parsed, valid, within the limits."""
    sessions: GuardedSessions
    own: GuardedOwnSession
    deadline: Deadline
    max_age: float | None = None
    """By `Cache-Control` in the request's header."""
    reads: list[CacheRead] = field(default_factory=list)
    """Where what was read came from, as it is read."""

    @property
    def untouched(self) -> bool:
        """Whether none of the request's calls was let in."""
        return self.sessions.let_in == self.own.let_in == 0

    def read_options(self, max_age: float | None, min_version: int | None) -> ReadOptions:
        """What is asked of one read, by its arguments and by the request's header."""
        return ReadOptions(max_age, min_version).stricter(self.max_age)


@dataclass(frozen=True, slots=True)
class CacheRead:
    """Where the answer of one field came from."""

    path: list[str | int]
    status: CacheStatus


Info: TypeAlias = strawberry.Info[Context, None]

Tenant: TypeAlias = Annotated[
    str, strawberry.argument(description="Tenant: 3 to 16 lowercase letters and digits, beginning with a letter.")
]

_INPUT = strawberry.argument(description="Which session, and what to make of it.")

MaxAge: TypeAlias = Annotated[
    float | None,
    strawberry.argument(
        description="Oldest answer that will do, in seconds; 0 asks upstream. Left out, the settings decide. The "
        "header `Cache-Control: max-age=N` or `no-cache` says the same for the whole request; the stricter one counts."
    ),
]
MinVersion: TypeAlias = Annotated[
    Version | None,
    strawberry.argument(description="Lowest `metadata.version` that will do: one that you have seen."),
]

ReplaceSessionContextResult: TypeAlias = Annotated[
    types.ReplaceSessionContextPayload
    | types.VersionConflict
    | types.SessionNotFound
    | types.InvalidInput
    | types.Unauthenticated
    | types.PermissionDenied
    | types.WriteOutcomeUnknown,
    strawberry.union("ReplaceSessionContextResult", description="What became of `replaceSessionContext`."),
]
PatchSessionContextResult: TypeAlias = Annotated[
    types.PatchSessionContextPayload
    | types.VersionConflict
    | types.SessionNotFound
    | types.InvalidInput
    | types.Unauthenticated
    | types.PermissionDenied
    | types.WriteOutcomeUnknown,
    strawberry.union("PatchSessionContextResult", description="What became of `patchSessionContext`."),
]
AddSessionContextAttributeResult: TypeAlias = Annotated[
    types.AddSessionContextAttributePayload
    | types.VersionConflict
    | types.SessionNotFound
    | types.InvalidInput
    | types.Unauthenticated
    | types.PermissionDenied
    | types.WriteOutcomeUnknown,
    strawberry.union("AddSessionContextAttributeResult", description="What became of `addSessionContextAttribute`."),
]
RemoveSessionContextAttributeResult: TypeAlias = Annotated[
    types.RemoveSessionContextAttributePayload
    | types.VersionConflict
    | types.SessionNotFound
    | types.InvalidInput
    | types.Unauthenticated
    | types.PermissionDenied
    | types.WriteOutcomeUnknown,
    strawberry.union(
        "RemoveSessionContextAttributeResult", description="What became of `removeSessionContextAttribute`."
    ),
]
UpdateMySessionContextResult: TypeAlias = Annotated[
    types.UpdateMySessionContextPayload
    | types.VersionConflict
    | types.SessionNotFound
    | types.InvalidInput
    | types.Unauthenticated
    | types.PermissionDenied
    | types.WriteOutcomeUnknown,
    strawberry.union("UpdateMySessionContextResult", description="What became of `updateMySessionContext`."),
]
AddMySessionContextAttributeResult: TypeAlias = Annotated[
    types.AddMySessionContextAttributePayload
    | types.VersionConflict
    | types.SessionNotFound
    | types.InvalidInput
    | types.Unauthenticated
    | types.PermissionDenied
    | types.WriteOutcomeUnknown,
    strawberry.union(
        "AddMySessionContextAttributeResult", description="What became of `addMySessionContextAttribute`."
    ),
]
RemoveMySessionContextAttributeResult: TypeAlias = Annotated[
    types.RemoveMySessionContextAttributePayload
    | types.VersionConflict
    | types.SessionNotFound
    | types.InvalidInput
    | types.Unauthenticated
    | types.PermissionDenied
    | types.WriteOutcomeUnknown,
    strawberry.union(
        "RemoveMySessionContextAttributeResult", description="What became of `removeMySessionContextAttribute`."
    ),
]


@strawberry.type(description="Reads.")
class Query:
    @strawberry.field(description="The session context of any session of a tenant. Null when there is none (yet).")
    async def session_context(
        self,
        info: Info,
        tenant: Tenant,
        session_id: Annotated[ID, strawberry.argument(description="Id of the session, 1 to 256 characters.")],
        max_age: MaxAge = None,
        min_version: MinVersion = None,
    ) -> types.SessionContext | None:
        context = info.context
        options = context.read_options(max_age, min_version)
        try:
            found = await context.sessions.get(tenant, session_id, context.deadline, options)
        except SessionNotFoundError:
            return None
        return _told(info, found)

    @strawberry.field(
        description="The session contexts of several sessions of a tenant, read side by side: one entry for each id, "
        "in the order of the ids, null for a session that does not exist. At most 100, unless it is set otherwise."
    )
    async def session_contexts(
        self,
        info: Info,
        tenant: Tenant,
        session_ids: Annotated[list[ID], strawberry.argument(description="Ids of the sessions, at most 100.")],
        max_age: MaxAge = None,
        min_version: MinVersion = None,
    ) -> list[types.SessionContext | None]:
        context = info.context
        options = context.read_options(max_age, min_version)
        found = await context.sessions.batch_get(tenant, session_ids, context.deadline, options)
        return [_entry(info, each) for each in found]

    @strawberry.field(
        description="The session context that your Emporix access token (`Authorization: Bearer ...`) belongs to. Null "
        "when there is none yet: it comes into being with a cart, or shortly after login."
    )
    async def my_session_context(
        self, info: Info, tenant: Tenant, max_age: MaxAge = None, min_version: MinVersion = None
    ) -> types.SessionContext | None:
        context = info.context
        options = context.read_options(max_age, min_version)
        try:
            found = await context.own.get(tenant, context.deadline, options)
        except SessionNotFoundError:
            return None
        return _told(info, found)


@strawberry.type(
    description="Writes. Each answers with a union: the payload, or a typed failure to switch on. A failure that no "
    "caller can do anything about (upstream is down, say) is an error with `extensions.code`."
)
class Mutation:
    @strawberry.field(
        description="Replaces a whole session context, provided that it still has the version that you have read. "
        "Needs the header `saas-token`."
    )
    async def replace_session_context(
        self, info: Info, input: Annotated[inputs.ReplaceSessionContextInput, _INPUT]
    ) -> ReplaceSessionContextResult:
        written = await info.context.sessions.replace(
            input.tenant,
            input.session_id,
            input.session_context.replacement,
            _options(info, input.expected_version),
            upsert=input.upsert,
        )
        return types.ReplaceSessionContextPayload(session_context=_after(written))

    @strawberry.field(
        description="Changes some fields and attributes of a session context and leaves the others as they are. "
        "Without an expected version it is repeated when another writer comes first. Needs the header `saas-token`."
    )
    async def patch_session_context(
        self, info: Info, input: Annotated[inputs.PatchSessionContextInput, _INPUT]
    ) -> PatchSessionContextResult:
        written = await info.context.sessions.patch(
            input.tenant,
            input.session_id,
            input.patch.patch,
            _options(info, input.expected_version),
        )
        return types.PatchSessionContextPayload(session_context=_after(written), attempts=written.attempts)

    @strawberry.field(
        description="Sets one attribute, whether or not it was there. With an expected version it is a versioned write "
        "and needs the header `saas-token`."
    )
    async def add_session_context_attribute(
        self, info: Info, input: Annotated[inputs.AddSessionContextAttributeInput, _INPUT]
    ) -> AddSessionContextAttributeResult:
        written = await info.context.sessions.add_attribute(
            input.tenant,
            input.session_id,
            input.name,
            partial(inputs.attribute_value, input.value),
            _options(info, input.expected_version),
        )
        return types.AddSessionContextAttributePayload(session_context=_after(written))

    @strawberry.field(
        description="Removes one attribute; one that is not there is no failure. With an expected version it is a "
        "versioned write and needs the header `saas-token`."
    )
    async def remove_session_context_attribute(
        self, info: Info, input: Annotated[inputs.RemoveSessionContextAttributeInput, _INPUT]
    ) -> RemoveSessionContextAttributeResult:
        written = await info.context.sessions.remove_attribute(
            input.tenant,
            input.session_id,
            input.name,
            _options(info, input.expected_version),
        )
        return types.RemoveSessionContextAttributePayload(session_context=_after(written))

    @strawberry.field(
        description="Changes site, currency, target location, language or attributes of your own session. Without an "
        "expected version it is repeated when another writer comes first."
    )
    async def update_my_session_context(
        self, info: Info, input: Annotated[inputs.UpdateMySessionContextInput, _INPUT]
    ) -> UpdateMySessionContextResult:
        written = await info.context.own.update(
            input.tenant,
            input.patch.patch,
            _options(info, input.expected_version),
        )
        return types.UpdateMySessionContextPayload(session_context=_after(written), attempts=written.attempts)

    @strawberry.field(description="Sets one attribute of your own session, whether or not it was there.")
    async def add_my_session_context_attribute(
        self, info: Info, input: Annotated[inputs.AddMySessionContextAttributeInput, _INPUT]
    ) -> AddMySessionContextAttributeResult:
        written = await info.context.own.add_attribute(
            input.tenant,
            input.name,
            partial(inputs.attribute_value, input.value),
            _options(info, input.expected_version),
        )
        return types.AddMySessionContextAttributePayload(session_context=_after(written))

    @strawberry.field(description="Removes one attribute of your own session; one that is not there is no failure.")
    async def remove_my_session_context_attribute(
        self, info: Info, input: Annotated[inputs.RemoveMySessionContextAttributeInput, _INPUT]
    ) -> RemoveMySessionContextAttributeResult:
        written = await info.context.own.remove_attribute(
            input.tenant,
            input.name,
            _options(info, input.expected_version),
        )
        return types.RemoveMySessionContextAttributePayload(session_context=_after(written))


class GatewaySchema(strawberry.Schema):
    """Strawberry's, without its log."""

    @property
    def core(self) -> GraphQLSchema:
        """What graphql-core makes of it."""
        return self._schema

    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        """Log nothing here: what is worth a line is logged where errors are formatted."""


class _FromDocuments(SchemaExtension):
    """Spares Strawberry what `documents` has done: the context holds a document that is parsed and valid."""

    def on_operation(self) -> Iterator[None]:
        execution = self.execution_context
        execution.graphql_document = execution.context.document
        execution.pre_execution_errors = []
        yield


class _Discreet(StrawberryGraphQLCoreExecutionContext):
    """Suggests no names to those who guess at them. What is wrong with variables comes up here, not in validation."""

    @classmethod
    def build(cls, *args: Any, **kwargs: Any) -> list[GraphQLError] | Executor[Any]:
        return super().build(*args, **{**kwargs, "hide_suggestions": True})


def make_schema(*, introspection: bool = True) -> GatewaySchema:
    """Build the schema. Each call makes a new one: nothing is shared. Without introspection it gives no hints either.

    It executes the document that the context holds.
    """
    return GatewaySchema(
        query=Query,
        mutation=Mutation,
        types=[types.Failure],
        extensions=[_FromDocuments],
        execution_context_class=None if introspection else _Discreet,
        config=StrawberryConfig(scalar_map=SCALARS),
        exception_handlers=HANDLERS,
    )


def _told(info: Info, found: Found) -> types.SessionContext:
    info.context.reads.append(CacheRead(info.path.as_list(), found.status))
    return types.SessionContext.of(found.context)


def _entry(info: Info, found: Found | errors.GatewayError) -> types.SessionContext | None:
    """One entry of a list. An error that is returned, not raised, is the entry's own (graphql-core, complete_value)."""
    if isinstance(found, SessionNotFoundError):
        return None
    if isinstance(found, Exception):
        return found  # type: ignore[return-value]  # see above: the executor takes it for a failed entry
    return _told(info, found)


def _options(info: Info, expected_version: Version | None) -> WriteOptions:
    raw = info._raw_info  # noqa: SLF001 - what Strawberry makes of the selection is a copy of all of it
    return WriteOptions(
        deadline=info.context.deadline,
        expected_version=expected_version,
        read_back=selects(raw, info.variable_values, "sessionContext"),
    )


def _after(written: Written) -> types.SessionContext | None:
    return None if written.session_context is None else types.SessionContext.of(written.session_context)
