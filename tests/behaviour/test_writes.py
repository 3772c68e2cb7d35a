"""Writing safely, through either door: preconditions, conflicts, patches, attributes, and what is refused at once."""

from __future__ import annotations

import asyncio
import hashlib
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import msgspec
import pytest
import pytest_asyncio
from google.protobuf.json_format import ParseDict
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.rpc import error_details_pb2 as details
from grpc_status import rpc_status
from msgspec import Raw
from prometheus_client.parser import text_string_to_metric_families

from doors import Caller, Refused, refusal
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2 as pb
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2_grpc as pb_grpc
from gateway.sandbox import seed
from stage import entered, opened
from waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine

    import httpx

    from doors import Door, Seen
    from gateway.sandbox import Sandbox
    from stage import Dev

Result = TypeVar("Result")

CONFLICTS = ["disguised-404", "409", "412"]
STATE = {"customer_id": seed.CUSTOMER_ID, "site_code": "us", "currency": "USD", "context": {"color": "red"}}


def calls(upstream: Sandbox) -> list[str]:
    """The operations that came, those about tokens left out."""
    return [each.operation for each in upstream.requests if each.operation != "token"]


def stored(upstream: Sandbox, session_id: str = seed.CUSTOMER_SESSION) -> dict[str, Any]:
    """The document as it is upstream, without its metadata."""
    source = upstream.store.get("acme", session_id)
    assert source is not None
    document: dict[str, Any] = msgspec.json.decode(source)
    del document["metadata"]
    return document


def members(source: bytes | Raw | None) -> dict[str, bytes]:
    """The members of a JSON object, each as it is written."""
    assert source is not None
    return {name: bytes(raw) for name, raw in msgspec.json.decode(source, type=dict[str, Raw]).items()}


def write_directly(upstream: Sandbox, session_id: str = seed.CUSTOMER_SESSION, **fields: object) -> None:
    """Another writer, behind the gateway's back."""
    changed = {name: Raw(msgspec.json.encode(value)) for name, value in fields.items()}
    upstream.store.write("acme", session_id, {**upstream.store.fields("acme", session_id), **changed}, "other")


async def overtaken(
    upstream: Sandbox, operation: str, call: Coroutine[Any, Any, Result], other: Callable[[], None], fault: str = ""
) -> Result:
    """Make a call; while its request for the operation is at upstream's doorstep, let another writer go first.

    The request may meet a fault after that.
    """
    upstream.faults.arm(f"latency=30ms;{fault}".rstrip(";"), operation)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(_quietly(call))
        await eventually(lambda: not upstream.faults.all())
        other()
    result = task.result()
    if isinstance(result, Refused):
        raise result
    return result


async def _quietly(call: Awaitable[Result]) -> Result | Refused:
    try:
        return await call
    except Refused as refused:
        return refused


async def refused(call: Awaitable[object]) -> Refused:
    with pytest.raises(Refused) as raised:
        await call
    return raised.value


class TestReplacing:
    async def test_puts_the_new_state_in_the_place_of_the_expected_version(
        self, door: Door, upstream: Sandbox, customer: Caller
    ) -> None:
        after = await door.replace("acme", seed.CUSTOMER_SESSION, STATE, customer, expected_version=10)

        assert after is not None
        assert after.version == 11
        assert after.fields == {"customer_id": seed.CUSTOMER_ID, "site_code": "us", "currency": "USD"}
        assert after.context == {"color": "red"}
        assert stored(upstream) == {
            "sessionId": seed.CUSTOMER_SESSION,
            "customerId": seed.CUSTOMER_ID,
            "siteCode": "us",
            "currency": "USD",
            "context": {"color": "red"},
        }
        assert calls(upstream) == ["put", "get"]

    async def test_the_version_zero_is_a_version_like_any_other(
        self, door: Door, upstream: Sandbox, customer: Caller
    ) -> None:
        upstream.store.seed(
            "acme",
            "zero",
            b'{"sessionId":"zero","metadata":{"version":0,"createdAt":"2026-02-04T16:36:44.047Z",'
            b'"modifiedAt":"2026-02-04T16:36:44.047Z"}}',
        )
        after = await door.replace("acme", "zero", {"currency": "EUR"}, customer, expected_version=0)

        assert after is not None
        assert after.version == 1

    async def test_without_an_expected_version_is_refused_before_the_wire(
        self, door: Door, upstream: Sandbox, customer: Caller
    ) -> None:
        error = await refused(door.replace("acme", seed.CUSTOMER_SESSION, STATE, customer))

        assert error.reason == "INVALID_ARGUMENT"
        assert error.code == ("INVALID_ARGUMENT" if door.name == "grpc" else "InvalidInput")
        assert error.violations.keys() == {"expected_version"}
        assert not upstream.requests

    @pytest.mark.parametrize("status", [204, 201])
    @pytest.mark.parametrize("version", ["one", "given"])
    async def test_with_upsert_creates_what_is_not_there(
        self, door: Door, upstream: Sandbox, customer: Caller, status: Any, version: Any
    ) -> None:
        upstream.switches.created_status, upstream.switches.created_version = status, version

        after = await door.replace("acme", "new-session", STATE, customer, upsert=True)

        assert after is not None
        assert (after.session_id, after.version) == ("new-session", 1)
        assert after.context == {"color": "red"}
        assert calls(upstream) == ["get", "put", "get"]

    @pytest.mark.parametrize(("mode", "version"), [("one", 1), ("given", 7)])
    async def test_with_upsert_and_a_version_creates_too(
        self, door: Door, upstream: Sandbox, customer: Caller, mode: Any, version: int
    ) -> None:
        upstream.switches.created_version = mode

        after = await door.replace("acme", "new-session", STATE, customer, expected_version=7, upsert=True)

        assert after is not None
        assert after.version == version

    async def test_with_upsert_and_no_version_is_refused_when_there_is_one(
        self, door: Door, upstream: Sandbox, customer: Caller
    ) -> None:
        error = await refused(door.replace("acme", seed.CUSTOMER_SESSION, STATE, customer, upsert=True))

        assert error.reason == "INVALID_ARGUMENT"
        assert error.violations.keys() == {"expected_version"}
        assert "10" in error.violations["expected_version"]
        assert calls(upstream) == ["get"]

    @pytest.mark.parametrize("fault", ["", "status=400"], ids=["in words that are known", "in others"])
    async def test_with_upsert_and_no_version_is_refused_when_another_creates_it_meanwhile(
        self, door: Door, upstream: Sandbox, customer: Caller, fault: str
    ) -> None:
        def create() -> None:
            upstream.store.create("acme", "new-session", {"sessionId": Raw(b'"new-session"')}, "other")

        call = door.replace("acme", "new-session", STATE, customer, upsert=True)
        error = await refused(overtaken(upstream, "put", call, create, fault))

        assert error.reason == "INVALID_ARGUMENT"
        assert error.violations == {"expected_version": "is required: the session context exists, with version 1"}
        assert stored(upstream, "new-session") == {"sessionId": "new-session"}

    async def test_with_upsert_replaces_the_expected_version(
        self, door: Door, upstream: Sandbox, customer: Caller
    ) -> None:
        after = await door.replace("acme", seed.CUSTOMER_SESSION, STATE, customer, expected_version=10, upsert=True)

        assert after is not None
        assert after.version == 11

    @pytest.mark.parametrize("mode", ["replace", "merge"])
    async def test_leaves_the_same_behind_whether_upstream_replaces_or_merges(
        self, door: Door, upstream: Sandbox, customer: Caller, mode: Any
    ) -> None:
        upstream.switches.put_mode = mode
        state = {"currency": "USD", "context": {"color": "red"}, "additional_properties": {"loyalty": {"tier": "lead"}}}

        after = await door.replace("acme", seed.ODD_SESSION, state, customer, expected_version=3)

        assert after is not None
        assert after.fields == {"currency": "USD"}
        assert stored(upstream, seed.ODD_SESSION) == {
            "sessionId": seed.ODD_SESSION,
            "currency": "USD",
            "context": {"color": "red"},
            "loyalty": {"tier": "lead"},
        }

    async def test_the_answer_holds_what_stands_after_it_and_not_what_was_written(
        self, door: Door, upstream: Sandbox, customer: Caller
    ) -> None:
        call = door.replace("acme", seed.CUSTOMER_SESSION, STATE, customer, expected_version=10)
        after = await overtaken(upstream, "get", call, lambda: write_directly(upstream, language="fr"))

        assert after is not None
        assert after.version == 12
        assert after.fields["language"] == "fr"

    async def test_is_no_failure_when_it_cannot_be_read_back(
        self, door: Door, upstream: Sandbox, customer: Caller
    ) -> None:
        upstream.faults.arm("status=500", "get", times=None)

        assert await door.replace("acme", seed.CUSTOMER_SESSION, STATE, customer, expected_version=10) is None
        assert upstream.store.version("acme", seed.CUSTOMER_SESSION) == 11


