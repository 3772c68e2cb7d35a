"""The schema: fields, arguments and their descriptions. What the root fields do is in `gateway.graphql.resolvers`."""

from __future__ import annotations

from inspect import signature
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeAlias

import strawberry
from strawberry import ID
from strawberry.extensions import SchemaExtension
from strawberry.schema.config import StrawberryConfig
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext

from gateway import model
from gateway.errors import GatewayError
from gateway.graphql import inputs, resolvers, types
from gateway.graphql.errors import HANDLERS, MAX_ERRORS
from gateway.graphql.resolvers import Call, Context
from gateway.graphql.scalars import SCALARS, Version
from gateway.graphql.selection import selects_session_context

if TYPE_CHECKING:
    from collections.abc import Iterator

    from graphql import Executor, GraphQLError, GraphQLSchema
    from strawberry.types.execution import ExecutionContext

__all__ = ["GatewaySchema", "make_schema"]


Info: TypeAlias = strawberry.Info[Context, None]

Tenant: TypeAlias = Annotated[
    str, strawberry.argument(description="Tenant: 3 to 16 lowercase letters and digits, beginning with a letter.")
]

_INPUT = strawberry.argument(description="Which session, and what to write.")

MaxAge: TypeAlias = Annotated[
    float | None,
    strawberry.argument(
        description="Maximum age of the answer in seconds; 0 asks Emporix. By default, the gateway's settings decide. "
        "The header `Cache-Control: max-age=N` or `no-cache` does the same for the whole request; the stricter one "
        "applies."
    ),
]
MinVersion: TypeAlias = Annotated[
    Version | None,
    strawberry.argument(
        description="Minimum `metadata.version` of the answer. Send the version that your last write returned, and you "
        "read your own write. The error `MIN_VERSION_NOT_REACHED` says that Emporix has only a lower one."
    ),
]

Failures: TypeAlias = (
    types.VersionConflict
    | types.SessionNotFound
    | types.InvalidInput
    | types.Unauthenticated
    | types.PermissionDenied
    | types.WriteOutcomeUnknown
)
"""What each mutation can end with besides its payload."""

ReplaceSessionContextResult: TypeAlias = Annotated[
    types.ReplaceSessionContextPayload | Failures,
    strawberry.union("ReplaceSessionContextResult", description="Result of `replaceSessionContext`."),
]
PatchSessionContextResult: TypeAlias = Annotated[
    types.PatchSessionContextPayload | Failures,
    strawberry.union("PatchSessionContextResult", description="Result of `patchSessionContext`."),
]
AddSessionContextAttributeResult: TypeAlias = Annotated[
    types.AddSessionContextAttributePayload | Failures,
    strawberry.union("AddSessionContextAttributeResult", description="Result of `addSessionContextAttribute`."),
]
RemoveSessionContextAttributeResult: TypeAlias = Annotated[
    types.RemoveSessionContextAttributePayload | Failures,
    strawberry.union("RemoveSessionContextAttributeResult", description="Result of `removeSessionContextAttribute`."),
]
UpdateMySessionContextResult: TypeAlias = Annotated[
    types.UpdateMySessionContextPayload | Failures,
    strawberry.union("UpdateMySessionContextResult", description="Result of `updateMySessionContext`."),
]
AddMySessionContextAttributeResult: TypeAlias = Annotated[
    types.AddMySessionContextAttributePayload | Failures,
    strawberry.union("AddMySessionContextAttributeResult", description="Result of `addMySessionContextAttribute`."),
]
RemoveMySessionContextAttributeResult: TypeAlias = Annotated[
    types.RemoveMySessionContextAttributePayload | Failures,
    strawberry.union(
        "RemoveMySessionContextAttributeResult", description="Result of `removeMySessionContextAttribute`."
    ),
]


@strawberry.type(description="Reads.")
class Query:
    @strawberry.field(
        description="The session context of any session of a tenant. Null when there is none (yet).",
        graphql_type=types.SessionContext | None,
    )
    async def session_context(
        self,
        info: Info,
        tenant: Tenant,
        session_id: Annotated[ID, strawberry.argument(description="Id of the session, 1 to 256 characters.")],
        max_age: MaxAge = None,
        min_version: MinVersion = None,
    ) -> model.SessionContext | None:
        return await resolvers.session_context(_call(info), tenant, session_id, max_age, min_version)

    @strawberry.field(
        description="The session contexts of several sessions of a tenant, read side by side: one entry for each id, "
        "in the order of the ids, null for a session that does not exist. One that cannot be read is null too, and has "
        "an error.",
        graphql_type=list[types.SessionContext | None] | None,
    )
    async def session_contexts(
        self,
        info: Info,
        tenant: Tenant,
        session_ids: Annotated[
            list[ID],
            strawberry.argument(
                description="Ids of the sessions; at most 100, unless the gateway is configured otherwise."
            ),
        ],
        max_age: MaxAge = None,
        min_version: MinVersion = None,
    ) -> list[model.SessionContext | GatewayError | None]:
        return await resolvers.session_contexts(_call(info), tenant, session_ids, max_age, min_version)

    @strawberry.field(
        description="The session context that your Emporix access token (`Authorization: Bearer ...`) belongs to. Null "
        "when there is none yet: it comes into being with a cart, or shortly after login.",
        graphql_type=types.SessionContext | None,
    )
    async def my_session_context(
        self, info: Info, tenant: Tenant, max_age: MaxAge = None, min_version: MinVersion = None
    ) -> model.SessionContext | None:
        return await resolvers.my_session_context(_call(info), tenant, max_age, min_version)


