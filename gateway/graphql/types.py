"""What GraphQL answers: the types, and the typed failures of mutations.

Resolvers return the model itself: the attributes of `gateway.model.SessionContext` are the fields of the type.
Descriptions are the schema's documentation; `schema/session_context.graphql` is generated from them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Final

import strawberry
from strawberry import ID

from gateway import errors, model
from gateway.graphql.scalars import JSON, Version


@strawberry.type(description="Version and times of a session context, kept by Emporix.")
class Metadata:
    version: Version = strawberry.field(
        description="Increases with every write, by any amount. Pass it on as `expectedVersion`."
    )
    created_at: datetime | None = strawberry.field(description="When the session context was created.")
    modified_at: datetime | None = strawberry.field(description="When the session context last changed.")


@strawberry.type(description="The state of one shopper's session. A field for which Emporix has no value is null.")
class SessionContext:
    session_id: ID = strawberry.field(
        description="Id of the session, unique within a tenant. Select it, and caches of GraphQL clients can go by it."
    )
    customer_id: ID | None = strawberry.field(description="Id of the customer; null while nobody is logged in.")
    site_code: str | None = strawberry.field(description="Code of the site, for example `main`.")
    currency: str | None = strawberry.field(description="Currency, three letters of ISO 4217, for example `EUR`.")
    cart_id: ID | None = strawberry.field(description="Id of the active cart.")
    target_location: str | None = strawberry.field(
        description="Country to ship to, two letters of ISO 3166-1, for example `DE`."
    )
    language: str | None = strawberry.field(description="Language of the session, for example `de`.")
    context: JSON | None = strawberry.field(
        description="Custom attributes: an object of any names to any JSON values. Null when there are none."
    )
    metadata: Metadata = strawberry.field(description="Version and times.")
    additional_properties: JSON | None = strawberry.field(
        description="Top-level fields that Emporix sent and this gateway does not know yet, as an object. Send them "
        "back with `replaceSessionContext`, which would delete them otherwise."
    )


@strawberry.type
class _Written:
    session_context: model.SessionContext | None = strawberry.field(
        description="The session context as it stands after the write, read back. Null if it could not be read back; "
        "the write has succeeded all the same. Leave it out of the selection to save this read.",
        graphql_type=SessionContext | None,
    )


@strawberry.type
class _Patched(_Written):
    attempts: int = strawberry.field(
        description="How many times the gateway wrote: 1, or more when another writer came first or an answer was lost."
    )


@strawberry.type(description="The session context was replaced.")
class ReplaceSessionContextPayload(_Written): ...


@strawberry.type(description="The session context was changed.")
class PatchSessionContextPayload(_Patched): ...


@strawberry.type(description="The attribute was set.")
class AddSessionContextAttributePayload(_Written): ...


@strawberry.type(description="The attribute is gone.")
class RemoveSessionContextAttributePayload(_Written): ...


@strawberry.type(description="Your session context was changed.")
class UpdateMySessionContextPayload(_Patched): ...


@strawberry.type(description="The attribute of your session context was set.")
class AddMySessionContextAttributePayload(_Written): ...


@strawberry.type(description="The attribute of your session context is gone.")
class RemoveMySessionContextAttributePayload(_Written): ...


@strawberry.interface(description="Why a mutation was not applied or, with `WriteOutcomeUnknown`, may not have been.")
class Failure:
    code: str = strawberry.field(
        description="The reason, for programs: `VERSION_CONFLICT`, for example. Errors have it in `extensions.code`."
    )
    message: str = strawberry.field(description="What happened, for people.")


@strawberry.type(description="Another writer came first. Nothing was written.")
class VersionConflict(Failure):
    expected_version: Version | None = strawberry.field(
        description="The version that you sent; null if you sent none, and other writers came first at every attempt "
        "of the gateway."
    )
    current_version: Version | None = strawberry.field(
        description="The current version; null if it could not be read in time."
    )
    current: model.SessionContext | None = strawberry.field(
        description="The current session context, by which to decide whether to try again with its version; null if "
        "it could not be read in time.",
        graphql_type=SessionContext | None,
    )

    @classmethod
    def of(cls, error: errors.VersionConflict) -> VersionConflict:
        current = error.current
        return cls(
            code=error.reason,
            message=error.message,
            expected_version=None if error.expected_version is None else Version(error.expected_version),
            current_version=None if current is None else Version(current.metadata.version),
            current=current,
        )


@strawberry.type(description="There is no such session context, or none yet.")
class SessionNotFound(Failure):
    session_id: ID | None = strawberry.field(description="The id that you sent; null for your own session.")

    @classmethod
    def of(cls, error: errors.SessionNotFound) -> SessionNotFound:
        return cls(code=error.reason, message=error.message, session_id=_id(error.session_id))


@strawberry.type(description="One thing wrong with the input.")
class Violation:
    field: str = strawberry.field(
        description="Path of the field in the input, for example `sessionContext.currency`; or the name of a header, "
        "`saas-token`."
    )
    message: str = strawberry.field(description="What is wrong with it.")


@strawberry.type(description="The input was refused. Nothing was written.")
class InvalidInput(Failure):
    violations: list[Violation] = strawberry.field(
        description="Everything that is wrong with the input. A missing required value, or a value that should be an "
        "object and is not, is reported alone."
    )

    @classmethod
    def of(cls, error: errors.InvalidArgument, mutation: str) -> InvalidInput:
        ours = in_terms_of_inputs(error, mutation)
        return cls(
            code=ours.reason,
            message=ours.message,
            violations=[Violation(field=each.field, message=each.message) for each in ours.violations],
        )


@strawberry.type(
    description="A credential is missing, expired or unknown. For your own session this is the Emporix access token, "
    "for any other the `saas-token` (code `UNAUTHENTICATED`), or the credential of this gateway "
    "(`CALLER_UNAUTHENTICATED`)."
)
class Unauthenticated(Failure): ...


@strawberry.type(
    description="The Emporix access token or the `saas-token` does not allow this (code `PERMISSION_DENIED`), or this "
    "gateway does not permit it to the caller (`CALLER_NOT_PERMITTED`)."
)
class PermissionDenied(Failure): ...


@strawberry.type(
    description="The answer to the write was lost, and reading back did not show whether it was applied. Read before "
    "you write again."
)
class WriteOutcomeUnknown(Failure): ...


def in_terms_of_inputs(error: errors.InvalidArgument, mutation: str = "") -> errors.InvalidArgument:
    """The same error, with the names of fields as in GraphQL's inputs instead of the protobuf contract.

    `mutation` is the root field that failed; empty for a query.
    """
    return errors.InvalidArgument(
        errors.Violation(_input_path(each.field, mutation), each.message) for each in error.violations
    )


def _input_path(field: str, mutation: str) -> str:
    for theirs, ours in _RENAMED.get(mutation, _ARGUMENTS).items():
        if field == theirs or field.startswith(f"{theirs}."):
            inner = "" if ours in _WITHOUT_FIELDS else field.removeprefix(theirs)
            field = f"{ours}{inner}".removeprefix(".")
    return ".".join(_camel(part) for part in field.split("."))


_ARGUMENTS: Final = {"read_options": ""}
_PATCH: Final = {"session_context": "patch", "update_mask": "patch"}
_ADD: Final = {"attribute_name": "name", "session_context": "value", "update_mask": "name"}
_REMOVE: Final = {"attribute_name": "name", "session_context": "name", "update_mask": "name"}
_WITHOUT_FIELDS: Final = frozenset({"name", "value"})
_RENAMED: Final = {
    "patchSessionContext": _PATCH,
    "updateMySessionContext": _PATCH,
    "addSessionContextAttribute": _ADD,
    "removeSessionContextAttribute": _REMOVE,
    "addMySessionContextAttribute": _ADD,
    "removeMySessionContextAttribute": _REMOVE,
}
"""Fields whose names in a mutation's input differ from those in the protobuf contract."""


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(part.capitalize() for part in rest)


def _id(value: str | None) -> ID | None:
    return None if value is None else ID(value)
