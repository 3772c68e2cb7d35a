"""Writes whose answer is lost: applied once whatever happened, or told as unknown in so many words."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec
import pytest
import pytest_asyncio
from msgspec import Raw

from doors import Caller, Refused
from gateway.sandbox import seed
from stage import entered, opened
from waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator, Mapping

    from doors import Door, Seen
    from gateway.sandbox import Sandbox
    from stage import Dev

Result = TypeVar("Result")

SESSION = seed.CUSTOMER_SESSION
ATTRIBUTES_BEFORE = {"customObject": {"property1": "value1"}, "customProperty": "customValue"}
STATE = {"customer_id": seed.CUSTOMER_ID, "currency": "USD", "context": {"color": "red"}}

APPLIED = [
    "drop-after-write",
    "truncated",
    "status=502-after-write",
    "status=503-after-write",
    "status=504-after-write",
    "status=500-after-write",
]
NOT_APPLIED = ["drop", "hang", "status=502", "status=503", "status=504", "status=500"]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def dev() -> AsyncIterator[Dev]:
    """A gateway that does not wait long for upstream."""
    async with opened(upstream={"timeout": 0.5, "retries": {"max_attempts": 3, "min_per_second": 1000}}) as dev:
        yield dev


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def doors(dev: Dev) -> AsyncIterator[Mapping[str, Door]]:
    async with entered("grpc", dev) as by_grpc, entered("graphql", dev) as by_graphql:
        yield {"grpc": by_grpc, "graphql": by_graphql}


AS_REPLACED: dict[str, object] = {
    **dict.fromkeys(("siteCode", "cartId", "targetLocation", "language")),
    "currency": "USD",
    "context": {"color": "red"},
}


class Write:
    """One way to write: upstream's operation, how a door is asked, and what is there afterwards."""

    def __init__(
        self,
        operation: str,
        call: Callable[[Door, Caller], Coroutine[Any, Any, Seen | None]],
        holds: Callable[[dict[str, Any]], bool],
        session_id: str = SESSION,
    ) -> None:
        self.operation = operation
        self.call = call
        self.holds = holds
        self.session_id = session_id

    @property
    def read(self) -> str:
        """Upstream's operation that reads the same."""
        return "get-own" if self.operation.endswith(("own", "own-attribute")) else "get"


def _replaced(document: dict[str, Any]) -> bool:
    return bool(document["context"] == {"color": "red"}) and "siteCode" not in document


def _has_color(document: dict[str, Any]) -> bool:
    return bool(document["context"] == {**ATTRIBUTES_BEFORE, "color": 1})


def _lacks_property(document: dict[str, Any]) -> bool:
    return bool(document["context"] == {"customObject": {"property1": "value1"}})


COLOR = {"context": {"color": 1}}
NO_PROPERTY = {"context": {"customProperty": None}}

VERSIONED = {
    "replace": Write("put", lambda d, c: d.replace("acme", SESSION, STATE, c, expected_version=10), _replaced),
    "patch with a version": Write(
        "put", lambda d, c: d.patch("acme", SESSION, COLOR, c, expected_version=10), _has_color
    ),
    "add with a version": Write(
        "put", lambda d, c: d.add_attribute("acme", SESSION, "color", 1, c, expected_version=10), _has_color
    ),
    "remove with a version": Write(
        "put",
        lambda d, c: d.remove_attribute("acme", SESSION, "customProperty", c, expected_version=10),
        _lacks_property,
    ),
    "own update with a version": Write(
        "patch-own", lambda d, c: d.update_own("acme", NO_PROPERTY, c, expected_version=10), _lacks_property
    ),
    "own add with a version": Write(
        "patch-own", lambda d, c: d.add_own_attribute("acme", "color", 1, c, expected_version=10), _has_color
    ),
}
PATCHES = {
    "patch": Write("put", lambda d, c: d.patch("acme", SESSION, COLOR, c), _has_color),
    "own update": Write("patch-own", lambda d, c: d.update_own("acme", COLOR, c), _has_color),
}
ATTRIBUTES = {
    "add": Write("add-attribute", lambda d, c: d.add_attribute("acme", SESSION, "color", 1, c), _has_color),
    "remove": Write(
        "remove-attribute", lambda d, c: d.remove_attribute("acme", SESSION, "customProperty", c), _lacks_property
    ),
    "own add": Write("add-own-attribute", lambda d, c: d.add_own_attribute("acme", "color", 1, c), _has_color),
    "own remove": Write(
        "remove-own-attribute", lambda d, c: d.remove_own_attribute("acme", "customProperty", c), _lacks_property
    ),
}
CREATION = {
    "creation": Write(
        "put", lambda d, c: d.replace("acme", "new-session", STATE, c, upsert=True), _replaced, "new-session"
    )
}
WRITES = {**VERSIONED, **PATCHES, **ATTRIBUTES, **CREATION}