@strawberry.type(
    description="Writes, one after another. Each returns a union: the payload, or a type of failure to switch on. "
    "After any other failure (for example, Emporix is down) the field is null and there is an error with "
    "`extensions.code`; other fields keep their results."
)
class Mutation:
    @strawberry.field(
        description="Replaces a whole session context, if it still has the version that you have read. "
        "Needs the header `saas-token`."
    )
    async def replace_session_context(
        self, info: Info, input: Annotated[inputs.ReplaceSessionContextInput, _INPUT]
    ) -> ReplaceSessionContextResult | None:
        return await resolvers.replace_session_context(_call(info), input)

    @strawberry.field(
        description="Changes some fields and attributes of a session context and leaves the others as they are. "
        "Without an expected version, the gateway tries again if another writer comes first. Needs the header "
        "`saas-token`."
    )
    async def patch_session_context(
        self, info: Info, input: Annotated[inputs.PatchSessionContextInput, _INPUT]
    ) -> PatchSessionContextResult | None:
        return await resolvers.patch_session_context(_call(info), input)

    @strawberry.field(
        description="Sets one attribute, whether or not it exists already. With an expected version it needs the "
        "header `saas-token`."
    )
    async def add_session_context_attribute(
        self, info: Info, input: Annotated[inputs.AddSessionContextAttributeInput, _INPUT]
    ) -> AddSessionContextAttributeResult | None:
        return await resolvers.add_session_context_attribute(_call(info), input)

    @strawberry.field(
        description="Removes one attribute. Succeeds also if there is none. With an expected version it needs the "
        "header `saas-token`."
    )
    async def remove_session_context_attribute(
        self, info: Info, input: Annotated[inputs.RemoveSessionContextAttributeInput, _INPUT]
    ) -> RemoveSessionContextAttributeResult | None:
        return await resolvers.remove_session_context_attribute(_call(info), input)

    @strawberry.field(
        description="Changes site, currency, target location, language or attributes of your own session. Without an "
        "expected version, the gateway tries again if another writer comes first."
    )
    async def update_my_session_context(
        self, info: Info, input: Annotated[inputs.UpdateMySessionContextInput, _INPUT]
    ) -> UpdateMySessionContextResult | None:
        return await resolvers.update_my_session_context(_call(info), input)

    @strawberry.field(description="Sets one attribute of your own session, whether or not it exists already.")
    async def add_my_session_context_attribute(
        self, info: Info, input: Annotated[inputs.AddMySessionContextAttributeInput, _INPUT]
    ) -> AddMySessionContextAttributeResult | None:
        return await resolvers.add_my_session_context_attribute(_call(info), input)

    @strawberry.field(description="Removes one attribute of your own session. Succeeds also if there is none.")
    async def remove_my_session_context_attribute(
        self, info: Info, input: Annotated[inputs.RemoveMySessionContextAttributeInput, _INPUT]
    ) -> RemoveMySessionContextAttributeResult | None:
        return await resolvers.remove_my_session_context_attribute(_call(info), input)


class GatewaySchema(strawberry.Schema):
    """Strawberry's, without its log."""

    @property
    def core(self) -> GraphQLSchema:
        """What graphql-core makes of it."""
        return self._schema

    def process_errors(self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None) -> None:
        """Log nothing: `gateway.graphql.errors` logs what is worth a line when it formats errors."""


class _FromDocuments(SchemaExtension):
    """Hands Strawberry the document that the context holds, which is parsed and validated already."""

    def on_operation(self) -> Iterator[None]:
        execution = self.execution_context
        execution.graphql_document = execution.context.document
        execution.pre_execution_errors = []
        yield


_BUILD: Final = signature(StrawberryGraphQLCoreExecutionContext.build)


class _Brief(StrawberryGraphQLCoreExecutionContext):
    """Reports only a few errors in variables. These are found here, not in validation."""

    @classmethod
    def build(cls, *args: Any, **kwargs: Any) -> list[GraphQLError] | Executor[Any]:
        given = _BUILD.bind(*args, **kwargs)
        given.arguments["max_coercion_errors"] = MAX_ERRORS
        return super().build(*given.args, **given.kwargs)


class _Discreet(_Brief):
    """Suggests no names from the schema either."""

    @classmethod
    def build(cls, *args: Any, **kwargs: Any) -> list[GraphQLError] | Executor[Any]:
        return super().build(*args, **{**kwargs, "hide_suggestions": True})


def make_schema(*, introspection: bool = True) -> GatewaySchema:
    """Build the schema. Each call makes a new one: nothing is shared. Without introspection, errors suggest no names.

    It executes the document that the context holds.
    """
    return GatewaySchema(
        query=Query,
        mutation=Mutation,
        types=[types.Failure],
        extensions=[_FromDocuments],
        execution_context_class=_Brief if introspection else _Discreet,
        config=StrawberryConfig(scalar_map=SCALARS),
        exception_handlers=HANDLERS,
    )


def _call(info: Info) -> Call:
    raw = info._raw_info  # noqa: SLF001 - what Strawberry makes of the selection is a copy of all of it
    reads_back = selects_session_context(raw.field_nodes, raw.fragments, info.variable_values)
    return Call(info.context, str(info.path.key), reads_back)
