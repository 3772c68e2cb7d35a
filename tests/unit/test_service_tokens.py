"""Service tokens, against a token endpoint that waits, fails and answers as it is told."""

from __future__ import annotations

import asyncio
import traceback
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

import httpx
import pytest
import structlog
from pydantic import SecretStr

from gateway.deadline import Deadline
from gateway.errors import (
    GatewayCredentialsRefused,
    RateLimited,
    TenantNotConfigured,
    UpstreamError,
    UpstreamNotAsked,
    UpstreamUnreachable,
)
from gateway.stores import MemoryStore
from gateway.telemetry import Unobserved
from gateway.upstream.auth import CallerTokenAuth, ServiceTokenAuth
from gateway.upstream.first_tokens import obtaining_first_tokens
from gateway.upstream.http import Http
from gateway.upstream.service_tokens import ServiceTokens
from gateway.upstream.token_endpoint import ClientCredentials, ServiceToken

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from gateway.upstream.http import Answer

SECRET = "hush-client-secret"
SCOPE = "sessioncontext.context_manage"
LONG = 14_399
LATER = Deadline.never()


def token_answer(value: str, *, expires_in: object = LONG, scope: str = f"tenant=acme {SCOPE}") -> httpx.Response:
    return httpx.Response(
        200, json={"access_token": value, "token_type": "Bearer", "expires_in": expires_in, "scope": scope}
    )


@dataclass
class Emporix:
    """Answers token requests with `hush-1`, `hush-2`, ..., and all others by whether their token is accepted."""

    answer: Callable[[int], httpx.Response] = lambda number: token_answer(f"hush-{number}")
    accepts: Callable[[str], bool] = lambda token: True
    token_requests: list[httpx.Request] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    """The tokens that came along."""
    asked: dict[int, asyncio.Event] = field(default_factory=dict)
    gates: dict[int, asyncio.Event] = field(default_factory=dict)
    """Token requests that wait before they are answered, by their number."""
    before_answer: Callable[[str], Awaitable[object]] | None = None

    def hold(self, number: int) -> None:
        self.gates[number] = asyncio.Event()

    def arrival(self, number: int) -> asyncio.Event:
        return self.asked.setdefault(number, asyncio.Event())

    async def __call__(self, request: httpx.Request) -> httpx.Response:
        if request.extensions["target"] == b"/oauth/token":
            return await self._token(request)
        token = request.headers["authorization"].removeprefix("Bearer ")
        self.requests.append(token)
        if self.before_answer is not None:
            await self.before_answer(token)
        return httpx.Response(200 if self.accepts(token) else 401)

    async def _token(self, request: httpx.Request) -> httpx.Response:
        self.token_requests.append(request)
        number = len(self.token_requests)
        self.arrival(number).set()
        if number in self.gates:
            await self.gates[number].wait()
        return self.answer(number)


@dataclass
class World:
    emporix: Emporix
    tokens: ServiceTokens
    http: Http

    async def send(self, tenant: str = "acme", method: str = "GET") -> Answer:
        return await self.http.send(
            method,
            "/anything",
            deadline=Deadline.after(5),
            headers={},
            content=b"{}",
            auth=ServiceTokenAuth(self.tokens, tenant),
        )


@asynccontextmanager
async def world(emporix: Emporix | None = None, *, timeout: float = 5.0) -> AsyncIterator[World]:
    emporix = emporix or Emporix()
    http = Http(httpx.MockTransport(emporix), "https://emporix.test", timeout=timeout)
    credentials = {
        "acme": ClientCredentials("acme-client", SecretStr(SECRET)),
        "globex": ClientCredentials("globex-client", SecretStr(SECRET)),
    }
    async with ServiceTokens(http, MemoryStore[ServiceToken](max_entries=10), credentials, Unobserved()) as tokens:
        yield World(emporix, tokens, http)


async def within(seconds: float, awaitable: Awaitable[Any]) -> Any:
    async with asyncio.timeout(seconds):
        return await awaitable


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    """Let the other tasks run until the condition holds."""
    async with asyncio.timeout(3):
        while not await condition():
            await asyncio.sleep(0)


_earlier: set[asyncio.Task[Any]] = set()
"""Tasks of others on the same loop: a gateway that the whole run shares has tokens too."""


@pytest.fixture(autouse=True)
async def others() -> None:
    _earlier.clear()
    _earlier.update(asyncio.all_tasks())


