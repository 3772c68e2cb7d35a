"""The eight operations of the REST API (API reference, Session Context service), typed.

Four are about any session of a tenant, with the gateway's own token (`Session`), and four about the session that the
caller's token belongs to, with that token (`OwnSession`). Both kinds have the same four methods. Each call is one
exchange; nothing is retried here, except what `gateway.upstream.auth` repeats after a 401.

Every method raises InvalidArgument for a value that cannot be part of a path or that upstream refuses, SessionNotFound,
UpstreamError if upstream fails, and, for a refused token, what that means for its owner.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from gateway.errors import UpstreamMalformed
from gateway.model import decode_session_context
from gateway.upstream import paths
from gateway.upstream.auth import BesideSaasTokenAuth, CallerTokenAuth, ServiceTokenAuth
from gateway.upstream.mapping import Authority, error_for

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    import httpx
    from pydantic import SecretStr

    from gateway.deadline import Deadline
    from gateway.model import JSON, SessionContext
    from gateway.upstream.http import Answer, Auth, Http
    from gateway.upstream.service_tokens import ServiceTokens

__all__ = ["OwnSession", "Session", "SessionContextClient"]


class SessionContextClient:
    """Upstream's Session Context service."""

    def __init__(self, http: Http, tokens: ServiceTokens) -> None:
        self._http = http
        self._tokens = tokens
        self._exchanges: dict[str, _Exchange] = {}
        """By tenant, with the gateway's own token. There are at most as many as configured tenants."""

    def session(self, tenant: str, session_id: str) -> Session:
        """Any session of a tenant. Raises TenantNotConfigured."""
        return Session(self._exchange(tenant), self._tokens, tenant, session_id)

    def own_session(self, tenant: str, access_token: SecretStr) -> OwnSession:
        """The session that the caller's Emporix token belongs to. Raises TenantNotConfigured."""
        return OwnSession(self._exchange(tenant).of_caller(access_token), tenant)

    def _exchange(self, tenant: str) -> _Exchange:
        exchange = self._exchanges.get(tenant)
        if exchange is None:
            self._tokens.check(tenant)
            headers = self._http.headers({"emporix-tenant": tenant, "accept": "application/json"})
            auth = ServiceTokenAuth(self._tokens, tenant)
            exchange = self._exchanges[tenant] = _Exchange(self._http, headers, auth, Authority.GATEWAY)
        return exchange


class Session:
    """Operations 1 to 4: `/session-context/{tenant}/context/{sessionId}`."""

    def __init__(self, exchange: _Exchange, tokens: ServiceTokens, tenant: str, session_id: str) -> None:
        self._exchange = exchange
        self._tokens = tokens
        self._tenant = tenant
        self._session_id = session_id

    def read(self, deadline: Deadline) -> Awaitable[SessionContext]:
        """GET the session context."""
        return self._exchange.read(paths.session(self._tenant, self._session_id), deadline, self._session_id)

    async def write(
        self, document: bytes, deadline: Deadline, *, saas_token: SecretStr | None = None, upsert: bool = False
    ) -> None:
        """PUT the whole document. Raises VersionConflict if its `metadata.version` is not the current one.

        Upstream refuses it without a `saas_token`.
        """
        path = paths.session(self._tenant, self._session_id)
        target = f"{path}?upsert={'true' if upsert else 'false'}"
        if saas_token is None:
            exchange, headers = self._exchange, None
        else:
            exchange = self._exchange.beside_saas_token(self._tokens, self._tenant, path)
            headers = {"saas-token": saas_token.get_secret_value()}
        await exchange.write("PUT", target, deadline, document, self._session_id, headers=headers, versioned=True)

    async def add_attribute(self, name: str, value: JSON, deadline: Deadline) -> None:
        """POST an attribute, which sets it whether or not it exists. No version is checked."""
        target = paths.attributes(self._tenant, self._session_id)
        await self._exchange.write("POST", target, deadline, _attribute(name, value), self._session_id)

    async def remove_attribute(self, name: str, deadline: Deadline) -> bool:
        """DELETE an attribute; false if it, or the session, does not exist."""
        target = paths.attribute(self._tenant, self._session_id, name)
        return await self._exchange.delete(target, deadline, self._session_id)


