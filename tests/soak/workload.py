"""Many clients at a time, through both doors and behind the gateway's back, against an upstream that fails."""

from __future__ import annotations

import asyncio
import math
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import msgspec
from msgspec import Raw
from prometheus_client.parser import text_string_to_metric_families

from doors import Caller, Refused
from gateway.sandbox.faults import Faults
from soak.history import COUNTER, History, Outcome, Read, Version, Write, removal, setting

if TYPE_CHECKING:
    from collections.abc import Awaitable, Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    import httpx

    from doors import Door, Seen
    from gateway.sandbox import Sandbox
    from soak.history import Effect
    from stage import Dev

__all__ = ["TIMEOUT", "Figures", "Workload", "answers_lost"]

TIMEOUT: Final = 0.25
"""What the gateway's `upstream.timeout` is to be, in seconds: less than the longest latency below."""

_LATE: Final = "latency=350ms"
"""The gateway has given up by then; what it sent arrives all the same."""

_WRITE_FAULTS: Final = {
    "drop-after-write": 0.04,
    "drop": 0.02,
    "status=504-after-write": 0.04,
    "status=504": 0.02,
    "status=502-after-write": 0.02,
    "status=503": 0.02,
    "status=500-after-write": 0.01,
    "status=500": 0.01,
    "truncated": 0.02,
    "hang": 0.005,
    "latency=15ms": 0.2,
    "latency=30ms;drop-after-write": 0.02,
}
_READ_FAULTS: Final = {
    "status=503": 0.03,
    "drop": 0.01,
    "hang": 0.003,
    "latency=10ms": 0.2,
}

_OWN_FAULTS: Final = {"status=401": 0.01}
"""A shopper's token that is refused is the shopper's to renew."""

_BETWEEN_REVOCATIONS: Final = 11.0
"""Seconds: a gateway whose young tokens are refused time and again holds back, as it should (`oauth._YOUNG`)."""

_UNKNOWN: Final = {"WRITE_OUTCOME_UNKNOWN"}
"""The reason that leaves it open whether a write was applied."""

_PLAIN: Final = {
    "VERSION_CONFLICT",
    "UPSTREAM_UNAVAILABLE",
    "UPSTREAM_TIMEOUT",
    "UPSTREAM_FAULT",
    "GATEWAY_CREDENTIALS_REFUSED",
    "UNAUTHENTICATED",
}
"""Reasons that say that nothing was written."""


@dataclass
class Figures:
    """How it went."""

    operations: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    """Of writes: `APPLIED`, or the reason of the error."""
    retries: int = 0
    """Attempts beyond the first, where the answer tells of them."""
    lost: int = 0
    """Answers of writes that did not reach the gateway."""

    def __str__(self) -> str:
        unknown = self.outcomes["WRITE_OUTCOME_UNKNOWN"]
        others = {name: count for name, count in sorted(self.outcomes.items()) if name not in {"APPLIED", "told"}}
        return (
            f"{self.operations:,} operations: {self.outcomes['APPLIED']:,} writes applied, "
            f"{self.outcomes['VERSION_CONFLICT']:,} conflicts, {self.retries:,} retries, "
            f"{self.lost:,} answers lost, of which all but {unknown:,} writes' were settled; not applied: {others}"
        )

    def add(self, other: Figures) -> None:
        self.operations += other.operations
        self.outcomes += other.outcomes
        self.retries += other.retries
        self.lost += other.lost


