"""Where tokens come from."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from sandbox.sandbox_api import SCOPE, bearer, claims, fault_code, managed, own

from gateway.sandbox import seed

if TYPE_CHECKING:
    from sandbox.sandbox_api import Emporix


async def created(emporix: Emporix, session_id: str) -> None:
    """Wait until the session context is there."""
    async with asyncio.timeout(3):
        while emporix.stored(session_id) is None:
            await asyncio.sleep(0.005)


class TestTheTokenEndpoint:
    async def test_gives_a_service_token(self, emporix: Emporix) -> None:
        answer = await emporix.token_answer()
        assert answer.status_code == 200
        body = answer.json()
        assert body.pop("access_token")
        assert body == {
            "token_type": "Bearer",
            "expires_in": 14_399,
            "scope": f"tenant=acme {SCOPE}",
            "refresh_token": "",
            "refresh_token_expires_in": 0,
            "session_idle_time": 120,
        }

    async def test_gives_a_new_token_each_time_and_leaves_the_others_good(self, emporix: Emporix) -> None:
        tokens = [(await emporix.token_answer()).json()["access_token"] for _ in range(3)]
        assert len(set(tokens)) == 3
        for token in tokens:
            headers = {**bearer(token), "emporix-tenant": "acme"}
            assert (await emporix.http.get(managed(seed.CUSTOMER_SESSION), headers=headers)).status_code == 200

    async def test_drops_scopes_that_the_client_lacks_without_a_word(self, emporix: Emporix) -> None:
        answer = await emporix.token_answer(scope=f"tenant=acme {SCOPE} order.order_manage")
        assert (answer.status_code, answer.json()["scope"]) == (200, f"tenant=acme {SCOPE}")
        emporix.sandbox.switches.granted_scopes = ()
        answer = await emporix.token_answer()
        assert (answer.status_code, answer.json()["scope"]) == (200, "tenant=acme")

    async def test_gives_all_scopes_when_none_is_asked_for(self, emporix: Emporix) -> None:
        assert (await emporix.token_answer(scope="")).json()["scope"] == f"tenant=acme {SCOPE}"

    async def test_gives_tokens_that_live_as_the_switch_says(self, emporix: Emporix) -> None:
        emporix.sandbox.switches.service_token_lifetime = 0.5
        assert (await emporix.token_answer()).json()["expires_in"] == 0.5

    async def test_knows_no_other_client(self, emporix: Emporix) -> None:
        for client_id in ("nobody", "", "globex-client\x00"):
            answer = await emporix.token_answer(client_id=client_id)
            assert (answer.status_code, fault_code(answer)) == (401, "oauth.v2.InvalidApiKey")
            assert answer.json()["fault"]["faultstring"] == "Invalid ApiKey"

    @pytest.mark.parametrize("secret", ["", "wrong", "globex-secret", "acme-secret ", "ümlaut"])
    async def test_refuses_a_wrong_secret(self, emporix: Emporix, secret: str) -> None:
        assert (await emporix.token_answer(client_secret=secret)).status_code == 401

    async def test_serves_no_other_grant(self, emporix: Emporix) -> None:
        for grant_type in ("", "password", "refresh_token"):
            assert (await emporix.token_answer(grant_type=grant_type)).status_code == 400


class TestAnonymousLogin:
    async def test_begins_a_session_with_what_is_known_of_the_shopper(self, emporix: Emporix) -> None:
        login = await emporix.anonymous(currency="CHF", siteCode="us", language="de", targetLocation="CH", other="x")
        assert login["expires_in"] == 3_599
        context = (await emporix.http.get(own(), headers=bearer(login["access_token"]))).json()
        metadata = context.pop("metadata")
        assert context == {
            "sessionId": login["sessionId"],
            "currency": "CHF",
            "siteCode": "us",
            "language": "de",
            "targetLocation": "CH",
        }
        assert metadata["version"] == 1

    @pytest.mark.parametrize(
        "query",
        [
            {"client_id": "globex-client"},
            {"client_id": ""},
            {"tenant": "globex"},
            {"tenant": "initech"},
            {"tenant": "initech", "client_id": ""},
            {"tenant": "", "client_id": ""},
        ],
    )
    async def test_needs_the_client_of_the_tenant(self, emporix: Emporix, query: dict[str, str]) -> None:
        whole = {"tenant": "acme", "client_id": "acme-client", **query}
        for what in ("login", "refresh"):
            answer = await emporix.http.get(f"/customerlogin/auth/anonymous/{what}", params=whole)
            assert (answer.status_code, fault_code(answer)) == (401, "oauth.v2.InvalidApiKey")

    async def test_is_refreshed_by_a_token_that_serves_once(self, emporix: Emporix) -> None:
        login = await emporix.anonymous()
        query = {"tenant": "acme", "client_id": "acme-client", "refresh_token": login["refresh_token"]}
        emporix.clock.advance(4_000)
        answer = await emporix.http.get("/customerlogin/auth/anonymous/refresh", params=query)
        refreshed = answer.json()
        assert refreshed["sessionId"] == login["sessionId"]
        assert refreshed["access_token"] != login["access_token"]
        assert (await emporix.http.get(own(), headers=bearer(refreshed["access_token"]))).status_code == 200
        assert (await emporix.http.get(own(), headers=bearer(login["access_token"]))).status_code == 401
        again = await emporix.http.get("/customerlogin/auth/anonymous/refresh", params=query)
        assert (again.status_code, fault_code(again)) == (401, "oauth.v2.InvalidRefreshToken")

    async def test_writes_the_context_when_it_is_refreshed(self, emporix: Emporix) -> None:
        """As live use shows: whoever has read it before holds an old version."""
        login = await emporix.anonymous(currency="EUR")
        before = emporix.stored(login["sessionId"])
        emporix.clock.advance(60)
        query = {"tenant": "acme", "client_id": "acme-client", "refresh_token": login["refresh_token"]}
        await emporix.http.get("/customerlogin/auth/anonymous/refresh", params=query)
        after = emporix.stored(login["sessionId"])
        assert before is not None
        assert after is not None
        assert (before.pop("metadata")["version"], after.pop("metadata")["version"]) == (1, 2)
        assert before == after

    async def test_is_not_refreshed_by_another_tenants_token(self, emporix: Emporix) -> None:
        login = await emporix.anonymous()
        query = {"tenant": "globex", "client_id": "globex-client", "refresh_token": login["refresh_token"]}
        assert (await emporix.http.get("/customerlogin/auth/anonymous/refresh", params=query)).status_code == 401
        query = {"tenant": "acme", "client_id": "acme-client", "refresh_token": login["refresh_token"]}
        answer = await emporix.http.get("/customerlogin/auth/anonymous/refresh", params=query)
        assert answer.status_code == 200, "which does not use it up"

    async def test_is_refreshed_within_the_day_that_the_refresh_token_lives(self, emporix: Emporix) -> None:
        login = await emporix.anonymous()
        assert login["refresh_token_expires_in"] == 86_400
        query = {"tenant": "acme", "client_id": "acme-client", "refresh_token": login["refresh_token"]}
        emporix.clock.advance(86_400)
        answer = await emporix.http.get("/customerlogin/auth/anonymous/refresh", params=query)
        assert (answer.status_code, fault_code(answer)) == (401, "oauth.v2.InvalidRefreshToken")


class TestWhenTheContextComesIntoBeing:
    async def test_is_at_the_login(self, emporix: Emporix) -> None:
        assert emporix.stored((await emporix.anonymous())["sessionId"]) is not None

    async def test_is_with_the_cart(self, emporix: Emporix) -> None:
        emporix.sandbox.switches.creation = "on-cart"
        login = await emporix.anonymous()
        headers = bearer(login["access_token"])
        answer = await emporix.http.get(own(), headers=headers)
        assert (answer.status_code, answer.json()["message"]) == (404, "Session not found")
        assert (await emporix.http.post(f"/_sandbox/carts/acme/{login['sessionId']}")).status_code == 204
        context = (await emporix.http.get(own(), headers=headers)).json()
        assert context["cartId"]
        assert context["metadata"]["version"] == 1

    @pytest.mark.parametrize("creation", ["on-login", "on-cart", "eventual"])
    async def test_changes_nothing_about_what_it_holds(self, emporix: Emporix, creation: Any) -> None:
        """What the shopper began with, and who has logged in by then."""
        emporix.sandbox.switches.creation = creation
        emporix.sandbox.switches.eventual_ms = 100
        login = await emporix.anonymous(currency="EUR", siteCode="main")
        assert (await emporix.login(login["access_token"])).status_code == 200
        if creation != "on-cart":
            await created(emporix, login["sessionId"])
        await emporix.http.post(f"/_sandbox/carts/acme/{login['sessionId']}")
        context = emporix.stored(login["sessionId"])
        assert context is not None
        assert context.keys() == {"sessionId", "currency", "siteCode", "customerId", "cartId", "metadata"}
        assert (context["sessionId"], context["customerId"]) == (login["sessionId"], seed.CUSTOMER_ID)

    async def test_is_some_time_after_the_login(self, emporix: Emporix) -> None:
        emporix.sandbox.switches.creation = "eventual"
        emporix.sandbox.switches.eventual_ms = 50
        login = await emporix.anonymous(currency="EUR")
        headers = bearer(login["access_token"])
        assert (await emporix.http.get(own(), headers=headers)).status_code == 404
        await created(emporix, login["sessionId"])
        assert (await emporix.http.get(own(), headers=headers)).json()["currency"] == "EUR"

    async def test_is_not_twice_when_a_cart_was_sooner(self, emporix: Emporix) -> None:
        emporix.sandbox.switches.creation = "eventual"
        emporix.sandbox.switches.eventual_ms = 150
        first = (await emporix.anonymous())["sessionId"]
        await emporix.http.post(f"/_sandbox/carts/acme/{first}")
        await created(emporix, (await emporix.anonymous())["sessionId"])
        context = emporix.stored(first)
        assert context is not None
        assert context["cartId"]


class TestCustomerLogin:
    async def test_keeps_the_session_and_makes_it_the_customers(self, emporix: Emporix) -> None:
        anonymous = await emporix.anonymous(currency="EUR")
        answer = await emporix.login(anonymous["access_token"])
        login = answer.json()
        assert (answer.status_code, login["session_id"]) == (200, anonymous["sessionId"])
        context = (await emporix.http.get(own(), headers=bearer(login["access_token"]))).json()
        assert (context["customerId"], context["currency"]) == (seed.CUSTOMER_ID, "EUR")
        assert context["metadata"]["version"] == 2

    async def test_gives_a_saas_token_that_lets_the_session_be_replaced(self, emporix: Emporix) -> None:
        anonymous = await emporix.anonymous()
        login = (await emporix.login(anonymous["access_token"])).json()
        assert claims(login["saas_token"])["sub"] == seed.CUSTOMER_ID
        assert claims(login["saas_token"])["exp"] == int(emporix.clock().timestamp()) + 3_599
        document = {"customerId": seed.CUSTOMER_ID, "currency": "CHF", "metadata": {"version": 2}}
        answer = await emporix.put(document, login["session_id"], saas=login["saas_token"])
        assert answer.status_code == 204
        answer = await emporix.put({"metadata": {"version": 3}}, login["session_id"], saas=login["access_token"])
        assert answer.status_code == 403
        emporix.clock.advance(3_600)
        answer = await emporix.put({"metadata": {"version": 3}}, login["session_id"], saas=login["saas_token"])
        assert answer.status_code == 403

    async def test_before_there_is_a_context_makes_none(self, emporix: Emporix) -> None:
        emporix.sandbox.switches.creation = "on-cart"
        anonymous = await emporix.anonymous()
        assert (await emporix.login(anonymous["access_token"])).status_code == 200
        assert emporix.stored(anonymous["sessionId"]) is None

    @pytest.mark.parametrize("wrong", [{"password": "x"}, {"email": "x@example.com"}])
    async def test_refuses_a_wrong_email_or_password(self, emporix: Emporix, wrong: dict[str, str]) -> None:
        anonymous = await emporix.anonymous()
        assert (await emporix.login(anonymous["access_token"], **wrong)).status_code == 401

    async def test_needs_an_anonymous_token(self, emporix: Emporix) -> None:
        service = (await emporix.token_answer()).json()["access_token"]
        for token in ("wrong", service):
            answer = await emporix.login(token)
            assert (answer.status_code, fault_code(answer)) == (401, "oauth.v2.InvalidAccessToken")
