"""Any sequence of writes, with whatever faults, leaves what a model of it says: one client, and all ways to write.

The model is exact. It allows more than one outcome only where the gateway cannot know: then the write may be in or out,
and must be told as unknown.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import msgspec
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test
from msgspec import Raw

from doors import FIELDS, Caller, Refused
from stage import entered, opened

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    from doors import Door, Seen
    from gateway.sandbox import Sandbox

Document = dict[str, Any]

SESSION: Final = "stateful"
NAMES: Final = {
    "customer_id": "customerId",
    "site_code": "siteCode",
    "currency": "currency",
    "cart_id": "cartId",
    "target_location": "targetLocation",
    "language": "language",
}

DOORS = st.sampled_from(["grpc", "graphql"])
VERSIONS = st.sampled_from(["none", "current", "current", "stale", "ahead"])
ATTRIBUTES = st.sampled_from(["color", "shoe size", "a/b?c=%2e", "Größe 🛒", "nothing"])
VALUES = st.sampled_from([None, True, 0, 1.5, "", "text", [1, None], {}, {"deep": {"er": "x"}}])
FIELD_CHANGES = st.dictionaries(
    st.sampled_from(["site_code", "target_location", "language"]),
    st.none() | st.sampled_from(["us", "main"]),
    max_size=2,
)
ATTRIBUTE_CHANGES = st.none() | st.dictionaries(ATTRIBUTES, VALUES, min_size=1, max_size=3)
WRITE_OPERATIONS = st.sampled_from(
    ["put", "put", "patch-own", "add-attribute", "remove-attribute", "add-own-attribute", "remove-own-attribute"]
)
WRITE_FAULTS = st.sampled_from(
    [
        "drop",
        "drop-after-write",
        "truncated",
        *(f"status={status}{when}" for status in (500, 502, 503, 504) for when in ("", "-after-write")),
    ]
)
READ_FAULTS = st.sampled_from(["drop", "truncated", "status=500", "status=503", "not-json"])


@dataclass(frozen=True)
class Stage:
    """Where it is played, on a loop of its own."""

    runner: asyncio.Runner
    upstream: Sandbox
    doors: Mapping[str, Door]


class Writing(RuleBasedStateMachine):
    """`document` is what is upstream, without session id and metadata; None when there is no session context."""

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self.stage = stage
        self.upstream = stage.upstream
        self.upstream.reset()
        self.upstream.switches.conflict = "disguised-404"
        self.upstream.switches.put_mode = "replace"
        self.caller = Caller(self.upstream.tokens.issue("acme", None, SESSION), self.upstream.saas_token)
        self.document: Document | None = {"loyalty": {"tier": "gold"}, "context": {"color": "red"}}
        self.version = 1
        self.serial = 0
        self.create()

    def create(self) -> None:
        assert self.document is not None
        whole = {"sessionId": SESSION, **self.document}
        raw = {name: Raw(msgspec.json.encode(value)) for name, value in whole.items()}
        self.upstream.store.create("acme", SESSION, raw, "other", self.version)

    def teardown(self) -> None:
        self.upstream.faults.clear()

    # What happens beside the gateway

    @rule(operation=WRITE_OPERATIONS, fault=WRITE_FAULTS)
    def a_write_will_fail(self, operation: str, fault: str) -> None:
        if sum(each.operation == operation for each in self.upstream.faults.all()) < 3:
            self.upstream.faults.arm(fault, operation)

    @rule(operation=st.sampled_from(["get", "get-own"]), fault=READ_FAULTS)
    def a_read_will_fail(self, operation: str, fault: str) -> None:
        if sum(each.operation == operation for each in self.upstream.faults.all()) < 4:
            self.upstream.faults.arm(fault, operation)

    @rule()
    def nothing_fails_any_more(self) -> None:
        self.upstream.faults.clear()

    @rule(mode=st.sampled_from(["disguised-404", "409", "412"]))
    def conflicts_look_different(self, mode: Any) -> None:
        self.upstream.switches.conflict = mode

    @rule(mode=st.sampled_from(["replace", "merge"]))
    def a_put_means_something_else(self, mode: Any) -> None:
        self.upstream.switches.put_mode = mode

    @precondition(lambda self: self.document is not None)
    @rule(name=ATTRIBUTES, value=VALUES)
    def another_writer_comes(self, name: str, value: Any) -> None:
        document = self.attributes_changed({name: value}, remove_null=False)
        raw = {name: Raw(msgspec.json.encode(each)) for name, each in {"sessionId": SESSION, **document}.items()}
        self.upstream.store.write("acme", SESSION, raw, "other")
        self.written(document)

    @precondition(lambda self: self.document is not None)
    @rule()
    def the_session_goes_away(self) -> None:
        self.upstream.store.delete("acme", SESSION)
        self.document = None

    @precondition(lambda self: self.document is None)
    @rule()
    def the_session_comes_into_being(self) -> None:
        self.document, self.version = {"siteCode": "main"}, 1
        self.create()

    # What goes through it

    @rule(door=DOORS, version=VERSIONS, fields=FIELD_CHANGES, attributes=ATTRIBUTE_CHANGES, upsert=st.booleans())
    def replace(self, door: str, version: str, fields: Document, attributes: Document | None, upsert: bool) -> None:
        self.serial += 1
        given = {name: value for name, value in (attributes or {}).items() if value is not None}  # as the doors do
        context = {**given, "serial": self.serial}  # so that it differs from whatever is there
        state = {**fields, "context": context}
        after = {NAMES[name]: value for name, value in fields.items() if value is not None} | {"context": context}
        if self.upstream.switches.put_mode == "merge" and self.document is not None and "loyalty" in self.document:
            after["loyalty"] = self.document["loyalty"]
        expected = self.expected(version)
        call = self.stage.doors[door].replace(
            "acme", SESSION, state, self.caller, expected_version=expected, upsert=upsert
        )
        if expected is None and not (upsert and self.document is None):
            self.plays(call, refusal="INVALID_ARGUMENT")
        elif self.document is None:
            self.plays(call, **({"after": after, "number": 1} if upsert else {"refusal": "SESSION_NOT_FOUND"}))
        elif expected != self.version:
            self.plays(call, refusal="VERSION_CONFLICT", tells=self.version - (expected or 0) == 1)
        else:
            self.plays(call, after=after)

    @rule(door=DOORS, version=VERSIONS, fields=FIELD_CHANGES, attributes=ATTRIBUTE_CHANGES, own=st.booleans())
    def patch(self, door: str, version: str, fields: Document, attributes: Document | None, own: bool) -> None:
        changes: Document = {**fields, "context": attributes}
        expected = self.expected(version)
        through = self.stage.doors[door]
        call = (
            through.update_own("acme", changes, self.caller, expected_version=expected)
            if own
            else through.patch("acme", SESSION, changes, self.caller, expected_version=expected)
        )
        self.plays_change(call, expected, self.changed(fields, attributes))

    @rule(door=DOORS, version=VERSIONS, name=ATTRIBUTES, value=VALUES, own=st.booleans())
    def add_attribute(self, door: str, version: str, name: str, value: Any, own: bool) -> None:
        expected = self.expected(version)
        through = self.stage.doors[door]
        call = (
            through.add_own_attribute("acme", name, value, self.caller, expected_version=expected)
            if own
            else through.add_attribute("acme", SESSION, name, value, self.caller, expected_version=expected)
        )
        self.plays_change(call, expected, self.attributes_changed({name: value}, remove_null=False))

    @rule(door=DOORS, version=VERSIONS, name=ATTRIBUTES, own=st.booleans())
    def remove_attribute(self, door: str, version: str, name: str, own: bool) -> None:
        expected = self.expected(version)
        through = self.stage.doors[door]
        call = (
            through.remove_own_attribute("acme", name, self.caller, expected_version=expected)
            if own
            else through.remove_attribute("acme", SESSION, name, self.caller, expected_version=expected)
        )
        there = self.document is not None and name in self.document.get("context", {})
        after = self.attributes_changed({name: None}, remove_null=True)
        self.plays_change(call, expected, after, writes=there or expected is not None)

    @rule(door=DOORS)
    def read(self, door: str) -> None:
        failing = "get" in self.armed()
        seen = self.run(self.stage.doors[door].get("acme", SESSION))
        if isinstance(seen, Refused):
            assert failing, seen
            assert seen.reason.startswith("UPSTREAM_"), seen
        else:
            self.is_as_modelled(seen)

    # The model

    def expected(self, version: str) -> int | None:
        return {"none": None, "current": self.version, "stale": max(0, self.version - 1), "ahead": self.version + 1}[
            version
        ]

    def changed(self, fields: Document, attributes: Document | None) -> Document:
        document = {**self.attributes_changed(attributes, remove_null=True)}
        for name, value in fields.items():
            document.pop(NAMES[name], None)
            if value is not None:
                document[NAMES[name]] = value
        return document

    def attributes_changed(self, changes: Document | None, *, remove_null: bool) -> Document:
        document = dict(self.document or {})
        context = {} if changes is None else {**document.pop("context", {}), **changes}
        document.pop("context", None)
        if changes is not None and remove_null:
            context = {
                name: value for name, value in context.items() if not (name in changes and changes[name] is None)
            }
        return {**document, "context": context} if context else document

    def written(self, document: Document, number: int | None = None) -> None:
        self.document = document
        self.version = self.version + 1 if number is None else number

    def plays_change(
        self, call: Coroutine[Any, Any, Seen | None], expected: int | None, after: Document, *, writes: bool = True
    ) -> None:
        if self.document is None:
            self.plays(call, refusal="SESSION_NOT_FOUND")
        elif expected not in {None, self.version}:
            self.plays(call, refusal="VERSION_CONFLICT")
        else:
            self.plays(call, after=after, number=None if writes else self.version)

    def plays(
        self,
        call: Coroutine[Any, Any, Seen | None],
        *,
        after: Document | None = None,
        number: int | None = None,
        refusal: str | None = None,
        tells: bool = True,
    ) -> None:
        """Make a call, which leaves `after` behind, or is refused; `tells` whether a lost refusal can be made out."""
        armed = self.armed()
        reads_fail = bool(armed & {"get", "get-own"})
        seen = self.run(call)
        match seen:
            case Refused(reason="WRITE_OUTCOME_UNKNOWN"):
                assert reads_fail or (armed and not tells), seen
                if after is not None and self.is_upstream(after):
                    self.written(after, number)
            case Refused(reason=reason) if reason.startswith("UPSTREAM_"):
                assert reads_fail, seen
            case Refused(reason=reason, current=current):
                assert reason == refusal, seen
                if current is not None:
                    self.is_as_modelled(current)
            case None:
                assert reads_fail, "it was written, and could have been read back"
                assert after is not None, "it should have been refused"
                self.written(after, number)
            case _:
                assert after is not None, "it should have been refused"
                self.written(after, number)
                self.is_as_modelled(seen)

    def armed(self) -> set[str]:
        """Operations that will fail."""
        return {each.operation for each in self.upstream.faults.all()}

    def run(self, call: Coroutine[Any, Any, Seen | None]) -> Seen | Refused | None:
        async def outcome() -> Seen | Refused | None:
            try:
                return await call
            except Refused as refused:
                return refused

        return self.stage.runner.run(outcome())

    def is_as_modelled(self, seen: Seen | None) -> None:
        if seen is None:
            assert self.document is None
            return
        assert self.document is not None
        document = {
            **{NAMES[name]: seen.fields[name] for name in FIELDS if name in seen.fields},
            **seen.additional,
            **({"context": seen.context} if seen.context else {}),
        }
        assert (seen.version, document) == (self.version, self.document)

    def is_upstream(self, document: Document) -> bool:
        source = self.upstream.store.get("acme", SESSION)
        there = {} if source is None else msgspec.json.decode(source)
        there.pop("metadata", None)
        return bool(there == {"sessionId": SESSION, **document}) and self.moved()

    def moved(self) -> bool:
        return self.document is None or self.upstream.store.version("acme", SESSION) > self.version

    @invariant()
    def upstream_has_what_the_model_says(self) -> None:
        source = self.upstream.store.get("acme", SESSION)
        if self.document is None:
            assert source is None
            return
        assert source is not None
        there = msgspec.json.decode(source)
        assert there.pop("metadata")["version"] == self.version
        assert there == {"sessionId": SESSION, **self.document}


def test_any_sequence_of_writes_leaves_what_the_model_says() -> None:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def set_up() -> Stage:
            dev = await stack.enter_async_context(opened(upstream={"timeout": 5.0}))
            doors = {name: await stack.enter_async_context(entered(name, dev)) for name in ("grpc", "graphql")}
            return Stage(runner, dev.sandbox, doors)

        stage = runner.run(set_up())
        try:

            class OnStage(Writing):
                def __init__(self) -> None:
                    super().__init__(stage)

            run_state_machine_as_test(
                OnStage,
                settings=settings(
                    max_examples=60,
                    stateful_step_count=30,
                    phases=[Phase.generate],  # over sockets, shrinking takes minutes; the steps are short as they are
                    deadline=None,
                    derandomize=True,
                    database=None,
                    suppress_health_check=list(HealthCheck),
                ),
            )
        finally:
            runner.run(stack.aclose())
