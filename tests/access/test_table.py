"""Who may call what: every root field and every method, with every credential that there could be.

The table is made from the schema and from the descriptors. A field or method without a rule fails.
"""

from __future__ import annotations

import hashlib
import json
import time
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
import pytest_asyncio
from access.calls import CALLS, RULES, Clients, named
from access.issuing import AUDIENCE, FakeIssuer, issuing, public, rsa_key

from gateway.access.keys import new_key
from gateway.sandbox import seed
from stage import opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping

    from gateway.sandbox import Sandbox
    from stage import Dev

READ, WRITE = "sessions:read", "sessions:write"
GRANTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "both": ((READ, WRITE), ("acme",)),
    "everywhere": ((READ, WRITE), ("*",)),
    "read-only": ((READ,), ("acme",)),
    "write-only": ((WRITE,), ("acme",)),
    "elsewhere": ((READ, WRITE), ("globex",)),
}
KEYS = {name: new_key(name) for name in GRANTS}


def key(name: str) -> dict[str, str]:
    return {"x-api-key": KEYS[name][0].get_secret_value()}


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


UNKNOWN, FORBIDDEN = "CALLER_UNAUTHENTICATED", "CALLER_NOT_PERMITTED"
STATUS = {"OK": "OK", UNKNOWN: "UNAUTHENTICATED", FORBIDDEN: "PERMISSION_DENIED"}

CREDENTIALS: dict[str, tuple[Callable[[FakeIssuer], Mapping[str, str]], str, str]] = {
    # what is sent, and what comes of a read and of a write
    "nothing": (lambda _: {}, UNKNOWN, UNKNOWN),
    "the right key": (lambda _: key("both"), "OK", "OK"),
    "a key for all tenants": (lambda _: key("everywhere"), "OK", "OK"),
    "a key that may read": (lambda _: key("read-only"), "OK", FORBIDDEN),
    "a key that may write": (lambda _: key("write-only"), FORBIDDEN, "OK"),
    "a key of another tenant": (lambda _: key("elsewhere"), FORBIDDEN, FORBIDDEN),
    "a wrong key": (lambda _: {"x-api-key": f"both-{'0' * 48}"}, UNKNOWN, UNKNOWN),
    "a key of nobody": (lambda _: {"x-api-key": f"nobody-{'0' * 48}"}, UNKNOWN, UNKNOWN),
    "the hash of a key": (lambda _: {"x-api-key": KEYS["both"][1]}, UNKNOWN, UNKNOWN),
    "the right key as a token": (lambda _: bearer(KEYS["both"][0].get_secret_value()), UNKNOWN, UNKNOWN),
    "the right token": (lambda fake: bearer(fake.token()), "OK", "OK"),
    "the right token, by another spelling": (lambda fake: {"authorization": f"bEARER  {fake.token()}"}, "OK", "OK"),
    "the right token as a key": (lambda fake: {"x-api-key": fake.token()}, UNKNOWN, UNKNOWN),
    "the right token by another scheme": (lambda fake: {"authorization": f"Basic {fake.token()}"}, UNKNOWN, UNKNOWN),
    "the right token, and a wrong key": (
        lambda fake: {**bearer(fake.token()), "x-api-key": f"both-{'0' * 48}"},
        UNKNOWN,
        UNKNOWN,
    ),
    "a wrong token, and the right key": (lambda fake: {**bearer(fake.unsigned()), **key("both")}, "OK", "OK"),
    "a token for all tenants": (lambda fake: bearer(fake.token(tenants="*")), "OK", "OK"),
    "a token that may read": (lambda fake: bearer(fake.token(scope=READ)), "OK", FORBIDDEN),
    "a token that may do nothing": (lambda fake: bearer(fake.token(scope="openid")), FORBIDDEN, FORBIDDEN),
    "a token of another tenant": (lambda fake: bearer(fake.token(tenants=["globex"])), FORBIDDEN, FORBIDDEN),
    "a token of no tenant": (lambda fake: bearer(fake.token(tenants=None)), FORBIDDEN, FORBIDDEN),
    "an expired token": (lambda fake: bearer(fake.token(exp=int(time.time()) - 60)), UNKNOWN, UNKNOWN),
    "a token not yet valid": (lambda fake: bearer(fake.token(nbf=int(time.time()) + 60)), UNKNOWN, UNKNOWN),
    "a token for another audience": (lambda fake: bearer(fake.token(aud="other")), UNKNOWN, UNKNOWN),
    "a token of another issuer": (lambda fake: bearer(fake.token(iss="https://other.example")), UNKNOWN, UNKNOWN),
    "a token of alg none": (lambda fake: bearer(fake.unsigned()), UNKNOWN, UNKNOWN),
    "a token of HS256 by the public key in PEM": (
        lambda fake: bearer(fake.confused(rsa_key().as_pem(private=False))),
        UNKNOWN,
        UNKNOWN,
    ),
    "a token of HS256 by the public key as published": (
        lambda fake: bearer(fake.confused(json.dumps(public(rsa_key())).encode())),
        UNKNOWN,
        UNKNOWN,
    ),
    "a token of an unknown key id": (lambda fake: bearer(fake.token(rsa_key("unknown"))), UNKNOWN, UNKNOWN),
    "a token signed by another's key": (
        lambda fake: bearer(fake.token(rsa_key("unknown"), header={"kid": "first"})),
        UNKNOWN,
        UNKNOWN,
    ),
    "a shopper's token": (lambda _: bearer(seed.CUSTOMER_TOKEN), UNKNOWN, UNKNOWN),
    "an empty key": (lambda _: {"x-api-key": ""}, UNKNOWN, UNKNOWN),
}