every_write = pytest.mark.parametrize("write", WRITES.values(), ids=WRITES)
EACH_OPERATION = {"replace", "patch", "own update", *ATTRIBUTES}
SOME = ("replace", "own update", "add")
some_writes = pytest.mark.parametrize("write", [WRITES[name] for name in SOME], ids=SOME)


def revisions(upstream: Sandbox, session_id: str = SESSION) -> list[dict[str, Any]]:
    """What has been written, the seed left out."""
    return [
        msgspec.json.decode(each.source)
        for each in upstream.store.history("acme", session_id)
        if each.made_by != "seed"
    ]


def write_directly(upstream: Sandbox, **fields: object) -> None:
    """Another writer, behind the gateway's back."""
    changed = {name: Raw(msgspec.json.encode(value)) for name, value in fields.items()}
    upstream.store.write("acme", SESSION, {**upstream.store.fields("acme", SESSION), **changed}, "other")


async def outcome(call: Awaitable[Result]) -> Result | Refused:
    try:
        return await call
    except Refused as refused:
        return refused


async def refused(call: Awaitable[object]) -> Refused:
    result = await outcome(call)
    assert isinstance(result, Refused)
    return result


async def struck(upstream: Sandbox) -> None:
    """All armed faults have found their request, whose latency runs."""
    await eventually(lambda: not upstream.faults.all())


def says_unknown(error: Refused, door: Door) -> bool:
    codes = {"UNKNOWN", "DEADLINE_EXCEEDED"} if door.name == "grpc" else {"WriteOutcomeUnknown"}
    return error.reason == "WRITE_OUTCOME_UNKNOWN" and error.code in codes and "outcome unknown" in error.message


@pytest.mark.parametrize(
    ("fault", "write"),
    [
        pytest.param(fault, write, id=f"{fault}-{name}")
        for fault in (*APPLIED, *NOT_APPLIED)
        for name, write in WRITES.items()
        if name in (SOME if fault == "hang" else EACH_OPERATION) or fault in {"drop", "drop-after-write"}
    ],
)
async def test_a_write_whose_answer_is_lost_is_applied_once_and_succeeds(
    door: Door, upstream: Sandbox, customer: Caller, fault: str, write: Write
) -> None:
    upstream.faults.arm(fault, write.operation)

    after = await write.call(door, customer)

    (revision,) = revisions(upstream, write.session_id)
    assert write.holds(revision)
    assert after is not None
    assert after.version == revision["metadata"]["version"]
    assert after.context == revision["context"]
    assert after.attempts in {None, 1 if fault in APPLIED else 2}
    assert not upstream.faults.all()


@pytest.mark.parametrize("write", [WRITES["replace"], WRITES["patch"]], ids=["replace", "patch"])
async def test_a_write_whose_answers_are_lost_time_and_again_is_applied_once(
    door: Door, upstream: Sandbox, customer: Caller, write: Write
) -> None:
    for fault in ("status=503", "drop", "status=504", "drop-after-write"):
        upstream.faults.arm(fault, write.operation)

    assert await write.call(door, customer) is not None

    (revision,) = revisions(upstream)
    assert write.holds(revision)


@every_write
async def test_reading_back_is_tried_again_when_it_fails(
    door: Door, upstream: Sandbox, customer: Caller, write: Write
) -> None:
    upstream.faults.arm("latency=20ms;drop-after-write", write.operation)

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(write.call(door, customer))
        await struck(upstream)
        upstream.faults.arm("status=503", write.read, times=2)

    assert task.result() is not None
    assert len(revisions(upstream, write.session_id)) == 1


