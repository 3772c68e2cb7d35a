"""Reading, through either door."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from doors import Caller, Refused
from gateway.sandbox import seed
from stage import entered, opened

if TYPE_CHECKING:
    from doors import Door, Seen
    from gateway.sandbox import Sandbox


async def test_a_session_context_comes_back_whole(door: Door, upstream: Sandbox) -> None:
    found = await door.get("acme", seed.CUSTOMER_SESSION)

    assert found is not None
    assert found.session_id == seed.CUSTOMER_SESSION
    assert found.version == 10
    assert found.fields == {
        "customer_id": "C87362407845",
        "site_code": "main",
        "currency": "EUR",
        "cart_id": "61079711ce0eb90861357045",
        "target_location": "DE",
        "language": "de",
    }
    assert found.context == {"customObject": {"property1": "value1"}, "customProperty": "customValue"}
    assert upstream.count("get") == 1


async def test_what_upstream_leaves_out_is_absent(door: Door) -> None:
    found = await door.get("acme", seed.ANONYMOUS_SESSION)

    assert found is not None
    assert found.fields == {"site_code": "default"}
    assert found.context == {}


async def test_fields_that_the_gateway_does_not_know_are_passed_on(door: Door) -> None:
    found = await door.get("acme", seed.ODD_SESSION)

    assert found is not None
    assert found.additional.keys() == {"loyalty"}
    assert found.additional["loyalty"]["tier"] == "gold"
    assert found.context["Größe.in cm"] == {"Länge": [1, 2.5, None, True]}


@pytest.mark.parametrize("name", ["grpc", "graphql"])
async def test_a_session_context_that_is_too_large_is_not_read_and_puts_nobody_else_off(
    upstream: Sandbox, name: str
) -> None:
    """A shopper can make his own as large as the platform takes, and have it read again and again."""
    largest = {"max_answer": 65_536, "breaker": {"min_calls": 2}}
    async with opened(upstream=largest, writes={"max_document": 65_536}) as dev, entered(name, dev) as door:
        document = json.loads(seed.SESSIONS["acme", seed.CUSTOMER_SESSION]) | {"context": {"large": "x" * 65_536}}
        dev.sandbox.store.seed("acme", seed.CUSTOMER_SESSION, json.dumps(document).encode())
        for _ in range(5):
            with pytest.raises(Refused) as refused:
                await door.get("acme", seed.CUSTOMER_SESSION)
            assert refused.value.reason == "UPSTREAM_MALFORMED"
            assert refused.value.message == "upstream's answer is larger than 65536 bytes"

        assert await door.get("acme", seed.ANONYMOUS_SESSION) is not None


@pytest.mark.parametrize("own", [False, True], ids=["any session's", "one's own"])
async def test_a_version_that_is_asked_for_is_reached_or_it_is_an_error(
    door: Door, customer: Caller, *, own: bool
) -> None:
    """Whoever has written asks so for what was written."""

    async def read(min_version: int) -> Seen | None:
        if own:
            return await door.get_own("acme", customer, min_version=min_version)
        return await door.get("acme", seed.CUSTOMER_SESSION, min_version=min_version)

    found = await read(10)
    with pytest.raises(Refused) as caught:
        await read(11)

    assert found is not None
    assert found.version == 10
    assert caught.value.reason == "MIN_VERSION_NOT_REACHED"


async def test_a_missing_session_is_no_error(door: Door) -> None:
    assert await door.get("acme", "no-such-session") is None


async def test_the_context_of_another_session_than_the_one_asked_for_is_an_error(
    door: Door, customer: Caller, upstream: Sandbox
) -> None:
    """It may be another shopper's: it is neither shown nor written to the place of the one asked for."""
    another = upstream.store.get("acme", seed.CUSTOMER_SESSION)
    assert another is not None
    upstream.store.seed("acme", "asked-for", another)

    with pytest.raises(Refused) as read:
        await door.get("acme", "asked-for")
    with pytest.raises(Refused) as written:
        await door.patch("acme", "asked-for", {"language": "fr"}, customer)

    assert read.value.reason == written.value.reason == "UPSTREAM_MALFORMED"
    assert not upstream.count("put")