class TestAnAnswerThatIsNotWanted:
    async def test_costs_no_read_after_a_replace(self, door: Door, upstream: Sandbox, customer: Caller) -> None:
        written = await door.replace(
            "acme", seed.CUSTOMER_SESSION, STATE, customer, expected_version=10, read_back=False
        )

        assert written is None
        assert calls(upstream) == ["put"]
        assert upstream.store.version("acme", seed.CUSTOMER_SESSION) == 11

    async def test_costs_no_read_after_a_patch(self, door: Door, upstream: Sandbox, customer: Caller) -> None:
        assert await door.patch("acme", seed.CUSTOMER_SESSION, {"language": "fr"}, customer, read_back=False) is None
        assert calls(upstream) == ["get", "put"]

    async def test_costs_no_read_after_an_attribute_is_set(
        self, door: Door, upstream: Sandbox, customer: Caller
    ) -> None:
        written = await door.add_attribute("acme", seed.CUSTOMER_SESSION, "color", "red", customer, read_back=False)

        assert written is None
        assert calls(upstream) == ["add-attribute"]


WRITES_WITH_SAAS_TOKEN: dict[str, Callable[[Door, Caller], Awaitable[Seen | None]]] = {
    "replace": lambda door, caller: door.replace("acme", seed.CUSTOMER_SESSION, STATE, caller, expected_version=10),
    "patch": lambda door, caller: door.patch("acme", seed.CUSTOMER_SESSION, {"language": "fr"}, caller),
    "add with a version": lambda door, caller: door.add_attribute(
        "acme", seed.CUSTOMER_SESSION, "color", "red", caller, expected_version=10
    ),
    "remove with a version": lambda door, caller: door.remove_attribute(
        "acme", seed.CUSTOMER_SESSION, "customProperty", caller, expected_version=10
    ),
}


@pytest.mark.parametrize("write", WRITES_WITH_SAAS_TOKEN.values(), ids=WRITES_WITH_SAAS_TOKEN)
class TestTheSaasToken:
    async def test_travels_with_the_whole_object_write_and_with_nothing_else(
        self, door: Door, upstream: Sandbox, customer: Caller, write: Callable[[Door, Caller], Awaitable[Seen | None]]
    ) -> None:
        await write(door, customer)

        sent = {each.operation: each.headers.get("saas-token") for each in upstream.requests}
        assert sent.pop("put") == hashlib.sha256(upstream.saas_token.encode()).hexdigest()[:8]
        assert set(sent.values()) == {None}

    @pytest.mark.parametrize("token", [None, "two words"])
    async def test_is_asked_for_before_the_wire(
        self, door: Door, upstream: Sandbox, write: Callable[[Door, Caller], Awaitable[Seen | None]], token: str | None
    ) -> None:
        error = await refused(write(door, Caller(saas_token=token)))

        assert error.reason == "INVALID_ARGUMENT"
        assert error.violations.keys() == {"saas-token"}
        assert not upstream.requests


OVERTAKEN: dict[str, tuple[str, Callable[[Door, Caller], Coroutine[Any, Any, Seen | None]]]] = {
    "replace": ("put", lambda d, c: d.replace("acme", seed.CUSTOMER_SESSION, STATE, c, expected_version=10)),
    "patch": ("put", lambda d, c: d.patch("acme", seed.CUSTOMER_SESSION, {"language": "fr"}, c, expected_version=10)),
    "add": ("put", lambda d, c: d.add_attribute("acme", seed.CUSTOMER_SESSION, "a", 1, c, expected_version=10)),
    "remove": (
        "put",
        lambda d, c: d.remove_attribute("acme", seed.CUSTOMER_SESSION, "customProperty", c, expected_version=10),
    ),
    "own update": ("patch-own", lambda d, c: d.update_own("acme", {"language": "fr"}, c, expected_version=10)),
    "own add": ("patch-own", lambda d, c: d.add_own_attribute("acme", "a", 1, c, expected_version=10)),
    "own remove": ("patch-own", lambda d, c: d.remove_own_attribute("acme", "customProperty", c, expected_version=10)),
}


@pytest.mark.parametrize("mode", CONFLICTS)
class TestAConflict:
    @pytest.mark.parametrize(("operation", "write"), OVERTAKEN.values(), ids=OVERTAKEN)
    async def test_tells_the_expected_version_and_what_is_there_now(  # noqa: PLR0917 - fixtures and parameters
        self,
        door: Door,
        upstream: Sandbox,
        customer: Caller,
        mode: Any,
        operation: str,
        write: Callable[[Door, Caller], Coroutine[Any, Any, Seen | None]],
    ) -> None:
        upstream.switches.conflict = mode
        other = {"cartId": "another"}

        error = await refused(
            overtaken(upstream, operation, write(door, customer), lambda: write_directly(upstream, **other))
        )

        assert error.reason == "VERSION_CONFLICT"
        assert error.code == ("ABORTED" if door.name == "grpc" else "VersionConflict")
        assert error.expected_version == 10
        assert error.current is not None
        assert error.current.version == 11
        assert error.current.fields["cart_id"] == "another"
        assert upstream.store.version("acme", seed.CUSTOMER_SESSION) == 11
        assert upstream.count(operation) == 1

    async def test_is_told_of_a_version_that_is_older(
        self, door: Door, upstream: Sandbox, customer: Caller, mode: Any
    ) -> None:
        upstream.switches.conflict = mode

        error = await refused(door.replace("acme", seed.CUSTOMER_SESSION, STATE, customer, expected_version=9))

        assert error.reason == "VERSION_CONFLICT"
        assert error.expected_version == 9
        assert error.current is not None
        assert error.current.version == 10

    async def test_is_a_conflict_even_when_what_is_there_cannot_be_read(
        self, door: Door, upstream: Sandbox, customer: Caller, mode: Any
    ) -> None:
        upstream.switches.conflict = mode
        upstream.faults.arm("status=503", "get", times=None)

        error = await refused(door.replace("acme", seed.CUSTOMER_SESSION, STATE, customer, expected_version=9))

        assert error.reason == "VERSION_CONFLICT"
        assert error.expected_version == 9
        assert error.current is None

    async def test_is_not_what_a_missing_session_is_told_as(
        self, door: Door, upstream: Sandbox, customer: Caller, mode: Any
    ) -> None:
        upstream.switches.conflict = mode
        token = upstream.tokens.issue("acme", 3600, "missing", seed.CUSTOMER_ID)
        own = Caller(token=token)

        for write in (
            door.replace("acme", "missing", STATE, customer, expected_version=10),
            door.patch("acme", "missing", {"language": "fr"}, customer, expected_version=10),
            door.patch("acme", "missing", {"language": "fr"}, customer),
            door.add_attribute("acme", "missing", "a", 1, customer, expected_version=10),
            door.update_own("acme", {"language": "fr"}, own, expected_version=10),
            door.update_own("acme", {"language": "fr"}, own),
        ):
            error = await refused(write)
            assert error.reason == "SESSION_NOT_FOUND"
            assert error.code == ("NOT_FOUND" if door.name == "grpc" else "SessionNotFound")

    @pytest.mark.parametrize(("operation", "write"), OVERTAKEN.values(), ids=OVERTAKEN)
    async def test_is_not_what_a_session_that_goes_away_meanwhile_is_told_as(  # noqa: PLR0917 - as above
        self,
        door: Door,
        upstream: Sandbox,
        customer: Caller,
        mode: Any,
        operation: str,
        write: Callable[[Door, Caller], Coroutine[Any, Any, Seen | None]],
    ) -> None:
        upstream.switches.conflict = mode

        def delete() -> None:
            upstream.store.delete("acme", seed.CUSTOMER_SESSION)

        error = await refused(overtaken(upstream, operation, write(door, customer), delete))

        assert error.reason == "SESSION_NOT_FOUND"