async def unread(
    upstream: Sandbox, write: Write, call: Awaitable[Result], fault: str, reading: str
) -> Result | Refused:
    """What becomes of a write that meets a fault, when reading back meets one too, for as long as it is tried."""
    upstream.faults.arm(f"latency=20ms;{fault}", write.operation)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(outcome(call))
        await struck(upstream)
        upstream.faults.arm(reading, write.read, times=None)
    return task.result()


@every_write
async def test_the_outcome_is_unknown_when_reading_back_fails_too(
    door: Door, upstream: Sandbox, customer: Caller, write: Write
) -> None:
    error = await unread(upstream, write, write.call(door, customer), "drop-after-write", "status=503")

    assert isinstance(error, Refused)
    assert says_unknown(error, door)
    assert len(revisions(upstream, write.session_id)) == 1


@pytest.mark.parametrize("fault", ["status=504-after-write", "status=503"])
@pytest.mark.parametrize("reading", ["status=504", "drop", "truncated", "status=403", "status=429", "not-json"])
async def test_the_outcome_is_unknown_however_reading_back_fails(
    door: Door, upstream: Sandbox, customer: Caller, fault: str, reading: str
) -> None:
    write = WRITES["replace"]
    error = await unread(upstream, write, write.call(door, customer), fault, reading)

    assert isinstance(error, Refused)
    assert says_unknown(error, door)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def hurried() -> AsyncIterator[Dev]:
    """A gateway whose callers have little time."""
    budget: dict[str, object] = {"budget": 0.5}
    async with opened(grpc=budget, graphql=budget) as dev:
        yield dev


@pytest.mark.parametrize("name", ["grpc", "graphql"])
@some_writes
async def test_the_outcome_is_unknown_when_the_time_is_up(hurried: Dev, name: str, write: Write) -> None:
    upstream = hurried.sandbox
    upstream.reset()
    caller = Caller(token=seed.CUSTOMER_TOKEN, saas_token=upstream.saas_token)
    async with entered(name, hurried) as door:
        error = await unread(upstream, write, write.call(door, caller), "hang", "hang")

        assert isinstance(error, Refused)
        assert says_unknown(error, door)
        assert error.code == ("DEADLINE_EXCEEDED" if name == "grpc" else "WriteOutcomeUnknown")


@some_writes
async def test_a_write_that_never_gets_an_answer_is_given_up_as_unknown(
    door: Door, upstream: Sandbox, customer: Caller, write: Write
) -> None:
    """Reading back says that it is not applied; but each of them may be on its way still."""
    upstream.faults.arm("status=503", write.operation, times=None)

    error = await refused(write.call(door, customer))

    assert says_unknown(error, door)
    assert upstream.count(write.operation) == 5


@some_writes
async def test_a_server_error_that_stays_is_told_as_one(
    door: Door, upstream: Sandbox, customer: Caller, write: Write
) -> None:
    """A 500 is upstream's own word: what it did not do by then it does not do later."""
    upstream.faults.arm("status=500", write.operation, times=None)

    error = await refused(write.call(door, customer))

    assert error.reason == "UPSTREAM_FAULT"
    assert upstream.count(write.operation) == 5


async def test_a_write_that_could_not_be_sent_at_all_is_no_unknown() -> None:
    async with opened(upstream={"base_url": "http://127.0.0.1:1"}) as dev:
        for name in ("grpc", "graphql"):
            async with entered(name, dev) as door:
                caller = Caller(token=seed.CUSTOMER_TOKEN, saas_token=dev.sandbox.saas_token)
                for write in (WRITES["replace"], WRITES["add"], WRITES["own remove"]):
                    assert (await refused(write.call(door, caller))).reason == "UPSTREAM_UNAVAILABLE"


LITTLE: dict[str, object] = {"budget": 0.5}
PATIENT: dict[str, object] = {"timeout": 60.0, "lazy_tokens": True}
"""With upstream: it is the callers' time that is up first."""


