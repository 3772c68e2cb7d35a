"""The audit log: who did what, told once, with nothing in it that is a secret."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
import pytest_asyncio
import structlog
from access.calls import CALLS, Clients, named
from access.issuing import AUDIENCE, FakeIssuer, issuing
from access.test_table import KEYS, bearer, key
from structlog.testing import capture_logs

from gateway.access.audit import fingerprint
from gateway.sandbox import seed
from gateway.tenants import printable
from stage import opened
from waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from structlog.typing import EventDict

    from gateway.sandbox import Sandbox

ACCESS = {
    "both": {"hash": KEYS["both"][1], "permissions": ("sessions:read", "sessions:write"), "tenants": ("*",)},
    "read-only": {"hash": KEYS["read-only"][1], "permissions": ("sessions:read",), "tenants": ("acme",)},
}
OPERATIONS = {
    "Query.sessionContext": "get",
    "Query.sessionContexts": "batch_get",
    "Query.mySessionContext": "get_own",
    "Mutation.replaceSessionContext": "replace",
    "Mutation.patchSessionContext": "patch",
    "Mutation.addSessionContextAttribute": "add_attribute",
    "Mutation.removeSessionContextAttribute": "remove_attribute",
    "Mutation.updateMySessionContext": "update_own",
    "Mutation.addMySessionContextAttribute": "add_own_attribute",
    "Mutation.removeMySessionContextAttribute": "remove_own_attribute",
    "SessionContextService.GetSessionContext": "get",
    "SessionContextService.BatchGetSessionContexts": "batch_get",
    "SessionContextService.ReplaceSessionContext": "replace",
    "SessionContextService.PatchSessionContext": "patch",
    "SessionContextService.AddAttribute": "add_attribute",
    "SessionContextService.RemoveAttribute": "remove_attribute",
    "OwnSessionContextService.GetOwnSessionContext": "get_own",
    "OwnSessionContextService.UpdateOwnSessionContext": "update_own",
    "OwnSessionContextService.AddOwnAttribute": "add_own_attribute",
    "OwnSessionContextService.RemoveOwnAttribute": "remove_own_attribute",
}
SESSION = fingerprint(seed.CUSTOMER_SESSION)


@asynccontextmanager
async def reached(**sections: dict[str, object]) -> AsyncIterator[tuple[Clients, FakeIssuer]]:
    async with issuing() as fake:
        issuer = {"issuer": fake.url, "audience": AUDIENCE, "tenants_claim": "tenants", "jwks_url": fake.jwks_url}
        async with (
            opened(access={"keys": ACCESS, "issuers": {"corp": issuer}}, **sections) as dev,
            grpc.aio.insecure_channel(dev.doors.grpc) as channel,
            httpx.AsyncClient() as http,
        ):
            yield Clients(dev, channel, http), fake


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def reachable() -> AsyncIterator[tuple[Clients, FakeIssuer]]:
    async with reached() as found:
        yield found


@pytest.fixture
def clients(reachable: tuple[Clients, FakeIssuer]) -> Iterator[Clients]:
    reachable[0].dev.sandbox.reset()
    yield reachable[0]
    reachable[0].dev.sandbox.faults.clear()


@pytest.fixture
def fake(reachable: tuple[Clients, FakeIssuer]) -> FakeIssuer:
    return reachable[1]


@pytest.fixture
def upstream(clients: Clients) -> Sandbox:
    return clients.dev.sandbox


@pytest.fixture
def lines() -> Iterator[list[EventDict]]:
    """The lines of the log, as they are written."""
    with capture_logs() as captured:
        yield captured


def line(event: str, operation: str, outcome: str, **others: object) -> dict[str, object]:
    """A line as it is expected to be, whole."""
    level = "info" if event == "write" else "warning"
    return {"event": event, "log_level": level, "operation": operation, "outcome": outcome, "tenant": "acme", **others}


def saas(upstream: Sandbox) -> dict[str, str]:
    return {"saas-token": upstream.saas_token}


BY_KEY = {"principal": "both", "kind": "key"}
BY_SHOPPER = {"principal": "shopper", "kind": "emporix-token"}
NOBODY = {"principal": None, "kind": None}


def session_of(name: str) -> str | None:
    """What a line says of the session: a batch has many, and one's own has no id here."""
    return None if "own" in OPERATIONS[name] or OPERATIONS[name] == "batch_get" else SESSION


def test_every_call_has_an_operation() -> None:
    assert CALLS.keys() == OPERATIONS.keys()


# What is told


@pytest.mark.parametrize("name", named("read", "own read"))
async def test_a_read_that_succeeds_is_not_told(clients: Clients, lines: list[EventDict], name: str) -> None:
    headers = {**key("both"), **bearer(seed.CUSTOMER_TOKEN)}
    assert (await CALLS[name](clients, headers)).reason == "OK"

    assert lines == []