class TestA404WithoutAWordOfWhy:
    async def test_is_a_conflict_when_the_session_is_there(
        self, door: Door, upstream: Sandbox, customer: Caller
    ) -> None:
        upstream.faults.arm("status=404", "put")

        error = await refused(door.replace("acme", seed.CUSTOMER_SESSION, STATE, customer, expected_version=10))

        assert error.reason == "VERSION_CONFLICT"
        assert calls(upstream) == ["put", "get"]

    async def test_is_not_found_when_it_is_not(self, door: Door, upstream: Sandbox, customer: Caller) -> None:
        upstream.faults.arm("status=404", "put")

        error = await refused(door.replace("acme", "missing", STATE, customer, expected_version=10))

        assert error.reason == "SESSION_NOT_FOUND"
        assert calls(upstream) == ["put", "get"]


class TestPatching:
    async def test_changes_what_is_named_and_leaves_the_rest(
        self, door: Door, upstream: Sandbox, customer: Caller
    ) -> None:
        after = await door.patch(
            "acme", seed.CUSTOMER_SESSION, {"language": "fr", "context": {"color": "red"}}, customer
        )

        assert after is not None
        assert after.version == 11
        assert after.attempts == 1
        assert after.fields == {
            "customer_id": "C87362407845",
            "site_code": "main",
            "currency": "EUR",
            "cart_id": "61079711ce0eb90861357045",
            "target_location": "DE",
            "language": "fr",
        }
        assert after.context == {
            "customObject": {"property1": "value1"},
            "customProperty": "customValue",
            "color": "red",
        }
        assert calls(upstream) == ["get", "put", "get"]

    @pytest.mark.parametrize("mode", ["replace", "merge"])
    async def test_clears_what_is_null(self, door: Door, upstream: Sandbox, customer: Caller, mode: Any) -> None:
        upstream.switches.put_mode = mode

        after = await door.patch(
            "acme",
            seed.CUSTOMER_SESSION,
            {"currency": None, "cart_id": None, "context": {"customProperty": None, "not there": None}},
            customer,
        )

        assert after is not None
        assert after.fields.keys() == {"customer_id", "site_code", "target_location", "language"}
        assert after.context == {"customObject": {"property1": "value1"}}
        assert stored(upstream).keys() == {
            "sessionId",
            "customerId",
            "siteCode",
            "targetLocation",
            "language",
            "context",
        }

    @pytest.mark.parametrize("mode", ["replace", "merge"])
    async def test_clears_all_attributes_when_the_map_is_null(
        self, door: Door, upstream: Sandbox, customer: Caller, mode: Any
    ) -> None:
        upstream.switches.put_mode = mode

        after = await door.patch("acme", seed.CUSTOMER_SESSION, {"context": None}, customer)

        assert after is not None
        assert after.context == {}
        assert "context" not in stored(upstream)
        assert after.fields["currency"] == "EUR"

    @pytest.mark.parametrize("mode", ["replace", "merge"])
    async def test_leaves_unknown_fields_and_untouched_attributes_as_they_are_to_the_byte(
        self, door: Door, upstream: Sandbox, customer: Caller, mode: Any
    ) -> None:
        upstream.switches.put_mode = mode
        before = members(upstream.store.get("acme", seed.ODD_SESSION))
        attributes = members(before["context"])
        assert attributes["big"] == b"9007199254740993"
        assert b"2.50" in attributes["Größe.in cm"]
        assert b"12345678901234567890" in before["loyalty"]

        await door.patch("acme", seed.ODD_SESSION, {"site_code": "us", "context": {"shoe size": 43}}, customer)

        after = members(upstream.store.get("acme", seed.ODD_SESSION))
        changed = {"siteCode": b'"us"', "context": after["context"], "metadata": after["metadata"]}
        assert after == {**before, **changed}
        assert members(after["context"]) == {**attributes, "shoe size": b"43"}

    async def test_with_the_expected_version_is_one_attempt(
        self, door: Door, upstream: Sandbox, customer: Caller
    ) -> None:
        after = await door.patch("acme", seed.CUSTOMER_SESSION, {"language": "fr"}, customer, expected_version=10)

        assert after is not None
        assert (after.version, after.attempts) == (11, 1)

    async def test_with_another_version_writes_nothing(self, door: Door, upstream: Sandbox, customer: Caller) -> None:
        error = await refused(
            door.patch("acme", seed.CUSTOMER_SESSION, {"language": "fr"}, customer, expected_version=9)
        )

        assert error.reason == "VERSION_CONFLICT"
        assert (error.expected_version, error.current and error.current.version) == (9, 10)
        assert calls(upstream) == ["get"]

    @pytest.mark.parametrize("mode", CONFLICTS)
    async def test_without_a_version_is_done_again_when_another_writer_comes_first(
        self, door: Door, upstream: Sandbox, customer: Caller, mode: Any
    ) -> None:
        upstream.switches.conflict = mode
        call = door.patch("acme", seed.CUSTOMER_SESSION, {"language": "fr", "context": {"color": "red"}}, customer)

        after = await overtaken(
            upstream, "put", call, lambda: write_directly(upstream, context={"theirs": 1}, cartId="another")
        )

        assert after is not None
        assert (after.version, after.attempts) == (12, 2)
        assert after.context == {"theirs": 1, "color": "red"}
        assert after.fields["cart_id"] == "another"
        assert after.fields["language"] == "fr"

    async def test_without_a_version_is_given_up_after_so_many_attempts(
        self, door: Door, upstream: Sandbox, customer: Caller
    ) -> None:
        upstream.faults.arm("status=409", "put", times=None)

        error = await refused(door.patch("acme", seed.CUSTOMER_SESSION, {"language": "fr"}, customer))

        assert error.reason == "VERSION_CONFLICT"
        assert error.expected_version is None
        assert error.current is not None
        assert error.current.version == 10
        assert upstream.count("put") == 5

    @pytest.mark.parametrize("name", ["grpc", "graphql"])
    async def test_how_many_attempts_is_a_setting(self, name: str) -> None:
        async with opened(writes={"max_attempts": 2}) as dev, entered(name, dev) as door:
            dev.sandbox.faults.arm("status=409", "put", times=None)

            error = await refused(
                door.patch("acme", seed.CUSTOMER_SESSION, {"language": "fr"}, Caller(saas_token=dev.sandbox.saas_token))
            )

            assert error.reason == "VERSION_CONFLICT"
            assert dev.sandbox.count("put") == 2

    async def test_of_nothing_is_refused(self, door: Door, upstream: Sandbox, customer: Caller) -> None:
        error = await refused(door.patch("acme", seed.CUSTOMER_SESSION, {}, customer))

        assert error.violations.keys() == {"update_mask" if door.name == "grpc" else "session_context"}
        assert not upstream.requests

    async def test_side_by_side_without_a_version_costs_no_conflict(
        self, door: Door, upstream: Sandbox, customer: Caller
    ) -> None:
        """Those who come through one gateway take turns."""
        written = await asyncio.gather(
            *(
                door.patch("acme", seed.CUSTOMER_SESSION, {"context": {f"a{number}": number}}, customer)
                for number in range(12)
            )
        )

        assert all(each is not None for each in written)
        assert upstream.store.version("acme", seed.CUSTOMER_SESSION) == 22
        assert {f"a{number}" for number in range(12)} <= stored(upstream)["context"].keys()
        assert upstream.count("put") == 12