@pytest.mark.parametrize("name", ["grpc", "graphql"])
class TestAWriteThatCouldNotBeSentInTime:
    """It is no unknown, and leaves nothing to be found out."""

    async def test_for_want_of_a_connection(self, name: str) -> None:
        with contextlib.ExitStack() as stack:
            full = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
            stack.enter_context(socket.create_connection(full.getsockname()))  # what comes now is not even refused
            upstream = {**PATIENT, "base_url": f"http://127.0.0.1:{full.getsockname()[1]}"}
            async with opened(upstream=upstream, grpc=LITTLE, graphql=LITTLE) as dev, entered(name, dev) as door:
                caller = Caller(token=seed.CUSTOMER_TOKEN, saas_token=dev.sandbox.saas_token)
                for write in (WRITES["add"], WRITES["own add"]):
                    assert (await refused(write.call(door, caller))).reason == "UPSTREAM_TIMEOUT"

    async def test_for_want_of_a_token(self, name: str) -> None:
        async with opened(upstream=PATIENT, grpc=LITTLE, graphql=LITTLE) as dev, entered(name, dev) as door:
            dev.sandbox.faults.arm("hang", "token", times=None)
            assert (await refused(WRITES["add"].call(door, Caller()))).reason == "UPSTREAM_TIMEOUT"
            assert dev.sandbox.count("add-attribute") == 0

    async def test_for_want_of_another_token_leaves_the_session_in_the_cache(self, name: str) -> None:
        cache: dict[str, object] = {"backend": "memory", "ttl": 60.0}
        async with (
            opened(upstream={**PATIENT, "timeout": 2.0}, grpc=LITTLE, graphql=LITTLE, cache=cache) as dev,
            entered(name, dev) as door,
        ):
            await door.get("acme", SESSION)
            dev.sandbox.faults.arm("status=401", "add-attribute")
            dev.sandbox.faults.arm("hang", "token")
            error = await refused(door.add_attribute("acme", SESSION, "color", 1, Caller(), read_back=False))
            assert error.reason == "UPSTREAM_TIMEOUT"
            assert dev.sandbox.count("add-attribute") == 1
            dev.sandbox.faults.clear()
            await asyncio.wait_for(is_read(door), 20)
            dev.sandbox.requests.clear()
            for _ in range(3):
                await door.get("acme", SESSION)
            assert dev.sandbox.count("get") == 0


async def is_read(door: Door) -> None:
    """Wait until the session can be read: the gateway may not have a token yet."""
    while isinstance(await outcome(door.get("acme", SESSION)), Refused):
        await asyncio.sleep(0.05)


async def test_no_write_is_sent_more_often_than_is_set(door: Door, upstream: Sandbox, customer: Caller) -> None:
    """Lost answers and conflicts together: there is one bound for all of them."""
    upstream.faults.arm("status=503", "put", times=3)
    upstream.faults.arm("latency=20ms", "put")

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(outcome(door.patch("acme", SESSION, COLOR, customer)))
        await struck(upstream)
        write_directly(upstream, cartId="another")
        upstream.faults.arm("status=503", "put", times=None)

    error = task.result()
    assert isinstance(error, Refused)
    assert says_unknown(error, door)
    assert upstream.count("put") == 5


@pytest.mark.parametrize("fault", ["status=429", "status=403", "status=400"])
async def test_a_refusal_after_a_lost_answer_is_settled_by_reading(
    door: Door, upstream: Sandbox, customer: Caller, fault: str
) -> None:
    """The refusal is of the second request; what became of the first it does not say."""
    upstream.faults.arm("status=503", "put")
    upstream.faults.arm(f"latency=20ms;{fault}", "put")

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(outcome(WRITES["replace"].call(door, customer)))
        await struck(upstream)
        write_directly(upstream, **AS_REPLACED)

    assert not isinstance(task.result(), Refused), "the first has arrived in the meantime, for all that can be seen"


@pytest.mark.parametrize("fault", [*APPLIED, "drop", "status=503"])
@pytest.mark.parametrize(("mode", "version"), [("one", 1), ("given", 7)])
async def test_an_upsert_that_names_a_version_and_creates_is_applied_once(  # noqa: PLR0917 - fixtures and parameters
    door: Door, upstream: Sandbox, customer: Caller, fault: str, mode: Any, version: int
) -> None:
    """What is created may have a lower version than the one that was to be replaced."""
    upstream.switches.created_version = mode
    upstream.faults.arm(fault, "put")

    after = await door.replace("acme", "new-session", STATE, customer, expected_version=7, upsert=True)

    assert after is not None
    assert after.version == version
    assert len(revisions(upstream, "new-session")) == 1


