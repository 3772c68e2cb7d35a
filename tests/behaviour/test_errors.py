"""Every way to fail, in the same words through either door."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pytest

from doors import Caller, Refused
from gateway.sandbox import seed
from stage import entered, opened
from waiting import eventually

if TYPE_CHECKING:
    from doors import Door
    from gateway.sandbox import Sandbox

UPSTREAM_FAULTS = [
    ("status=400", "INVALID_ARGUMENT", "INVALID_ARGUMENT"),
    ("status=429;retry-after=2", "RATE_LIMITED", "RESOURCE_EXHAUSTED"),
    ("status=500", "UPSTREAM_FAULT", "INTERNAL"),
    ("status=418", "UPSTREAM_FAULT", "INTERNAL"),
    ("status=502", "UPSTREAM_UNAVAILABLE", "UNAVAILABLE"),
    ("status=503;retry-after=3", "UPSTREAM_UNAVAILABLE", "UNAVAILABLE"),
    ("status=504", "UPSTREAM_TIMEOUT", "DEADLINE_EXCEEDED"),
    ("hang", "UPSTREAM_TIMEOUT", "DEADLINE_EXCEEDED"),
    ("drop", "UPSTREAM_UNAVAILABLE", "UNAVAILABLE"),
    ("truncated", "UPSTREAM_UNAVAILABLE", "UNAVAILABLE"),
    ("not-json", "UPSTREAM_MALFORMED", "INTERNAL"),
    ("wrong-json", "UPSTREAM_MALFORMED", "INTERNAL"),
]


@pytest.mark.parametrize(("fault", "reason", "code"), UPSTREAM_FAULTS)
async def test_an_upstream_that_fails(door: Door, upstream: Sandbox, fault: str, reason: str, code: str) -> None:
    upstream.faults.arm(fault, "get", times=None)

    with pytest.raises(Refused) as refused:
        await door.get("acme", seed.CUSTOMER_SESSION)

    assert refused.value.reason == reason
    assert refused.value.code == (code if door.name == "grpc" else "error")
    assert "Secret" not in refused.value.message
    assert "html" not in refused.value.message


@pytest.mark.parametrize(("fault", "seconds"), [("status=429;retry-after=2", 2), ("status=503;retry-after=3", 3)])
async def test_when_to_come_back_is_told(door: Door, upstream: Sandbox, fault: str, seconds: float) -> None:
    upstream.faults.arm(fault, "get", times=None)

    with pytest.raises(Refused) as refused:
        await door.get("acme", seed.CUSTOMER_SESSION)

    assert refused.value.retry_after == seconds


async def test_a_failure_of_one_read_of_many(door: Door, upstream: Sandbox) -> None:
    """A batch fails as a whole (AIP-231); a GraphQL list has errors of its own, but our door raises the first."""
    upstream.faults.arm("status=500", "get")

    with pytest.raises(Refused) as refused:
        await door.batch("acme", [seed.CUSTOMER_SESSION, seed.ODD_SESSION])

    assert refused.value.reason == "UPSTREAM_FAULT"


@pytest.mark.parametrize("own", [False, True])
async def test_a_tenant_that_is_not_configured(door: Door, upstream: Sandbox, customer: Caller, own: bool) -> None:
    with pytest.raises(Refused) as refused:
        await (door.get_own("initech", customer) if own else door.get("initech", "any"))

    assert refused.value.reason == "TENANT_NOT_CONFIGURED"
    assert "initech" in refused.value.message
    assert refused.value.code == ("NOT_FOUND" if door.name == "grpc" else "error")
    assert not upstream.requests


@pytest.mark.parametrize(
    ("tenant", "session_id", "field"),
    [
        ("Acme", "x", "tenant"),
        ("ac", "x", "tenant"),
        ("a" * 17, "x", "tenant"),
        ("acme/../globex", "x", "tenant"),
        ("", "x", "tenant"),
        ("acme", "", "session_id"),
        ("acme", ".", "session_id"),
        ("acme", "..", "session_id"),
        ("acme", "x" * 257, "session_id"),
        ("acme", "a\x00b", "session_id"),
    ],
)
async def test_input_that_cannot_be_sent(
    door: Door, upstream: Sandbox, tenant: str, session_id: str, field: str
) -> None:
    with pytest.raises(Refused) as refused:
        await door.get(tenant, session_id)

    assert refused.value.reason == "INVALID_ARGUMENT"
    assert list(refused.value.violations) == [field]
    assert not upstream.requests


@pytest.mark.parametrize(
    "session_id", ["../x?y=1", "a/b", "%2e%2e", "a b", "#", "?upsert=true", "ü 🛒", "a\\b", ";v=1"]
)
async def test_no_session_id_reaches_another_path(door: Door, upstream: Sandbox, session_id: str) -> None:
    assert await door.get("acme", session_id) is None

    assert [each.operation for each in upstream.requests if each.operation != "token"] == ["get"]


async def test_all_violations_are_told_at_once(door: Door, upstream: Sandbox) -> None:
    with pytest.raises(Refused) as refused:
        await door.replace("Acme", "", {"currency": "EURO", "context": {"": 1}}, Caller())

    assert refused.value.reason == "INVALID_ARGUMENT"
    assert refused.value.code == ("INVALID_ARGUMENT" if door.name == "grpc" else "InvalidInput")
    assert refused.value.violations.keys() == {
        "tenant",
        "session_id",
        "expected_version",
        "saas-token",
        "session_context.currency",
        "session_context.context",
    }
    assert not upstream.requests


async def test_the_callers_token_is_refused(door: Door, upstream: Sandbox) -> None:
    expired = upstream.tokens.issue("acme", -1, seed.CUSTOMER_SESSION)

    with pytest.raises(Refused) as refused:
        await door.get_own("acme", Caller(token=expired))

    assert refused.value.reason == "UNAUTHENTICATED"
    assert refused.value.code == ("UNAUTHENTICATED" if door.name == "grpc" else "error")
    assert expired not in refused.value.message


async def test_the_callers_token_does_not_suffice(door: Door, upstream: Sandbox, customer: Caller) -> None:
    upstream.faults.arm("status=403", "get-own")

    with pytest.raises(Refused) as refused:
        await door.get_own("acme", customer)

    assert refused.value.reason == "PERMISSION_DENIED"
    assert refused.value.code == ("PERMISSION_DENIED" if door.name == "grpc" else "error")


async def test_the_saas_token_is_of_another_customer(door: Door, upstream: Sandbox, customer: Caller) -> None:
    with pytest.raises(Refused) as refused:
        await door.replace("acme", seed.CUSTOMER_SESSION, {"customer_id": "C1"}, customer, expected_version=10)

    assert refused.value.reason == "PERMISSION_DENIED"
    assert refused.value.code == ("PERMISSION_DENIED" if door.name == "grpc" else "PermissionDenied")


@pytest.mark.parametrize(
    ("status", "reason", "code"),
    [
        (401, "UNAUTHENTICATED", {"grpc": "UNAUTHENTICATED", "graphql": "Unauthenticated"}),
        (403, "PERMISSION_DENIED", {"grpc": "PERMISSION_DENIED", "graphql": "PermissionDenied"}),
    ],
)
async def test_the_saas_token_has_expired(
    door: Door, upstream: Sandbox, status: Literal[401, 403], reason: str, code: dict[str, str]
) -> None:
    """Which costs nobody else the gateway's own token."""
    upstream.switches.wrong_saas_token_status = status
    await door.get("acme", seed.CUSTOMER_SESSION)
    upstream.requests.clear()

    for _ in range(3):
        with pytest.raises(Refused) as refused:
            await door.replace(
                "acme", seed.CUSTOMER_SESSION, {"currency": "CHF"}, Caller(saas_token="expired"), expected_version=10
            )
        assert (refused.value.reason, refused.value.code) == (reason, code[door.name])
        assert "the saas-token is" in refused.value.message

    assert await door.get("acme", seed.CUSTOMER_SESSION) is not None
    assert upstream.count("token") == 0