class TestUpdatingOnesOwn:
    async def test_keeps_the_attributes_that_it_does_not_name(
        self, door: Door, upstream: Sandbox, customer: Caller
    ) -> None:
        after = await door.update_own("acme", {"language": "fr", "context": {"color": "red"}}, customer)

        assert after is not None
        assert (after.version, after.attempts) == (11, 1)
        assert after.fields["language"] == "fr"
        assert after.context == {
            "customObject": {"property1": "value1"},
            "customProperty": "customValue",
            "color": "red",
        }
        assert calls(upstream) == ["get-own", "patch-own", "get-own"]

    async def test_clears_what_is_null(self, door: Door, upstream: Sandbox, customer: Caller) -> None:
        after = await door.update_own("acme", {"currency": None, "context": {"customProperty": None}}, customer)

        assert after is not None
        assert "currency" not in after.fields
        assert after.context == {"customObject": {"property1": "value1"}}

    async def test_clears_all_attributes_when_the_map_is_null(
        self, door: Door, upstream: Sandbox, customer: Caller
    ) -> None:
        after = await door.update_own("acme", {"context": None}, customer)

        assert after is not None
        assert after.context == {}

    async def test_leaves_all_else_as_it_is_to_the_byte(self, door: Door, upstream: Sandbox) -> None:
        own = Caller(token=upstream.tokens.issue("acme", 3600, seed.ODD_SESSION))
        before = members(upstream.store.get("acme", seed.ODD_SESSION))

        await door.update_own("acme", {"context": {"shoe size": 43}}, own)

        after = members(upstream.store.get("acme", seed.ODD_SESSION))
        assert after == {**before, "context": after["context"], "metadata": after["metadata"]}
        assert members(after["context"]) == {**members(before["context"]), "shoe size": b"43"}

    async def test_needs_no_saas_token(self, door: Door) -> None:
        assert await door.update_own("acme", {"language": "fr"}, Caller(token=seed.CUSTOMER_TOKEN)) is not None

    async def test_takes_an_expected_version(self, door: Door, upstream: Sandbox, customer: Caller) -> None:
        after = await door.update_own("acme", {"language": "fr"}, customer, expected_version=10)
        error = await refused(door.update_own("acme", {"language": "it"}, customer, expected_version=10))

        assert after is not None
        assert after.version == 11
        assert error.reason == "VERSION_CONFLICT"
        assert (error.expected_version, error.current and error.current.version) == (10, 11)
        assert stored(upstream)["language"] == "fr"

    @pytest.mark.parametrize("mode", CONFLICTS)
    async def test_without_a_version_is_done_again_when_another_writer_comes_first(
        self, door: Door, upstream: Sandbox, customer: Caller, mode: Any
    ) -> None:
        upstream.switches.conflict = mode
        call = door.update_own("acme", {"context": {"color": "red"}}, customer)

        after = await overtaken(upstream, "patch-own", call, lambda: write_directly(upstream, context={"theirs": 1}))

        assert after is not None
        assert (after.version, after.attempts) == (12, 2)
        assert after.context == {"theirs": 1, "color": "red"}

    async def test_is_given_up_after_so_many_attempts(self, door: Door, upstream: Sandbox, customer: Caller) -> None:
        upstream.faults.arm("status=409", "patch-own", times=None)

        error = await refused(door.update_own("acme", {"language": "fr"}, customer))

        assert error.reason == "VERSION_CONFLICT"
        assert error.expected_version is None
        assert upstream.count("patch-own") == 5


