"""What clients were told and what upstream did, and whether the two agree. Pure: values in, violations out.

Every write has an effect of its own on the attributes, which no other write has: it sets an attribute to a value that
is used once, or removes one that has such a value. So each version that a session context has had tells which write
made it, by what it changed against the version before:

- a version that changed nothing was made by a write that had been applied before;
- one that changed more than one write's effect has undone another's: a lost update.

Of counting, the attribute `counter` alone tells: a write that counts adds exactly one, and no other touches it.
"""

from __future__ import annotations

import enum
import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Final, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

__all__ = ["COUNTER", "Effect", "History", "Outcome", "Read", "Version", "Write", "removal", "setting", "violations"]

COUNTER: Final = "counter"

Effect: TypeAlias = tuple[str, Any, bool]
"""An attribute, its value, and whether that is there afterwards; else it was before, and is gone."""


def setting(name: str, value: object) -> Effect:
    return name, value, True


def removal(name: str, value: object) -> Effect:
    return name, value, False


class Outcome(enum.Enum):
    """What the client of a write was told."""

    APPLIED = enum.auto()
    REFUSED = enum.auto()
    """Any failure but for an unknown outcome: a conflict, or a plain error, which says that nothing was written."""
    UNKNOWN = enum.auto()


@dataclass(frozen=True)
class Write:
    """One write, as its client knows it."""

    client: str
    session: str
    effect: Effect
    outcome: Outcome
    expected: int | None = None
    """The version that it was to replace, if it named one."""
    counts: bool = False
    told: int | None = None
    """The version that it was told it had left behind, or a later one."""
    gateway: str = ""
    """Which one it went through; none if it went to upstream."""
    ended: float = math.inf
    """When its client was told."""


@dataclass(frozen=True)
class Read:
    """One read, as its client knows it."""

    client: str
    session: str
    version: int
    attributes: Mapping[str, Any]
    gateway: str = ""
    began: float = -math.inf
    """When its client asked."""
    max_age: float = math.inf
    """How many seconds old it may be, by what its client asked for or the gateway's settings say."""
    anew: bool = False
    """Its client did not say what it had seen before: an earlier version is as good, within `max_age`."""
    ended: float = math.inf
    """When its client was told."""


@dataclass(frozen=True)
class Version:
    """One version of a session context, as upstream knows it."""

    number: int
    attributes: Mapping[str, Any]


@dataclass
class History:
    """What happened: of each client what it was told, in its order; of each session all of its versions."""

    events: list[Write | Read] = field(default_factory=list)
    chains: dict[str, Sequence[Version]] = field(default_factory=dict)
    one_process_each: bool = False
    """Whether every gateway is one process, which knows what it has told anybody."""


def violations(history: History) -> list[str]:
    """All that does not agree, in words."""
    made = {session: dict(_made_by_version(chain)) for session, chain in history.chains.items()}
    writes = [event for event in history.events if isinstance(event, Write)]
    return [
        *_writes_that_are_not_what_was_told(writes, made),
        *_versions_that_are_nobodys(writes, made),
        *_counts_that_are_lost(writes, history.chains),
        *_reads_of_what_never_was(history),
        *_reads_that_go_back(history),
        *_reads_older_than_writes(history, made),
        *_reads_older_than_allowed(history, made),
        *(_reads_older_than_seen(history) if history.one_process_each else ()),
    ]


def _made_by_version(chain: Sequence[Version]) -> Iterator[tuple[int, list[Effect]]]:
    """Each version after the first, and the effects that it had."""
    for before, after in pairwise(chain):
        yield after.number, list(_effects(before.attributes, after.attributes))