MANAGEMENT = named("read", "write")
OWN = named("own read", "own write")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def fake() -> AsyncIterator[FakeIssuer]:
    async with issuing() as fake:
        yield fake


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def clients(fake: FakeIssuer) -> AsyncIterator[Clients]:
    """A gateway that takes keys, and the issuer's tokens."""
    keys = {
        name: {"hash": KEYS[name][1], "permissions": permissions, "tenants": tenants}
        for name, (permissions, tenants) in GRANTS.items()
    }
    issuer = {"issuer": fake.url, "audience": AUDIENCE, "tenants_claim": "tenants", "jwks_url": fake.jwks_url}
    async with (
        opened(access={"keys": keys, "issuers": {"corp": issuer}}) as dev,
        grpc.aio.insecure_channel(dev.doors.grpc) as channel,
        httpx.AsyncClient() as http,
    ):
        yield Clients(dev, channel, http)


@pytest.fixture
def upstream(clients: Clients) -> Sandbox:
    """The sandbox behind the gateway, as new."""
    clients.dev.sandbox.reset()
    return clients.dev.sandbox


def sent(upstream: Sandbox) -> list[str]:
    """The operations that upstream was asked for."""
    return [each.operation for each in upstream.requests]


def test_every_field_and_every_method_has_a_rule() -> None:
    assert CALLS.keys() == RULES.keys()


@pytest.mark.parametrize("credential", CREDENTIALS)
@pytest.mark.parametrize("name", MANAGEMENT)
async def test_a_session_of_a_tenant_needs_a_credential_with_the_permission(
    clients: Clients, fake: FakeIssuer, upstream: Sandbox, name: str, credential: str
) -> None:
    headers, on_read, on_write = CREDENTIALS[credential]
    expected = on_read if RULES[name] == "read" else on_write

    answer = await CALLS[name](clients, {"saas-token": upstream.saas_token, **headers(fake)})

    assert answer.reason == expected
    assert answer.status == ("200" if "." in name and name[0] in "QM" else STATUS[expected])
    assert bool(set(sent(upstream)) - {"token"}) == (expected == "OK")
    if expected != "OK":
        assert not upstream.requests


@pytest.mark.parametrize("name", MANAGEMENT)
async def test_who_calls_is_asked_before_what_there_is_and_what_is_wrong(
    clients: Clients, fake: FakeIssuer, upstream: Sandbox, name: str
) -> None:
    """AIP-193 and AIP-211: nobody learns by errors what they may not know, and nobody's input is worked on before."""
    reads = RULES[name] == "read"
    may_not = key("write-only" if reads else "read-only")
    asked: list[tuple[str, dict[str, str], dict[str, Any]]] = [
        (UNKNOWN, {}, {"good": False}),
        (UNKNOWN, {}, {"good": False, "tenant": "No Tenant"}),
        (UNKNOWN, {}, {"tenant": "initech"}),
        (UNKNOWN, bearer(seed.CUSTOMER_TOKEN), {"good": False}),
        (FORBIDDEN, may_not, {"good": False}),
        (FORBIDDEN, may_not, {"good": False, "tenant": "No Tenant"}),
        (FORBIDDEN, key("both"), {"good": False, "tenant": "initech"}),
        (FORBIDDEN, key("both"), {"tenant": "globex"}),
        (FORBIDDEN, bearer(fake.token(scope="openid")), {"good": False}),
        ("INVALID_ARGUMENT", key("both"), {"good": False}),
        ("INVALID_ARGUMENT", key("everywhere"), {"tenant": "No Tenant"}),
        ("TENANT_NOT_CONFIGURED", key("everywhere"), {"tenant": "initech"}),
    ]
    saas = {"saas-token": upstream.saas_token}

    answers = [await CALLS[name](clients, {**saas, **headers}, **request) for _, headers, request in asked]

    assert [each.reason for each in answers] == [reason for reason, *_ in asked]
    assert not upstream.requests