class TestAnAttribute:
    async def test_is_set_by_upstreams_own_endpoint_without_a_version(self, door: Door, upstream: Sandbox) -> None:
        after = await door.add_attribute("acme", seed.CUSTOMER_SESSION, "shoe size/EU", {"left": 42}, Caller())

        assert after is not None
        assert after.version == 11
        assert after.context["shoe size/EU"] == {"left": 42}
        assert after.context["customProperty"] == "customValue"
        assert calls(upstream) == ["add-attribute", "get"]

    async def test_is_overwritten_by_the_same_name(self, door: Door, upstream: Sandbox) -> None:
        after = await door.add_attribute("acme", seed.CUSTOMER_SESSION, "customProperty", None, Caller())

        assert after is not None
        assert after.context["customProperty"] is None

    async def test_is_removed_by_upstreams_own_endpoint_without_a_version(self, door: Door, upstream: Sandbox) -> None:
        after = await door.remove_attribute("acme", seed.CUSTOMER_SESSION, "customProperty", Caller())

        assert after is not None
        assert after.version == 11
        assert after.context == {"customObject": {"property1": "value1"}}
        assert calls(upstream) == ["remove-attribute", "get"]

    async def test_of_ones_own_is_set_and_removed_by_upstreams_own_endpoints(
        self, door: Door, upstream: Sandbox, customer: Caller
    ) -> None:
        added = await door.add_own_attribute("acme", "color", "red", customer)
        removed = await door.remove_own_attribute("acme", "color", customer)

        assert added is not None
        assert added.context["color"] == "red"
        assert removed is not None
        assert "color" not in removed.context
        assert calls(upstream) == ["add-own-attribute", "get-own", "remove-own-attribute", "get-own"]

    @pytest.mark.parametrize("status", [409, 412])
    async def test_that_is_said_to_be_in_conflict_is_set_again_and_then_given_up(
        self, door: Door, upstream: Sandbox, status: int
    ) -> None:
        """It named no version. Nor is there a doubt: it was read back each time, and not there."""
        upstream.faults.arm(f"status={status}", "add-attribute", times=None)

        error = await refused(door.add_attribute("acme", seed.CUSTOMER_SESSION, "color", "red", Caller()))

        assert error.reason == "UPSTREAM_FAULT"
        assert calls(upstream) == ["add-attribute", "get"] * 5
        upstream.faults.clear()
        upstream.faults.arm(f"status={status}", "add-attribute")
        after = await door.add_attribute("acme", seed.CUSTOMER_SESSION, "color", "red", Caller())
        assert after is not None
        assert (after.version, after.context["color"]) == (11, "red")

    async def test_is_set_by_a_versioned_write_with_a_version(
        self, door: Door, upstream: Sandbox, customer: Caller
    ) -> None:
        after = await door.add_attribute("acme", seed.CUSTOMER_SESSION, "color", "red", customer, expected_version=10)

        assert after is not None
        assert (after.version, after.context["color"]) == (11, "red")
        assert calls(upstream) == ["get", "put", "get"]

    async def test_is_removed_by_a_versioned_write_with_a_version(
        self, door: Door, upstream: Sandbox, customer: Caller
    ) -> None:
        after = await door.remove_attribute(
            "acme", seed.CUSTOMER_SESSION, "customProperty", customer, expected_version=10
        )

        assert after is not None
        assert (after.version, after.context) == (11, {"customObject": {"property1": "value1"}})
        assert calls(upstream) == ["get", "put", "get"]

    async def test_of_ones_own_is_set_and_removed_by_versioned_writes_with_a_version(
        self, door: Door, upstream: Sandbox, customer: Caller
    ) -> None:
        await door.add_own_attribute("acme", "color", "red", customer, expected_version=10)
        await door.remove_own_attribute("acme", "color", customer, expected_version=11)

        assert calls(upstream) == ["get-own", "patch-own", "get-own"] * 2
        assert stored(upstream)["context"].keys() == {"customObject", "customProperty"}

    @pytest.mark.parametrize("name", ["not there", "session"])
    @pytest.mark.parametrize("status", [404, 204])
    async def test_that_is_not_there_is_removed_all_the_same(
        self, door: Door, upstream: Sandbox, customer: Caller, status: Any, name: str
    ) -> None:
        """Whatever it is called: "Attribute session not found", says upstream."""
        upstream.switches.missing_attribute_status = status

        by_id = await door.remove_attribute("acme", seed.CUSTOMER_SESSION, name, customer)
        own = await door.remove_own_attribute("acme", name, customer)
        versioned = await door.remove_attribute("acme", seed.CUSTOMER_SESSION, name, customer, expected_version=10)

        assert by_id is not None
        assert own is not None
        assert by_id.version == own.version == 10
        assert versioned is not None
        assert versioned.context == by_id.context

    @pytest.mark.parametrize("status", [404, 204])
    async def test_of_a_session_that_is_not_there_is_not_found(
        self, door: Door, upstream: Sandbox, status: Any
    ) -> None:
        upstream.switches.missing_attribute_status = status
        own = Caller(token=upstream.tokens.issue("acme", 3600, "missing"))

        for write in (
            door.add_attribute("acme", "missing", "color", "red", Caller()),
            door.remove_attribute("acme", "missing", "color", Caller()),
            door.add_own_attribute("acme", "color", "red", own),
            door.remove_own_attribute("acme", "color", own),
        ):
            assert (await refused(write)).reason == "SESSION_NOT_FOUND"

    async def test_of_a_missing_session_is_not_found_when_upstream_does_not_say_so_in_words(
        self, door: Door, upstream: Sandbox
    ) -> None:
        upstream.faults.arm("status=404", "remove-attribute")

        error = await refused(door.remove_attribute("acme", "missing", "color", Caller()))

        assert error.reason == "SESSION_NOT_FOUND"


class TestAWriteThatUpstreamDiscards:
    @pytest.fixture(autouse=True)
    def discard(self, upstream: Sandbox) -> None:
        upstream.switches.discard_writes = True

    async def test_is_told_as_discarded(self, door: Door, upstream: Sandbox, customer: Caller) -> None:
        session = seed.CUSTOMER_SESSION
        for write in (
            door.replace("acme", session, STATE, customer, expected_version=10),
            door.replace("acme", "new-session", STATE, customer, upsert=True),
            door.patch("acme", session, {"language": "fr"}, customer),
            door.patch("acme", session, {"language": "fr"}, customer, expected_version=10),
            door.update_own("acme", {"language": "fr"}, customer),
            door.add_attribute("acme", session, "a", 1, customer, expected_version=10),
            door.remove_attribute("acme", session, "customProperty", customer, expected_version=10),
        ):
            error = await refused(write)
            assert error.reason == "WRITE_DISCARDED"
            assert error.code == ("INTERNAL" if door.name == "grpc" else "error")

    async def test_shows_in_the_answer_of_a_write_without_a_version(self, door: Door) -> None:
        """Another writer may have come since, so it is no failure; but what is there is told."""
        after = await door.add_attribute("acme", seed.CUSTOMER_SESSION, "color", "red", Caller())

        assert after is not None
        assert "color" not in after.context

    async def test_that_changes_nothing_succeeds(self, door: Door, customer: Caller) -> None:
        after = await door.patch("acme", seed.CUSTOMER_SESSION, {"language": "de"}, customer)

        assert after is not None
        assert after.version == 10


class TestAnAttributeThatUpstreamRefuses:
    @pytest.mark.parametrize("status", [400, 413])
    @pytest.mark.parametrize("version", [None, 10])
    async def test_is_told_by_a_field_that_the_request_has(
        self, door: Door, upstream: Sandbox, customer: Caller, version: int | None, status: int
    ) -> None:
        session = seed.CUSTOMER_SESSION
        for operation, write, field in (
            (
                "add-attribute" if version is None else "put",
                door.add_attribute("acme", session, "color", "red", customer, expected_version=version),
                "value",
            ),
            (
                "remove-attribute" if version is None else "put",
                door.remove_attribute("acme", session, "customProperty", customer, expected_version=version),
                "attribute_name",
            ),
            (
                "add-own-attribute" if version is None else "patch-own",
                door.add_own_attribute("acme", "color", "red", customer, expected_version=version),
                "value",
            ),
            (
                "remove-own-attribute" if version is None else "patch-own",
                door.remove_own_attribute("acme", "customProperty", customer, expected_version=version),
                "attribute_name",
            ),
        ):
            upstream.faults.arm(f"status={status}", operation)
            error = await refused(write)
            assert error.reason == "INVALID_ARGUMENT"
            assert error.violations.keys() == {field}


