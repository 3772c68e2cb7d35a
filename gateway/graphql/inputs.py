"""The inputs of mutations, and what they become for the use cases."""

from __future__ import annotations

from typing import TYPE_CHECKING

import strawberry
from strawberry import ID, Maybe

from gateway import model
from gateway.errors import InvalidArgument
from gateway.graphql.scalars import JSON, Version
from gateway.sessions.changes import CLEAR, Assignment, Patch

if TYPE_CHECKING:
    from collections.abc import Iterator

_TENANT = "Tenant: 3 to 16 lowercase letters and digits, beginning with a letter."
_SESSION_ID = "Id of the session, 1 to 256 characters."
_NAME = 'Name of the attribute, 1 to 256 characters, any Unicode but NUL; not "." or "..".'
_VALUE = "Its value, any JSON value, null included. Required."
_EXPECTED = "Write only if this is the current version."


@strawberry.input(description="The whole new state of a session context. What is left out or null is gone afterwards.")
class SessionContextInput:
    customer_id: ID | None = strawberry.field(default=None, description="Id of the customer.")
    site_code: str | None = strawberry.field(default=None, description="Code of the site.")
    currency: str | None = strawberry.field(default=None, description="Currency, three letters of ISO 4217.")
    cart_id: ID | None = strawberry.field(default=None, description="Id of the active cart.")
    target_location: str | None = strawberry.field(
        default=None, description="Country to ship to, two letters of ISO 3166-1."
    )
    language: str | None = strawberry.field(default=None, description="Language of the session.")
    context: JSON | None = strawberry.field(default=None, description="All custom attributes, as an object.")
    additional_properties: JSON | None = strawberry.field(
        default=None, description="The `additionalProperties` that were read, as they came."
    )

    def replacement(self) -> model.Replacement:
        return model.Replacement(
            customer_id=self.customer_id,
            site_code=self.site_code,
            currency=self.currency,
            cart_id=self.cart_id,
            target_location=self.target_location,
            language=self.language,
            context=_object("session_context.context", self.context),
            additional_properties=_object("session_context.additional_properties", self.additional_properties),
        )


@strawberry.input(description="Input of `replaceSessionContext`.")
class ReplaceSessionContextInput:
    tenant: str = strawberry.field(description=_TENANT)
    session_id: ID = strawberry.field(description=_SESSION_ID)
    session_context: SessionContextInput = strawberry.field(description="The whole new state.")
    expected_version: Version | None = strawberry.field(
        default=None,
        description="The `metadata.version` that you have read. Required, except to create a session context that does "
        "not exist, with `upsert`.",
    )
    upsert: bool = strawberry.field(default=False, description="Create the session context when there is none.")


_PATCH_CONTEXT = (
    "Custom attributes: a name that is left out stays, one that is null is removed, any other value replaces the "
    "stored one. Null instead of the whole object removes all attributes."
)


@strawberry.input(description="Changes. A field that is left out stays, a field that is null is cleared.")
class SessionContextPatch:
    customer_id: Maybe[ID | None] = strawberry.field(description="Id of the customer.")
    site_code: Maybe[str | None] = strawberry.field(description="Code of the site.")
    currency: Maybe[str | None] = strawberry.field(description="Currency, three letters of ISO 4217.")
    cart_id: Maybe[ID | None] = strawberry.field(description="Id of the active cart.")
    target_location: Maybe[str | None] = strawberry.field(description="Country to ship to, two letters of ISO 3166-1.")
    language: Maybe[str | None] = strawberry.field(description="Language of the session.")
    context: Maybe[JSON | None] = strawberry.field(description=_PATCH_CONTEXT)

    def patch(self) -> Patch:
        return Patch((*_fields(self), *_attributes(self.context)))


@strawberry.input(
    description="Changes to your session. A field that is left out stays, a field that is null is cleared."
)
class MySessionContextPatch:
    site_code: Maybe[str | None] = strawberry.field(description="Code of the site.")
    currency: Maybe[str | None] = strawberry.field(description="Currency, three letters of ISO 4217.")
    target_location: Maybe[str | None] = strawberry.field(description="Country to ship to, two letters of ISO 3166-1.")
    language: Maybe[str | None] = strawberry.field(description="Language of the session.")
    context: Maybe[JSON | None] = strawberry.field(description=_PATCH_CONTEXT)

    def patch(self) -> Patch:
        return Patch((*_fields(self), *_attributes(self.context)))


