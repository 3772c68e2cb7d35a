"""Clients that do everything there is to do, at both doors and behind the gateway's back, and check what they get."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, TypeVar

import httpx

from doors import Caller, Refused
from soak.history import COUNTER, History, Outcome, Read, Version, Write, removal, setting, violations
from soak.upstream import FIELDS, TENANT, UNKNOWN_FIELD, Upstream, version_of

if TYPE_CHECKING:
    import random
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from doors import Door, Seen
    from soak.history import Effect
    from soak.tally import Tally

__all__ = ["OPERATIONS", "Round", "play"]

OPERATIONS: Final = (
    "get",
    "batch",
    "get-own",
    "replace",
    "create",
    "patch",
    "update-own",
    "add-attribute",
    "remove-attribute",
    "add-own-attribute",
    "remove-own-attribute",
    "bad-input",
    "gone-away",
)
"""By which the tally counts. `gone-away` is a read or patch whose caller does not wait for the answer."""

_ALWAYS: Final = {"VERSION_CONFLICT"}
"""Needs no fault: another writer is enough."""

Answer = TypeVar("Answer")
_Seen = TypeVar("_Seen")


@dataclass
class Round:
    """New sessions, so that histories stay short, and what became of them."""

    sessions: dict[str, str]
    """Id to a shopper's token."""
    history: History = field(default_factory=History)
    wrong: list[str] = field(default_factory=list)
    """Answers that are wrong by themselves."""
    created: list[str] = field(default_factory=list)
    """Sessions that a client made, or tried to."""


@dataclass(frozen=True)
class Setting:
    """What clients need."""

    upstream: Upstream
    doors: Sequence[Door]
    tally: Tally
    explains: Callable[[str, float], bool]
    """Whether some fault explains that a call which began then ended with that reason."""
    max_age: float
    """How old an answer may be whose caller wishes nothing, in seconds."""
    saas_token: str
    one_process: bool = True
    """Whether the gateway is."""


async def play(setting: Setting, chance: random.Random, name: str, ends: Callable[[], bool], clients: int) -> Round:
    """One round until `ends` says so; it is checked then, and its sessions are gone. `wrong` tells what is wrong."""
    upstream = setting.upstream
    sessions = {each: await upstream.create(each) for each in (f"{name}-{number}" for number in range(4))}
    played = Round(sessions, History(one_process_each=setting.one_process))
    async with asyncio.TaskGroup() as tasks:
        for number in range(clients):
            shopper = Shopper(f"client-{number}", setting, played, chance, number)
            tasks.create_task(shopper.run(ends))
    await upstream.settled()
    await _check(upstream, played)
    for session, token in sessions.items():
        await upstream.remove(session)
        await upstream.revoke(token)
    for session in played.created:
        await upstream.remove(session)
    return played


async def _check(upstream: Upstream, played: Round) -> None:
    """Compare what was told with what was done."""
    nothing = Version(0, {})
    for session in (*played.sessions, *played.created):
        documents = await upstream.documents(session)
        chain = [version_of(each) for each in documents]
        played.history.chains[session] = chain if session in played.sessions else [nothing, *chain]
        for each in documents:
            if each.get(UNKNOWN_FIELD) != {"of": session} or each.get("currency") != FIELDS["currency"]:
                played.wrong.append(f"a write lost what it had no business with: {each}")
    played.wrong += violations(played.history)