class TestWhatIsRefusedBeforeTheWire:
    async def test_is_told_as_a_whole_for_a_patch(self, door: Door, upstream: Sandbox) -> None:
        error = await refused(
            door.patch("Acme", "..", {"currency": "EURO", "context": {"": 1}}, Caller(), expected_version=3)
        )

        assert error.reason == "INVALID_ARGUMENT"
        assert error.violations.keys() == {
            "tenant",
            "session_id",
            "saas-token",
            "session_context.currency",
            "session_context.context",
        }
        assert error.violations["session_context.context"] == "the name of an attribute must not be empty"
        assert not upstream.requests

    async def test_is_told_as_a_whole_for_ones_own(self, door: Door, upstream: Sandbox, customer: Caller) -> None:
        error = await refused(door.update_own("Acme", {"currency": "E", "context": {"x" * 257: 1}}, customer))

        assert error.violations.keys() == {"tenant", "session_context.currency", "session_context.context"}
        assert not upstream.requests

    @pytest.mark.parametrize("version", [None, 10])
    @pytest.mark.parametrize("name", ["", ".", "..", "x" * 257, "a\x00b"])
    async def test_names_the_attribute_whether_or_not_there_is_a_version(
        self, door: Door, upstream: Sandbox, customer: Caller, version: int | None, name: str
    ) -> None:
        for write in (
            door.add_attribute("Acme", "", name, 1, customer, expected_version=version),
            door.remove_attribute("Acme", "", name, customer, expected_version=version),
        ):
            assert (await refused(write)).violations.keys() == {"tenant", "session_id", "attribute_name"}
        for write in (
            door.add_own_attribute("Acme", name, 1, customer, expected_version=version),
            door.remove_own_attribute("Acme", name, customer, expected_version=version),
        ):
            assert (await refused(write)).violations.keys() == {"tenant", "attribute_name"}
        assert not upstream.requests

    async def test_is_a_version_that_is_none(self, door: Door, upstream: Sandbox, customer: Caller) -> None:
        error = await refused(door.replace("acme", seed.CUSTOMER_SESSION, STATE, customer, expected_version=-1))

        if door.name == "grpc":
            assert error.violations.keys() == {"expected_version"}
        else:
            assert (error.code, error.reason) == ("error", "GRAPHQL_VALIDATION_FAILED")  # the scalar refuses it
            assert "expectedVersion" in error.message
        assert not upstream.requests

    async def test_the_largest_version_is_one(self, door: Door, upstream: Sandbox, customer: Caller) -> None:
        error = await refused(door.replace("acme", seed.CUSTOMER_SESSION, STATE, customer, expected_version=2**63 - 1))

        assert error.reason == "VERSION_CONFLICT"
        assert error.expected_version == 2**63 - 1

    async def test_an_additional_property_that_has_its_own_field(
        self, door: Door, upstream: Sandbox, customer: Caller
    ) -> None:
        state = {"additional_properties": {"siteCode": "us"}}
        error = await refused(door.replace("acme", seed.CUSTOMER_SESSION, state, customer, expected_version=10))

        assert error.violations.keys() == {"session_context.additional_properties"}

    @pytest.mark.parametrize("name", ["grpc", "graphql"])
    async def test_a_document_that_is_too_large(self, name: str) -> None:
        async with opened(writes={"max_document": 2048}) as dev, entered(name, dev) as door:
            customer = Caller(token=seed.CUSTOMER_TOKEN, saas_token=dev.sandbox.saas_token)
            large = {"context": {"large": "x" * 2048}}
            session = seed.CUSTOMER_SESSION
            for write in (
                door.replace("acme", session, {**STATE, **large}, customer, expected_version=10),
                door.patch("acme", session, large, customer),
                door.update_own("acme", large, customer),
            ):
                error = await refused(write)
                assert error.reason == "INVALID_ARGUMENT"
                assert error.violations.keys() == {"session_context"}
            for version in (None, 10):
                for write in (
                    door.add_attribute("acme", session, "large", "x" * 2048, customer, expected_version=version),
                    door.add_own_attribute("acme", "large", "x" * 2048, customer, expected_version=version),
                ):
                    error = await refused(write)
                    assert error.reason == "INVALID_ARGUMENT"
                    assert error.violations.keys() == {"value"}, "the request has no other field that could be smaller"
            assert dev.sandbox.store.version("acme", session) == 10
            assert {"put", "patch-own", "add-attribute", "add-own-attribute"}.isdisjoint(calls(dev.sandbox))

            half = "x" * 1500
            assert await door.add_attribute("acme", session, "one half", half, customer) is not None
            error = await refused(door.patch("acme", session, {"context": {"the other": half}}, customer))
            assert error.violations.keys() == {"session_context"}, "it is the whole document that is sent"


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def stub(dev: Dev) -> AsyncIterator[pb_grpc.SessionContextServiceAsyncStub]:
    async with grpc.aio.insecure_channel(dev.doors.grpc) as channel:
        yield pb_grpc.SessionContextServiceStub(channel)


@pytest.fixture
def metadata(customer: Caller) -> tuple[tuple[str, str], ...]:
    return tuple(customer.headers().items())