@strawberry.input(description="Input of `patchSessionContext`.")
class PatchSessionContextInput:
    tenant: str = strawberry.field(description=_TENANT)
    session_id: ID = strawberry.field(description=_SESSION_ID)
    patch: SessionContextPatch = strawberry.field(description="What changes.")
    expected_version: Version | None = strawberry.field(
        default=None,
        description=f"{_EXPECTED} By default, the gateway uses the current version, and tries again if another writer "
        "comes first.",
    )


@strawberry.input(description="Input of `addSessionContextAttribute`.")
class AddSessionContextAttributeInput:
    tenant: str = strawberry.field(description=_TENANT)
    session_id: ID = strawberry.field(description=_SESSION_ID)
    name: str = strawberry.field(description=_NAME)
    value: Maybe[JSON | None] = strawberry.field(description=_VALUE)
    expected_version: Version | None = strawberry.field(default=None, description=_EXPECTED)


@strawberry.input(description="Input of `removeSessionContextAttribute`.")
class RemoveSessionContextAttributeInput:
    tenant: str = strawberry.field(description=_TENANT)
    session_id: ID = strawberry.field(description=_SESSION_ID)
    name: str = strawberry.field(description=_NAME)
    expected_version: Version | None = strawberry.field(default=None, description=_EXPECTED)


@strawberry.input(description="Input of `updateMySessionContext`.")
class UpdateMySessionContextInput:
    tenant: str = strawberry.field(description=_TENANT)
    patch: MySessionContextPatch = strawberry.field(description="What changes.")
    expected_version: Version | None = strawberry.field(
        default=None,
        description=f"{_EXPECTED} By default, the gateway uses the current version, and tries again if another writer "
        "comes first.",
    )


@strawberry.input(description="Input of `addMySessionContextAttribute`.")
class AddMySessionContextAttributeInput:
    tenant: str = strawberry.field(description=_TENANT)
    name: str = strawberry.field(description=_NAME)
    value: Maybe[JSON | None] = strawberry.field(description=_VALUE)
    expected_version: Version | None = strawberry.field(default=None, description=_EXPECTED)


@strawberry.input(description="Input of `removeMySessionContextAttribute`.")
class RemoveMySessionContextAttributeInput:
    tenant: str = strawberry.field(description=_TENANT)
    name: str = strawberry.field(description=_NAME)
    expected_version: Version | None = strawberry.field(default=None, description=_EXPECTED)


def attribute_value(value: Maybe[JSON | None]) -> model.JSON:
    """The value of an attribute. Raises InvalidArgument when it is left out."""
    if value is None:
        raise InvalidArgument.of("value", "is required: to store null, send null")
    return _json(value.value)


def _fields(patch: SessionContextPatch | MySessionContextPatch) -> Iterator[Assignment]:
    for name in model.SCALAR_FIELDS:
        given: Maybe[str | None] = getattr(patch, name, None)  # one's own session has fewer that can be written
        if given is not None:
            yield Assignment((name,), CLEAR if given.value is None else given.value)


def _attributes(context: Maybe[JSON | None]) -> Iterator[Assignment]:
    if context is None:
        return
    attributes = _object("patch.context", context.value)
    if attributes is None:
        yield Assignment(("context",), CLEAR)
        return
    for name, value in attributes.items():
        yield Assignment(("context", name), CLEAR if value is None else value)


def _object(field: str, value: JSON | None) -> dict[str, model.JSON] | None:
    document = _json(value)
    if document is None or isinstance(document, dict):
        return document
    raise InvalidArgument.of(field, "must be an object of names to values")


def _json(value: JSON | None) -> model.JSON:
    """What the JSON scalar has parsed, with its true type: the scalar's own is `object`."""
    document: model.JSON = value  # type: ignore[assignment]  # the scalar's parser lets nothing else through
    return document