def _effects(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[Effect]:
    for name in sorted((before.keys() | after.keys()) - {COUNTER}):
        if name not in after:
            yield removal(name, before[name])
        elif name not in before or before[name] != after[name]:
            yield setting(name, after[name])


def _writes_that_are_not_what_was_told(
    writes: Iterable[Write], made: Mapping[str, Mapping[int, list[Effect]]]
) -> Iterator[str]:
    where: dict[tuple[str, Effect], list[int]] = defaultdict(list)
    for session, versions in made.items():
        for number, effects in versions.items():
            for effect in effects:
                where[session, effect].append(number)
    latest: dict[tuple[str, str], int] = {}
    for write in writes:
        match where[write.session, write.effect]:
            case []:
                if write.outcome is Outcome.APPLIED:
                    yield f"acknowledged and not applied: {write}"
            case [number]:
                yield from _in_a_wrong_place(write, number, latest.get((write.client, write.session), 0))
                latest[write.client, write.session] = number
            case numbers:
                yield f"applied {len(numbers)} times, by versions {numbers}: {write}"


def _in_a_wrong_place(write: Write, number: int, latest: int) -> Iterator[str]:
    """`number` is the version that the write made, `latest` that of the client's write before."""
    if write.outcome is Outcome.REFUSED:
        yield f"refused and applied, by version {number}: {write}"
    if write.expected is not None and number != write.expected + 1:
        yield f"applied to another version than the expected one, by version {number}: {write}"
    if write.told is not None and write.told < number:
        yield f"told of a version before its own, which is {number}: {write}"
    if number < latest:
        yield f"applied before an earlier write of the same client, by version {number}: {write}"


def _versions_that_are_nobodys(
    writes: Iterable[Write], made: Mapping[str, Mapping[int, list[Effect]]]
) -> Iterator[str]:
    known = Counter((write.session, write.effect) for write in writes)
    for write, times in known.items():
        if times > 1:
            yield f"the effect of {times} writes, which then cannot be told apart: {write}"
    for session, versions in made.items():
        for number, effects in versions.items():
            if not effects:
                yield f"version {number} of {session} changes nothing: a write was applied twice"
            if len(effects) > 1:
                yield f"version {number} of {session} changes more than one write does, so an update is lost: {effects}"
            for effect in effects:
                if (session, effect) not in known:
                    yield f"version {number} of {session} has an effect that is no write's: {effect}"


def _counts_that_are_lost(writes: Iterable[Write], chains: Mapping[str, Sequence[Version]]) -> Iterator[str]:
    counting = {(write.session, write.effect) for write in writes if write.counts}
    for session, chain in chains.items():
        for before, after in pairwise(chain):
            risen = after.attributes.get(COUNTER, 0) - before.attributes.get(COUNTER, 0)
            effects = _effects(before.attributes, after.attributes)
            due = sum((session, effect) in counting for effect in effects)
            if risen != due:
                yield f"version {after.number} of {session} counts {risen} where {due} is due"


def _reads_of_what_never_was(history: History) -> Iterator[str]:
    versions = {session: {each.number: each for each in chain} for session, chain in history.chains.items()}
    for read in history.events:
        if not isinstance(read, Read):
            continue
        version = versions[read.session].get(read.version)
        if version is None or dict(version.attributes) != dict(read.attributes):
            yield f"never was: {read}"


def _reads_that_go_back(history: History) -> Iterator[str]:
    """A client is shown no earlier version than it has seen or made, if it says which."""
    seen: dict[tuple[str, str], int] = {}
    for event in history.events:
        version = event.version if isinstance(event, Read) else event.told
        if version is None or (isinstance(event, Read) and event.anew):
            continue
        key = event.client, event.session
        if version < seen.get(key, 0):
            yield f"after version {seen[key]}: {event}"
        seen[key] = max(version, seen.get(key, 0))


def _reads_older_than_writes(history: History, made: Mapping[str, Mapping[int, list[Effect]]]) -> Iterator[str]:
    """A read that began after a write was acknowledged by the same gateway is shown that write, or a later one."""
    left = _versions_left(made)
    writes = [
        each for each in history.events if isinstance(each, Write) and each.outcome is Outcome.APPLIED and each.gateway
    ]
    for read in history.events:
        if not isinstance(read, Read):
            continue
        for write in writes:
            version = left.get((write.session, write.effect), 0)
            same = (write.gateway, write.session) == (read.gateway, read.session)
            if same and write.ended < read.began and read.version < version:
                yield f"older than version {version}, which its gateway had acknowledged: {read}"
                break


def _reads_older_than_allowed(history: History, made: Mapping[str, Mapping[int, list[Effect]]]) -> Iterator[str]:
    """A read shows all writes, whoever's, that were acknowledged more than its `max_age` before it began."""
    left = _versions_left(made)
    ended: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for write in history.events:
        if isinstance(write, Write) and write.outcome is Outcome.APPLIED:
            ended[write.session].append((write.ended, left.get((write.session, write.effect), 0)))
    for read in history.events:
        if isinstance(read, Read) and math.isfinite(read.max_age):
            due = max((version for end, version in ended[read.session] if end < read.began - read.max_age), default=0)
            if read.version < due:
                yield f"older than version {due}, which was there {read.max_age} s before: {read}"


def _reads_older_than_seen(history: History) -> Iterator[str]:
    """A read that began after its gateway had told anybody of a version is shown no earlier one."""
    told: dict[tuple[str, str], list[tuple[float, int]]] = defaultdict(list)
    for event in history.events:
        version = event.version if isinstance(event, Read) else event.told
        if event.gateway and version is not None:
            told[event.gateway, event.session].append((event.ended, version))
    for read in history.events:
        if isinstance(read, Read):
            seen = told[read.gateway, read.session]
            due = max((version for end, version in seen if end < read.began), default=0)
            if read.version < due:
                yield f"older than version {due}, which its gateway had shown: {read}"


def _versions_left(made: Mapping[str, Mapping[int, list[Effect]]]) -> dict[tuple[str, Effect], int]:
    return {
        (session, effect): number
        for session, all_of in made.items()
        for number, effects in all_of.items()
        for effect in effects
    }