class TestInGrpcTerms:
    """What only messages can say."""

    async def test_error_info_has_both_versions(
        self, upstream: Sandbox, stub: pb_grpc.SessionContextServiceAsyncStub, metadata: tuple[tuple[str, str], ...]
    ) -> None:
        request = pb.ReplaceSessionContextRequest(
            tenant="acme",
            session_id=seed.CUSTOMER_SESSION,
            session_context=pb.SessionContext(),
            expected_version=9,
        )
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.ReplaceSessionContext(request, metadata=metadata)

        status = rpc_status.from_call(raised.value)  # type: ignore[arg-type]  # documented to take it
        assert status is not None
        info, conflict = details.ErrorInfo(), pb.VersionConflict()
        assert status.details[0].Unpack(info)
        assert status.details[1].Unpack(conflict)
        assert info.reason == "VERSION_CONFLICT"
        assert dict(info.metadata) == {"expected_version": "9", "current_version": "10"}
        assert conflict.current.metadata.version == 10

    async def test_a_replace_that_would_write_rounded_numbers_is_refused(
        self, upstream: Sandbox, stub: pb_grpc.SessionContextServiceAsyncStub, metadata: tuple[tuple[str, str], ...]
    ) -> None:
        read = await stub.GetSessionContext(
            pb.GetSessionContextRequest(tenant="acme", session_id=seed.ODD_SESSION), metadata=metadata
        )
        assert set(read.session_context.rounded_attributes) == {"big", "loyalty"}
        request = pb.ReplaceSessionContextRequest(
            tenant="acme",
            session_id=seed.ODD_SESSION,
            session_context=read.session_context,
            expected_version=read.session_context.metadata.version,
        )
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.ReplaceSessionContext(request, metadata=metadata)

        error = refusal(raised.value)
        assert error.code == "INVALID_ARGUMENT"
        assert error.violations.keys() == {"session_context.rounded_attributes"}
        assert "big" in error.violations["session_context.rounded_attributes"]
        assert upstream.count("put") == 0

    @pytest.mark.parametrize("method", ["ReplaceSessionContext", "PatchSessionContext"])
    async def test_a_fresh_version_is_not_taken_with_a_stale_body(
        self,
        upstream: Sandbox,
        stub: pb_grpc.SessionContextServiceAsyncStub,
        metadata: tuple[tuple[str, str], ...],
        method: str,
    ) -> None:
        stale = pb.SessionContext(session_id="another", currency="EUR", metadata=pb.Metadata(version=9))
        request = getattr(pb, f"{method}Request")(
            tenant="acme", session_id=seed.CUSTOMER_SESSION, session_context=stale, expected_version=10
        )
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await getattr(stub, method)(request, metadata=metadata)

        violations = refusal(raised.value).violations
        assert violations.keys() == {"session_context.metadata.version", "session_context.session_id"}
        assert not upstream.requests

    @pytest.mark.parametrize("upsert", [False, True])
    async def test_a_replace_without_the_new_state_is_refused_and_one_with_an_empty_state_is_not(
        self,
        upstream: Sandbox,
        stub: pb_grpc.SessionContextServiceAsyncStub,
        metadata: tuple[tuple[str, str], ...],
        *,
        upsert: bool,
    ) -> None:
        request = pb.ReplaceSessionContextRequest(
            tenant="acme", session_id=seed.CUSTOMER_SESSION, expected_version=10, upsert=upsert
        )
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.ReplaceSessionContext(request, metadata=metadata)
        error = refusal(raised.value)
        assert error.code == "INVALID_ARGUMENT"
        assert error.violations.keys() == {"session_context"}
        assert not upstream.requests

        request.session_context.SetInParent()
        request.session_context.customer_id = seed.CUSTOMER_ID
        await stub.ReplaceSessionContext(request, metadata=metadata)
        assert stored(upstream) == {"sessionId": seed.CUSTOMER_SESSION, "customerId": seed.CUSTOMER_ID}

    async def test_a_patch_that_would_write_rounded_numbers_is_refused(
        self, upstream: Sandbox, stub: pb_grpc.SessionContextServiceAsyncStub, metadata: tuple[tuple[str, str], ...]
    ) -> None:
        read = await stub.GetSessionContext(
            pb.GetSessionContextRequest(tenant="acme", session_id=seed.ODD_SESSION), metadata=metadata
        )
        read.session_context.currency = "CHF"

        error = await refused(self.patched(stub, metadata, seed.ODD_SESSION, read.session_context))

        assert error.code == "INVALID_ARGUMENT"
        assert error.violations.keys() == {"session_context.rounded_attributes"}
        assert upstream.count("put") == 0

        await self.patched(stub, metadata, seed.ODD_SESSION, read.session_context, "currency")
        assert stored(upstream, seed.ODD_SESSION)["currency"] == "CHF"
        assert stored(upstream, seed.ODD_SESSION)["context"]["big"] == 9007199254740993

    async def test_a_patch_without_a_version_is_of_whatever_is_there(
        self, upstream: Sandbox, stub: pb_grpc.SessionContextServiceAsyncStub, metadata: tuple[tuple[str, str], ...]
    ) -> None:
        """Get, change, Patch with a mask (AIP-134): another writer may have come in between, as at any time."""
        read = pb.SessionContext(session_id=seed.CUSTOMER_SESSION, currency="CHF", metadata=pb.Metadata(version=9))

        after = await self.patched(stub, metadata, seed.CUSTOMER_SESSION, read, "currency")

        assert (after.currency, after.metadata.version) == ("CHF", 11)

    async def test_an_update_of_ones_own_is_of_what_its_message_was_made_from(
        self, dev: Dev, upstream: Sandbox, metadata: tuple[tuple[str, str], ...]
    ) -> None:
        made = pb.SessionContext(session_id="another", currency="CHF", metadata=pb.Metadata(version=9))
        request = pb.UpdateOwnSessionContextRequest(tenant="acme", session_context=made, expected_version=10)
        async with grpc.aio.insecure_channel(dev.doors.grpc) as channel:
            own: pb_grpc.OwnSessionContextServiceAsyncStub = pb_grpc.OwnSessionContextServiceStub(channel)
            for field, right in (("metadata.version", None), ("session_id", seed.CUSTOMER_SESSION)):
                with pytest.raises(grpc.aio.AioRpcError) as raised:
                    await own.UpdateOwnSessionContext(request, metadata=metadata)
                assert refusal(raised.value).violations.keys() == {f"session_context.{field}"}
                made.metadata.version = 10
                made.session_id = right or made.session_id
                request.session_context.CopyFrom(made)
            assert upstream.count("patch-own") == 0

            answer = await own.UpdateOwnSessionContext(request, metadata=metadata)
        assert answer.session_context.currency == "CHF"

    @pytest.mark.parametrize("name", ["", ".", "..", "x" * 257, "a\x00b"])
    @pytest.mark.parametrize("path", ["context", "*"])
    async def test_a_whole_map_has_no_attribute_that_no_path_could_name(
        self,
        upstream: Sandbox,
        stub: pb_grpc.SessionContextServiceAsyncStub,
        metadata: tuple[tuple[str, str], ...],
        path: str,
        name: str,
    ) -> None:
        message = pb.SessionContext(context=ParseDict({"color": "red", name: 1}, Struct()))

        error = await refused(self.patched(stub, metadata, seed.CUSTOMER_SESSION, message, path))

        assert error.violations.keys() == {"session_context.context"}
        assert not upstream.requests

    async def test_an_attribute_that_could_not_be_read_back_is_not_written(
        self, upstream: Sandbox, stub: pb_grpc.SessionContextServiceAsyncStub, metadata: tuple[tuple[str, str], ...]
    ) -> None:
        value = Value(bool_value=True)
        for _ in range(48):
            value = Value(list_value=ListValue(values=[value]))
        request = pb.AddAttributeRequest(
            tenant="acme", session_id=seed.CUSTOMER_SESSION, attribute_name="deep", value=value
        )
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.AddAttribute(request, metadata=metadata)
        assert refusal(raised.value).violations.keys() == {"value"}
        assert not upstream.requests

        request.value.CopyFrom(value.list_value.values[0])
        assert "deep" in (await stub.AddAttribute(request, metadata=metadata)).session_context.context.fields

    @pytest.mark.parametrize("path", ["context.deep", "context.deep.er", "context.deep.er.er.er"])
    async def test_a_path_writes_nothing_so_deep_that_it_could_not_be_read_back(
        self,
        upstream: Sandbox,
        stub: pb_grpc.SessionContextServiceAsyncStub,
        metadata: tuple[tuple[str, str], ...],
        path: str,
    ) -> None:
        value: Any = True
        for _ in range(31):
            value = {"er": value}
        deep = pb.SessionContext(context=ParseDict({"deep": value}, Struct()))
        too_deep = pb.SessionContext(context=ParseDict({"deep": {"er": value}}, Struct()))

        error = await refused(self.patched(stub, metadata, seed.CUSTOMER_SESSION, too_deep, path))
        assert error.violations.keys() == {"session_context.context"}
        assert not upstream.requests

        assert "deep" in (await self.patched(stub, metadata, seed.CUSTOMER_SESSION, deep, path)).context.fields

    @pytest.mark.parametrize("paths", [(), ("context",), ("context.`no kind`",)])
    async def test_an_attribute_that_cannot_be_written_is_named(
        self,
        upstream: Sandbox,
        stub: pb_grpc.SessionContextServiceAsyncStub,
        metadata: tuple[tuple[str, str], ...],
        paths: tuple[str, ...],
    ) -> None:
        message = pb.SessionContext(context=ParseDict({"color": "red"}, Struct()))
        message.context.fields["no kind"].struct_value.fields["inside"].SetInParent()

        error = await refused(self.patched(stub, metadata, seed.CUSTOMER_SESSION, message, *paths))

        assert error.violations.keys() == {"session_context.context"}
        assert error.violations["session_context.context"].endswith("(in 'no kind')")
        assert not upstream.requests

    async def patched(
        self,
        stub: pb_grpc.SessionContextServiceAsyncStub,
        metadata: tuple[tuple[str, str], ...],
        session_id: str,
        message: pb.SessionContext,
        *paths: str,
    ) -> pb.SessionContext:
        request = pb.PatchSessionContextRequest(tenant="acme", session_id=session_id, session_context=message)
        request.update_mask.paths.extend(paths)
        try:
            answer = await stub.PatchSessionContext(request, metadata=metadata)
        except grpc.aio.AioRpcError as error:
            raise refusal(error) from None
        return answer.session_context

    async def test_a_mask_leads_into_attributes_at_any_depth(
        self, upstream: Sandbox, stub: pb_grpc.SessionContextServiceAsyncStub, metadata: tuple[tuple[str, str], ...]
    ) -> None:
        message = pb.SessionContext(
            context=ParseDict({"Größe.in cm": {"Länge": 1, "Breite": 2}, "new": {"deep": {"er": True}}}, Struct())
        )
        paths = ["context.`Größe.in cm`.Breite", "context.new.deep.er", "context.`emoji 🛒`"]

        await self.patched(stub, metadata, seed.ODD_SESSION, message, *paths)

        attributes = stored(upstream, seed.ODD_SESSION)["context"]
        assert attributes["Größe.in cm"] == {"Länge": [1, 2.5, None, True], "Breite": 2}
        assert attributes["new"] == {"deep": {"er": True}}
        assert "emoji 🛒" not in attributes, "named, without a value"
        assert b"2.50" in (upstream.store.get("acme", seed.ODD_SESSION) or b"")

    async def test_a_mask_that_is_left_out_means_the_fields_that_are_set(
        self, upstream: Sandbox, stub: pb_grpc.SessionContextServiceAsyncStub, metadata: tuple[tuple[str, str], ...]
    ) -> None:
        message = pb.SessionContext(language="fr", context=ParseDict({"color": "red"}, Struct()))

        after = await self.patched(stub, metadata, seed.CUSTOMER_SESSION, message)

        assert after.language == "fr"
        assert after.currency == "EUR"
        assert set(after.context.fields) == {"customObject", "customProperty", "color"}

    async def test_a_star_means_all_fields(
        self, upstream: Sandbox, stub: pb_grpc.SessionContextServiceAsyncStub, metadata: tuple[tuple[str, str], ...]
    ) -> None:
        message = pb.SessionContext(customer_id=seed.CUSTOMER_ID, currency="USD")

        await self.patched(stub, metadata, seed.CUSTOMER_SESSION, message, "*")

        assert stored(upstream) == {
            "sessionId": seed.CUSTOMER_SESSION,
            "customerId": seed.CUSTOMER_ID,
            "currency": "USD",
        }

    @pytest.mark.parametrize("path", ["metadata", "metadata.version", "session_id", "siteCode", "currency.x", "a b"])
    async def test_a_path_to_what_cannot_be_changed_is_refused(
        self,
        upstream: Sandbox,
        stub: pb_grpc.SessionContextServiceAsyncStub,
        metadata: tuple[tuple[str, str], ...],
        path: str,
    ) -> None:
        error = await refused(self.patched(stub, metadata, seed.CUSTOMER_SESSION, pb.SessionContext(), path))

        assert error.reason == "INVALID_ARGUMENT"
        assert error.violations.keys() == {"update_mask"}
        assert not upstream.requests

    @pytest.mark.parametrize("path", ["metadata", "siteCode", "additional_properties.loyalty"])
    async def test_a_path_to_what_cannot_be_changed_is_refused_beside_a_star_too(
        self,
        upstream: Sandbox,
        stub: pb_grpc.SessionContextServiceAsyncStub,
        metadata: tuple[tuple[str, str], ...],
        path: str,
    ) -> None:
        error = await refused(self.patched(stub, metadata, seed.CUSTOMER_SESSION, pb.SessionContext(), "*", path))

        assert error.violations.keys() == {"update_mask"}
        assert not upstream.requests

    async def test_a_path_into_an_attribute_that_is_no_object_is_refused(
        self, upstream: Sandbox, stub: pb_grpc.SessionContextServiceAsyncStub, metadata: tuple[tuple[str, str], ...]
    ) -> None:
        message = pb.SessionContext(context=ParseDict({"shoe size": {"left": 42}}, Struct()))

        error = await refused(self.patched(stub, metadata, seed.ODD_SESSION, message, "context.`shoe size`.left"))

        assert error.violations.keys() == {"update_mask"}
        assert upstream.count("put") == 0


