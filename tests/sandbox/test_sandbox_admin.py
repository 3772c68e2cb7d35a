"""The sandbox's own API."""

from __future__ import annotations

import asyncio
import json
import time
from typing import TYPE_CHECKING

import httpx
import pytest
from sandbox.sandbox_api import ANONYMOUS, CUSTOMER, bearer, managed, own

from gateway.sandbox import Sandbox, Switches, seed, serve
from waiting import eventually

if TYPE_CHECKING:
    from sandbox.sandbox_api import Emporix

DOCUMENT = b"""{"sessionId": "x", "currency": "EUR", "big": 12345678901234567890,
    "metadata": {"version": 7, "createdAt": "2026-01-01T00:00:00.000Z", "modifiedAt": "2026-01-02T00:00:00.000Z"}}"""


async def test_tells_what_it_can_do(emporix: Emporix) -> None:
    answer = await emporix.http.get("/_sandbox")
    assert answer.headers["content-type"].startswith("text/plain")
    assert "POST   /_sandbox/faults" in answer.text
    assert "status=503-after-write" in answer.text


class TestSessions:
    async def test_are_listed(self, emporix: Emporix) -> None:
        listed = (await emporix.http.get("/_sandbox/sessions")).json()
        assert {tuple(each) for each in listed} == set(seed.SESSIONS)

    async def test_are_put_in_place_as_they_are(self, emporix: Emporix) -> None:
        path = "/_sandbox/sessions/acme/a%2Fb"
        assert (await emporix.http.put(path, content=DOCUMENT)).status_code == 204
        answer = await emporix.http.get(path)
        assert answer.json() == json.loads(DOCUMENT)
        assert b"12345678901234567890" in answer.content
        assert (await emporix.get("a/b")).json() == json.loads(DOCUMENT)

    async def test_are_removed_whether_or_not_they_are_there(self, emporix: Emporix) -> None:
        for _ in range(2):
            assert (await emporix.http.delete(f"/_sandbox/sessions/acme/{CUSTOMER}")).status_code == 204
            assert (await emporix.http.get(f"/_sandbox/sessions/acme/{CUSTOMER}")).status_code == 404

    @pytest.mark.parametrize("body", [b"", b"{}", b"[]", b'{"metadata":{}}', b'{"metadata":{"version":1}}', b"\xff"])
    async def test_that_are_no_documents_are_refused(self, emporix: Emporix, body: bytes) -> None:
        assert (await emporix.http.put("/_sandbox/sessions/acme/new", content=body)).status_code == 400
        assert emporix.stored("new") is None


class TestSwitches:
    async def test_are_told_and_set_by_name(self, emporix: Emporix) -> None:
        before = (await emporix.http.get("/_sandbox/switches")).json()
        assert before["conflict"] == "disguised-404"
        answer = await emporix.http.patch("/_sandbox/switches", json={"conflict": "409", "discard_writes": True})
        assert answer.json() == {**before, "conflict": "409", "discard_writes": True}
        assert (emporix.sandbox.switches.conflict, emporix.sandbox.switches.discard_writes) == ("409", True)
        answer = await emporix.put({"metadata": {"version": 1}})
        assert answer.status_code == 204

    @pytest.mark.parametrize(
        "change",
        [{"unknown": 1}, {"conflict": "410"}, {"discard_writes": 1}, {"service_token_lifetime": -1}, [], "x"],
    )
    async def test_that_do_not_exist_are_refused_and_none_is_set(self, emporix: Emporix, change: object) -> None:
        body = {"creation": "on-cart", **change} if isinstance(change, dict) else change
        assert (await emporix.http.patch("/_sandbox/switches", json=body)).status_code == 400
        assert emporix.sandbox.switches == Switches()


class TestTokens:
    async def test_are_issued_for_any_session(self, emporix: Emporix) -> None:
        answer = await emporix.http.post("/_sandbox/tokens", json={"tenant": "acme", "session_id": ANONYMOUS})
        assert answer.status_code == 201
        token = answer.json()["access_token"]
        emporix.clock.advance(1_000_000)
        assert (await emporix.http.get(own(), headers=bearer(token))).json()["sessionId"] == ANONYMOUS

    async def test_live_as_long_as_they_are_told_to(self, emporix: Emporix) -> None:
        asked = {"tenant": "acme", "session_id": ANONYMOUS, "lifetime": 5}
        token = (await emporix.http.post("/_sandbox/tokens", json=asked)).json()["access_token"]
        emporix.clock.advance(4.9)
        assert (await emporix.http.get(own(), headers=bearer(token))).status_code == 200
        emporix.clock.advance(0.2)
        assert (await emporix.http.get(own(), headers=bearer(token))).status_code == 401

    async def test_are_revoked_one_by_one(self, emporix: Emporix) -> None:
        path = f"/_sandbox/tokens/{seed.CUSTOMER_TOKEN}"
        assert (await emporix.http.delete(path)).json() == {"revoked": 1}
        assert (await emporix.http.delete(path)).json() == {"revoked": 0}
        assert (await emporix.http.get(own(), headers=bearer(seed.CUSTOMER_TOKEN))).status_code == 401
        assert (await emporix.http.get(own(), headers=bearer(seed.ANONYMOUS_TOKEN))).status_code == 200