async def test_a_session_of_another_tenant_is_not_found(door: Door) -> None:
    assert await door.get("globex", seed.CUSTOMER_SESSION) is None


async def test_each_tenant_is_read_with_its_own_token(door: Door, upstream: Sandbox) -> None:
    found = await door.get("globex", "5a9d1c3e-8b7f-4e21-a6c4-0d2b7e9f1c33")

    assert found is not None
    assert found.fields["currency"] == "USD"
    assert upstream.requests[-1].headers["emporix-tenant"] == "globex"


async def test_many_are_read_in_the_order_asked_for_each_once(door: Door, upstream: Sandbox) -> None:
    ids = [seed.ODD_SESSION, "missing", seed.CUSTOMER_SESSION, seed.ODD_SESSION]

    found = await door.batch("acme", ids)

    assert [each and each.session_id for each in found] == [
        seed.ODD_SESSION,
        None,
        seed.CUSTOMER_SESSION,
        seed.ODD_SESSION,
    ]
    assert upstream.count("get") == 3


async def test_many_are_read_side_by_side_within_a_bound(door: Door, upstream: Sandbox) -> None:
    await door.get("acme", "a token is there, so that all reads begin at once")
    upstream.faults.arm("latency=100ms", "get", times=None)

    await door.batch("acme", [f"session-{number}" for number in range(30)])

    assert upstream.peak == 10


async def test_none_are_read_for_no_ids(door: Door, upstream: Sandbox) -> None:
    assert await door.batch("acme", []) == []
    assert not upstream.requests


async def test_too_many_ids_are_refused(door: Door, upstream: Sandbox) -> None:
    with pytest.raises(Refused) as refused:
        await door.batch("acme", [f"session-{number}" for number in range(101)])

    assert refused.value.violations == {"session_ids": "must be at most 100, are 101"}
    assert not upstream.requests


async def test_ones_own_session_is_that_of_the_token(door: Door, customer: Caller, upstream: Sandbox) -> None:
    found = await door.get_own("acme", customer)
    other = await door.get_own("acme", Caller(token=seed.ANONYMOUS_TOKEN))

    assert found is not None
    assert other is not None
    assert found.session_id == seed.CUSTOMER_SESSION
    assert other.session_id == seed.ANONYMOUS_SESSION
    assert not upstream.count("token"), "the gateway's own token has no business here"


async def test_ones_own_session_may_not_exist_yet(door: Door, upstream: Sandbox) -> None:
    token = upstream.tokens.issue("acme", 3600, "young-session")

    assert await door.get_own("acme", Caller(token=token)) is None


@pytest.mark.parametrize("token", [None, "wrong", "two words"])
async def test_ones_own_session_needs_a_good_token(door: Door, token: str | None) -> None:
    with pytest.raises(Refused) as refused:
        await door.get_own("acme", Caller(token=token))

    assert refused.value.reason == "UNAUTHENTICATED"


async def test_a_service_token_does_not_open_ones_own_session(door: Door, upstream: Sandbox) -> None:
    token = upstream.tokens.issue("acme", 3600)
    with pytest.raises(Refused) as refused:
        await door.get_own("acme", Caller(token=token))

    assert refused.value.reason == "UNAUTHENTICATED"


@pytest.mark.parametrize("name", ["grpc", "graphql"])
async def test_how_many_are_too_many_is_a_setting(name: str) -> None:
    async with opened(reads={"max_batch": 2}) as dev, entered(name, dev) as door:
        assert await door.batch("acme", ["one", "two"]) == [None, None]
        with pytest.raises(Refused) as refused:
            await door.batch("acme", ["one", "two", "three"])

    assert refused.value.violations == {"session_ids": "must be at most 2, are 3"}