class OwnSession:
    """Operations 5 to 8: `/session-context/{tenant}/me/context`."""

    def __init__(self, exchange: _Exchange, tenant: str) -> None:
        self._exchange = exchange
        self._tenant = tenant

    def read(self, deadline: Deadline) -> Awaitable[SessionContext]:
        """GET the session context."""
        return self._exchange.read(paths.own_session(self._tenant), deadline)

    async def write(self, document: bytes, deadline: Deadline) -> None:
        """PATCH with the document: its top-level fields replace those there are, `context` as a whole.

        Upstream applies `siteCode`, `currency`, `targetLocation`, `language` and `context`, and ignores all others.
        Raises VersionConflict if its `metadata.version` is not the current one.
        """
        await self._exchange.write("PATCH", paths.own_session(self._tenant), deadline, document, versioned=True)

    async def add_attribute(self, name: str, value: JSON, deadline: Deadline) -> None:
        """POST an attribute, which sets it whether or not it exists. No version is checked."""
        await self._exchange.write("POST", paths.own_attributes(self._tenant), deadline, _attribute(name, value))

    async def remove_attribute(self, name: str, deadline: Deadline) -> bool:
        """DELETE an attribute; false if it, or the session, does not exist."""
        return await self._exchange.delete(paths.own_attribute(self._tenant, name), deadline)


class _Exchange:
    """What the operations have in common: headers, credentials, and the meaning of answers.

    `session_id` is the id of the session that a call is about; None for the caller's own.
    """

    def __init__(self, http: Http, headers: httpx.Headers, auth: Auth, authority: Authority) -> None:
        self._http = http
        self._headers = headers
        self._auth = auth
        self._authority = authority

    def of_caller(self, access_token: SecretStr) -> _Exchange:
        """The same, with the caller's own token."""
        return _Exchange(self._http, self._headers, CallerTokenAuth(access_token), Authority.CALLER)

    def beside_saas_token(self, tokens: ServiceTokens, tenant: str, path: str) -> _Exchange:
        """The same, for a request with a saas-token; `path` can be read without one."""

        def alone(deadline: Deadline) -> Awaitable[Answer]:
            return self._http.send("GET", path, deadline=deadline, headers=self._headers, auth=self._auth)

        return _Exchange(self._http, self._headers, BesideSaasTokenAuth(tokens, tenant, alone), self._authority)

    async def read(self, target: str, deadline: Deadline, session_id: str | None = None) -> SessionContext:
        answer = await self._http.send("GET", target, deadline=deadline, headers=self._headers, auth=self._auth)
        if answer.status != 200:
            raise self._error(answer, session_id)
        try:
            context = decode_session_context(answer.body)
        except (ValueError, RecursionError) as error:
            raise UpstreamMalformed("upstream's answer is not a session context") from error
        if session_id not in {None, context.session_id}:  # it must not be shown, kept or written back
            raise UpstreamMalformed("upstream's answer is another session's context")
        return context

    async def write(
        self,
        method: str,
        target: str,
        deadline: Deadline,
        document: bytes,
        session_id: str | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        versioned: bool = False,
    ) -> None:
        sent = self._headers.copy()
        sent.update({"content-type": "application/json", **(headers or {})})
        answer = await self._http.send(
            method, target, deadline=deadline, headers=sent, content=document, auth=self._auth
        )
        if answer.status not in {200, 201, 204}:
            raise self._error(answer, session_id, versioned=versioned)

    async def delete(self, target: str, deadline: Deadline, session_id: str | None = None) -> bool:
        answer = await self._http.send("DELETE", target, deadline=deadline, headers=self._headers, auth=self._auth)
        if answer.status == 404:  # its text does not tell which of the two is missing, as it may contain the name
            return False
        if answer.status not in {200, 204}:
            raise self._error(answer, session_id)
        return True

    def _error(self, answer: Answer, session_id: str | None, *, versioned: bool = False) -> Exception:
        return error_for(answer, authority=self._authority, session_id=session_id, versioned=versioned)


def _attribute(name: str, value: JSON) -> bytes:
    return msgspec.json.encode({"key": name, "value": value})
