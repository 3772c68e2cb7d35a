"""Use cases that do as a script says, below the real guard: both ways of executing see the same come of everything."""

from __future__ import annotations

import asyncio
import random
from copy import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING, Any

from pydantic import SecretStr

from gateway import errors
from gateway.access.audit import Audit
from gateway.access.guard import Authenticator, Guard
from gateway.access.limits import RateLimits
from gateway.access.principal import Permission, Principal
from gateway.access.rates import Rate
from gateway.cache.freshness import CacheStatus
from gateway.cache.readthrough import Found, NotThere
from gateway.credentials import CallerCredentials
from gateway.deadline import Deadline
from gateway.graphql.resolvers import Context
from gateway.model import Metadata, SessionContext
from gateway.sessions.writer import Written

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from graphql import DocumentNode


NOW = datetime(2026, 2, 4, 16, 36, 44, 47_000, UTC)

FULL = SessionContext(
    session_id="s-1",
    customer_id="c-1",
    site_code="main",
    currency="EUR",
    cart_id="cart-1",
    target_location="DE",
    language="de",
    context={"theme": "dark", "n": [1, 2**70, {"x": None}], "ü": 1.5},
    metadata=Metadata(2**53 + 1, NOW, NOW.astimezone(timezone(timedelta(hours=2))) + timedelta(microseconds=3)),
    additional_properties={"brandNew": True},
    source=b"full",
)
BARE = SessionContext(session_id="", metadata=Metadata(0), source=b"bare")
NAMELESS: Any = SessionContext(session_id=None, metadata=Metadata(1), source=b"nameless")  # type: ignore[arg-type]
UNVERSIONED: Any = SessionContext(session_id="s", metadata=Metadata(None), source=b"unversioned")  # type: ignore[arg-type]
HOLLOW: Any = SessionContext(session_id="s", metadata=None, source=b"hollow")  # type: ignore[arg-type]
TIMELESS: Any = SessionContext(
    session_id="s",
    language="de",
    metadata=Metadata(1, "yesterday", 7),  # type: ignore[arg-type]
    source=b"timeless",
)
"""What upstream's decoder lets through, and what it does not: defects end alike too.

Each has a document of its own, as they all have: it is what they are known by."""

CONTEXTS = (FULL, BARE, NAMELESS, UNVERSIONED, HOLLOW, TIMELESS)
STATUS = CacheStatus(hit=True, ttl=3.0, age=1.5)

FAILURES: tuple[Exception, ...] = (
    NotThere("s-1", CacheStatus(fwd="miss")),
    NotThere(None, CacheStatus(fwd="bypass")),
    errors.InvalidArgument.of("session_id", "is too long"),
    errors.InvalidArgument(
        [errors.Violation("session_context.currency", "is bad"), errors.Violation("update_mask", "is empty")]
    ),
    errors.Unauthenticated("the token is revoked"),
    errors.CallerUnauthenticated("who are you?"),
    errors.PermissionDenied("the saas-token does not allow this"),
    errors.CallerNotPermitted("shop", "read", "acme"),
    errors.IssuerUnavailable(),
    errors.CallerRateLimited(1.5),
    errors.TenantNotConfigured("acme"),
    errors.VersionConflict(3, FULL),
    errors.VersionConflict(None, None),
    errors.VersionConflict(4, UNVERSIONED),
    errors.MinVersionNotReached(4, 3),
    errors.WriteOutcomeUnknown(timed_out=True),
    errors.RateLimited("slow down", retry_after=2.0),
    errors.UpstreamUnavailable("gone"),
    errors.UpstreamTimeout("no answer"),
    errors.UpstreamFault("500"),
    errors.GatewayCredentialsRefused("refused"),
    ValueError("boom"),
    KeyError("a"),
    RuntimeError(),
)


@dataclass
class Script:
    """What comes of each call, by the seed and the call itself, and which calls there were."""

    seed: int
    failures: float = 0.3
    """How many of the calls fail."""
    calls: list[tuple[object, ...]] = field(default_factory=list)

    async def found(self, *call: object) -> Found:
        return Found(await self._context(*call), STATUS)

    async def written(self, *call: object, options: object) -> Written:
        chance = self._chance(*call)
        context = await self._context(*call, options)
        return Written(chance.choice([context, None]), 2**40 if chance.random() < self.failures / 4 else 3)

    async def entries(self, call: tuple[object, ...], ids: Sequence[str]) -> list[Found | errors.GatewayError]:
        await self._context(*call, *ids)
        return [await self._entry(*call, each) for each in ids]

    async def _entry(self, *call: object) -> Any:
        try:
            return await self.found(*call)
        except errors.GatewayError as error:
            return error

    async def _context(self, *call: object) -> SessionContext:
        self.calls.append(call)
        chance = self._chance(*call)
        if chance.random() < 0.5:
            await asyncio.sleep(0)
        if chance.random() < self.failures:
            raise copy(chance.choice(FAILURES))
        return chance.choice(CONTEXTS if chance.random() < self.failures else CONTEXTS[:2])

    def _chance(self, *call: object) -> random.Random:
        return random.Random(f"{self.seed} {call}")


class ScriptedSessions:
    def __init__(self, script: Script) -> None:
        self._script = script

    async def get(self, tenant: str, session_id: str, deadline: Deadline, options: object) -> Found:
        return await self._script.found("get", tenant, session_id, options)

    async def batch_get(
        self, tenant: str, session_ids: Sequence[str], deadline: Deadline, options: object
    ) -> list[Found | errors.GatewayError]:
        return await self._script.entries(("batch_get", tenant, options), session_ids)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """All of the writes."""
        return _write(self._script, name)


class ScriptedOwnSession:
    def __init__(self, script: Script) -> None:
        self._script = script

    async def get(self, tenant: str, access_token: SecretStr, deadline: Deadline, options: object) -> Found:
        return await self._script.found("get_own", tenant, options)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        """All of the writes."""
        return _write(self._script, f"own_{name}")


def _write(script: Script, name: str) -> Callable[..., Any]:
    async def write(*arguments: object, **named: object) -> Written:
        *what, options = arguments
        return await script.written(name, *map(str, what), sorted(map(str, named.items())), options=options)

    return write


CALLERS: dict[str, CallerCredentials] = {
    "writer": CallerCredentials(access_token=SecretStr("t"), certificate_names=("writer",)),
    "reader": CallerCredentials(access_token=SecretStr("t"), certificate_names=("reader",)),
    "hasty": CallerCredentials(access_token=SecretStr("t"), certificate_names=("hasty",)),
    "nobody": CallerCredentials(),
}
"""Who may do all, who may not write, who makes too many calls, who shows no credential."""


def guard_of(script: Script, authenticator: Authenticator) -> Guard:
    """The real guard over use cases of the script."""
    sessions: Any = ScriptedSessions(script)
    own: Any = ScriptedOwnSession(script)
    return Guard(authenticator, RateLimits(clock=lambda: 0.0), sessions, own, Audit())


def context_of(document: DocumentNode, script: Script, caller: str) -> Context:
    """What a request of this caller brings along, with a guard of its own."""
    principals = {
        "writer": Principal.of("writer", "certificate", Permission, ["*"]),
        "reader": Principal.of("reader", "certificate", [Permission.READ], ["*"]),
        "hasty": Principal.of("hasty", "certificate", Permission, ["*"], Rate.of(0.001, 1)),
    }
    guard = guard_of(script, Authenticator(None, None, principals))
    credentials = CALLERS[caller]
    return Context(document, guard.sessions(credentials), guard.own(credentials), Deadline(1e12))
