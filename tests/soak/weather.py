"""Faults that come and go: spells, dealt from a shuffled deck, a few at a time."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    import random
    from collections.abc import Iterator, Mapping

    from soak.system import Cache
    from soak.upstream import Upstream

__all__ = ["SPELLS", "Spell", "Weather"]

Armed: TypeAlias = "Mapping[tuple[str, str], float]"

_READS: Final = ("get", "get-own")
_WRITES: Final = (
    "put",
    "patch-own",
    "add-attribute",
    "remove-attribute",
    "add-own-attribute",
    "remove-own-attribute",
)
_ALL: Final = (*_READS, *_WRITES)
_LOST: Final = {"UPSTREAM_TIMEOUT", "UPSTREAM_UNAVAILABLE", "UPSTREAM_FAULT", "WRITE_OUTCOME_UNKNOWN"}
"""What a caller may be told when an answer is lost, or never comes."""
_TOKENS: Final = {*_LOST, "GATEWAY_CREDENTIALS_REFUSED", "UNAUTHENTICATED", "RATE_LIMITED"}

_AFTERWARDS: Final = 10.0
"""Seconds for which a spell explains errors after its end: a breaker is open, a token is being got."""


@dataclass(frozen=True)
class Spell:
    """A kind of bad weather, and the reasons of errors that it explains."""

    name: str
    explains: frozenset[str]
    faults: Armed = field(default_factory=dict)
    """By fault and operation, how likely each is."""


def _spell(name: str, explains: set[str], operations: tuple[str, ...], faults: Mapping[str, float]) -> Spell:
    armed = {(fault, operation): chance for operation in operations for fault, chance in faults.items()}
    return Spell(name, frozenset(explains), armed)


# Answers to writes are never malformed: the fault is a 200 whatever became of the write, a conflict too.
# Writes of attributes are never late: upstream checks no version of them, so that one which arrives after the gateway
# has given it up, and sent it again, is there twice, and nobody could prevent it.
SPELLS: Final = (
    _spell(
        "answers lost",
        _LOST,
        _WRITES,
        {"drop-after-write": 0.08, "status=504-after-write": 0.06, "status=502-after-write": 0.04, "truncated": 0.04},
    ),
    _spell("cut off", _LOST, _ALL, {"drop": 0.08}),
    _spell("5xx", _LOST, _ALL, {"status=500": 0.04, "status=502": 0.04, "status=503": 0.06, "status=504": 0.04}),
    _spell("5xx after the write", _LOST, _WRITES, {"status=500-after-write": 0.1}),
    _spell("slow", _LOST, _ALL, {"latency=20ms": 0.5, "latency=120ms": 0.1}),
    _spell("too slow", _LOST, (*_READS, "put", "patch-own"), {"latency=700ms": 0.06}),
    _spell("no answer", _LOST, _ALL, {"hang": 0.05}),
    _spell("rate limits", {*_LOST, "RATE_LIMITED"}, _ALL, {"status=429;retry-after=1": 0.06}),
    _spell("malformed", {*_LOST, "UPSTREAM_MALFORMED"}, _READS, {"not-json": 0.05, "wrong-json": 0.05}),
    _spell(
        "false conflicts", {*_LOST, "SESSION_NOT_FOUND"}, ("put", "patch-own"), {"status=409": 0.1, "status=412": 0.1}
    ),
    _spell("conflicts by 409", set(), (), {}),
    _spell("conflicts by 412", set(), (), {}),
    _spell("shoppers' tokens refused", _TOKENS, ("get-own", "patch-own", "add-own-attribute"), {"status=401": 0.05}),
    _spell("service tokens revoked", _TOKENS, ("token",), {"status=503": 0.2}),
    _spell("no tokens", _TOKENS, ("token",), {"status=503": 0.5, "drop": 0.5, "latency=200ms": 0.2}),
    _spell("outage: refused", _LOST, ("*",), {"status=503": 1.0}),
    _spell("outage: cut", _LOST, ("*",), {"drop": 1.0}),
    _spell("outage: silent", _LOST, ("*",), {"hang": 1.0}),
    _spell("redis frozen", set(), (), {}),
    _spell("redis lost", set(), (), {}),
)

_CONFLICTS: Final = {"conflicts by 409": "409", "conflicts by 412": "412"}
_LONGEST_OUTAGE: Final = 2.0
_BETWEEN_REVOCATIONS: Final = 11.0
"""Seconds: a gateway whose young tokens are refused time and again holds back, as it should (`oauth._YOUNG`)."""


@dataclass
class _Past:
    spell: Spell
    began: float
    until: float = math.inf


class Weather:
    """Changes as long as `run` runs, and knows what it has been like. `whole` is how long all spells may take."""

    def __init__(self, upstream: Upstream, cache: Cache, chance: random.Random, whole: float) -> None:
        self._upstream = upstream
        self._cache = cache
        self._chance = chance
        self._spells = [each for each in SPELLS if cache.redis is not None or not each.name.startswith("redis")]
        self._longest = min(8.0, whole / len(self._spells))
        self._past: list[_Past] = []
        self._revoked = -math.inf

    @property
    def now(self) -> list[str]:
        """The spells that are on."""
        return [each.spell.name for each in self._past if each.until == math.inf]

    @property
    def log(self) -> list[tuple[str, float, float]]:
        """Every spell there was: its name, and when it began and ended, on the monotonic clock."""
        now = time.monotonic()
        return [(each.spell.name, each.began, min(each.until, now)) for each in self._past]

    def explains(self, reason: str, began: float) -> bool:
        """Whether a call that began then could end so."""
        return any(reason in each.spell.explains and each.until + _AFTERWARDS >= began for each in self._past)

    async def run(self) -> None:
        """Change until cancelled."""
        try:
            async with asyncio.TaskGroup() as tasks:
                deck = self._deck()
                for each in range(2):
                    tasks.create_task(self._hand(deck, calm=each == 1))
        finally:
            self._cache.thaw()

    def _deck(self) -> Iterator[Spell]:
        while True:
            deck = list(self._spells)
            self._chance.shuffle(deck)
            yield from deck

    async def _hand(self, deck: Iterator[Spell], *, calm: bool) -> None:
        """One spell after another; `calm` has a pause between them."""
        for spell in deck:
            length = self._longest * self._chance.uniform(0.5, 1.0)
            if spell.name.startswith(("outage", "redis")):
                length = min(length, _LONGEST_OUTAGE)
            past = _Past(spell, time.monotonic())
            self._past.append(past)
            await self._begin(spell)
            await asyncio.sleep(length)
            past.until = time.monotonic()
            await self._end(spell)
            if calm:
                await asyncio.sleep(self._longest * self._chance.uniform(0.2, 0.8))

    async def _begin(self, spell: Spell) -> None:
        if spell.name in _CONFLICTS:
            await self._upstream.switch(conflict=_CONFLICTS[spell.name])
        if spell.name == "service tokens revoked" and time.monotonic() - self._revoked > _BETWEEN_REVOCATIONS:
            self._revoked = time.monotonic()
            await self._upstream.revoke()
        if spell.name == "redis frozen":
            self._cache.freeze()
        if spell.name == "redis lost":
            self._cache.lose()
        await self._arm()

    async def _end(self, spell: Spell) -> None:
        if spell.name in _CONFLICTS:
            await self._upstream.switch(conflict="disguised-404")
        if spell.name == "redis frozen":
            self._cache.thaw()
        await self._arm()

    async def _arm(self) -> None:
        on = [each.spell for each in self._past if each.until == math.inf]
        outages_last = sorted(on, key=lambda spell: spell.name.startswith("outage"))
        await self._upstream.arm({fault: chance for spell in outages_last for fault, chance in spell.faults.items()})