async def test_a_token_that_was_revoked_is_replaced_unseen_by_a_write(
    door: Door, upstream: Sandbox, customer: Caller
) -> None:
    """A 401 of a write is about the one token or the other, and is found out."""
    upstream.tokens.revoke(service_only=True)

    await door.replace(
        "acme",
        seed.CUSTOMER_SESSION,
        {"currency": "CHF", "customer_id": seed.CUSTOMER_ID},
        customer,
        expected_version=10,
    )

    assert [each.status for each in upstream.requests if each.operation == "put"] == [401, 204]
    assert upstream.count("token") == 1


@pytest.mark.parametrize("name", ["grpc", "graphql"])
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("status=401", "GATEWAY_CREDENTIALS_REFUSED"),
        ("status=503", "UPSTREAM_UNAVAILABLE"),
        ("status=429", "UPSTREAM_UNAVAILABLE"),
        ("drop", "UPSTREAM_UNAVAILABLE"),
    ],
    ids=[
        "the gateway's",
        "not to be found out",
        "not to be found out, as there are too many requests",
        "not to be found out, as nothing answers",
    ],
)
async def test_whose_token_is_refused_to_a_write_is_asked_by_a_read(name: str, fault: str, reason: str) -> None:
    """No customer is told to log in again unless it is his, and nothing is in doubt: upstream has refused the write."""
    async with opened() as dev, entered(name, dev) as door:
        dev.sandbox.faults.arm("status=401", times=None, operation="put")
        dev.sandbox.faults.arm(fault, times=None, operation="get")

        with pytest.raises(Refused) as refused:
            await door.replace(
                "acme",
                seed.CUSTOMER_SESSION,
                {"currency": "CHF"},
                Caller(saas_token=dev.sandbox.saas_token),
                expected_version=10,
            )

        assert refused.value.reason == reason
        assert dev.sandbox.count("put") == 1