@pytest.mark.parametrize("expected", [None, 7])
async def test_a_creation_that_another_overwrites_is_unknown(
    door: Door, upstream: Sandbox, customer: Caller, expected: int | None
) -> None:
    upstream.faults.arm("latency=20ms;drop-after-write", "put")
    call = door.replace("acme", "new-session", STATE, customer, expected_version=expected, upsert=True)

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(outcome(call))
        await struck(upstream)
        upstream.faults.arm("latency=20ms", "get")
        await struck(upstream)
        upstream.store.write("acme", "new-session", {"sessionId": Raw(b'"new-session"')}, "other")

    error = task.result()
    assert isinstance(error, Refused)
    assert says_unknown(error, door)


async def test_a_session_that_goes_away_leaves_nothing_unknown(door: Door, upstream: Sandbox, customer: Caller) -> None:
    upstream.faults.arm("latency=20ms;drop", "put")

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(outcome(WRITES["replace"].call(door, customer)))
        await struck(upstream)
        upstream.store.delete("acme", SESSION)

    error = task.result()
    assert isinstance(error, Refused)
    assert error.reason == "SESSION_NOT_FOUND"


class TestAnotherWriterInBetween:
    async def overtaken(
        self, upstream: Sandbox, call: Awaitable[Result], operation: str, fault: str, *others: dict[str, object]
    ) -> Result | Refused:
        """Other writers come while the request is at upstream's doorstep, and before its fault strikes."""
        upstream.faults.arm(f"latency=20ms;{fault}", operation)
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(outcome(call))
            await struck(upstream)
            for other in others:
                write_directly(upstream, **other)
        return task.result()

    async def followed(
        self, upstream: Sandbox, write: Write, call: Awaitable[Result], *others: dict[str, object]
    ) -> Result | Refused:
        """Other writers come when the write has been applied and its answer is lost, before it is read back."""
        upstream.faults.arm("latency=20ms;drop-after-write", write.operation)
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(outcome(call))
            await struck(upstream)
            upstream.faults.arm("latency=20ms", write.read)
            await struck(upstream)
            for other in others:
                write_directly(upstream, **other)
        return task.result()

    @pytest.mark.parametrize("write", VERSIONED.values(), ids=VERSIONED)
    @pytest.mark.parametrize("fault", ["drop", "drop-after-write", "status=504-after-write"])
    async def test_is_a_conflict_when_a_version_was_expected(
        self, door: Door, upstream: Sandbox, customer: Caller, write: Write, fault: str
    ) -> None:
        error = await self.overtaken(
            upstream, write.call(door, customer), write.operation, fault, {"cartId": "another"}
        )

        assert isinstance(error, Refused)
        assert error.reason == "VERSION_CONFLICT"
        assert (error.expected_version, error.current and error.current.version) == (10, 11)
        (revision,) = revisions(upstream)
        assert not write.holds(revision)

    @pytest.mark.parametrize("write", PATCHES.values(), ids=PATCHES)
    @pytest.mark.parametrize("fault", ["drop", "drop-after-write", "status=504-after-write"])
    async def test_is_built_on_when_none_was(
        self, door: Door, upstream: Sandbox, customer: Caller, write: Write, fault: str
    ) -> None:
        after = await self.overtaken(
            upstream, write.call(door, customer), write.operation, fault, {"cartId": "another"}
        )

        assert after is not None
        assert not isinstance(after, Refused)
        assert (after.version, after.attempts, after.fields["cart_id"]) == (12, 2, "another")
        theirs, ours = revisions(upstream)
        assert not write.holds(theirs)
        assert write.holds(ours)

    @pytest.mark.parametrize("write", VERSIONED.values(), ids=VERSIONED)
    @pytest.mark.parametrize("fault", ["drop", "drop-after-write"])
    async def test_leaves_it_unknown_when_there_were_two(
        self, door: Door, upstream: Sandbox, customer: Caller, write: Write, fault: str
    ) -> None:
        """Ours may have been the first of the two writes, and overwritten by the second."""
        error = await self.overtaken(
            upstream, write.call(door, customer), write.operation, fault, {"cartId": "one"}, {"cartId": "two"}
        )

        assert isinstance(error, Refused)
        assert says_unknown(error, door)
        assert len(revisions(upstream)) == 2

    @pytest.mark.parametrize("write", [*VERSIONED.values(), *PATCHES.values()], ids=[*VERSIONED, *PATCHES])
    async def test_leaves_it_unknown_when_it_overwrote_ours(
        self, door: Door, upstream: Sandbox, customer: Caller, write: Write
    ) -> None:
        theirs: dict[str, object] = {"context": {"theirs": 1, "customProperty": 2}}
        error = await self.followed(upstream, write, write.call(door, customer), theirs)

        assert isinstance(error, Refused)
        assert says_unknown(error, door)
        ours, _ = revisions(upstream)
        assert write.holds(ours)

    @pytest.mark.parametrize(
        "write",
        [each for name, each in {**VERSIONED, **PATCHES}.items() if name != "replace"],
        ids=[name for name in {**VERSIONED, **PATCHES} if name != "replace"],
    )
    async def test_does_not_hide_what_was_written_when_it_changes_something_else(
        self, door: Door, upstream: Sandbox, customer: Caller, write: Write
    ) -> None:
        after = await self.followed(upstream, write, write.call(door, customer), {"cartId": "another"})

        assert after is not None
        assert not isinstance(after, Refused)
        assert (after.version, after.fields["cart_id"]) == (12, "another")
        assert after.attempts in {None, 1}

    @pytest.mark.parametrize("fault", ["drop", "drop-after-write"])
    async def test_is_seen_even_when_what_is_wanted_was_there_all_along(
        self, door: Door, upstream: Sandbox, customer: Caller, fault: str
    ) -> None:
        """A change that changes nothing leaves no trace to tell it by; the other's trace is that it was refused."""
        call = door.patch("acme", SESSION, {"language": "de"}, customer, expected_version=10)
        error = await self.overtaken(upstream, call, "put", fault, {"cartId": "another"})

        assert isinstance(error, Refused)
        assert error.reason == "VERSION_CONFLICT"

    @pytest.mark.parametrize("fault", ["drop", "drop-after-write"])
    @pytest.mark.parametrize("operation", ["put", "patch-own"])
    async def test_is_seen_by_whatever_it_changed_or_added(
        self, door: Door, upstream: Sandbox, customer: Caller, operation: str, fault: str
    ) -> None:
        """What a change sends along may be there still: an update of one's own names the fields that it changes."""
        version = 10
        changes: tuple[dict[str, object], ...] = ({"cartId": "another"}, {"theirs": 1})
        for theirs in changes:
            if operation == "put":
                call = door.patch("acme", SESSION, {"language": "de"}, customer, expected_version=version)
            else:
                call = door.update_own("acme", {"language": "de"}, customer, expected_version=version)
            error = await self.overtaken(upstream, call, operation, fault, theirs)

            assert isinstance(error, Refused)
            assert error.reason == "VERSION_CONFLICT"
            version += 1