@pytest.mark.parametrize("name", named("read"))
async def test_a_read_of_what_there_is_not_is_not_told(clients: Clients, lines: list[EventDict], name: str) -> None:
    clients.dev.sandbox.store.clear()
    assert (await CALLS[name](clients, key("both"))).reason in {"OK", "SESSION_NOT_FOUND"}

    assert lines == []


@pytest.mark.parametrize("name", named("write"))
async def test_a_write_is_told_once(
    clients: Clients, upstream: Sandbox, fake: FakeIssuer, lines: list[EventDict], name: str
) -> None:
    operation = OPERATIONS[name]
    assert (await CALLS[name](clients, {**key("both"), **saas(upstream)})).reason == "OK"
    upstream.reset()
    assert (await CALLS[name](clients, {**bearer(fake.token()), **saas(upstream)})).reason == "OK"

    assert lines == [
        line("write", operation, "applied", session=SESSION, **BY_KEY),
        line("write", operation, "applied", session=SESSION, principal="corp:checkout", kind="jwt"),
    ]


@pytest.mark.parametrize("name", named("own write"))
async def test_a_write_of_ones_own_is_told_once(clients: Clients, lines: list[EventDict], name: str) -> None:
    assert (await CALLS[name](clients, bearer(seed.CUSTOMER_TOKEN))).reason == "OK"

    assert lines == [line("write", OPERATIONS[name], "applied", session=None, **BY_SHOPPER)]


@pytest.mark.parametrize("name", named("write"))
@pytest.mark.parametrize("fault", ["status=500", "status=403", "status=429", "status=400", "drop"])
async def test_a_write_that_fails_is_told_once_with_its_reason(
    clients: Clients, upstream: Sandbox, lines: list[EventDict], name: str, fault: str
) -> None:
    for operation in ("get", "put", "add-attribute", "remove-attribute"):
        upstream.faults.arm(fault, operation, times=None)

    answer = await CALLS[name](clients, {**key("both"), **saas(upstream)})

    assert answer.reason != "OK"
    audit = [each for each in lines if each["event"] != "upstream_failed"]
    assert audit == [line("write", OPERATIONS[name], answer.reason, session=SESSION, **BY_KEY)]


@pytest.mark.parametrize("name", named("write"))
async def test_a_write_whose_input_is_wrong_is_told_once(
    clients: Clients, upstream: Sandbox, lines: list[EventDict], name: str
) -> None:
    await CALLS[name](clients, {**key("both"), **saas(upstream)}, good=False)

    assert lines == [line("write", OPERATIONS[name], "INVALID_ARGUMENT", session=fingerprint(""), **BY_KEY)]


async def test_a_write_whose_caller_goes_away_is_told_once(
    clients: Clients, upstream: Sandbox, lines: list[EventDict]
) -> None:
    name = "SessionContextService.AddAttribute"
    upstream.faults.arm("hang", "add-attribute", times=None)
    upstream.faults.arm("hang", "get", times=None)
    upstream.faults.arm("hang", "put", times=None)
    gone = asyncio.ensure_future(CALLS[name](clients, {**key("both"), **saas(upstream)}))
    await eventually(lambda: upstream.under_way > 0)
    gone.cancel()
    await eventually(lambda: bool(lines))

    assert lines == [line("write", "add_attribute", "cancelled", session=SESSION, **BY_KEY)]