class Shopper:
    """Does one thing after another, from a deck of all. Its attributes are its own, but for the counter."""

    def __init__(self, name: str, setting: Setting, played: Round, chance: random.Random, number: int) -> None:
        self._name = name
        self._setting = setting
        self._round = played
        self._chance = chance
        self._doors = itertools.cycle([*setting.doors[number % 2 :], *setting.doors[: number % 2]])
        self._values = 0
        self._known: dict[str, int] = {}
        """By session: the highest version seen."""
        self._removable: dict[tuple[str, str], str] = {}
        """By session and attribute: its value, if it is known to be there."""

    async def run(self, ends: Callable[[], bool]) -> None:
        """Do something until it ends."""
        sessions = list(self._round.sessions)
        for thing in self._things():
            if ends():
                return
            await thing(next(self._doors), self._chance.choice(sessions))

    def _things(self) -> Iterator[Callable[[Door, str], Awaitable[object]]]:
        weights: dict[Callable[[Door, str], Awaitable[object]], int] = {
            self._get: 6,
            self._get_own: 4,
            self._batch: 2,
            self._count: 4,
            self._patch: 3,
            self._update_own: 2,
            self._create: 1,
            self._attribute: 4,
            self._own_attribute: 4,
            self._write_directly: 2,
            self._bad_input: 1,
            self._gone_away: 1,
        }
        deck = [thing for thing, weight in weights.items() for _ in range(weight)]
        while True:
            self._chance.shuffle(deck)
            yield from deck

    # Reads

    async def _get(self, door: Door, session: str) -> Seen | None:
        return await self._read(
            door, session, "get", lambda least, age: door.get(TENANT, session, min_version=least, max_age=age)
        )

    async def _get_own(self, door: Door, session: str) -> Seen | None:
        caller = Caller(token=self._round.sessions[session])
        return await self._read(
            door, session, "get-own", lambda least, age: door.get_own(TENANT, caller, min_version=least, max_age=age)
        )

    async def _read(
        self,
        door: Door,
        session: str,
        operation: str,
        call: Callable[[int | None, float | None], Awaitable[Seen | None]],
    ) -> Seen | None:
        """With what was seen before, or an age, or no wish at all."""
        anew = self._chance.random() < 0.4
        age = self._chance.choice((None, None, 0.0, 0.5))
        least, began = None if anew else self._known.get(session), time.monotonic()
        answer = await self._called(door, operation, call(least, age))
        if answer is None:
            return None
        (seen,) = answer
        self._saw(door, session, seen, began, age, anew=anew)
        return seen

    async def _batch(self, door: Door, session: str) -> None:
        asked = [*self._round.sessions, f"{session}-never"]
        age, began = self._chance.choice((None, 0.0)), time.monotonic()
        answer = await self._called(door, "batch", door.batch(TENANT, asked, max_age=age))
        if answer is None:
            return
        (found,) = answer
        if len(found) != len(asked) or found[-1] is not None:
            self._wrong(f"{len(asked)} were asked for, the last of which there is not: {found}")
            return
        for each, seen in zip(self._round.sessions, found, strict=False):
            self._saw(door, each, seen, began, age, anew=True)

    def _saw(self, door: Door, session: str, seen: Seen | None, began: float, age: float | None, *, anew: bool) -> None:
        if seen is None:
            self._wrong(f"{door.name} does not find {session}")
            return
        self._check(door, session, seen)
        allowed = self._setting.max_age if age is None else age
        ended = time.monotonic()
        read = Read(self._name, session, seen.version, seen.context, door.gateway, began, allowed, anew, ended)
        self._round.history.events.append(read)
        if not anew:
            self._sees(session, seen.version)

    def _check(self, door: Door, session: str, seen: Seen) -> None:
        """It is the one that was asked for, and whole."""
        if seen.session_id != session:
            self._wrong(f"{door.name} answers with {seen.session_id} for {session}")
        if dict(seen.fields) != FIELDS or dict(seen.additional) != {UNKNOWN_FIELD: {"of": session}}:
            self._wrong(f"{door.name} answers with other fields for {session}: {seen}")

    # Writes

    async def _count(self, door: Door, session: str) -> None:
        """Add one to what is there, provided that it is still there."""
        began = time.monotonic()
        answer = await self._called(door, "get", door.get(TENANT, session, min_version=self._known.get(session)))
        if answer is None:
            return
        (seen,) = answer
        self._saw(door, session, seen, began, None, anew=False)
        if seen is None:
            return
        value = self._new_value()
        changes = {"context": {COUNTER: int(seen.context.get(COUNTER, 0)) + 1, self._name: value}}
        caller, expected = self._caller(session), seen.version
        call: Awaitable[Seen | None]
        match self._chance.choice(("replace", "patch", "update-own")):
            case "replace" as operation:
                state = {
                    **seen.fields,
                    "context": {**seen.context, **changes["context"]},
                    "additional_properties": seen.additional,
                }
                call = door.replace(TENANT, session, state, caller, expected_version=expected)
            case "patch" as operation:
                call = door.patch(TENANT, session, changes, caller, expected_version=expected)
            case _ as operation:
                call = door.update_own(TENANT, changes, caller, expected_version=expected)
        effect = setting(self._name, value)
        await self._noted(door, operation, session, effect, call, expected=expected, counts=True)

    async def _patch(self, door: Door, session: str) -> None:
        value, read_back = self._new_value(), self._chance.random() < 0.7
        changes = {"context": {self._name: value}}
        call = door.patch(TENANT, session, changes, self._caller(session), read_back=read_back)
        await self._noted(door, "patch", session, setting(self._name, value), call)

    async def _update_own(self, door: Door, session: str) -> None:
        value = self._new_value()
        call = door.update_own(TENANT, {"context": {self._name: value}}, self._caller(session))
        await self._noted(door, "update-own", session, setting(self._name, value), call)

    async def _create(self, door: Door, session: str) -> None:
        value = self._new_value()
        new = f"{session}-{value.replace('#', '-')}"
        self._round.created.append(new)
        state = {**FIELDS, "context": {self._name: value}, "additional_properties": {UNKNOWN_FIELD: {"of": new}}}
        call = door.replace(TENANT, new, state, Caller(saas_token=self._setting.saas_token), upsert=True)
        await self._noted(door, "create", new, setting(self._name, value), call)

    async def _attribute(self, door: Door, session: str) -> None:
        name, caller = f"{self._name}/attribute", self._caller(session)
        if (value := self._removable.pop((session, name), None)) is not None:
            removing = door.remove_attribute(TENANT, session, name, caller)
            await self._noted(door, "remove-attribute", session, removal(name, value), removing)
            return
        value = self._new_value()
        adding = door.add_attribute(TENANT, session, name, value, caller)
        if await self._noted(door, "add-attribute", session, setting(name, value), adding) is Outcome.APPLIED:
            self._removable[session, name] = value

    async def _own_attribute(self, door: Door, session: str) -> None:
        name, caller = f"{self._name} own", self._caller(session)
        if (value := self._removable.pop((session, name), None)) is not None:
            removing = door.remove_own_attribute(TENANT, name, caller)
            await self._noted(door, "remove-own-attribute", session, removal(name, value), removing)
            return
        value = self._new_value()
        adding = door.add_own_attribute(TENANT, name, value, caller)
        if await self._noted(door, "add-own-attribute", session, setting(name, value), adding) is Outcome.APPLIED:
            self._removable[session, name] = value

    async def _write_directly(self, door: Door, session: str) -> None:
        """Another service of the platform's comes first, or does not."""
        value = self._new_value()
        token = self._round.sessions[session]
        version = await self._setting.upstream.write_directly(token, self._name, value, COUNTER)
        if version is not None:
            write = Write(self._name, session, setting(self._name, value), Outcome.APPLIED, counts=True, told=version)
            self._ended(write)
            self._sees(session, version)

    async def _noted(
        self,
        door: Door,
        operation: str,
        session: str,
        effect: Effect,
        call: Awaitable[Seen | None],
        *,
        expected: int | None = None,
        counts: bool = False,
    ) -> Outcome:
        reasons: list[str] = []
        answer = await self._called(door, operation, call, reasons)
        told, outcome = None, Outcome.REFUSED
        if answer is None and not (reasons[0].isupper() and reasons[0] != "WRITE_OUTCOME_UNKNOWN"):
            outcome = Outcome.UNKNOWN
        if answer is not None:
            outcome = Outcome.APPLIED
            (seen,) = answer
            if seen is not None:
                self._check(door, session, seen)
                told = seen.version
                self._sees(session, told)
        write = Write(self._name, session, effect, outcome, expected, counts, told, door.gateway)
        self._ended(write)
        return outcome

    def _ended(self, write: Write) -> None:
        fields = {**vars(write), "ended": time.monotonic()}
        self._round.history.events.append(Write(**fields))

    # What cannot succeed

    async def _bad_input(self, door: Door, session: str) -> None:
        """It is refused, for the right reason, whatever upstream does."""
        caller = self._caller(session)
        cases: dict[str, tuple[str, Callable[[], Awaitable[object]]]] = {
            "no tenant": ("CALLER_NOT_PERMITTED", lambda: door.get("A!", session)),
            "no session id": ("INVALID_ARGUMENT", lambda: door.get(TENANT, "")),
            "no currency": ("INVALID_ARGUMENT", lambda: door.patch(TENANT, session, {"currency": "euro"}, caller)),
            "long name": ("INVALID_ARGUMENT", lambda: door.add_attribute(TENANT, session, "n" * 300, 1, caller)),
            "another tenant": ("CALLER_NOT_PERMITTED", lambda: door.get("globex", session)),
            "no token": ("UNAUTHENTICATED", lambda: door.get_own(TENANT, Caller())),
        }
        name, (reason, ask) = self._chance.choice(list(cases.items()))
        began = time.monotonic()
        try:
            await ask()
            got = "an answer"
        except Refused as refused:
            got = refused.reason or refused.code
        except (httpx.HTTPError, AssertionError) as error:
            got = type(error).__name__
        self._setting.tally.add(door.name, "bad-input", time.monotonic() - began, got)
        if got != reason:
            self._unexplained(door, f"bad-input ({name}), which is {reason}", got)

    async def _gone_away(self, door: Door, session: str) -> None:
        """The caller does not wait for the answer. What it wrote may be there, or come yet."""
        value, began = self._new_value(), time.monotonic()
        call = door.patch(TENANT, session, {"context": {f"{self._name} gone": value}}, self._caller(session))
        task = asyncio.ensure_future(call)
        await asyncio.wait([task], timeout=self._chance.uniform(0.0, 0.05))
        task.cancel()
        await asyncio.wait([task])
        failed = task.cancelled() or task.exception() is not None
        self._setting.tally.add(door.name, "gone-away", time.monotonic() - began, "gone away" if failed else "")
        outcome = Outcome.UNKNOWN if failed else Outcome.APPLIED
        self._ended(Write(f"{self._name}, gone", session, setting(f"{self._name} gone", value), outcome))

    # Calls

    async def _called(
        self, door: Door, operation: str, call: Awaitable[_Seen], reasons: list[str] | None = None
    ) -> tuple[_Seen] | None:
        """Await and count; None when it failed, for a reason that is put into `reasons`."""
        began = time.monotonic()
        try:
            answer = await call
        except Refused as refused:
            reason, said = refused.reason or refused.code.lower(), repr(refused)
        except (httpx.HTTPError, AssertionError) as error:
            reason, said = type(error).__name__, repr(error)
        else:
            self._setting.tally.add(door.name, operation, time.monotonic() - began)
            return (answer,)
        self._setting.tally.add(door.name, operation, time.monotonic() - began, reason)
        if reason not in _ALWAYS and not self._setting.explains(reason, began):
            self._unexplained(door, operation, f"{reason}: {said[:300]}")
        if reasons is not None:
            reasons.append(reason)
        return None

    def _caller(self, session: str) -> Caller:
        return Caller(self._round.sessions[session], self._setting.saas_token)

    def _new_value(self) -> str:
        self._values += 1
        return f"{self._name}#{self._values}"

    def _sees(self, session: str, version: int) -> None:
        self._known[session] = max(version, self._known.get(session, 0))

    def _wrong(self, what: str) -> None:
        self._round.wrong.append(f"{self._name}: {what}")

    def _unexplained(self, door: Door, operation: str, what: str) -> None:
        self._setting.tally.unexplained[f"{door.name} {operation}: {what}"] += 1