@pytest.fixture
def due_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token is due after a two-hundredth of its time, which leaves a machine that stands still enough of it."""
    monkeypatch.setattr("gateway.upstream.token_endpoint.random.uniform", lambda low, high: low / 100)


def named(prefix: str) -> list[asyncio.Task[Any]]:
    return [each for each in asyncio.all_tasks() - _earlier if each.get_name().startswith(prefix)]


class TestAskingForAToken:
    async def test_sends_the_credentials_as_a_form_with_the_scope_of_the_tenant(self) -> None:
        async with world() as here:
            await here.tokens.get("acme", LATER)
            (request,) = here.emporix.token_requests
        assert request.method == "POST"
        assert request.headers["content-type"] == "application/x-www-form-urlencoded"
        assert parse_qs(request.content.decode(), strict_parsing=True) == {
            "grant_type": ["client_credentials"],
            "client_id": ["acme-client"],
            "client_secret": [SECRET],
            "scope": [f"tenant=acme {SCOPE}"],
        }

    async def test_happens_once_for_a_thousand_first_requests_at_once(self) -> None:
        async with world() as here:
            here.emporix.hold(1)
            waiting = [asyncio.create_task(here.tokens.get("acme", LATER)) for _ in range(1000)]
            await within(3, here.emporix.arrival(1).wait())
            here.emporix.gates[1].set()
            found = await within(5, asyncio.gather(*waiting))
        assert {each.value.get_secret_value() for each in found} == {"hush-1"}
        assert len(here.emporix.token_requests) == 1

    async def test_happens_once_for_a_thousand_requests_through_the_auth_flow(self) -> None:
        async with world() as here:
            answers = await within(10, asyncio.gather(*(here.send() for _ in range(1000))))
        assert {each.status for each in answers} == {200}
        assert here.emporix.requests == ["hush-1"] * 1000
        assert len(here.emporix.token_requests) == 1

    async def test_happens_apart_for_each_tenant(self) -> None:
        async with world() as here:
            acme, globex = await asyncio.gather(here.tokens.get("acme", LATER), here.tokens.get("globex", LATER))
            assert await here.tokens.get("acme", LATER) is acme
            assert await here.tokens.get("globex", LATER) is globex
        assert acme.value != globex.value
        forms = [parse_qs(each.content.decode()) for each in here.emporix.token_requests]
        assert [form["client_id"] for form in forms] == [["acme-client"], ["globex-client"]]

    async def test_is_not_done_for_a_tenant_without_credentials(self) -> None:
        async with world() as here:
            with pytest.raises(TenantNotConfigured):
                await here.tokens.get("initech", LATER)
            with pytest.raises(TenantNotConfigured):
                here.tokens.check("initech")
            here.tokens.check("acme")
        assert here.emporix.token_requests == []

    async def test_goes_on_for_the_others_when_the_first_caller_is_cancelled(self) -> None:
        async with world() as here:
            here.emporix.hold(1)
            first = asyncio.create_task(here.tokens.get("acme", LATER))
            await within(3, here.emporix.arrival(1).wait())
            others = [asyncio.create_task(here.tokens.get("acme", LATER)) for _ in range(10)]
            first.cancel()
            await asyncio.wait([first], timeout=3)
            assert first.cancelled()
            here.emporix.gates[1].set()
            found = await within(3, asyncio.gather(*others))
        assert {each.value.get_secret_value() for each in found} == {"hush-1"}
        assert len(here.emporix.token_requests) == 1

    async def test_goes_on_when_every_caller_is_cancelled_so_that_the_next_one_finds_the_token(self) -> None:
        async with world() as here:
            here.emporix.hold(1)
            first = asyncio.create_task(here.tokens.get("acme", LATER))
            await within(3, here.emporix.arrival(1).wait())
            first.cancel()
            await asyncio.wait([first], timeout=3)
            next_one = asyncio.create_task(here.tokens.get("acme", LATER))
            here.emporix.gates[1].set()
            token = await within(3, next_one)
        assert token.value.get_secret_value() == "hush-1"
        assert len(here.emporix.token_requests) == 1

    async def test_ends_for_a_caller_whose_deadline_passes_and_goes_on_for_the_rest(self) -> None:
        async with world() as here:
            here.emporix.hold(1)
            hurried = here.http.send(
                "GET",
                "/anything",
                deadline=Deadline.after(0.02),
                headers={},
                auth=ServiceTokenAuth(here.tokens, "acme"),
            )
            patient = asyncio.create_task(here.send())
            with pytest.raises(UpstreamError) as caught:
                await hurried
            assert caught.value.reason == "UPSTREAM_TIMEOUT"
            assert not caught.value.leaves_doubt, "the request that it was for was not sent"
            here.emporix.gates[1].set()
            assert (await within(3, patient)).status == 200
        assert len(here.emporix.token_requests) == 1


class TestRenewal:
    @pytest.mark.usefixtures("due_soon")
    async def test_happens_before_the_expiry_while_requests_still_get_the_old_token(self) -> None:
        emporix = Emporix(lambda number: token_answer(f"hush-{number}", expires_in=60.0 if number == 1 else LONG))
        async with world(emporix) as here:
            here.emporix.hold(2)
            old = await here.tokens.get("acme", LATER)
            assert await here.tokens.get("acme", LATER) is old
            await within(5, here.emporix.arrival(2).wait())
            assert await within(1, here.tokens.get("acme", LATER)) is old
            here.emporix.gates[2].set()

            async def is_new() -> bool:
                return (await here.tokens.get("acme", LATER)).value.get_secret_value() == "hush-2"

            await until(is_new)
        assert len(here.emporix.token_requests) == 2

    async def test_is_left_until_it_is_due(self) -> None:
        async with world() as here:
            for _ in range(3):
                await here.tokens.get("acme", LATER)
                await asyncio.sleep(0.02)
            assert len(here.emporix.token_requests) == 1

    async def test_is_that_of_the_latest_token_alone(self) -> None:
        async with world() as here:
            for _ in range(3):
                await here.tokens.drop("acme", await here.tokens.get("acme", LATER))
                here.tokens.accepted("acme")
            await here.tokens.get("acme", LATER)
            await asyncio.sleep(0)
            assert len(here.emporix.token_requests) == 4
            assert len(named("renew token of acme")) == 1

    @pytest.mark.usefixtures("due_soon")
    async def test_goes_on_from_one_token_to_the_next(self) -> None:
        emporix = Emporix(lambda number: token_answer(f"hush-{number}", expires_in=20.0))
        async with world(emporix) as here:
            for number in range(2, 5):
                await here.tokens.get("acme", LATER)
                await here.tokens.get("acme", LATER)
                await within(3, here.emporix.arrival(number).wait())

    @pytest.mark.usefixtures("due_soon")
    async def test_happens_ahead_too_for_a_token_that_is_first_asked_for_when_it_is_due(self) -> None:
        """Else all who come at its expiry would wait for the next."""
        emporix = Emporix(lambda number: token_answer(f"hush-{number}", expires_in=60.0))
        async with world(emporix) as here:
            old = await here.tokens.get("acme", LATER)
            await asyncio.sleep(0.6)  # it has been due for a while
            assert len(here.emporix.token_requests) == 1
            here.emporix.hold(2)
            assert await here.tokens.get("acme", LATER) is old
            await within(5, here.emporix.arrival(2).wait())
            assert await within(5, here.tokens.get("acme", LATER)) is old
            here.emporix.gates[2].set()

    async def test_is_left_out_for_a_token_that_nobody_has_asked_for_since(self) -> None:
        emporix = Emporix(lambda number: token_answer(f"hush-{number}", expires_in=0.1))
        async with world(emporix) as here:
            await here.tokens.get("acme", LATER)
            (renewal,) = named("renew token of acme")
            await asyncio.wait([renewal], timeout=3)
            assert renewal.done()
            assert len(here.emporix.token_requests) == 1

    @pytest.mark.usefixtures("due_soon")
    async def test_that_fails_leaves_the_old_token_in_use_and_is_tried_again(self) -> None:
        def answer(number: int) -> httpx.Response:
            if number == 2:
                return httpx.Response(503)
            return token_answer(f"hush-{number}", expires_in=60.0 if number == 1 else LONG)

        async with world(Emporix(answer)) as here:
            await here.tokens.get("acme", LATER)
            here.emporix.hold(3)
            await here.tokens.get("acme", LATER)
            await within(5, here.emporix.arrival(2).wait())
            await within(5, here.emporix.arrival(3).wait())
            assert (await within(1, here.tokens.get("acme", LATER))).value.get_secret_value() == "hush-1"
            here.emporix.gates[3].set()

    @pytest.mark.usefixtures("due_soon")
    async def test_that_fails_is_tried_again_no_sooner_than_it_may_be(self) -> None:
        def answer(number: int) -> httpx.Response:
            if number > 1:
                return httpx.Response(503, headers={"retry-after": "60"})
            return token_answer("hush-1", expires_in=60.0)

        async with world(Emporix(answer)) as here:
            await here.tokens.get("acme", LATER)
            await here.tokens.get("acme", LATER)
            await within(5, here.emporix.arrival(2).wait())
            await asyncio.sleep(0.1)
            assert len(here.emporix.token_requests) == 2

    async def test_token_that_has_expired_is_not_given_out(self) -> None:
        emporix = Emporix(lambda number: token_answer(f"hush-{number}", expires_in=1e-9))
        async with world(emporix) as here:
            first = await here.tokens.get("acme", LATER)
            second = await here.tokens.get("acme", LATER)
        assert [first.value.get_secret_value(), second.value.get_secret_value()] == ["hush-1", "hush-2"]


class TestOtherCredentials:
    async def test_that_are_the_same_change_nothing(self) -> None:
        async with world() as here:
            await here.tokens.get("acme", LATER)
            here.tokens.renew_with({"acme": ClientCredentials("acme-client", SecretStr(SECRET))})
            assert named("fetch token") == []

    async def test_are_used_after_what_was_asked_for_with_the_old_ones_whatever_came_of_that(self) -> None:
        emporix = Emporix(lambda number: httpx.Response(401) if number == 1 else token_answer(f"hush-{number}"))
        async with world(emporix) as here:
            here.emporix.hold(1)
            here.emporix.hold(2)
            waiting = asyncio.create_task(here.tokens.get("acme", LATER))
            await within(5, here.emporix.arrival(1).wait())
            here.tokens.renew_with({"acme": ClientCredentials("another-client", SecretStr(SECRET))})
            await asyncio.sleep(0.05)
            assert len(here.emporix.token_requests) == 1
            here.emporix.gates[1].set()
            await within(5, here.emporix.arrival(2).wait())
            with pytest.raises(GatewayCredentialsRefused):
                await within(5, waiting)
            waiting = asyncio.create_task(here.tokens.get("acme", LATER))
            await asyncio.sleep(0)
            here.emporix.gates[2].set()
            assert (await within(5, waiting)).value.get_secret_value() == "hush-2"

        forms = [parse_qs(each.content.decode()) for each in here.emporix.token_requests]
        assert [form["client_id"] for form in forms] == [["acme-client"], ["another-client"]]

    async def test_are_not_held_to_what_upstream_made_of_the_old_ones(self) -> None:
        async with world(Emporix(accepts=lambda token: token == "hush-4")) as here:
            assert (await here.send()).status == 401
            with pytest.raises(GatewayCredentialsRefused):
                await here.send()
            here.tokens.renew_with({"acme": ClientCredentials("another-client", SecretStr(SECRET))})
            assert (await here.send()).status == 200
        assert here.emporix.requests == ["hush-1", "hush-2", "hush-2", "hush-3", "hush-4"]


class TestARefusedToken:
    @pytest.mark.parametrize("method", ["GET", "PUT", "POST", "DELETE", "PATCH"])
    async def test_is_dropped_and_the_request_sent_once_more_with_a_new_one(self, method: str) -> None:
        async with world(Emporix(accepts=lambda token: token != "hush-1")) as here:
            assert (await here.send(method=method)).status == 200
        assert here.emporix.requests == ["hush-1", "hush-2"]
        assert len(here.emporix.token_requests) == 2

    async def test_leaves_no_doubt_about_a_write_when_no_other_is_had_in_time(self) -> None:
        async with world(Emporix(accepts=lambda token: False)) as here:
            await here.tokens.get("acme", LATER)
            here.emporix.hold(2)
            with pytest.raises(UpstreamNotAsked) as caught:
                await here.http.send(
                    "PUT",
                    "/anything",
                    deadline=Deadline.after(0.2),
                    headers={},
                    content=b"{}",
                    auth=ServiceTokenAuth(here.tokens, "acme"),
                )
            assert not caught.value.leaves_doubt
            here.emporix.gates[2].set()
        assert here.emporix.requests == ["hush-1"]

    async def test_is_replaced_once_for_many_requests_that_carried_it(self) -> None:
        async with world(Emporix(accepts=lambda token: token != "hush-1")) as here:
            answers = await within(5, asyncio.gather(*(here.send() for _ in range(50))))
        assert {each.status for each in answers} == {200}
        assert len(here.emporix.token_requests) == 2

    async def test_is_not_replaced_more_than_once_for_one_request(self) -> None:
        async with world(Emporix(accepts=lambda token: False)) as here:
            assert (await here.send()).status == 401
        assert here.emporix.requests == ["hush-1", "hush-2"]

    async def test_that_is_not_the_current_one_any_longer_does_not_drop_the_newer(self) -> None:
        late, is_late = asyncio.Event(), asyncio.Event()

        async def keep_one_back(token: str) -> None:
            if len(here.emporix.requests) == 1:
                is_late.set()
                await late.wait()

        async with world(Emporix(accepts=lambda token: token != "hush-1", before_answer=keep_one_back)) as here:
            behind = asyncio.create_task(here.send())
            await within(3, is_late.wait())
            assert (await here.send()).status == 200
            late.set()
            assert (await within(3, behind)).status == 200
        assert here.emporix.requests == ["hush-1", "hush-1", "hush-2", "hush-2"]
        assert len(here.emporix.token_requests) == 2

    async def test_does_not_drop_the_token_of_another_tenant(self) -> None:
        async with world() as here:
            acme, globex = await here.tokens.get("acme", LATER), await here.tokens.get("globex", LATER)
            await here.tokens.drop("acme", acme)
            assert await here.tokens.get("globex", LATER) is globex
            assert await here.tokens.get("acme", LATER) is not acme

    async def test_time_after_time_does_not_hammer_the_token_endpoint(self) -> None:
        async with world(Emporix(accepts=lambda token: False)) as here:
            assert (await here.send()).status == 401
            for _ in range(20):
                with pytest.raises(GatewayCredentialsRefused) as caught:
                    await here.send()
                assert caught.value.retry_after is not None
        assert len(here.emporix.token_requests) == 2

    async def test_is_not_one_after_another_where_one_was_taken_in_between(self) -> None:
        revoked = {"hush-1"}
        async with world(Emporix(accepts=lambda token: token not in revoked)) as here:
            assert (await here.send()).status == 200
            revoked.add("hush-2")
            assert (await here.send()).status == 200
        assert here.emporix.requests == ["hush-1", "hush-2", "hush-2", "hush-3"]

    async def test_of_the_caller_is_passed_back_and_nothing_is_sent_again(self) -> None:
        async with world(Emporix(accepts=lambda token: False)) as here:
            answer = await here.http.send(
                "GET",
                "/anything",
                deadline=Deadline.after(5),
                headers={},
                auth=CallerTokenAuth(SecretStr("hush-caller")),
            )
        assert answer.status == 401
        assert here.emporix.requests == ["hush-caller"]
        assert here.emporix.token_requests == []


def raises(error: Exception) -> Callable[[int], httpx.Response]:
    def answer(number: int) -> httpx.Response:
        raise error

    return answer


def responds(status: int, *, headers: dict[str, str] | None = None, content: bytes = b"") -> Callable[[int], Any]:
    return lambda number: httpx.Response(status, headers=headers, content=content)


FAILURES = [
    pytest.param(raises(httpx.ConnectError("refused")), UpstreamUnreachable, id="connection refused"),
    pytest.param(raises(httpx.ConnectTimeout("slow")), UpstreamUnreachable, id="connect timeout"),
    pytest.param(raises(httpx.ReadTimeout("slow")), UpstreamUnreachable, id="read timeout"),
    pytest.param(raises(httpx.RemoteProtocolError("cut")), UpstreamUnreachable, id="connection cut"),
    pytest.param(responds(500), UpstreamUnreachable, id="500"),
    pytest.param(responds(502, content=b"<html>"), UpstreamUnreachable, id="502"),
    pytest.param(responds(503), UpstreamUnreachable, id="503"),
    pytest.param(responds(302, headers={"location": "/"}), UpstreamUnreachable, id="302"),
    pytest.param(responds(400), GatewayCredentialsRefused, id="400"),
    pytest.param(responds(401), GatewayCredentialsRefused, id="401"),
    pytest.param(responds(403), GatewayCredentialsRefused, id="403"),
    pytest.param(responds(429), RateLimited, id="429"),
]


class TestAFailingTokenEndpoint:
    @pytest.mark.parametrize(("answer", "kind"), FAILURES)
    async def test_fails_all_who_wait_at_once_and_is_not_asked_again_during_the_back_off(
        self, answer: Callable[[int], httpx.Response], kind: type[UpstreamError]
    ) -> None:
        async with world(Emporix(answer)) as here:
            together = await asyncio.gather(
                *(here.tokens.get("acme", LATER) for _ in range(100)), return_exceptions=True
            )
            later = await asyncio.gather(*(here.tokens.get("acme", LATER) for _ in range(100)), return_exceptions=True)
            assert len(here.emporix.token_requests) == 1
        assert {type(each) for each in (*together, *later)} == {kind}
        assert len({id(each) for each in (*together, *later)}) == 200
        for each in later:
            assert isinstance(each, UpstreamError)
            assert each.retry_after is not None
            assert 0 < each.retry_after <= 0.5

    @pytest.mark.parametrize("status", [400, 401, 403])
    async def test_that_refuses_is_told_of_with_all_that_it_may_refuse(self, status: int) -> None:
        """RFC 6749, section 5.2: the scope is among it."""
        async with world(Emporix(responds(status, content=b'{"error": "invalid_scope"}'))) as here:
            with pytest.raises(GatewayCredentialsRefused, match="client id, secret or scope of tenant 'acme'"):
                await here.tokens.get("acme", LATER)

    async def test_fails_requests_before_they_are_sent(self) -> None:
        async with world(Emporix(responds(503))) as here:
            with pytest.raises(UpstreamUnreachable):
                await here.send()
        assert here.emporix.requests == []

    async def test_is_asked_again_when_the_back_off_is_over(self) -> None:
        async with world(
            Emporix(lambda number: httpx.Response(503) if number == 1 else token_answer(f"hush-{number}"))
        ) as here:
            with pytest.raises(UpstreamUnreachable):
                await here.tokens.get("acme", LATER)
            with pytest.raises(UpstreamUnreachable) as caught:
                await here.tokens.get("acme", LATER)
            assert caught.value.retry_after is not None
            await asyncio.sleep(caught.value.retry_after + 0.01)  # a timer may be a moment early
            assert (await here.tokens.get("acme", LATER)).value.get_secret_value() == "hush-2"

    async def test_is_left_alone_for_longer_each_time_until_it_has_answered(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("gateway.upstream.service_tokens.random.uniform", lambda low, high: high)
        waits: list[float] = []

        async def fails() -> None:
            with pytest.raises(UpstreamUnreachable):
                await here.tokens.get("acme", LATER)
            with pytest.raises(UpstreamUnreachable) as caught:
                await here.tokens.get("acme", LATER)
            waits.append(caught.value.retry_after or 0.0)

        emporix = Emporix(lambda number: token_answer("hush") if number == 3 else httpx.Response(503))
        async with world(emporix) as here:
            for _ in range(2):
                await fails()
                await asyncio.sleep(waits[-1] + 0.01)  # a timer may be a moment early
            await here.tokens.drop("acme", await here.tokens.get("acme", LATER))
            await fails()
        first, second, third = waits
        assert 0 < first <= 0.5 < second <= 1.0
        assert 0 < third <= 0.5

    @pytest.mark.parametrize(("status", "kind"), [(429, RateLimited), (503, UpstreamUnreachable)])
    async def test_is_left_alone_for_as_long_as_it_asks_for(self, status: int, kind: type[UpstreamError]) -> None:
        async with world(Emporix(responds(status, headers={"retry-after": "7"}))) as here:
            with pytest.raises(kind) as first:
                await here.tokens.get("acme", LATER)
            with pytest.raises(kind) as second:
                await here.tokens.get("acme", LATER)
        assert first.value.retry_after == 7
        assert second.value.retry_after is not None
        assert 6 < second.value.retry_after <= 7

    async def test_of_one_tenant_does_not_hold_up_another(self) -> None:
        async with world(
            Emporix(lambda number: httpx.Response(401) if number == 1 else token_answer(f"hush-{number}"))
        ) as here:
            with pytest.raises(GatewayCredentialsRefused):
                await here.tokens.get("acme", LATER)
            assert (await here.tokens.get("globex", LATER)).value.get_secret_value() == "hush-2"

    async def test_that_hangs_is_given_up_after_the_time_of_one_exchange(self) -> None:
        async with world(timeout=0.05) as here:
            here.emporix.hold(1)
            with pytest.raises(UpstreamUnreachable):
                await within(3, here.tokens.get("acme", LATER))

    async def test_does_not_grow_the_traceback_of_one_caller_by_that_of_another(self) -> None:
        async with world(Emporix(responds(503))) as here:
            depths = set()
            for _ in range(5):
                with pytest.raises(UpstreamUnreachable) as caught:
                    await here.tokens.get("acme", LATER)
                depths.add(len(traceback.extract_tb(caught.value.__traceback__)))
        assert len(depths) <= 2

    async def test_that_fails_in_a_way_nobody_thought_of_fails_its_callers_alone(self) -> None:
        def answer(number: int) -> httpx.Response:
            if number == 1:
                raise RuntimeError("no error of httpx")
            return token_answer(f"hush-{number}")

        async with world(Emporix(answer)) as here:
            failed, *_ = await asyncio.gather(here.tokens.get("acme", LATER), return_exceptions=True)
            assert isinstance(failed, UpstreamUnreachable)
            with pytest.raises(UpstreamUnreachable) as caught:
                await here.tokens.get("acme", LATER)
            assert caught.value.retry_after is not None, "it is not asked again at once"
            assert (await here.tokens.get("globex", LATER)).value.get_secret_value() == "hush-2"


ODD = [
    pytest.param(b"", id="empty"),
    pytest.param(b"<!doctype html><p>Sign in", id="html"),
    pytest.param(b"null", id="null"),
    pytest.param(b"[]", id="array"),
    pytest.param(b"{}", id="empty object"),
    pytest.param(b'{"expires_in": 10}', id="no access_token"),
    pytest.param(b'{"access_token": "hush"}', id="no expires_in"),
    pytest.param(b'{"access_token": "", "expires_in": 10}', id="empty token"),
    pytest.param(b'{"access_token": null, "expires_in": 10}', id="null token"),
    pytest.param(b'{"access_token": 7, "expires_in": 10}', id="number for a token"),
    pytest.param(b'{"access_token": "hu sh", "expires_in": 10}', id="token with a space"),
    pytest.param(b'{"access_token": "hu\\nsh", "expires_in": 10}', id="token with a newline"),
    pytest.param(b'{"access_token": "hush\\r\\nx-evil: 1", "expires_in": 10}', id="token with a header"),
    pytest.param(
        b'{"access_token": "hush\\n", "expires_in": 10}',
        id="token with a newline at its end",
    ),
    pytest.param('{"access_token": "hüsh", "expires_in": 10}'.encode(), id="token beyond ASCII"),
    pytest.param(b'{"access_token": "hush", "expires_in": 0}', id="expires at once"),
    pytest.param(b'{"access_token": "hush", "expires_in": -1}', id="has expired"),
    pytest.param(b'{"access_token": "hush", "expires_in": NaN}', id="NaN"),
    pytest.param(b'{"access_token": "hush", "expires_in": 1e999}', id="infinite"),
    pytest.param(b'{"access_token": "hush", "expires_in": "soon"}', id="words for a number"),
    pytest.param(b'{"access_token": "hush", "expires_in": true}', id="true for a number"),
    pytest.param(b'{"access_token": "hush", "expires_in": 10', id="truncated"),
    pytest.param(b'{"access_token": "hu\xffsh", "expires_in": 10}', id="not UTF-8"),
    pytest.param(b"[" * 100_000, id="deep"),
]


class TestAnOddAnswerOfTheTokenEndpoint:
    @pytest.mark.parametrize("body", ODD)
    async def test_is_an_error_like_any_other_of_the_endpoint(self, body: bytes) -> None:
        async with world(Emporix(responds(200, content=body))) as here:
            for _ in range(2):
                with pytest.raises(UpstreamUnreachable) as caught:
                    await here.tokens.get("acme", LATER)
                assert "hush" not in str(caught.value)
        assert len(here.emporix.token_requests) == 1

    @pytest.mark.parametrize("seconds", ["0", "-1", "", "inf", "nan", "1e999", "true", "soon"])
    async def test_is_one_whose_lifetime_is_a_string_and_no_time(self, seconds: str) -> None:
        async with world(Emporix(lambda number: token_answer("hush", expires_in=seconds))) as here:
            with pytest.raises(UpstreamUnreachable):
                await here.tokens.get("acme", LATER)

    async def test_is_none_when_the_lifetime_is_a_number_in_a_string(self) -> None:
        """So does the platform's edge (Apigee) write it by itself."""
        async with world(Emporix(lambda number: token_answer("hush", expires_in="14399"))) as here:
            token = await here.tokens.get("acme", LATER)
            assert token.expires_at - token.obtained_at == pytest.approx(14_389)

    @pytest.mark.parametrize("expires_in", [1, 0.5, LONG, 10**12, 1e300, 10**30])
    async def test_is_none_when_the_lifetime_is_merely_short_or_long(self, expires_in: float) -> None:
        async with world(Emporix(lambda number: token_answer("hush", expires_in=expires_in))) as here:
            token = await here.tokens.get("acme", LATER)
            assert await here.tokens.get("acme", LATER) is token
            assert token.obtained_at < token.renew_at < token.expires_at
            await asyncio.sleep(0)
            assert len(named("renew token of acme")) == 1
        assert len(here.emporix.token_requests) == 1


