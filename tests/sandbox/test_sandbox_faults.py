"""Every way to fail, by request header and armed beforehand."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from sandbox.sandbox_api import ANONYMOUS, CUSTOMER, bearer, managed, own

from gateway.sandbox import Fault, seed
from gateway.sandbox.faults import Faults

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from sandbox.sandbox_api import Emporix

OWN = bearer(seed.ANONYMOUS_TOKEN)
ATTRIBUTE = {"key": "a", "value": 1}


async def by_header(emporix: Emporix, fault: str, method: str, path: str, **request: Any) -> httpx.Response:
    return await emporix.http.request(method, path, headers={**OWN, "x-sandbox-fault": fault}, **request)


async def armed(emporix: Emporix, fault: str, method: str, path: str, **request: Any) -> httpx.Response:
    assert (await emporix.http.post("/_sandbox/faults", json={"fault": fault})).status_code == 200
    return await emporix.http.request(method, path, headers=OWN, **request)


@pytest.fixture(params=[by_header, armed])
def meet(request: pytest.FixtureRequest, emporix: Emporix) -> Callable[..., Awaitable[httpx.Response]]:
    """Send a request that meets a fault."""

    async def send(fault: str, method: str = "GET", path: str = own(), **body: Any) -> httpx.Response:
        answer: httpx.Response = await request.param(emporix, fault, method, path, **body)
        return answer

    return send


Meet = Any
"""What the fixture `meet` gives."""


def was_written(emporix: Emporix) -> bool:
    return "context" in (emporix.stored(ANONYMOUS) or {})


class TestAFault:
    async def test_by_status_answers_so_and_does_nothing(self, emporix: Emporix, meet: Meet) -> None:
        for status in (400, 401, 403, 404, 409, 412, 418, 429, 500, 501, 502, 503, 504, 599):
            answer = await meet(f"status={status}", "POST", own("attributes"), json=ATTRIBUTE)
            assert answer.status_code == status
            assert "retry-after" not in answer.headers
        assert not was_written(emporix)

    async def test_by_status_after_the_write_answers_so_and_has_done_it(self, emporix: Emporix, meet: Meet) -> None:
        answer = await meet("status=500-after-write", "POST", own("attributes"), json=ATTRIBUTE)
        assert answer.status_code == 500
        assert was_written(emporix)

    async def test_by_a_status_without_a_body_has_none(self, meet: Meet) -> None:
        for status in (204, 304):
            answer = await meet(f"status={status}")
            assert (answer.status_code, answer.content) == (status, b"")
        assert (await meet("latency=0ms")).status_code == 200

    @pytest.mark.parametrize("value", ["2", "Wed, 21 Oct 2099 07:28:00 GMT", "soon"])
    async def test_of_too_many_requests_says_when_to_try_again(self, meet: Meet, value: str) -> None:
        for status in (429, 503):
            answer = await meet(f"status={status}; retry-after={value}")
            assert (answer.status_code, answer.headers["retry-after"]) == (status, value)

    async def test_of_the_edge_is_no_json(self, meet: Meet) -> None:
        assert (await meet("status=502")).text.startswith("<html>")
        assert (await meet("status=502")).headers["content-type"] == "text/html"
        assert (await meet("status=503")).content == b""
        assert (await meet("status=504")).json()["fault"]["detail"] == {"reason": "TARGET_READ_TIMEOUT"}

    async def test_by_latency_waits_and_then_goes_on(self, emporix: Emporix, meet: Meet) -> None:
        before = time.monotonic()
        answer = await meet("latency=60ms", "POST", own("attributes"), json=ATTRIBUTE)
        assert time.monotonic() - before >= 0.06
        assert answer.status_code == 201
        assert was_written(emporix)
        before = time.monotonic()
        assert (await meet("latency=60ms; status=500")).status_code == 500
        assert time.monotonic() - before >= 0.06

    async def test_by_a_drop_cuts_the_connection_before_anything_is_done(self, emporix: Emporix, meet: Meet) -> None:
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await meet("drop", "POST", own("attributes"), json=ATTRIBUTE)
        assert not was_written(emporix)
        assert (await meet("latency=0ms")).status_code == 200

    async def test_by_a_drop_after_the_write_cuts_the_connection_before_the_answer(
        self, emporix: Emporix, meet: Meet
    ) -> None:
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await meet("drop-after-write", "POST", own("attributes"), json=ATTRIBUTE)
        assert was_written(emporix)

    async def test_by_truncation_cuts_the_connection_in_the_middle_of_the_answer(
        self, emporix: Emporix, meet: Meet
    ) -> None:
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await meet("truncated")
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await meet("truncated", "POST", own("attributes"), json=ATTRIBUTE)
        assert was_written(emporix)
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await meet("truncated", "DELETE", own("attributes", "a"))
        assert not was_written(emporix)

    async def test_by_what_is_not_json_or_another_json_has_done_it(self, emporix: Emporix, meet: Meet) -> None:
        answer = await meet("not-json", "POST", own("attributes"), json=ATTRIBUTE)
        assert (answer.status_code, answer.headers["content-type"]) == (200, "text/html")
        assert was_written(emporix)
        answer = await meet("wrong-json", "DELETE", own("attributes", "a"))
        assert (answer.status_code, answer.json()) == (200, {"items": [], "sessionId": 7})
        assert not was_written(emporix)

    async def test_by_hanging_ends_when_the_client_gives_up(self, emporix: Emporix, meet: Meet) -> None:
        with pytest.raises(httpx.ReadTimeout):
            await meet("hang", "POST", own("attributes"), json=ATTRIBUTE, timeout=0.1)
        assert not was_written(emporix)
        async with asyncio.timeout(3):
            while emporix.sandbox.under_way:
                await asyncio.sleep(0.005)
        assert [each.status for each in emporix.sandbox.requests if each.operation == "add-own-attribute"] == [0]


class TestTheHeader:
    @pytest.mark.parametrize(
        "text",
        [
            "nonsense",
            ";",
            "status=",
            "status=99",
            "status=100",
            "status=600",
            "status=5000",
            "status=abc",
            "latency=1",
            "latency=-1ms",
            "latency=1.5ms",
            "latency=" + "9" * 5000 + "ms",
            "retry-after=",
            "drop;nonsense",
            "dröp",
        ],
    )
    async def test_that_is_no_fault_is_a_bad_request_and_does_nothing(self, emporix: Emporix, text: str) -> None:
        headers = {**OWN, "x-sandbox-fault": text.encode("latin-1").decode("latin-1")}
        answer = await emporix.http.post(
            own("attributes"), json=ATTRIBUTE, headers=httpx.Headers(headers, encoding="latin-1")
        )
        assert answer.status_code == 400
        assert answer.json()["message"]
        assert not was_written(emporix)
        assert emporix.sandbox.requests[-1].status == 400

    async def test_comes_before_what_is_armed_and_does_not_use_it_up(self, emporix: Emporix) -> None:
        emporix.sandbox.faults.arm("status=500")
        assert (await by_header(emporix, "status=418", "GET", own())).status_code == 418
        assert (await emporix.http.get(own(), headers=OWN)).status_code == 500

    async def test_that_is_empty_is_none(self, emporix: Emporix) -> None:
        assert (await by_header(emporix, "", "GET", own())).status_code == 200


class TestAnArmedFault:
    async def test_strikes_so_many_times(self, emporix: Emporix) -> None:
        await emporix.http.post("/_sandbox/faults", json={"fault": "status=500", "times": 2})
        assert [(await emporix.http.get(own(), headers=OWN)).status_code for _ in range(3)] == [500, 500, 200]

    async def test_strikes_always_until_it_is_disarmed(self, emporix: Emporix) -> None:
        answer = await emporix.http.post("/_sandbox/faults", json={"fault": "status=500", "times": None})
        assert len(answer.json()) == 1
        assert [(await emporix.http.get(own(), headers=OWN)).status_code for _ in range(3)] == [500] * 3
        assert (await emporix.http.delete("/_sandbox/faults")).json() == []
        assert (await emporix.http.get(own(), headers=OWN)).status_code == 200

    async def test_strikes_one_operation_alone(self, emporix: Emporix) -> None:
        await emporix.http.post("/_sandbox/faults", json={"fault": "status=500", "operation": "token"})
        assert (await emporix.http.get(own(), headers=OWN)).status_code == 200
        assert (await emporix.token_answer()).status_code == 500
        assert (await emporix.token_answer()).status_code == 200

    @pytest.mark.parametrize(
        ("operation", "method", "path"),
        [
            ("get", "GET", managed(CUSTOMER)),
            ("put", "PUT", managed(CUSTOMER)),
            ("add-attribute", "POST", managed(CUSTOMER, "attributes")),
            ("remove-attribute", "DELETE", managed(CUSTOMER, "attributes", "a")),
            ("get-own", "GET", own()),
            ("patch-own", "PATCH", own()),
            ("add-own-attribute", "POST", own("attributes")),
            ("remove-own-attribute", "DELETE", own("attributes", "a")),
            ("token", "POST", "/oauth/token"),
            ("anonymous-login", "GET", "/customerlogin/auth/anonymous/login"),
            ("anonymous-refresh", "GET", "/customerlogin/auth/anonymous/refresh"),
            ("customer-login", "POST", "/customer/acme/login"),
        ],
    )
    async def test_knows_every_operation_by_name(
        self, emporix: Emporix, operation: str, method: str, path: str
    ) -> None:
        emporix.sandbox.faults.arm("status=418", operation)
        assert (await emporix.http.request(method, path)).status_code == 418

    async def test_strikes_by_chance_and_the_same_way_each_time(self, emporix: Emporix) -> None:
        runs = []
        for _ in range(2):
            faults = Faults(seed=7)
            faults.arm("drop", times=None, probability=0.5)
            runs.append([faults.strike("get") is not None for _ in range(200)])
        assert runs[0] == runs[1]
        assert 60 < sum(runs[0]) < 140

    @pytest.mark.parametrize(
        "body",
        [
            {"fault": "nonsense"},
            {"fault": "status=503; retry-after=1\r\nx-evil: 1"},
            {"fault": "status=503; retry-after=größer"},
            {"operation": "get"},
            {"fault": "drop", "unknown": 1},
            {"fault": "drop", "times": "1"},
            [],
        ],
    )
    async def test_that_is_none_is_a_bad_request(self, emporix: Emporix, body: object) -> None:
        answer = await emporix.http.post("/_sandbox/faults", json=body)
        assert answer.status_code == 400
        assert answer.json()["message"]
        assert emporix.sandbox.faults.all() == []


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("drop", Fault("drop")),
        ("drop-after-write", Fault("drop", after_write=True)),
        ("hang", Fault("hang")),
        ("truncated", Fault("truncated", after_write=True)),
        ("not-json", Fault("not-json", after_write=True)),
        ("wrong-json", Fault("wrong-json", after_write=True)),
        ("latency=250ms", Fault(latency=0.25)),
        ("status=503", Fault("status", status=503)),
        ("status=503-after-write;latency=1ms", Fault("status", after_write=True, status=503, latency=0.001)),
        (" latency=1ms ; drop ", Fault("drop", latency=0.001)),
        ("status=429;retry-after=2", Fault("status", status=429, retry_after="2")),
    ],
)
def test_a_fault_is_read_as_it_is_written(text: str, fault: Fault) -> None:
    assert Fault.parse(text) == fault
