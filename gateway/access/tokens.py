"""JSON Web Tokens (RFC 7519) of callers, from the issuers in the settings. Signatures are verified by joserfc.

The cheapest checks come first: issuer, algorithm, audience and expiry. Only then is the signature verified, with a key
of the issuer for exactly this algorithm. Valid tokens are remembered for as long as they, and the keys, are valid: that
saves most of the cost of a call here.
"""

from __future__ import annotations

import hashlib
import time
from base64 import urlsafe_b64decode
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
from cachetools import LRUCache
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jws import JWSRegistry, deserialize_compact
from joserfc.jwt import JWTClaimsRegistry

from gateway.access.jwks import ALGORITHMS, IssuerKeys, Timing
from gateway.access.principal import Principal
from gateway.errors import CallerUnauthenticated, IssuerUnavailable
from gateway.tasks import TaskGroup

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from typing import Self

    from pydantic import SecretStr

    from gateway.access.jwks import Fetch, KeySet
    from gateway.access.principal import Permission
    from gateway.access.rates import Rate
    from gateway.deadline import Deadline

__all__ = ["Issuer", "TokenIssuers"]

_MAX_TOKEN: Final = 8_192
"""Characters."""
_MAX_SUBJECT: Final = 255
"""Characters (OpenID Connect Core 1.0, 2)."""
_REMEMBERED: Final = 10_000
"""Valid tokens that are remembered."""
_NOT_GOOD: Final = "the access token is not good: get a new one"
_SUBJECTS: Final = ("sub", "client_id", "azp")
"""Claims that name the caller, the best first (RFC 9068, 2.2)."""


@dataclass(frozen=True, slots=True)
class Issuer:
    """An issuer whose tokens are accepted, and what their claims mean."""

    name: str
    issuer: str
    audience: str
    algorithms: tuple[str, ...]
    """At least one, and only those in `gateway.access.jwks.ALGORITHMS`."""
    leeway: int
    """Seconds by which its clock and ours may differ."""
    permissions_claim: str
    """Claim with the caller's permissions: a list, or words separated by spaces."""
    permissions: Mapping[str, Permission]
    """Which words in it mean which permission."""
    jwks_url: str | None = None
    """Where its keys are; None asks its OIDC discovery document."""
    plain_http: bool = False
    """Whether its discovery document may contain a URL without TLS."""
    tenants_claim: str | None = None
    """Claim that holds the tenants; None for `tenants`, whatever the token says."""
    tenants: tuple[str, ...] = ()
    rate: Rate | None = None
    """The rate limit for each of its callers."""


