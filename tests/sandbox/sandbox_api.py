"""Emporix's API as its own clients speak it: over HTTP, and knowing nothing of the gateway."""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from gateway.sandbox import Sandbox, seed

if TYPE_CHECKING:
    import httpx

SCOPE: Final = "sessioncontext.context_manage"
CUSTOMER: Final = seed.CUSTOMER_SESSION
ANONYMOUS: Final = seed.ANONYMOUS_SESSION


class Clock:
    """Time that passes when it is told to."""

    def __init__(self) -> None:
        self._now = datetime(2026, 6, 1, 12, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += timedelta(seconds=seconds)


@dataclass(frozen=True, slots=True)
class Emporix:
    """One sandbox, served, and a client of it."""

    sandbox: Sandbox
    clock: Clock
    url: str
    http: httpx.AsyncClient

    async def token_answer(self, **form: str) -> httpx.Response:
        whole = {
            "grant_type": "client_credentials",
            "client_id": "acme-client",
            "client_secret": "acme-secret",
            "scope": f"tenant=acme {SCOPE}",
            **form,
        }
        return await self.http.post("/oauth/token", data=whole)

    async def service(self, *, saas: str | None = None, fault: str | None = None) -> dict[str, str]:
        """Headers of a service call of acme."""
        token = (await self.token_answer()).json()["access_token"]
        headers = {"authorization": f"Bearer {token}", "emporix-tenant": "acme"}
        if saas is not None:
            headers["saas-token"] = saas
        if fault is not None:
            headers["x-sandbox-fault"] = fault
        return headers

    async def get(self, session_id: str = CUSTOMER) -> httpx.Response:
        return await self.http.get(managed(session_id), headers=await self.service())

    async def put(
        self, document: Any, session_id: str = CUSTOMER, *, upsert: str = "false", saas: str | None = ""
    ) -> httpx.Response:
        """By default with the seeded customer's saas-token."""
        headers = await self.service(saas=self.sandbox.saas_token if saas == "" else saas)
        return await self.http.put(managed(session_id), params={"upsert": upsert}, json=document, headers=headers)

    async def anonymous(self, **query: str) -> dict[str, Any]:
        whole = {"tenant": "acme", "client_id": "acme-client", **query}
        answer = await self.http.get("/customerlogin/auth/anonymous/login", params=whole)
        assert answer.status_code == 200
        found: dict[str, Any] = answer.json()
        return found

    async def login(self, anonymous_token: str, **login: str) -> httpx.Response:
        whole = {"email": seed.CUSTOMER_EMAIL, "password": seed.CUSTOMER_PASSWORD, **login}
        return await self.http.post("/customer/acme/login", json=whole, headers=bearer(anonymous_token))

    def stored(self, session_id: str = CUSTOMER, tenant: str = "acme") -> dict[str, Any] | None:
        source = self.sandbox.store.get(tenant, session_id)
        return None if source is None else json.loads(source)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def managed(session_id: str, *rest: str) -> str:
    return "/".join(("/session-context/acme/context", *(quote(each, safe="") for each in (session_id, *rest))))


def own(*rest: str) -> str:
    return "/".join(("/session-context/acme/me/context", *(quote(each, safe="") for each in rest)))


def claims(jwt: str) -> dict[str, Any]:
    payload = jwt.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)))
    return found


def fault_code(answer: httpx.Response) -> str:
    code: str = answer.json()["fault"]["detail"]["errorcode"]
    return code