class Workload:
    """Clients on a few sessions. A round has new sessions, so that their documents and histories stay small."""

    def __init__(self, dev: Dev, doors: Sequence[Door], *, seed: int, sessions: int = 4, clients: int = 16) -> None:
        self._upstream = dev.sandbox
        self._doors = doors
        self._seed = seed
        self._sessions = sessions
        self._clients = clients
        self._revoked = -math.inf

    async def round(self, operations: int, number: int = 0) -> tuple[History, Figures]:
        """Have the clients do so many operations in all."""
        history, figures = History(one_process_each=True), Figures()
        sessions = [self._session(f"soak-{self._seed}-{number}-{each}") for each in range(self._sessions)]
        tokens = {each: self._upstream.tokens.issue("acme", None, each) for each in sessions}
        budget = self._budget(operations)
        self._arm(random.Random(f"{self._seed}/{number}"))
        async with asyncio.TaskGroup() as tasks:
            for each in range(self._clients):
                client = Client(
                    f"client-{each}",
                    self._upstream,
                    self._doors,
                    tokens,
                    random.Random(f"{self._seed}/{number}/{each}"),
                    history,
                    figures,
                )
                tasks.create_task(client.run(budget))
        self._upstream.faults.clear()
        await self._settled()
        history.chains = {each: self._chain(each) for each in sessions}
        return history, figures

    def _budget(self, operations: int) -> Iterator[int]:
        """So many operations, and in the middle of them the gateway's tokens are revoked, if that was long ago."""
        for each in range(operations):
            if each == operations // 2 and time.monotonic() - self._revoked > _BETWEEN_REVOCATIONS:
                self._revoked = time.monotonic()
                self._upstream.tokens.revoke(service_only=True)
            yield each

    def _session(self, session_id: str) -> str:
        self._upstream.store.create("acme", session_id, {"sessionId": Raw(msgspec.json.encode(session_id))}, "soak")
        return session_id

    def _arm(self, chance: random.Random) -> None:
        faults = Faults(chance.randrange(2**32))
        for operation in ("put", "patch-own"):
            faults.arm(_LATE, operation, times=None, probability=0.01)
        for operation in ("put", "patch-own", "add-attribute", "remove-attribute"):
            for fault, probability in _WRITE_FAULTS.items():
                faults.arm(fault, operation, times=None, probability=probability)
        for operation in ("get", "get-own"):
            for fault, probability in _READ_FAULTS.items():
                faults.arm(fault, operation, times=None, probability=probability)
        for operation in ("get-own", "patch-own", "add-own-attribute"):
            for fault, probability in _OWN_FAULTS.items():
                faults.arm(fault, operation, times=None, probability=probability)
        self._upstream.faults = faults

    async def _settled(self) -> None:
        """Whatever was on its way has arrived."""
        async with asyncio.timeout(5):
            while self._upstream.under_way:
                await asyncio.sleep(0.01)

    def _chain(self, session_id: str) -> list[Version]:
        return [
            Version(each.version, msgspec.json.decode(each.source).get("context", {}))
            for each in self._upstream.store.history("acme", session_id)
        ]


