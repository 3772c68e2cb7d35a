"""What the sandbox holds at the start: fixed, so that documentation and tests can name it."""

from __future__ import annotations

from typing import Final

__all__ = [
    "ANONYMOUS_SESSION",
    "ANONYMOUS_TOKEN",
    "CLIENTS",
    "CUSTOMER_EMAIL",
    "CUSTOMER_ID",
    "CUSTOMER_PASSWORD",
    "CUSTOMER_SESSION",
    "CUSTOMER_TOKEN",
    "ODD_SESSION",
    "SESSIONS",
]

CLIENTS: Final = {"acme": ("acme-client", "acme-secret"), "globex": ("globex-client", "globex-secret")}
"""Tenant to client id and secret."""

CUSTOMER_ID: Final = "C87362407845"
CUSTOMER_EMAIL: Final = "ada@example.com"
CUSTOMER_PASSWORD: Final = "sandbox-password"
CUSTOMER_SESSION: Final = "62528895-b561-4518-bfdc-2cbf52a07845"
CUSTOMER_TOKEN: Final = "sandbox-customer-token"
"""An access token of that session which does not expire."""

ANONYMOUS_SESSION: Final = "0c1f8a52-6d3e-4b7a-9f11-5f0f6f6f2a10"
ANONYMOUS_TOKEN: Final = "sandbox-anonymous-token"
"""An access token of that session which does not expire."""

ODD_SESSION: Final = "7b0e6f3c-1d52-4a8e-8f6b-3f1c9d2e4a55"

SESSIONS: Final = {
    ("acme", CUSTOMER_SESSION): b"""{
        "sessionId": "62528895-b561-4518-bfdc-2cbf52a07845", "customerId": "C87362407845", "siteCode": "main",
        "currency": "EUR", "cartId": "61079711ce0eb90861357045", "targetLocation": "DE", "language": "de",
        "context": {"customObject": {"property1": "value1"}, "customProperty": "customValue"},
        "metadata": {"version": 10, "createdAt": "2026-02-04T16:36:44.047Z", "modifiedAt": "2026-02-04T17:01:56.173Z"}
    }""",
    ("acme", ANONYMOUS_SESSION): b"""{
        "sessionId": "0c1f8a52-6d3e-4b7a-9f11-5f0f6f6f2a10", "siteCode": "default",
        "metadata": {"version": 1, "createdAt": "2026-03-01T08:00:00.000Z", "modifiedAt": "2026-03-01T08:00:00.000Z"}
    }""",
    ("acme", ODD_SESSION): """{
        "sessionId": "7b0e6f3c-1d52-4a8e-8f6b-3f1c9d2e4a55", "siteCode": "main", "currency": "CHF",
        "context": {"shoe size": 42, "Größe.in cm": {"Länge": [1, 2.50, null, true]}, "big": 9007199254740993,
                    "nothing": null, "emoji 🛒": "…"},
        "loyalty": {"tier": "gold", "points": 12345678901234567890},
        "metadata": {"version": 3, "createdAt": "2026-03-02T09:00:00.000Z", "modifiedAt": "2026-03-02T09:00:00.123Z"}
    }""".encode(),
    ("globex", "5a9d1c3e-8b7f-4e21-a6c4-0d2b7e9f1c33"): b"""{
        "sessionId": "5a9d1c3e-8b7f-4e21-a6c4-0d2b7e9f1c33", "siteCode": "us", "currency": "USD",
        "metadata": {"version": 2, "createdAt": "2026-03-03T10:00:00.000Z", "modifiedAt": "2026-03-03T10:00:00.000Z"}
    }""",
}
"""Tenant and session id to document."""
