"""An issuer's keys (RFC 7517): fetched in the background, kept, and looked up for a token.

Only one task fetches: it outlives callers who go away, and however many callers wait, the issuer gets one request.
Whatever an issuer answers, the known keys stay until it has answered with good ones.
"""

from __future__ import annotations

import asyncio
import random
import time
import warnings
from contextlib import suppress
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias
from urllib.parse import urlsplit

import httpx
import msgspec
import structlog
from joserfc.errors import JoseError, SecurityWarning
from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from gateway.addresses import is_safe
from gateway.deadline import Deadline
from gateway.errors import UpstreamError, UpstreamNotAsked, UpstreamTimeout, UpstreamUnavailable
from gateway.upstream.http import Http, cause_of

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["ALGORITHMS", "Fetch", "IssuerKeys", "KeySet", "Timing", "fetching"]

Key: TypeAlias = RSAKey | ECKey | OKPKey

ALGORITHMS: Final = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"}
)
"""All algorithms that can be configured. They are asymmetric: the issuer shares no secret."""

_MAX_DOCUMENT: Final = 512 * 1024
_MAX_KEYS: Final = 100
_KINDS: Final[dict[object, type[Key]]] = {"RSA": RSAKey, "EC": ECKey, "OKP": OKPKey}
_PUBLIC: Final = ("kty", "use", "key_ops", "alg", "kid", "n", "e", "crv", "x", "y")
"""Members of a key that are read: a private key that was published by mistake must not be loaded."""


class Fetch(Protocol):
    """Fetches a document by GET."""

    async def __call__(self, url: str) -> bytes:
        """Fetch it. Raises UpstreamError if that fails."""
        ...


def fetching(transport: httpx.AsyncBaseTransport, *, timeout: float) -> Fetch:
    """Fetches over HTTP, each document within so many seconds."""

    async def fetch(url: str) -> bytes:
        where = httpx.URL(url)
        http = Http(transport, f"{where.scheme}://{where.netloc.decode()}", timeout=timeout)
        deadline, headers = Deadline.after(timeout), {"accept": "application/json"}
        answer = await http.send("GET", where.raw_path.decode(), deadline=deadline, headers=headers)
        if answer.status != 200 or len(answer.body) > _MAX_DOCUMENT:
            raise UpstreamUnavailable(f"the answer is {answer.status}, with {len(answer.body)} bytes")
        return answer.body

    return fetch


@dataclass(frozen=True, slots=True)
class Timing:
    """When keys are fetched. All times are in seconds."""

    refresh: float = 300.0
    """Between fetches, give or take a tenth."""
    no_sooner: float = 10.0
    """Between fetches that callers cause, and after a failed one; it doubles with each failure."""
    patience: float = 3.0
    """How long a caller waits for a fetch."""
    clock: Callable[[], float] = time.monotonic


class KeySet:
    """Keys for verifying, by key id and by algorithm."""

    def __init__(self, keys: list[Key]) -> None:
        self._by_name: dict[tuple[str, str], Key] = {}
        self._by_algorithm: dict[str, list[Key]] = {}
        self.key_ids = frozenset(each.kid for each in keys if each.kid is not None)
        for key, algorithm in product(keys, ALGORITHMS):
            if _fits(key, algorithm):
                self._by_algorithm.setdefault(algorithm, []).append(key)
                if key.kid is not None:
                    self._by_name.setdefault((key.kid, algorithm), key)

    @classmethod
    def parse(cls, document: bytes) -> KeySet:
        """Read a JWK set, ignoring keys that cannot be used (RFC 7517, 5). Raises ValueError if none is left."""
        entries = msgspec.json.decode(document, type=_Document).keys
        if len(entries) > _MAX_KEYS:
            raise ValueError("too many keys")
        keys = [key for key in map(_usable, entries) if key is not None]
        if not keys:
            raise ValueError("no key that could be used")
        return cls(keys)

    def find(self, key_id: str | None, algorithm: str) -> Key | None:
        """The key with this id; without an id, the only key for the algorithm."""
        if key_id is not None:
            return self._by_name.get((key_id, algorithm))
        fitting = self._by_algorithm.get(algorithm, ())
        return fitting[0] if len(fitting) == 1 else None


