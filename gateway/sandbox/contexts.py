"""The eight operations (API reference, Session Context service)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta, Raw, Struct

from gateway.sandbox import answers
from gateway.sandbox.store import Document, StaleVersionError

if TYPE_CHECKING:
    from gateway.sandbox.answers import Answer
    from gateway.sandbox.request import Request
    from gateway.sandbox.store import Store
    from gateway.sandbox.switches import Switches
    from gateway.sandbox.tokens import Tokens

__all__ = ["Contexts"]

_PATCHED = ("siteCode", "currency", "targetLocation", "language", "context")
"""What PATCH applies; it ignores all else (API reference)."""


class _Attribute(Struct):
    key: Annotated[str, Meta(min_length=1)]
    value: Raw


class _Written(Struct, rename="camel"):
    """The types that upstream requires of a document's fields. It accepts any strings (live use)."""

    customer_id: str | None = None
    site_code: str | None = None
    currency: str | None = None
    cart_id: str | None = None
    target_location: str | None = None
    language: str | None = None
    context: dict[str, Any] | None = None


class Contexts:
    """Reads and writes session contexts; callers have been authorized already."""

    def __init__(self, store: Store, tokens: Tokens, switches: Switches) -> None:
        self._store = store
        self._tokens = tokens
        self._switches = switches

    def get(self, tenant: str, session_id: str) -> Answer:
        """Operations 1 and 5."""
        source = self._store.get(tenant, session_id)
        if source is None:
            return answers.no_session(session_id)
        return answers.Answer(200, source, "application/json")

    def put(self, tenant: str, session_id: str, request: Request) -> Answer:
        """Operation 2."""
        document = _document(request.body)
        if document is None:
            return answers.bad_request("body", "must be a JSON object")
        if refusal := self._refused_saas_token(tenant, session_id, document, request):
            return refusal
        if self._store.get(tenant, session_id) is None:
            return self._create(tenant, session_id, document, request)
        version = _version(document)
        if version is None:
            return answers.bad_request("metadata.version", "must not be null")
        if self._switches.put_mode == "merge":
            document = {**self._store.fields(tenant, session_id), **document}
        return self._write(tenant, session_id, {**document, "sessionId": _raw(session_id)}, "PUT", version)

    def patch_own(self, tenant: str, session_id: str, request: Request) -> Answer:
        """Operation 6."""
        document = _document(request.body)
        if document is None:
            return answers.bad_request("body", "must be a JSON object")
        if self._store.get(tenant, session_id) is None:
            return answers.no_session(session_id)
        version = _version(document)
        if version is None:
            return answers.bad_request("metadata.version", "must not be null")
        applied = {name: raw for name, raw in document.items() if name in _PATCHED}
        return self._write(tenant, session_id, {**self._store.fields(tenant, session_id), **applied}, "PATCH", version)

    def add_attribute(self, tenant: str, session_id: str, request: Request) -> Answer:
        """Operations 3 and 7, which differ in their success."""
        try:
            attribute = msgspec.json.decode(request.body, type=_Attribute)
            msgspec.json.decode(request.body)
        except (ValueError, RecursionError):
            return answers.bad_request("key", "must not be blank")
        if self._store.get(tenant, session_id) is None:
            return answers.no_session(session_id)
        self._set_attributes(
            tenant, session_id, {**self._attributes(tenant, session_id), attribute.key: attribute.value}
        )
        return answers.no_content()

    def add_own_attribute(self, tenant: str, session_id: str, request: Request) -> Answer:
        """Operation 7: answers with the attribute's name."""
        answer = self.add_attribute(tenant, session_id, request)
        if answer.status != 204:
            return answer
        return answers.json(201, msgspec.json.decode(request.body, type=_Attribute).key)

    def remove_attribute(self, tenant: str, session_id: str, name: str) -> Answer:
        """Operations 4 and 8."""
        if self._store.get(tenant, session_id) is None:
            return answers.no_session(session_id)
        attributes = self._attributes(tenant, session_id)
        if name not in attributes:
            missing = answers.json(404, {"code": 404, "message": f"Attribute {name} not found"})
            return missing if self._switches.missing_attribute_status == 404 else answers.no_content()
        del attributes[name]
        self._set_attributes(tenant, session_id, attributes)
        return answers.no_content()

    def _refused_saas_token(self, tenant: str, session_id: str, document: Document, request: Request) -> Answer | None:
        """The refusal of a wrong saas-token: its customer must be that of the session and of the document."""
        saas = request.headers.get("saas-token")
        source = self._store.get(tenant, session_id)
        owner = None if source is None else _customer(msgspec.json.decode(source, type=Document))
        if not saas:
            needed = self._switches.put_requires_saas_token or owner is not None
            return answers.missing_header("saas-token") if needed else None
        customer = self._tokens.customer_of(saas)
        if customer is None and self._switches.wrong_saas_token_status == 401:
            return answers.fault("Invalid access token", "oauth.v2.InvalidAccessToken")
        if customer is None or {owner, _customer(document)} - {None, customer}:
            return answers.forbidden("The saas-token is not one of this customer")
        return None

    def _create(self, tenant: str, session_id: str, document: Document, request: Request) -> Answer:
        if request.query.get("upsert") != "true":
            return answers.no_session(session_id)
        version = _version(document) if self._switches.created_version == "given" else 1
        if not self._switches.discard_writes:
            whole = {**document, "sessionId": _raw(session_id)}
            self._store.create(tenant, session_id, whole, "PUT", 1 if version is None else version)
        return answers.no_content()._replace(status=self._switches.created_status)

    def _write(self, tenant: str, session_id: str, document: Document, made_by: str, version: int) -> Answer:
        if self._switches.discard_writes:
            return answers.no_content()
        try:
            self._store.write(tenant, session_id, document, made_by, version=version)
        except StaleVersionError:
            return answers.stale_version(session_id, version, self._switches.conflict)
        return answers.no_content()

    def _attributes(self, tenant: str, session_id: str) -> Document:
        try:
            return msgspec.json.decode(self._store.fields(tenant, session_id)["context"], type=Document)
        except (KeyError, ValueError):  # a test may have stored a document that upstream would not accept
            return {}

    def _set_attributes(self, tenant: str, session_id: str, attributes: Document) -> None:
        if not self._switches.discard_writes:
            fields = {**self._store.fields(tenant, session_id), "context": Raw(msgspec.json.encode(attributes))}
            self._store.write(tenant, session_id, fields, "attribute")


def _document(body: bytes) -> Document | None:
    """The top-level fields, if all are valid; `Raw` alone would accept anything."""
    try:
        msgspec.json.decode(body)
        msgspec.json.decode(body, type=_Written)
        return msgspec.json.decode(body, type=Document)
    except (ValueError, RecursionError):
        return None


class _Metadata(Struct):
    version: int


def _version(document: Document) -> int | None:
    try:
        return msgspec.json.decode(document["metadata"], type=_Metadata).version
    except (KeyError, ValueError, RecursionError):
        return None


def _customer(document: Document) -> str | None:
    raw = document.get("customerId")
    customer = None if raw is None else msgspec.json.decode(raw)
    return customer if isinstance(customer, str) else None


def _raw(value: str) -> Raw:
    return Raw(msgspec.json.encode(value))