class TestTheScope:
    @pytest.mark.parametrize("scope", [f"tenant=acme {SCOPE}", SCOPE, "tenant=acme session_context.context_manage", ""])
    async def test_is_not_missed_when_it_was_granted_or_nothing_is_said_of_it(self, scope: str) -> None:
        with structlog.testing.capture_logs() as logs:
            async with world(Emporix(lambda number: token_answer("hush", scope=scope))) as here:
                assert (await here.tokens.get("acme", LATER)).missing_scope is None
        assert logs == []

    @pytest.mark.parametrize("scope", ["tenant=acme", "cart.cart_read", f"{SCOPE}d", "tenant=acme a.b c.d"])
    async def test_is_named_and_logged_when_it_was_dropped_without_a_word(self, scope: str) -> None:
        with structlog.testing.capture_logs() as logs:
            async with world(Emporix(lambda number: token_answer("hush", scope=scope))) as here:
                assert (await here.tokens.get("acme", LATER)).missing_scope == SCOPE
        assert logs == [{"event": "token_lacks_scope", "log_level": "warning", "scope": SCOPE, "tenant": "acme"}]

    @pytest.mark.usefixtures("due_soon")
    async def test_is_there_soon_after_the_client_was_given_it(self) -> None:
        """Not only when the token without it would have had to be renewed, which is hours later."""
        scopes = {1: "tenant=acme", 2: "tenant=acme"}
        emporix = Emporix(lambda number: token_answer(f"hush-{number}", scope=scopes.get(number, SCOPE)))
        async with world(emporix) as here:
            for number in (2, 3):
                await here.tokens.get("acme", LATER)
                await here.tokens.get("acme", LATER)
                await within(5, here.emporix.arrival(number).wait())

            async def is_granted() -> bool:
                return (await here.tokens.get("acme", LATER)).missing_scope is None

            await until(is_granted)
            token = await here.tokens.get("acme", LATER)
            assert token.renew_at - token.obtained_at > 60, "this one is good for as long as it says"