async def test_who_has_no_credential_is_told_what_this_gateway_takes(clients: Clients, dev: Dev) -> None:
    """A frontend that sends the shopper's token for any session has sent `authorization`: that is not what is missing.

    The gateway of `clients` takes keys and JWTs, that of `dev` keys alone.
    """
    query = {"query": f'{{ sessionContext(tenant: "acme", sessionId: "{seed.CUSTOMER_SESSION}") {{ currency }} }}'}

    async def message(there: Dev, headers: dict[str, str]) -> str:
        response = await clients.http.post(there.graphql_url, json=query, headers=headers)
        (error,) = response.json()["errors"]
        assert error["extensions"]["code"] == UNKNOWN
        return str(error["message"])

    missing = "a credential of this gateway is missing: send "
    assert await message(clients.dev, {}) == f"{missing}`x-api-key` or a JWT in `authorization`"
    assert await message(dev, {}) == f"{missing}`x-api-key`"
    assert await message(dev, bearer(seed.CUSTOMER_TOKEN)) == (
        f"{missing}`x-api-key`; the token in `authorization` is for operations on the shopper's own session alone"
    )


@pytest.mark.parametrize("credential", ["nothing", "a wrong key", "a key of another tenant", "the right key"])
@pytest.mark.parametrize("name", OWN)
async def test_ones_own_session_needs_no_credential_of_the_gateways_and_has_no_use_of_one(
    clients: Clients, fake: FakeIssuer, upstream: Sandbox, name: str, credential: str
) -> None:
    upstream.tokens.revoke(service_only=True)
    headers = {**CREDENTIALS[credential][0](fake), **bearer(seed.CUSTOMER_TOKEN)}

    answer = await CALLS[name](clients, headers)

    assert answer.reason == "OK"
    assert upstream.requests
    assert {each.headers["authorization"] for each in upstream.requests} == {shown(seed.CUSTOMER_TOKEN)}
    assert "token" not in sent(upstream)
    assert all(each.endswith("-own") or "own" in each for each in sent(upstream))


@pytest.mark.parametrize("name", OWN)
async def test_a_token_of_the_gateways_callers_does_not_open_a_shoppers_session(
    clients: Clients, fake: FakeIssuer, upstream: Sandbox, name: str
) -> None:
    """It is passed on as it is, and upstream does not know it."""
    token = fake.token()

    answer = await CALLS[name](clients, {**key("everywhere"), **bearer(token)})

    assert answer.reason == "UNAUTHENTICATED"
    assert {each.headers["authorization"] for each in upstream.requests} == {shown(token)}
    assert token not in answer.text


@pytest.mark.parametrize("name", OWN)
async def test_a_key_does_not_open_a_shoppers_session(
    clients: Clients, fake: FakeIssuer, upstream: Sandbox, name: str
) -> None:
    """Whether there is a token is asked before what is wrong with the input."""
    for good in (True, False):
        assert (await CALLS[name](clients, key("everywhere"), good=good)).reason == "UNAUTHENTICATED"

    assert not upstream.requests


@pytest.mark.parametrize("name", MANAGEMENT)
async def test_a_callers_token_is_not_used_upstream(
    clients: Clients, fake: FakeIssuer, upstream: Sandbox, name: str
) -> None:
    token = fake.token()
    assert (await CALLS[name](clients, {"saas-token": upstream.saas_token, **bearer(token)})).reason == "OK"

    used = {each.headers["authorization"] for each in upstream.requests if each.operation != "token"}
    assert used
    assert used.isdisjoint({shown(token), shown(seed.CUSTOMER_TOKEN)})


def shown(token: str) -> str:
    """How the sandbox's log shows a token."""
    return hashlib.sha256(f"Bearer {token}".encode()).hexdigest()[:8]