async def test_a_write_that_meets_a_defect_is_told_as_one(
    clients: Clients, upstream: Sandbox, lines: list[EventDict], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no caller who went away."""

    async def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("gateway.sessions.service.SessionContexts.add_attribute", broken)
    answer = await CALLS["SessionContextService.AddAttribute"](clients, {**key("both"), **saas(upstream)})

    told = [each for each in lines if each["event"] == "write"]
    assert answer.reason == "INTERNAL"
    assert told == [line("write", "add_attribute", "INTERNAL", session=SESSION, **BY_KEY)]
    assert [each["event"] for each in lines] == ["write", "defect"]


@pytest.mark.parametrize("name", named("read", "write"))
async def test_who_is_not_known_is_told_once(
    clients: Clients, fake: FakeIssuer, lines: list[EventDict], name: str
) -> None:
    for headers in ({}, {"x-api-key": "both-wrong"}, bearer(seed.CUSTOMER_TOKEN), bearer(fake.token(exp=1))):
        assert (await CALLS[name](clients, headers)).reason == "CALLER_UNAUTHENTICATED"

    expected = line(
        "authentication_failed", OPERATIONS[name], "CALLER_UNAUTHENTICATED", session=session_of(name), **NOBODY
    )
    assert lines == [
        expected,
        expected,
        {**expected, "why": "ValueError"},
        {**expected, "why": "ExpiredTokenError"},
    ]


@pytest.mark.parametrize("name", named("write"))
async def test_who_may_not_is_told_once(clients: Clients, lines: list[EventDict], name: str) -> None:
    assert (await CALLS[name](clients, key("read-only"))).reason == "CALLER_NOT_PERMITTED"

    refused = line("refused", OPERATIONS[name], "CALLER_NOT_PERMITTED", principal="read-only", kind="key")
    assert lines == [{**refused, "session": SESSION}]


@pytest.mark.parametrize("name", named("own read", "own write"))
@pytest.mark.parametrize("headers", [{}, bearer("canary-of-a-token")])
async def test_a_shopper_who_is_not_known_is_told_once(
    clients: Clients, lines: list[EventDict], name: str, headers: dict[str, str]
) -> None:
    assert (await CALLS[name](clients, headers)).reason == "UNAUTHENTICATED"

    assert lines == [line("authentication_failed", OPERATIONS[name], "UNAUTHENTICATED", session=None, **NOBODY)]


@pytest.mark.parametrize("name", named("own read", "own write"))
async def test_a_shopper_who_may_not_is_told_once(
    clients: Clients, upstream: Sandbox, lines: list[EventDict], name: str
) -> None:
    for operation in ("get-own", "patch-own", "add-own-attribute", "remove-own-attribute"):
        upstream.faults.arm("status=403", operation, times=None)

    assert (await CALLS[name](clients, bearer(seed.CUSTOMER_TOKEN))).reason == "PERMISSION_DENIED"

    assert lines == [line("refused", OPERATIONS[name], "PERMISSION_DENIED", session=None, **BY_SHOPPER)]


async def test_each_field_of_a_request_is_told(clients: Clients, lines: list[EventDict]) -> None:
    document = """mutation {
      a: removeSessionContextAttribute(input: {tenant: "acme", sessionId: "a", name: "x"}) { __typename }
      b: removeSessionContextAttribute(input: {tenant: "globex", sessionId: "b", name: "x"}) { __typename }
    }"""
    await clients.http.post(clients.dev.graphql_url, json={"query": document}, headers=key("read-only"))

    assert [(each["event"], each["tenant"], each["session"]) for each in lines] == [
        ("refused", "acme", fingerprint("a")),
        ("refused", "globex", fingerprint("b")),
    ]


# What is not


@pytest.mark.parametrize("name", CALLS)
async def test_no_line_holds_a_secret_an_attribute_or_a_session(
    clients: Clients, upstream: Sandbox, fake: FakeIssuer, lines: list[EventDict], name: str
) -> None:
    token = fake.token()
    for headers in (key("both"), key("read-only"), bearer(token), bearer(seed.CUSTOMER_TOKEN), {}):
        await CALLS[name](clients, {**saas(upstream), **headers})

    text = json.dumps(lines)
    keys = [each[0].get_secret_value() for each in KEYS.values()]
    secrets = [token, seed.CUSTOMER_TOKEN, upstream.saas_token, *keys, *(each.rpartition("-")[2] for each in keys)]
    assert text.count("principal") >= 2
    for hidden in (*secrets, seed.CUSTOMER_SESSION, "EUR", "note"):
        assert hidden not in text


FORGED = '\n{"event": "write", "principal": "admin"}\r\x1b[2J\u2028\u202e\x00\ud800'


@pytest.mark.parametrize("renderer", [structlog.processors.JSONRenderer(), structlog.dev.ConsoleRenderer(colors=False)])
@pytest.mark.parametrize("headers", [{}, key("read-only")])
async def test_nobody_can_forge_a_line(
    clients: Clients, lines: list[EventDict], renderer: Any, headers: dict[str, str]
) -> None:
    """Whatever a tenant is called, it is one line, and nothing that a terminal would act upon."""
    method = CALLS["SessionContextService.RemoveAttribute"]
    for tenant in (FORGED[:-1], FORGED[1:-1], FORGED[40:-1], "acme" * 5, "acme\x00"):
        await method(clients, headers, tenant=tenant)

    rendered = [renderer(None, "warning", dict(each)) for each in lines]
    assert len(rendered) == 5
    assert all(each.isprintable() for each in rendered)
    assert {len(str(each["tenant"])) <= 16 * 6 + 1 for each in lines} == {True}
    assert [each["tenant"] for each in lines][3:] == ["acmeacmeacmeacme…", "acme\\x00"]


def test_what_is_printable_stays_as_it_is() -> None:
    assert printable("acme ☃ Ünïcode 'quoted'") == "acme ☃ Ünïcode 'quoted'"
    assert printable(FORGED).isprintable()
    assert printable("\ud800\u202e") == "\\ud800\\u202e"


def test_a_fingerprint_is_the_same_for_the_same_session_and_no_other() -> None:
    assert fingerprint("a") == fingerprint("a") != fingerprint("b")
    assert len(fingerprint("\ud800" * 1000)) == 16