class TestSecrets:
    async def test_are_in_no_repr(self) -> None:
        async with world() as here:
            token = await here.tokens.get("acme", LATER)
        credentials = ClientCredentials("acme-client", SecretStr(SECRET))
        for each in (token, credentials, here.tokens, CallerTokenAuth(token.value), ServiceTokenAuth(here.tokens, "a")):
            assert "hush" not in f"{each!r} {each!s}"

    @pytest.mark.parametrize("answer", [each.values[0] for each in FAILURES])
    async def test_are_in_no_error_traceback_or_log_of_a_failure(self, answer: Callable[[int], Any]) -> None:
        await self._assert_kept(answer)

    @pytest.mark.parametrize("status", [200, 400, 401, 429, 500])
    async def test_are_in_no_error_traceback_or_log_when_the_answer_repeats_them(self, status: int) -> None:
        body = b'{"message": "hush-client-secret", "access_token": "hush 1", "expires_in": "hush"}'
        await self._assert_kept(responds(status, content=body))

    async def _assert_kept(self, answer: Callable[[int], Any]) -> None:
        with structlog.testing.capture_logs() as logs:
            async with world(Emporix(answer)) as here:
                for _ in range(2):
                    with pytest.raises(UpstreamError) as caught:
                        await here.send()
                    told = "".join(traceback.format_exception(caught.value))
                    assert "hush-" not in f"{caught.value!r} {caught.value!s} {caught.value.message}"
                    assert SECRET not in told
                    assert "hush 1" not in told
        assert [each["event"] for each in logs] == ["token_not_obtained"]
        assert "hush" not in repr(logs)

    async def test_why_there_is_no_connection_is_in_the_log_alone(self) -> None:
        def fails(_: int) -> Any:
            raise httpx.ConnectError("the proxy refuses with status 407")

        with structlog.testing.capture_logs() as logs:
            async with world(Emporix(fails)) as here:
                with pytest.raises(UpstreamUnreachable) as caught:
                    await here.send()
        assert logs[0]["cause"] == "the proxy refuses with status 407"
        assert "407" not in caught.value.message

    async def test_are_in_no_log_of_a_success(self) -> None:
        with structlog.testing.capture_logs() as logs:
            async with world(Emporix(lambda number: token_answer("hush-1", scope="tenant=acme"))) as here:
                await here.send()
        assert logs
        assert "hush" not in repr(logs)