@pytest.mark.parametrize("name", ["grpc", "graphql"])
async def test_when_to_ask_again_whose_token_is_refused_is_passed_on(name: str) -> None:
    async with opened() as dev, entered(name, dev) as door:
        dev.sandbox.faults.arm("status=401", times=None, operation="put")
        dev.sandbox.faults.arm("status=503;retry-after=3", times=None, operation="get")

        caller = Caller(saas_token=dev.sandbox.saas_token)
        with pytest.raises(Refused) as refused:
            await door.replace("acme", seed.CUSTOMER_SESSION, {"currency": "CHF"}, caller, expected_version=10)

        assert refused.value.retry_after == 3


@pytest.mark.parametrize("name", ["grpc", "graphql"])
@pytest.mark.parametrize(
    ("fault", "reason", "retry_after"),
    [
        ("status=503;retry-after=3", "UPSTREAM_UNAVAILABLE", 3),
        ("drop", "UPSTREAM_UNAVAILABLE", None),
        ("hang", "UPSTREAM_TIMEOUT", None),
        ("status=500", "UPSTREAM_FAULT", None),
        ("not-json", "UPSTREAM_MALFORMED", None),
        ("status=403", "PERMISSION_DENIED", None),
    ],
)
async def test_an_own_session_that_cannot_be_read_before_its_first_write(
    name: str, fault: str, reason: str, retry_after: float | None
) -> None:
    """The cache needs its id. Why that failed is told as for a read, and nothing is in doubt."""
    async with opened(cache={"backend": "memory"}) as dev, entered(name, dev) as door:
        dev.sandbox.faults.arm(fault, "get-own", times=None)

        with pytest.raises(Refused) as refused:
            await door.add_own_attribute("acme", "color", 1, Caller(token=seed.CUSTOMER_TOKEN))

        assert (refused.value.reason, refused.value.retry_after) == (reason, retry_after)
        assert dev.sandbox.count("add-own-attribute") == 0


