"""Who holds which token: service, anonymous and customer tokens, and the customer's saas-token."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Token", "Tokens", "saas_token"]

_KEY: Final = b"the sandbox signs with this; it guards nothing"


@dataclass(frozen=True, slots=True)
class Token:
    """What an access token stands for. `session_id` is None for a service token."""

    tenant: str
    session_id: str | None
    customer_id: str | None
    scopes: tuple[str, ...]
    expires_at: datetime | None


class Tokens:
    """The access tokens there are."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._tokens: dict[str, Token] = {}

    def issue(
        self,
        tenant: str,
        lifetime: float | None,
        session_id: str | None = None,
        customer_id: str | None = None,
        *,
        scopes: tuple[str, ...] = (),
        value: str | None = None,
    ) -> str:
        """Make a token that lives for so many seconds, None for ever."""
        value = value or secrets.token_urlsafe(24)
        expires_at = None if lifetime is None else self._clock() + timedelta(seconds=lifetime)
        self._tokens[value] = Token(tenant, session_id, customer_id, scopes, expires_at)
        return value

    def find(self, value: str) -> Token | None:
        """The token, if there is one and it lives."""
        token = self._tokens.get(value)
        if token is None or (token.expires_at is not None and token.expires_at <= self._clock()):
            return None
        return token

    def known(self, value: str) -> bool:
        """Whether there is such a token, expired or not."""
        return value in self._tokens

    def revoke(self, value: str | None = None, *, service_only: bool = False) -> int:
        """Revoke one token, or all (service tokens); returns how many."""
        doomed = [
            each
            for each, token in self._tokens.items()
            if value in {None, each} and not (service_only and token.session_id is not None)
        ]
        for each in doomed:
            del self._tokens[each]
        return len(doomed)

    def clear_shoppers(self) -> None:
        """Forget all but service tokens."""
        self._tokens = {value: token for value, token in self._tokens.items() if token.session_id is None}

    def customer_of(self, saas: str) -> str | None:
        """The customer that a saas-token is of; None when it is wrong or has expired."""
        head, _, signature = saas.rpartition(".")
        if not hmac.compare_digest(signature.encode(), _signature(head).encode()):
            return None
        try:
            claims = msgspec.json.decode(_unpadded_decode(head.partition(".")[2]), type=_Claims)
        except (ValueError, RecursionError):
            return None
        return claims.sub if claims.exp > self._clock().timestamp() else None


class _Claims(msgspec.Struct):
    sub: str
    exp: float


def saas_token(customer_id: str, expires_at: datetime) -> str:
    """A customer's saas-token: a JWT (RFC 7519) of `sub` and `exp`, signed by HS256."""
    header = _unpadded(b'{"alg":"HS256","typ":"JWT"}')
    claims = _unpadded(msgspec.json.encode({"sub": customer_id, "exp": int(expires_at.timestamp())}))
    return f"{header}.{claims}.{_signature(f'{header}.{claims}')}"


def _signature(text: str) -> str:
    return _unpadded(hmac.digest(_KEY, text.encode(), hashlib.sha256))


def _unpadded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _unpadded_decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