class Client:
    """Does one thing after another, and notes what it is told. Its attributes are its own, but for the counter."""

    def __init__(  # noqa: PLR0917
        self,
        name: str,
        upstream: Sandbox,
        doors: Sequence[Door],
        tokens: Mapping[str, str],
        chance: random.Random,
        history: History,
        figures: Figures,
    ) -> None:
        self._name = name
        self._upstream = upstream
        self._doors = doors
        self._tokens = tokens
        self._chance = chance
        self._history = history
        self._figures = figures
        self._values = 0
        self._known: dict[str, int] = {}
        """By session: the highest version seen."""
        self._removable: dict[str, str] = {}
        """By session: the value of the attribute that upstream's own endpoints set, if it is known to be there."""

    async def run(self, budget: Iterable[int]) -> None:
        """Do something as long as the budget, which all clients share, has something left."""
        things = {
            self._read: 4,
            self._count: 5,
            self._patch: 4,
            self._replace: 2,
            self._update_own: 3,
            self._set_attribute: 2,
            self._remove_attribute: 2,
            self._write_directly: 2,
            self._count_directly: 1,
        }
        for _ in budget:
            (thing,) = self._chance.choices(list(things), list(things.values()))
            self._figures.operations += 1
            await thing(self._chance.choice(list(self._tokens)))

    def _caller(self, session: str) -> Caller:
        return Caller(token=self._tokens[session], saas_token=self._upstream.saas_token)

    def _new_value(self) -> str:
        self._values += 1
        return f"{self._name}#{self._values}"

    async def _read(self, session: str) -> Seen | None:
        """Read no less than what this client has seen or made."""
        door, own, began = self._chance.choice(self._doors), self._chance.random() < 0.4, time.monotonic()
        known = self._known.get(session)
        try:
            if own:
                seen = await door.get_own("acme", self._caller(session), min_version=known)
            else:
                seen = await door.get("acme", session, min_version=known)
        except Refused as refused:
            _check_known(refused, _PLAIN)
            return None
        assert seen is not None
        self._sees(session, seen.version)
        told = Read(self._name, session, seen.version, seen.context, door.gateway, began, ended=time.monotonic())
        self._history.events.append(told)
        return seen

    def _sees(self, session: str, version: int) -> None:
        self._known[session] = max(version, self._known.get(session, 0))

    async def _count(self, session: str) -> None:
        """Add one to what was read, provided that it is still there."""
        seen = await self._read(session)
        if seen is None:
            return
        value = self._new_value()
        changes = {"context": {COUNTER: int(seen.context.get(COUNTER, 0)) + 1, self._name: value}}
        caller, expected, door = self._caller(session), seen.version, self._chance.choice(self._doors)
        call: Awaitable[Seen | None]
        match self._chance.randrange(3):
            case 0:
                call = door.patch("acme", session, changes, caller, expected_version=expected)
            case 1:
                call = door.update_own("acme", changes, caller, expected_version=expected)
            case _:
                state = {**seen.fields, "context": {**seen.context, **changes["context"]}}
                call = door.replace("acme", session, state, caller, expected_version=expected)
        await self._noted(door, session, setting(self._name, value), call, expected=expected, counts=True)

    async def _patch(self, session: str) -> None:
        value = self._new_value()
        changes = {"context": {self._name: value}}
        door = self._chance.choice(self._doors)
        call = door.patch("acme", session, changes, self._caller(session))
        await self._noted(door, session, setting(self._name, value), call)

    async def _update_own(self, session: str) -> None:
        value = self._new_value()
        changes = {"context": {self._name: value}}
        door = self._chance.choice(self._doors)
        call = door.update_own("acme", changes, self._caller(session))
        await self._noted(door, session, setting(self._name, value), call)

    async def _replace(self, session: str) -> None:
        seen = await self._read(session)
        if seen is None:
            return
        value = self._new_value()
        state = {**seen.fields, "context": {**seen.context, self._name: value}}
        door = self._chance.choice(self._doors)
        call = door.replace("acme", session, state, self._caller(session), expected_version=seen.version)
        await self._noted(door, session, setting(self._name, value), call, expected=seen.version)

    async def _set_attribute(self, session: str) -> None:
        value = self._new_value()
        name = f"{self._name}/attribute"
        door = self._chance.choice(self._doors)
        call = door.add_attribute("acme", session, name, value, self._caller(session))
        match await self._noted(door, session, setting(name, value), call):
            case Outcome.APPLIED:
                self._removable[session] = value
            case Outcome.UNKNOWN:
                self._removable.pop(session, None)

    async def _remove_attribute(self, session: str) -> None:
        value = self._removable.pop(session, None)
        if value is None:
            await self._set_attribute(session)
            return
        name = f"{self._name}/attribute"
        door = self._chance.choice(self._doors)
        call = door.remove_attribute("acme", session, name, self._caller(session))
        await self._noted(door, session, removal(name, value), call)

    async def _write_directly(self, session: str) -> None:
        self._write_upstream(session, counts=False)

    async def _count_directly(self, session: str) -> None:
        self._write_upstream(session, counts=True)

    def _write_upstream(self, session: str, *, counts: bool) -> None:
        """Another service of the platform's."""
        store = self._upstream.store
        fields, value = store.fields("acme", session), self._new_value()
        attributes: dict[str, Any] = msgspec.json.decode(fields["context"]) if "context" in fields else {}
        attributes[self._name] = value
        if counts:
            attributes[COUNTER] = attributes.get(COUNTER, 0) + 1
        store.write("acme", session, {**fields, "context": Raw(msgspec.json.encode(attributes))}, "soak")
        effect = setting(self._name, value)
        self._sees(session, store.version("acme", session))
        self._note(
            Write(self._name, session, effect, Outcome.APPLIED, counts=counts, told=store.version("acme", session))
        )

    async def _noted(
        self,
        door: Door,
        session: str,
        effect: Effect,
        call: Awaitable[Seen | None],
        *,
        expected: int | None = None,
        counts: bool = False,
    ) -> Outcome:
        told = None
        try:
            seen = await call
        except Refused as refused:
            _check_known(refused, _PLAIN | _UNKNOWN)
            outcome = Outcome.UNKNOWN if refused.reason in _UNKNOWN else Outcome.REFUSED
            self._figures.outcomes[refused.reason or refused.code] += 1
        else:
            outcome = Outcome.APPLIED
            self._figures.outcomes["APPLIED"] += 1
            if seen is not None:
                told = seen.version
                self._sees(session, told)
                self._figures.retries += (seen.attempts or 1) - 1
        self._note(
            Write(
                self._name,
                session,
                effect,
                outcome,
                expected,
                counts=counts,
                told=told,
                gateway=door.gateway,
                ended=time.monotonic(),
            )
        )
        return outcome

    def _note(self, write: Write) -> None:
        self._history.events.append(write)


def _check_known(refused: Refused, reasons: AbstractSet[str]) -> None:
    """Fail for an error that no client should see."""
    if refused.reason not in reasons:
        raise AssertionError(repr(refused))


async def answers_lost(client: httpx.AsyncClient, dev: Dev) -> int:
    """How many answers of writes the gateway has missed so far, by its own count."""
    text = (await client.get(f"{dev.doors.admin}/metrics")).text
    return int(
        sum(
            sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name == "session_gateway_write_answers_lost_total"
        )
    )