class TokenIssuers:
    """All issuers, whose names differ. Enter it before use: it owns the tasks that fetch keys."""

    def __init__(
        self,
        issuers: Iterable[Issuer],
        fetch: Fetch,
        timing: Timing | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._tasks = TaskGroup()
        self._verifiers: dict[str, _Verifier] = {}
        for each in issuers:
            if each.issuer in self._verifiers:
                raise ValueError(f"two issuers are {each.issuer}")
            self._verifiers[each.issuer] = _Verifier(each, fetch, timing or Timing(), now)
        self._now = now
        self._good: LRUCache[bytes, _Good] = LRUCache(_REMEMBERED)

    async def __aenter__(self) -> Self:
        await self._tasks.__aenter__()
        for each in self._verifiers.values():
            self._tasks.create_task(each.keys.keep(), name=f"fetch keys of {each.issuer.name}")
        return self

    async def __aexit__(self, *ended: object) -> None:
        await self._tasks.__aexit__(*ended)

    def troubles(self) -> dict[str, str]:
        """Issuers whose keys are not known, so that their tokens cannot be verified, and why."""
        return {
            each.issuer.name: each.keys.problem or "not fetched yet"
            for each in self._verifiers.values()
            if each.keys.known is None
        }

    async def tried(self) -> None:
        """Wait until each issuer has been asked once."""
        for each in self._verifiers.values():
            await each.keys.tried()

    async def principal(self, token: SecretStr, deadline: Deadline) -> Principal:
        """The caller with this token.

        Raises CallerUnauthenticated, with the same message whatever is wrong with the token, and IssuerUnavailable.
        """
        text = token.get_secret_value()
        if len(text) > _MAX_TOKEN:
            raise CallerUnauthenticated(_NOT_GOOD)
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        good = self._good.get(digest)
        if good is not None and good.keys is good.verifier.keys.known and self._now() < good.until:
            return good.principal
        try:
            parsed = _Parsed.of(text)
            good = await self._verifiers[parsed.issuer].verify(parsed, deadline)
        except (KeyError, ValueError, TypeError, RecursionError, JoseError) as error:
            raise CallerUnauthenticated(_NOT_GOOD) from error
        self._good[digest] = good
        return good.principal


class _Header(msgspec.Struct):
    """A token's header (RFC 7515, 4.1). One with `crit` is refused: no extensions are supported."""

    alg: str
    kid: str | None = None
    crit: None = None


@dataclass(frozen=True, slots=True)
class _Parsed:
    """A parsed token. None of it can be trusted yet."""

    text: str
    header: _Header
    payload: bytes
    claims: dict[str, Any]
    issuer: str

    @classmethod
    def of(cls, text: str) -> _Parsed:
        """Parse it. Raises ValueError if it is not a JWT."""
        header, payload, _ = (urlsafe_b64decode(each + "=" * (-len(each) % 4)) for each in text.split("."))
        claims = msgspec.json.decode(payload, type=dict[str, Any])
        return cls(text, msgspec.json.decode(header, type=_Header), payload, claims, str(claims["iss"]))


class _Registry(JWSRegistry):
    """Only these algorithms. joserfc's registry allows others if it is given none, and warns about some."""

    def __init__(self, algorithms: tuple[str, ...]) -> None:
        if not algorithms or not ALGORITHMS.issuperset(algorithms):
            raise ValueError("algorithms must be some of those that there can be")
        super().__init__(algorithms=algorithms, strict_check_header=False)  # RFC 7515, 4: what is unknown is ignored
        self._algorithms = {each: self.algorithms[each] for each in algorithms}

    def get_alg(self, name: str) -> Any:
        if name not in self._algorithms:
            raise UnsupportedAlgorithmError("this algorithm is not taken")
        return self._algorithms[name]


class _Verifier:
    """Verifies the tokens of one issuer."""

    def __init__(self, issuer: Issuer, fetch: Fetch, timing: Timing, now: Callable[[], float]) -> None:
        self.issuer = issuer
        self.keys = IssuerKeys(
            issuer.issuer, fetch, timing, jwks_url=issuer.jwks_url, name=issuer.name, plain_http=issuer.plain_http
        )
        self._registry = _Registry(issuer.algorithms)
        self._claims = JWTClaimsRegistry(
            now=lambda: int(now()),
            leeway=issuer.leeway,
            iss={"essential": True, "value": issuer.issuer},
            aud={"essential": True, "value": issuer.audience},
            exp={"essential": True},
        )

    async def verify(self, token: _Parsed, deadline: Deadline) -> _Good:
        """Verify a token. Raises IssuerUnavailable, JoseError or ValueError."""
        self._registry.get_alg(token.header.alg)
        self._claims.validate(token.claims)
        principal = _principal(self.issuer, token.claims)
        keys = await self.keys.known_to(token.header.kid, deadline)
        if keys is None:
            raise IssuerUnavailable
        key = keys.find(token.header.kid, token.header.alg)
        if key is None:
            raise ValueError("no key for it")
        if deserialize_compact(token.text, key, registry=self._registry).payload != token.payload:
            raise ValueError("its payload reads differently")
        return _Good(principal, self, keys, token.claims["exp"] + self.issuer.leeway)


@dataclass(frozen=True, slots=True)
class _Good:
    """A verified token, and until when (Unix time) and with which keys that is valid."""

    principal: Principal
    verifier: _Verifier
    keys: KeySet
    until: float


def _principal(issuer: Issuer, claims: Mapping[str, Any]) -> Principal:
    """The caller by the claims, with what they grant. Raises ValueError if they do not name one."""
    subject = next((claims[each] for each in _SUBJECTS if claims.get(each)), None)
    if not isinstance(subject, str) or len(subject) > _MAX_SUBJECT or not subject.isprintable():
        raise ValueError("no subject that could be written down")
    granted = _words(claims.get(issuer.permissions_claim))
    tenants = issuer.tenants if issuer.tenants_claim is None else _words(claims.get(issuer.tenants_claim))
    permissions = [permission for word, permission in issuer.permissions.items() if word in granted]
    return Principal.of(f"{issuer.name}:{subject}", "jwt", permissions, tenants, issuer.rate)


def _words(claim: object) -> tuple[str, ...]:
    match claim:
        case str():
            return tuple(claim.split())
        case list():
            return tuple(each for each in claim if isinstance(each, str))
        case _:
            return ()