class TestReset:
    async def test_brings_the_seed_back_and_leaves_the_switches(self, emporix: Emporix) -> None:
        await emporix.put({"metadata": {"version": 10}})
        await emporix.http.put("/_sandbox/sessions/acme/new", content=DOCUMENT)
        emporix.sandbox.switches.conflict = "412"
        emporix.sandbox.faults.arm("drop", times=None)
        token = (await emporix.http.post("/_sandbox/tokens", json={"tenant": "acme", "session_id": "new"})).json()
        assert (await emporix.http.post("/_sandbox/reset")).status_code == 204
        assert {tuple(each) for each in emporix.sandbox.store.ids()} == set(seed.SESSIONS)
        assert emporix.stored() == json.loads(seed.SESSIONS["acme", CUSTOMER])
        assert (emporix.sandbox.faults.all(), len(emporix.sandbox.requests)) == ([], 0)
        assert emporix.sandbox.switches.conflict == "412"
        assert (await emporix.http.get(own(), headers=bearer(token["access_token"]))).status_code == 401

    async def test_forgets_the_shoppers_whose_context_was_yet_to_come(self, emporix: Emporix) -> None:
        """Else it would turn up in what is done, or tested, next."""
        emporix.sandbox.switches.creation = "eventual"
        emporix.sandbox.switches.eventual_ms = 50
        before = await emporix.anonymous()
        await emporix.http.post("/_sandbox/reset")
        after = await emporix.anonymous()
        await eventually(lambda: emporix.stored(after["sessionId"]) is not None)
        assert emporix.stored(before["sessionId"]) is None
        query = {"tenant": "acme", "client_id": "acme-client", "refresh_token": before["refresh_token"]}
        assert (await emporix.http.get("/customerlogin/auth/anonymous/refresh", params=query)).status_code == 401

    async def test_leaves_service_tokens_good_since_clients_hold_them(self, emporix: Emporix) -> None:
        headers = await emporix.service()
        await emporix.http.post("/_sandbox/reset")
        assert (await emporix.http.get(managed(CUSTOMER), headers=headers)).status_code == 200


@pytest.mark.parametrize("path", ["/_sandbox/", "/_sandbox/nothing", "/_sandbox/sessions/acme", "/_sandbox/reset"])
async def test_what_is_no_call_of_its_own_is_not_found(emporix: Emporix, path: str) -> None:
    assert (await emporix.http.get(path)).status_code == 404


class TestServing:
    @pytest.mark.parametrize("fault", ["hang", "latency=60000ms"])
    async def test_ends_in_time_and_without_a_word_while_requests_wait(
        self, fault: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        async with (
            asyncio.timeout(30),
            serve(Sandbox()) as server,
            httpx.AsyncClient(base_url=server.url, timeout=0.05) as http,
        ):
            with pytest.raises(httpx.ReadTimeout):
                await http.get("/", headers={"x-sandbox-fault": fault})
        assert [each.getMessage() for each in caplog.records if each.levelname == "ERROR"] == []

    async def test_once_more_has_waits_again(self) -> None:
        sandbox = Sandbox()
        for _ in range(2):
            async with serve(sandbox) as server, httpx.AsyncClient(base_url=server.url) as http:
                began = time.monotonic()
                await http.get("/", headers={"x-sandbox-fault": "latency=60ms"})
                assert time.monotonic() - began >= 0.06

    async def test_of_two_sandboxes_keeps_them_apart(self) -> None:
        async with (
            serve(Sandbox(Switches(conflict="409"))) as one,
            serve(Sandbox()) as other,
            httpx.AsyncClient() as http,
        ):
            assert one.url != other.url
            await http.delete(f"{one.url}/_sandbox/sessions/acme/{CUSTOMER}")
            assert len((await http.get(f"{one.url}/_sandbox/sessions")).json()) == len(seed.SESSIONS) - 1
            assert len((await http.get(f"{other.url}/_sandbox/sessions")).json()) == len(seed.SESSIONS)
            assert (await http.get(f"{one.url}/_sandbox/switches")).json()["conflict"] == "409"

    async def test_at_a_port_that_is_taken_is_an_os_error(self, emporix: Emporix) -> None:
        port = httpx.URL(emporix.url).port
        assert port is not None
        with pytest.raises(OSError, match="in use"):
            async with serve(Sandbox(), port=port):
                pass
