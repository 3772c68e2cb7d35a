"""An issuer of JSON Web Tokens: a real HTTP server on the loopback interface, that can be ill in many ways."""

from __future__ import annotations

import base64
import functools
import hashlib
import hmac
import json
import time
import warnings
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry
from starlette.responses import Response

from gateway.listener import listening

if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Mapping

    from starlette.types import Receive, Scope, Send

AUDIENCE = "session-gateway"

Key = RSAKey | ECKey | OKPKey


@functools.cache
def rsa_key(key_id: str | None = "first") -> RSAKey:
    """The same key for the same id: making one takes long."""
    return RSAKey.generate_key(2048, None if key_id is None else {"kid": key_id})


@functools.cache
def ec_key(key_id: str = "elliptic", curve: Any = "P-256") -> ECKey:
    return ECKey.generate_key(curve, {"kid": key_id})


@functools.cache
def okp_key(key_id: str = "edwards") -> OKPKey:
    return OKPKey.generate_key("Ed25519", {"kid": key_id})


@functools.cache
def small_rsa_key(key_id: str) -> RSAKey:
    """A key that can be broken."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return RSAKey.generate_key(1024, {"kid": key_id})


@dataclass
class FakeIssuer:
    """The application behind the server, and what it signs."""

    url: str = ""
    published: list[Any] = field(default_factory=lambda: [public(rsa_key())])
    """The entries of its key set."""
    body: bytes | None = None
    """What it answers instead of a key set."""
    status: int = 200
    discovery: dict[str, object] = field(default_factory=dict)
    """What its discovery document says besides, or instead."""
    asked: list[str] = field(default_factory=list)
    """Paths of the requests that came."""
    held: asyncio.Event | None = None
    """Answers wait for it."""

    @property
    def jwks_url(self) -> str:
        return f"{self.url}/keys"

    @property
    def fetches(self) -> int:
        """How often its keys were asked for."""
        return self.asked.count("/keys")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.asked.append(scope["path"])
        if self.held is not None:
            await self.held.wait()
        await Response(self._answer(scope["path"]), self.status, media_type="application/json")(scope, receive, send)

    def _answer(self, path: str) -> bytes:
        if path == "/.well-known/openid-configuration":
            return json.dumps({"issuer": self.url, "jwks_uri": self.jwks_url, **self.discovery}).encode()
        return json.dumps({"keys": self.published}).encode() if self.body is None else self.body

    def claims(self, **claims: object) -> dict[str, object]:
        """Those of a good token, and others over them; one that is None is left out."""
        now = int(time.time())
        good: dict[str, object] = {
            "iss": self.url,
            "aud": AUDIENCE,
            "sub": "checkout",
            "iat": now,
            "exp": now + 600,
            "scope": "openid sessions:read sessions:write",
            "tenants": ["acme"],
        }
        return {name: value for name, value in {**good, **claims}.items() if value is not None}

    def token(
        self,
        key: Key | None = None,
        algorithm: str = "RS256",
        header: Mapping[str, object] | None = None,
        **claims: object,
    ) -> str:
        """A token that this issuer has signed."""
        key = rsa_key() if key is None else key
        named = {} if key.kid is None else {"kid": key.kid}
        return signed({"alg": algorithm, **named, **(header or {})}, json.dumps(self.claims(**claims)).encode(), key)

    def unsigned(self, **claims: object) -> str:
        """A token of `alg: none`, which says that the first key signed it."""
        return f"{encoded({'alg': 'none', 'kid': 'first'})}.{encoded(self.claims(**claims))}."

    def confused(self, secret: bytes, **claims: object) -> str:
        """A token of HS256, whose secret is what everybody may know: the public key in one form or another."""
        signed = f"{encoded({'alg': 'HS256', 'kid': 'first'})}.{encoded(self.claims(**claims))}"
        return f"{signed}.{unpadded(hmac.digest(secret, signed.encode(), hashlib.sha256))}"


def signed(header: Mapping[str, object], payload: bytes, key: Key | None = None, algorithm: str = "") -> str:
    """Any header and any payload, with a signature that is good, by the algorithm that the header says or another."""
    signs = JWSRegistry.algorithms[algorithm or str(header["alg"])]
    text = f"{encoded(header)}.{unpadded(payload)}"
    return f"{text}.{unpadded(signs.sign(text.encode(), rsa_key() if key is None else key))}"


@asynccontextmanager
async def issuing(issuer: FakeIssuer | None = None, port: int = 0) -> AsyncIterator[FakeIssuer]:
    """Serve while the block runs."""
    issuer = FakeIssuer() if issuer is None else issuer
    async with listening(issuer, host="127.0.0.1", port=port, grace=0.1) as url:
        issuer.url = url
        yield issuer


def public(key: Key, **parameters: object) -> dict[str, object]:
    """A key as it is published; a parameter that is None is left out."""
    published = {**key.as_dict(private=False), **parameters}
    return {name: value for name, value in published.items() if value is not None}


def encoded(document: object) -> str:
    return unpadded(json.dumps(document).encode())


def unpadded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