@pytest.mark.parametrize("name", ["grpc", "graphql"])
@pytest.mark.parametrize("fault", ["status=401", "status=403"])
async def test_the_gateways_own_token_is_refused(name: str, fault: str) -> None:
    async with opened() as dev, entered(name, dev) as door:
        dev.sandbox.faults.arm(fault, "get", times=None)

        with pytest.raises(Refused) as refused:
            await door.get("acme", seed.CUSTOMER_SESSION)

        assert refused.value.reason == "GATEWAY_CREDENTIALS_REFUSED"
        assert refused.value.code == ("INTERNAL" if name == "grpc" else "error")
        assert dev.sandbox.count("get") == (2 if fault == "status=401" else 1)


@pytest.mark.parametrize("name", ["grpc", "graphql"])
async def test_the_gateways_own_credentials_are_refused(name: str) -> None:
    tenants: dict[str, object] = {"acme": {"client_id": "acme-client", "client_secret": "canary-of-a-secret"}}
    async with opened(tenants=tenants) as dev, entered(name, dev) as door:
        with pytest.raises(Refused) as refused:
            await door.get("acme", seed.CUSTOMER_SESSION)

        assert refused.value.reason == "GATEWAY_CREDENTIALS_REFUSED"
        assert "canary" not in str(refused.value)


@pytest.mark.parametrize("name", ["grpc", "graphql"])
async def test_a_client_that_lacks_the_scope(name: str) -> None:
    async with opened() as dev, entered(name, dev) as door:
        dev.sandbox.switches.granted_scopes = ("product.product_read",)
        with pytest.raises(Refused) as refused:
            await door.get("acme", seed.CUSTOMER_SESSION)

        assert refused.value.reason == "GATEWAY_CREDENTIALS_REFUSED"
        assert "scope" in refused.value.message


@pytest.mark.parametrize("name", ["grpc", "graphql"])
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("status=503", "UPSTREAM_UNAVAILABLE"),
        ("status=500", "UPSTREAM_UNAVAILABLE"),
        ("drop", "UPSTREAM_UNAVAILABLE"),
        ("not-json", "UPSTREAM_UNAVAILABLE"),
        ("status=429;retry-after=1", "RATE_LIMITED"),
    ],
)
async def test_a_token_endpoint_that_fails_is_not_hammered(name: str, fault: str, reason: str) -> None:
    async with opened() as dev, entered(name, dev) as door:
        dev.sandbox.faults.arm(fault, "token", times=None)

        for _ in range(5):
            with pytest.raises(Refused) as refused:
                await door.get("acme", seed.CUSTOMER_SESSION)
            assert refused.value.reason == reason

        assert dev.sandbox.count("token") <= 2


@pytest.mark.parametrize("name", ["grpc", "graphql"])
async def test_no_connection_to_upstream(name: str) -> None:
    async with opened(upstream={"base_url": "http://127.0.0.1:1"}) as dev, entered(name, dev) as door:
        with pytest.raises(Refused) as refused:
            await door.get("acme", seed.CUSTOMER_SESSION)

        assert refused.value.reason == "UPSTREAM_UNAVAILABLE"
        assert refused.value.code == ("UNAVAILABLE" if name == "grpc" else "error")


async def test_a_token_that_was_revoked_is_replaced_unseen(door: Door, upstream: Sandbox) -> None:
    await door.get("acme", seed.CUSTOMER_SESSION)
    upstream.requests.clear()
    upstream.faults.arm("status=401", "get")

    assert await door.get("acme", seed.CUSTOMER_SESSION) is not None
    assert [each.operation for each in upstream.requests] == ["get", "token", "get"]


async def test_the_callers_deadline_reaches_upstream(door: Door, upstream: Sandbox) -> None:
    """No upstream call outlives its caller, whose own deadline is sooner than the gateway's."""
    if door.name == "graphql":
        pytest.skip("HTTP carries no deadline; see test_a_client_that_goes_away for what ends a call there")
    upstream.faults.arm("hang", "get", times=None)
    with pytest.raises(Refused) as refused:
        await door.get("acme", seed.CUSTOMER_SESSION, timeout=0.3)

    assert refused.value.code == "DEADLINE_EXCEEDED"
    await eventually(lambda: upstream.under_way == 0)
