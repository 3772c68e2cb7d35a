"""The sandbox as the soak drives it: over HTTP, wherever it runs."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from soak.history import Version

if TYPE_CHECKING:
    from collections.abc import Mapping

    import httpx

__all__ = ["FIELDS", "UNKNOWN_FIELD", "Upstream"]

TENANT: Final = "acme"

FIELDS: Final = {"site_code": "main", "currency": "EUR", "target_location": "DE", "language": "de"}
"""What every session has, and no write changes."""
UNKNOWN_FIELD: Final = "loyalty"
"""A top-level field which the gateway does not know: it holds the session's id, and outlasts every write."""

_MADE: Final = datetime(2026, 2, 4, 16, 36, 44, 47_000, UTC)

_NO_FAULT: Final = {"x-sandbox-fault": "latency=0ms"}
"""Of requests that no armed fault is to meet."""


class Upstream:
    """What the soak does behind the gateway's back."""

    def __init__(self, client: httpx.AsyncClient, url: str) -> None:
        self._client = client
        self._url = url

    async def create(self, session: str) -> str:
        """Make a session; returns a shopper's token for it."""
        await self.put(session, _MADE, _MADE)
        token = await self._admin("POST", "tokens", {"tenant": TENANT, "session_id": session})
        return str(token["access_token"])

    async def put(self, session: str, created: datetime, modified: datetime) -> None:
        """Put a session in place, at version 1."""
        document = {
            "sessionId": session,
            "siteCode": "main",
            "currency": "EUR",
            "targetLocation": "DE",
            "language": "de",
            UNKNOWN_FIELD: {"of": session},
            "metadata": {"version": 1, "createdAt": created.isoformat(), "modifiedAt": modified.isoformat()},
        }
        await self._admin("PUT", f"sessions/{TENANT}/{session}", document)

    async def remove(self, session: str) -> None:
        """Forget a session."""
        await self._admin("DELETE", f"sessions/{TENANT}/{session}")

    async def revoke(self, token: str | None = None) -> None:
        """Revoke a token, or all service tokens."""
        await self._admin("DELETE", "tokens" if token is None else f"tokens/{token}")

    async def documents(self, session: str) -> list[dict[str, Any]]:
        """Every version that a session has had; none of one that never was."""
        response = await self._client.get(f"{self._url}/_sandbox/history/{TENANT}/{session}")
        return [] if response.status_code == 400 else [each["document"] for each in response.json()]

    async def write_directly(self, token: str, name: str, value: str, counter: str) -> int | None:
        """Another service of the platform's sets an attribute and counts; returns the version, None if others won."""
        url, headers = f"{self._url}/session-context/{TENANT}/me/context", {"authorization": f"Bearer {token}"}
        document = (await self._client.get(url, headers={**headers, **_NO_FAULT})).json()
        version = int(document["metadata"]["version"])
        attributes = document.get("context", {})
        changed = {**attributes, name: value, counter: attributes.get(counter, 0) + 1}
        body = {"context": changed, "metadata": {"version": version}}
        response = await self._client.patch(url, json=body, headers={**headers, **_NO_FAULT})
        return version + 1 if response.status_code == 204 else None

    async def arm(self, faults: Mapping[tuple[str, str], float]) -> None:
        """Have these faults and no others: by fault and operation, how likely each is."""
        await self._admin("DELETE", "faults")
        for (fault, operation), probability in faults.items():
            entry = {"fault": fault, "operation": operation, "times": None, "probability": probability}
            await self._admin("POST", "faults", entry)

    async def switch(self, **switches: object) -> None:
        """Set switches."""
        await self._admin("PATCH", "switches", switches)

    async def struck(self) -> dict[str, int]:
        """How often each fault has struck."""
        return dict((await self._admin("GET", "figures"))["struck"])

    async def settled(self) -> None:
        """Wait until whatever was on its way has arrived."""
        async with asyncio.timeout(30):
            while (await self._admin("GET", "figures"))["underWay"]:
                await asyncio.sleep(0.05)

    async def _admin(self, method: str, path: str, body: object = None) -> Any:
        content = None if body is None else json.dumps(body)
        response = await self._client.request(method, f"{self._url}/_sandbox/{path}", content=content)
        response.raise_for_status()
        return response.json() if response.content else None


def version_of(document: Mapping[str, Any]) -> Version:
    """As the checker wants it."""
    return Version(document["metadata"]["version"], document.get("context", {}))