async def test_graphql_tells_the_current_version_beside_the_current_state(
    dev: Dev, upstream: Sandbox, client: httpx.AsyncClient, customer: Caller
) -> None:
    document = """mutation($input: ReplaceSessionContextInput!) { replaceSessionContext(input: $input) {
        ... on VersionConflict { code expectedVersion currentVersion current { metadata { version } } } } }"""
    given = {"tenant": "acme", "sessionId": seed.CUSTOMER_SESSION, "sessionContext": {}, "expectedVersion": 9}

    response = await client.post(
        dev.graphql_url, json={"query": document, "variables": {"input": given}}, headers=customer.headers()
    )

    assert response.json()["data"]["replaceSessionContext"] == {
        "code": "VERSION_CONFLICT",
        "expectedVersion": 9,
        "currentVersion": 10,
        "current": {"metadata": {"version": 10}},
    }


class Metrics:
    """What the operator's listener counts of writes, since this was made."""

    def __init__(self, client: httpx.AsyncClient, dev: Dev) -> None:
        self._client = client
        self._url = f"{dev.doors.admin}/metrics"
        self._before: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}

    async def begin(self) -> None:
        self._before = await self._read()

    async def rise(self, name: str, **labels: str) -> float:
        key = name, frozenset(labels.items())
        return (await self._read()).get(key, 0) - self._before.get(key, 0)

    async def _read(self) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
        text = (await self._client.get(self._url)).text
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
        }


class TestTheMetrics:
    @pytest_asyncio.fixture(loop_scope="session")
    async def metrics(self, client: httpx.AsyncClient, dev: Dev) -> Metrics:
        metrics = Metrics(client, dev)
        await metrics.begin()
        return metrics

    async def test_count_the_attempts_of_a_patch(
        self, door: Door, upstream: Sandbox, customer: Caller, metrics: Metrics
    ) -> None:
        call = door.patch("acme", seed.CUSTOMER_SESSION, {"language": "fr"}, customer)
        await overtaken(upstream, "put", call, lambda: write_directly(upstream, cartId="another"))

        assert await metrics.rise("session_gateway_write_attempts_count", operation="patch") == 1
        assert await metrics.rise("session_gateway_write_attempts_sum", operation="patch") == 2
        assert await metrics.rise("session_gateway_writes_total", operation="patch", outcome="applied") == 1
        assert await metrics.rise("session_gateway_write_answers_lost_total", operation="patch") == 0

    async def test_count_the_answers_that_were_lost(
        self, door: Door, upstream: Sandbox, customer: Caller, metrics: Metrics
    ) -> None:
        upstream.faults.arm("status=504-after-write", "put")
        await door.replace("acme", seed.CUSTOMER_SESSION, STATE, customer, expected_version=10)

        assert await metrics.rise("session_gateway_write_answers_lost_total", operation="replace") == 1
        assert await metrics.rise("session_gateway_write_attempts_sum", operation="replace") == 1

    async def test_count_what_became_of_a_write(
        self, door: Door, upstream: Sandbox, customer: Caller, metrics: Metrics
    ) -> None:
        await refused(door.replace("acme", seed.CUSTOMER_SESSION, STATE, customer, expected_version=9))
        await door.add_attribute("acme", seed.CUSTOMER_SESSION, "a", 1, customer)
        await door.remove_attribute("acme", seed.CUSTOMER_SESSION, "a", customer)

        assert await metrics.rise("session_gateway_writes_total", operation="replace", outcome="VERSION_CONFLICT") == 1
        assert await metrics.rise("session_gateway_writes_total", operation="add_attribute", outcome="applied") == 1
        assert await metrics.rise("session_gateway_writes_total", operation="remove_attribute", outcome="applied") == 1

    @pytest.mark.parametrize("status", [200, 201, 204])
    async def test_count_no_answer_as_lost_that_says_it_is_done(
        self, door: Door, upstream: Sandbox, customer: Caller, metrics: Metrics, status: int
    ) -> None:
        for operation in ("put", "patch-own", "add-attribute"):
            upstream.faults.arm(f"status={status}-after-write", operation)
        upstream.faults.arm(f"status={200 if status == 201 else status}-after-write", "remove-attribute")
        await door.replace("acme", seed.CUSTOMER_SESSION, STATE, customer, expected_version=10)
        await door.update_own("acme", {"language": "fr"}, customer)
        await door.add_attribute("acme", seed.CUSTOMER_SESSION, "a", 1, customer)
        await door.remove_attribute("acme", seed.CUSTOMER_SESSION, "a", customer)

        assert not upstream.faults.all()
        for operation in ("replace", "patch", "add_attribute", "remove_attribute"):
            assert await metrics.rise("session_gateway_writes_total", operation=operation, outcome="applied") == 1
            assert await metrics.rise("session_gateway_write_answers_lost_total", operation=operation) == 0