class IssuerKeys:
    """The keys of one issuer. `keep` has to run as a task for as long as they are needed."""

    def __init__(
        self, issuer: str, fetch: Fetch, timing: Timing, *, jwks_url: str | None, name: str, plain_http: bool
    ) -> None:
        self._issuer = issuer
        self._fetch = fetch
        self._timing = timing
        self._jwks_url = jwks_url
        self._plain_http = plain_http
        self.known: KeySet | None = None
        """The known keys; a new object after every fetch."""
        self.problem: str | None = None
        """Why the last fetch failed, if it did."""
        self._url = ""
        """The URL that was fetched last, without secrets."""
        self._began_at = float("-inf")
        self._failures = 0
        self._asked = asyncio.Event()
        self._done = asyncio.Event()
        """Set while no fetch is under way or requested."""
        self._log = structlog.stdlib.get_logger(__name__).bind(issuer=name)

    async def keep(self) -> None:
        """Fetch the keys, again and again."""
        while True:
            self._done.clear()
            self._asked.clear()
            await self._refresh()
            self._done.set()
            with suppress(TimeoutError):
                async with asyncio.timeout(self._pause()):
                    await self._asked.wait()

    async def tried(self) -> None:
        """Wait for the fetch that is under way, the first one at least."""
        await self._done.wait()

    async def known_to(self, key_id: str | None, deadline: Deadline) -> KeySet | None:
        """The keys, fetched again if none has this id, unless that was just done; None if there are none.

        Waits for a fetch, but not for long.
        """
        if self._lacks(key_id):
            if self._done.is_set() and self._timing.clock() - self._began_at >= self._timing.no_sooner:
                self._done.clear()
                self._asked.set()
            if not self._done.is_set():
                with suppress(TimeoutError):
                    async with asyncio.timeout(min(self._timing.patience, deadline.remaining)):
                        await self._done.wait()
        return self.known

    def _lacks(self, key_id: str | None) -> bool:
        return self.known is None or (key_id is not None and key_id not in self.known.key_ids)

    def _pause(self) -> float:
        backoff: float = self._timing.no_sooner * 2 ** min(self._failures - 1, 10)
        pause = min(self._timing.refresh, backoff) if self._failures else self._timing.refresh
        return pause * random.uniform(0.9, 1.1)  # noqa: S311 - jitter

    async def _refresh(self) -> None:
        self._began_at = self._timing.clock()
        try:
            self.known = KeySet.parse(await self._get(self._jwks_url or await self._discovered()))
        except Exception as error:  # noqa: BLE001 - whatever an issuer answers, the gateway goes on
            self._failures += 1
            self.problem = f"{self._url}: {_what_is_wrong(error)}"
            self._log.warning("jwks_not_fetched", problem=self.problem, keys_known=self.known is not None)
        else:
            self._failures = 0
            self.problem = None

    async def _get(self, url: str) -> bytes:
        self._url = _without_secrets(url)
        return await self._fetch(url)

    async def _discovered(self) -> str:
        """The key set's URL, by OpenID Connect Discovery 1.0, sections 4.1 and 4.3."""
        found = msgspec.json.decode(
            await self._get(f"{self._issuer.rstrip('/')}/.well-known/openid-configuration"), type=_Discovery
        )
        if found.issuer != self._issuer:
            raise ValueError("the discovery document is another issuer's")
        if not (self._plain_http or is_safe(found.jwks_uri)):
            raise ValueError("the keys would come over plain HTTP")
        return found.jwks_uri


def _without_secrets(url: str) -> str:
    """The URL without user and password, and without the query, which may hold a key. Raises ValueError."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


def _what_is_wrong(error: Exception) -> str:
    match error:
        case UpstreamNotAsked():
            return "no connection in time"
        case UpstreamTimeout():
            return "no answer in time"
        case UpstreamError():
            return cause_of(error) or error.message
        case _:
            return str(error) or type(error).__name__


class _Discovery(msgspec.Struct):
    issuer: str
    jwks_uri: str


class _Document(msgspec.Struct):
    keys: list[Any]


def _usable(entry: Any) -> Key | None:
    """A public key for signatures, of a safe kind and size; None for any other, which is ignored."""
    try:
        if entry.get("use", "sig") != "sig" or "verify" not in entry.get("key_ops", ("verify",)):
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("error", SecurityWarning)
            return _KINDS[entry["kty"]].import_key({name: entry[name] for name in _PUBLIC if name in entry})
    except Exception:  # noqa: BLE001 - joserfc's, cryptography's and those of wrong types have nothing in common
        return None


def _fits(key: Key, algorithm: str) -> bool:
    try:
        JWSRegistry.algorithms[algorithm].check_key(key)
    except JoseError:
        return False
    return True
