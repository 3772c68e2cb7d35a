"""Issues tokens: the token endpoint, anonymous login and refresh, customer login (API reference, OAuth)."""

from __future__ import annotations

import hmac
import secrets
import uuid
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import parse_qs

import msgspec
from msgspec import Raw, Struct

from gateway.sandbox import answers, seed
from gateway.sandbox.tokens import saas_token

if TYPE_CHECKING:
    from collections.abc import Callable

    from gateway.sandbox.answers import Answer
    from gateway.sandbox.request import Request
    from gateway.sandbox.store import Document, Store
    from gateway.sandbox.switches import Switches
    from gateway.sandbox.tokens import Tokens

__all__ = ["Accounts"]

_FIELDS = ("currency", "siteCode", "language", "targetLocation")
_REFRESH_LIFETIME: Final = 86_400
"""Seconds."""


class _Login(Struct):
    email: str
    password: str


class _Refresh(NamedTuple):
    """What a refresh token stands for."""

    tenant: str
    session_id: str
    expires_at: datetime


class Accounts:
    """Logs clients and shoppers in."""

    def __init__(
        self,
        store: Store,
        tokens: Tokens,
        switches: Switches,
        clock: Callable[[], datetime],
        later: Callable[[float, Callable[[], None]], None],
    ) -> None:
        self._store = store
        self._tokens = tokens
        self._switches = switches
        self._clock = clock
        self._later = later
        self._refresh: dict[str, _Refresh] = {}
        self._coming: dict[tuple[str, str], Document] = {}
        """Fields of sessions that have no context yet, by tenant and session id."""

    def reset(self) -> None:
        """Forget all shoppers."""
        self._refresh.clear()
        self._coming.clear()

    def service_token(self, request: Request) -> Answer:
        """POST /oauth/token: a client's own token. Scopes that it lacks are silently dropped."""
        form = {name: values[-1] for name, values in parse_qs(request.body.decode("utf-8", "replace")).items()}
        if form.get("grant_type") != "client_credentials":
            return answers.fault("Unsupported grant type", "oauth.v2.UnsupportedGrantType", 400)
        clients = {client_id: (tenant, secret) for tenant, (client_id, secret) in seed.CLIENTS.items()}
        tenant, secret = clients.get(form.get("client_id", ""), ("", ""))
        if not tenant:
            return answers.fault("Invalid ApiKey", "oauth.v2.InvalidApiKey")
        if not hmac.compare_digest(secret.encode(), form.get("client_secret", "").encode()):
            return answers.fault("Invalid client credentials", "oauth.v2.InvalidClientCredentials")
        asked = form.get("scope", "").split() or self._switches.granted_scopes
        granted = tuple(each for each in asked if each in self._switches.granted_scopes)
        lifetime = self._switches.service_token_lifetime
        return answers.json(
            200,
            {
                "access_token": self._tokens.issue(tenant, lifetime, scopes=granted),
                "token_type": "Bearer",
                "expires_in": lifetime if lifetime % 1 else int(lifetime),
                "scope": " ".join((f"tenant={tenant}", *granted)),
                "refresh_token": "",
                "refresh_token_expires_in": 0,
                "session_idle_time": 120,
            },
        )

    def anonymous_login(self, request: Request) -> Answer:
        """GET /customerlogin/auth/anonymous/login."""
        tenant = request.query.get("tenant", "")
        if refusal := self._refused(tenant, request):
            return refusal
        session_id = str(uuid.uuid4())
        fields = {"sessionId": session_id, **{each: request.query[each] for each in _FIELDS if each in request.query}}
        self._coming[tenant, session_id] = {name: Raw(msgspec.json.encode(value)) for name, value in fields.items()}
        self._create_context(tenant, session_id)
        return self._shopper_answer(tenant, session_id)

    def anonymous_refresh(self, request: Request) -> Answer:
        """GET /customerlogin/auth/anonymous/refresh: a new token of the same session, whose context is written too."""
        tenant = request.query.get("tenant", "")
        if refusal := self._refused(tenant, request):
            return refusal
        token = request.query.get("refresh_token", "")
        known = self._refresh.get(token)
        if known is None or known.tenant != tenant or known.expires_at <= self._clock():
            return answers.fault("Invalid refresh token", "oauth.v2.InvalidRefreshToken")
        del self._refresh[token]
        if self._store.get(tenant, known.session_id) is not None:
            self._store.write(tenant, known.session_id, self._store.fields(tenant, known.session_id), "refresh")
        return self._shopper_answer(tenant, known.session_id)

    def customer_login(self, tenant: str, request: Request) -> Answer:
        """POST /customer/{tenant}/login: the anonymous session becomes the customer's and keeps its id."""
        anonymous = self._tokens.find(request.bearer)
        if anonymous is None or anonymous.tenant != tenant or anonymous.session_id is None:
            return answers.fault("Invalid access token", "oauth.v2.InvalidAccessToken")
        try:
            login = msgspec.json.decode(request.body, type=_Login)
        except (ValueError, RecursionError):
            return answers.bad_request("email", "must not be blank")
        if (login.email, login.password) != (seed.CUSTOMER_EMAIL, seed.CUSTOMER_PASSWORD):
            return answers.json(401, {"code": 401, "status": "Unauthorized", "message": "Wrong email or password"})
        session_id = anonymous.session_id
        customer = {"customerId": Raw(msgspec.json.encode(seed.CUSTOMER_ID))}
        if self._store.get(tenant, session_id) is not None:
            self._store.write(tenant, session_id, {**self._store.fields(tenant, session_id), **customer}, "login")
        elif (tenant, session_id) in self._coming:
            self._coming[tenant, session_id].update(customer)
        lifetime = self._switches.shopper_token_lifetime
        return answers.json(
            200,
            {
                "access_token": self._tokens.issue(tenant, lifetime, session_id, seed.CUSTOMER_ID),
                "saas_token": saas_token(seed.CUSTOMER_ID, self._clock() + timedelta(seconds=lifetime)),
                "session_id": session_id,
                "token_type": "Bearer",
                "expires_in": int(lifetime),
            },
        )

    def create_cart(self, tenant: str, session_id: str) -> None:
        """Do what the cart service does: the session context gets a cart, and is created if there is none."""
        cart = {"cartId": Raw(msgspec.json.encode(secrets.token_hex(12)))}
        if self._store.get(tenant, session_id) is None:
            known = self._coming.pop((tenant, session_id), {"sessionId": Raw(msgspec.json.encode(session_id))})
            self._store.create(tenant, session_id, {**known, **cart}, "cart")
        else:
            self._store.write(tenant, session_id, {**self._store.fields(tenant, session_id), **cart}, "cart")

    def _refused(self, tenant: str, request: Request) -> Answer | None:
        if tenant not in seed.CLIENTS or request.query.get("client_id") != seed.CLIENTS[tenant][0]:
            return answers.fault("Invalid ApiKey", "oauth.v2.InvalidApiKey")
        return None

    def _create_context(self, tenant: str, session_id: str) -> None:
        def create() -> None:
            known = self._coming.pop((tenant, session_id), None)
            if known is not None and self._store.get(tenant, session_id) is None:
                self._store.create(tenant, session_id, known, "login")

        if self._switches.creation == "on-login":
            create()
        elif self._switches.creation == "eventual":
            self._later(self._switches.eventual_ms / 1000, create)

    def _shopper_answer(self, tenant: str, session_id: str) -> Answer:
        lifetime = self._switches.shopper_token_lifetime
        refresh = secrets.token_urlsafe(24)
        self._refresh[refresh] = _Refresh(tenant, session_id, self._clock() + timedelta(seconds=_REFRESH_LIFETIME))
        return answers.json(
            200,
            {
                "access_token": self._tokens.issue(tenant, lifetime, session_id),
                "token_type": "Bearer",
                "expires_in": int(lifetime),
                "refresh_token": refresh,
                "refresh_token_expires_in": _REFRESH_LIFETIME,
                "sessionId": session_id,
            },
        )