@pytest.mark.parametrize("fault", [*APPLIED, *NOT_APPLIED])
async def test_a_change_that_changes_nothing_succeeds_all_the_same(
    door: Door, upstream: Sandbox, customer: Caller, fault: str
) -> None:
    upstream.faults.arm(fault, "put")

    after = await door.patch("acme", SESSION, {"language": "de"}, customer, expected_version=10)

    assert after is not None
    assert after.version == 11


@pytest.mark.parametrize("fault", [*APPLIED, *NOT_APPLIED])
async def test_an_update_of_ones_own_that_changes_nothing_does_too(
    door: Door, upstream: Sandbox, customer: Caller, fault: str
) -> None:
    upstream.faults.arm(fault, "patch-own")

    after = await door.update_own("acme", {"language": "de"}, customer, expected_version=10)

    assert after is not None
    assert after.version == 11


@pytest.mark.parametrize("fault", ["drop", "drop-after-write", "status=503", "status=503-after-write"])
async def test_an_attribute_that_is_null_or_empty_is_neither_set_nor_removed_by_a_lost_answer_alone(
    door: Door, upstream: Sandbox, customer: Caller, fault: str
) -> None:
    write_directly(upstream, context={"null": None, "empty": {}})

    for operation, call in (
        ("remove-attribute", door.remove_attribute("acme", SESSION, "null", customer)),
        ("remove-attribute", door.remove_attribute("acme", SESSION, "empty", customer)),
        ("add-attribute", door.add_attribute("acme", SESSION, "new and null", None, customer)),
        ("add-attribute", door.add_attribute("acme", SESSION, "new and empty", {}, customer)),
    ):
        upstream.faults.arm(fault, operation)
        assert await call is not None

    assert revisions(upstream)[-1]["context"] == {"new and null": None, "new and empty": {}}


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def patient() -> AsyncIterator[Dev]:
    """A gateway that waits for upstream for as long as other writes may take."""
    async with opened() as dev:
        yield dev


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def patiently(patient: Dev) -> AsyncIterator[Mapping[str, Door]]:
    """The doors of that one."""
    async with entered("grpc", patient) as by_grpc, entered("graphql", patient) as by_graphql:
        yield {"grpc": by_grpc, "graphql": by_graphql}