class TestLeaving:
    async def test_leaves_no_task_behind(self) -> None:
        before = asyncio.all_tasks()
        async with world() as here:
            await asyncio.gather(here.send(), here.send("globex"))
            assert len(asyncio.all_tasks() - before) == 2
        assert asyncio.all_tasks() <= before

    async def test_leaves_no_task_behind_while_a_fetch_hangs(self) -> None:
        before = asyncio.all_tasks()
        async with asyncio.timeout(3):
            async with world() as here:
                here.emporix.hold(1)
                waiting = asyncio.create_task(here.tokens.get("acme", LATER))
                await here.emporix.arrival(1).wait()
            await asyncio.wait([waiting])
        assert asyncio.all_tasks() <= before

    @pytest.mark.usefixtures("due_soon")
    async def test_leaves_no_task_behind_while_a_renewal_hangs(self) -> None:
        before = asyncio.all_tasks()
        emporix = Emporix(lambda number: token_answer("hush", expires_in=60.0))
        async with asyncio.timeout(10), world(emporix) as here:
            here.emporix.hold(2)
            await here.tokens.get("acme", LATER)
            await here.tokens.get("acme", LATER)
            await here.emporix.arrival(2).wait()
        assert asyncio.all_tasks() <= before

    async def test_leaves_no_task_behind_when_an_error_is_the_cause(self) -> None:
        before = asyncio.all_tasks()

        async def fail() -> None:
            async with world() as here:
                await here.tokens.get("acme", LATER)
                raise ZeroDivisionError

        with pytest.raises((ZeroDivisionError, ExceptionGroup)):
            await fail()
        assert asyncio.all_tasks() <= before

    async def test_passes_the_error_on_that_was_the_cause(self) -> None:
        with pytest.raises(ZeroDivisionError):
            async with world():
                raise ZeroDivisionError

    async def test_is_possible_by_cancellation(self) -> None:
        before = asyncio.all_tasks()
        inside = asyncio.Event()

        async def stay() -> None:
            async with world() as here:
                await here.tokens.get("acme", LATER)
                inside.set()
                await asyncio.Event().wait()

        staying = asyncio.create_task(stay())
        await within(3, inside.wait())
        staying.cancel()
        await asyncio.wait([staying], timeout=3)
        assert staying.cancelled()
        assert asyncio.all_tasks() <= before


async def test_who_is_cancelled_while_he_stops_asking_for_first_tokens_stays_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, stopping, stopped = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def slow_to_stop(*_: object) -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            stopping.set()
            await stopped.wait()

    async with world() as here:
        monkeypatch.setattr(here.tokens, "get", slow_to_stop)

        async def gateway() -> None:
            async with obtaining_first_tokens(here.tokens, ["acme"], lambda missing: None):
                await begun.wait()

        running = asyncio.create_task(gateway())
        await within(3, stopping.wait())
        running.cancel()
        stopped.set()
        await asyncio.wait([running], timeout=3)
        assert running.cancelled()