class TestTwoWhoWriteTheVerySame:
    """Two callers that both count 7 up to 8: reading back, neither can be told from the other by what is there."""

    COUNT: Mapping[str, Any] = {"context": {"counter": 8}}
    STATE: Mapping[str, Any] = {"customer_id": seed.CUSTOMER_ID, "context": {**ATTRIBUTES_BEFORE, "counter": 8}}

    @pytest.fixture
    def dev(self, patient: Dev) -> Dev:
        return patient

    @pytest.fixture
    def doors(self, patiently: Mapping[str, Door]) -> Mapping[str, Door]:
        return patiently

    @pytest.fixture
    def released(self, upstream: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[asyncio.Event]:
        """What requests wait for at upstream that meet a fault with a latency, however long that is."""
        released = asyncio.Event()

        async def stops_within(_: float) -> bool:
            await released.wait()
            return False

        monkeypatch.setattr(upstream, "_stops_within", stops_within)
        yield released
        released.set()

    async def overtaken(
        self, upstream: Sandbox, released: asyncio.Event, first: Awaitable[Seen | None], second: Awaitable[Seen | None]
    ) -> list[str]:
        """What becomes of both, where the first is at upstream already, and waits there until the second has ended."""

        async def overtakes() -> Seen | None:
            await struck(upstream)
            try:
                return await second
            finally:
                released.set()

        return await self.both(first, overtakes())

    async def both(self, *calls: Awaitable[Seen | None]) -> list[str]:
        """What becomes of them, sorted: `ok`, or the reason of the error."""
        outcomes = await asyncio.gather(*map(outcome, calls))
        return sorted(each.reason if isinstance(each, Refused) else "ok" for each in outcomes)

    def counts(self, doors: Mapping[str, Door], customer: Caller, version: int | None) -> list[Awaitable[Seen | None]]:
        return [each.patch("acme", SESSION, self.COUNT, customer, expected_version=version) for each in doors.values()]

    @pytest.mark.parametrize("fault", APPLIED)
    async def test_are_told_apart_when_one_is_acknowledged(
        self, doors: Mapping[str, Door], upstream: Sandbox, customer: Caller, fault: str
    ) -> None:
        upstream.faults.arm("latency=20ms", "put")
        upstream.faults.arm(f"latency=40ms;{fault}", "put")

        assert await self.both(*self.counts(doors, customer, 10)) == ["VERSION_CONFLICT", "ok"]
        assert len(revisions(upstream)) == 1

    @pytest.mark.parametrize("fault", APPLIED)
    async def test_are_told_apart_when_the_one_is_acknowledged_later(
        self, doors: Mapping[str, Door], upstream: Sandbox, customer: Caller, fault: str, *, released: asyncio.Event
    ) -> None:
        """The one that is refused does not take the other's doing for its own, though it was at upstream before it."""
        upstream.faults.arm(f"latency=1ms;{fault}", "put")

        told = await self.overtaken(upstream, released, *self.counts(doors, customer, 10))

        assert told == ["VERSION_CONFLICT", "ok"]
        assert len(revisions(upstream)) == 1

    @pytest.mark.parametrize("fault", APPLIED)
    async def test_are_not_both_told_of_success_when_both_answers_are_lost(
        self, doors: Mapping[str, Door], upstream: Sandbox, customer: Caller, fault: str
    ) -> None:
        upstream.faults.arm(f"latency=20ms;{fault}", "put", times=2)

        told = await self.both(*self.counts(doors, customer, 10))

        assert told.count("ok") <= 1
        assert told != ["VERSION_CONFLICT", "VERSION_CONFLICT"]
        assert len(revisions(upstream)) == 1

    async def test_are_told_apart_as_a_replace_and_an_update_of_ones_own(
        self, doors: Mapping[str, Door], upstream: Sandbox, customer: Caller, released: asyncio.Event
    ) -> None:
        upstream.faults.arm("latency=1ms;drop-after-write", "patch-own")

        told = await self.overtaken(
            upstream,
            released,
            doors["graphql"].update_own("acme", self.COUNT, customer, expected_version=10),
            doors["grpc"].replace("acme", SESSION, self.STATE, customer, expected_version=10),
        )

        assert told == ["VERSION_CONFLICT", "ok"]
        assert len(revisions(upstream)) == 1

    @pytest.mark.parametrize("fault", NOT_APPLIED)
    async def test_are_told_apart_when_the_one_has_ended_before_the_other_begins(
        self, doors: Mapping[str, Door], upstream: Sandbox, customer: Caller, fault: str
    ) -> None:
        """Who replaces does not read first, and so goes for a version that has gone."""
        await doors["grpc"].replace("acme", SESSION, self.STATE, customer, expected_version=10)
        upstream.faults.arm(fault, "put")

        second = await refused(doors["graphql"].replace("acme", SESSION, self.STATE, customer, expected_version=10))

        assert second.reason == "VERSION_CONFLICT"
        assert second.current is not None
        assert second.current.version == 11
        assert len(revisions(upstream)) == 1

    async def test_are_told_apart_when_the_one_is_acknowledged_before_the_other_begins(
        self, doors: Mapping[str, Door], upstream: Sandbox, customer: Caller, released: asyncio.Event
    ) -> None:
        """It has not ended yet: it is being read back."""
        upstream.faults.arm("latency=1ms", "get")

        async def comes_second() -> Seen | None:
            await struck(upstream)
            upstream.faults.arm("drop", "put")
            try:
                return await doors["graphql"].replace("acme", SESSION, self.STATE, customer, expected_version=10)
            finally:
                released.set()

        first = doors["grpc"].replace("acme", SESSION, self.STATE, customer, expected_version=10)

        assert await self.both(first, comes_second()) == ["VERSION_CONFLICT", "ok"]
        assert len(revisions(upstream)) == 1

    async def test_are_both_told_of_success_when_the_session_was_made_anew_in_between(
        self, doors: Mapping[str, Door], upstream: Sandbox, customer: Caller
    ) -> None:
        """Its versions come once more, so that both have replaced one of the same number."""
        for door in doors.values():
            upstream.reset()
            upstream.faults.arm("drop-after-write", "put")

            seen = await door.replace("acme", SESSION, self.STATE, customer, expected_version=10)

            assert seen is not None
            assert seen.version == 11

    async def test_both_have_what_they_want_without_a_version(
        self, doors: Mapping[str, Door], upstream: Sandbox, customer: Caller
    ) -> None:
        upstream.faults.arm("latency=20ms;drop-after-write", "put", times=2)

        assert await self.both(*self.counts(doors, customer, None)) == ["ok", "ok"]
        assert {each["context"]["counter"] for each in revisions(upstream)} == {8}

    async def test_are_not_told_apart_when_one_comes_from_elsewhere(
        self, door: Door, upstream: Sandbox, customer: Caller
    ) -> None:
        """The limit: of writers that do not come through this gateway, it sees what they wrote and nothing else."""
        context = {**ATTRIBUTES_BEFORE, "counter": 8}
        upstream.faults.arm("latency=20ms;drop-after-write", "put")

        async with asyncio.TaskGroup() as tasks:
            call = door.patch("acme", SESSION, self.COUNT, customer, expected_version=10)
            task = tasks.create_task(outcome(call))
            await struck(upstream)
            write_directly(upstream, context=context)

        assert not isinstance(task.result(), Refused)
        (revision,) = revisions(upstream)
        assert revision["context"] == context
