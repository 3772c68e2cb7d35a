"""No request, however malformed, makes the sandbox fail: it judges others."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sandbox.sandbox_api import ANONYMOUS, CUSTOMER, bearer, managed, own

from gateway.sandbox import Switches, seed
from gateway.sandbox.tokens import _signature, saas_token

if TYPE_CHECKING:
    from sandbox.sandbox_api import Emporix

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
NAMES = st.sampled_from(
    [
        *(
            "sessionId",
            "customerId",
            "siteCode",
            "currency",
            "context",
            "metadata",
            "key",
            "value",
            "email",
            "password",
        ),
        *("fault", "operation", "times", "probability", "tenant", "session_id", "lifetime", "conflict", "version"),
    ]
)
BODIES = (
    st.binary(max_size=60)
    | JSON_VALUES.map(lambda value: json.dumps(value).encode())
    | st.dictionaries(NAMES, JSON_VALUES, max_size=5).map(lambda value: json.dumps(value).encode())
    | st.sampled_from(
        [
            b"[" * 5_000,
            b'{"context":' * 3_000,
            b'{"metadata":{"version":10},"context":' + b'{"a":' * 980 + b"1" + b"}" * 980 + b"}",
            b'{"key":"a","value":' + b"[" * 990 + b"]" * 990 + b"}",
            b'{"metadata":{"version":10},"context":{"a":"\xff"}}',
            b'{"metadata":{"version":10},"siteCode":"\xff"}',
            b'{"metadata":{"version":10},"context":{"a":1e999}}',
            b'{"metadata":{"version":1e999}}',
            b'{"metadata":{"version":10},"context":[]}',
            b'{"metadata":{"version":10},"context":"text"}',
            b'{"metadata":{"version":10},"customerId":7}',
            b'{"metadata":{"version":' + b"9" * 5000 + b"}}",
            b'{"key":"a","value":1e999}',
            b'{"key":"a","value":"\xff"}',
            b'{"key":"\\ud800","value":1}',
            b'{"tenant":"acme","session_id":"s","lifetime":1e300}',
            b'{"tenant":"acme","session_id":"s","lifetime":-1e300}',
            b'{"service_token_lifetime":1e300}',
            b'{"shopper_token_lifetime":-1}',
            b'{"eventual_ms":-1}',
            b'{"granted_scopes":["a b"]}',
            b'{"fault":"latency=' + b"9" * 5000 + b'ms"}',
            b'{"fault":"drop","times":-1}',
            b'{"metadata":{"version":1,"createdAt":7,"modifiedAt":"x"}}',
            b'{"metadata":{"version":"x","createdAt":"","modifiedAt":""}}',
            b"client_id=acme-client&client_secret=%ff&grant_type=client_credentials",
            b"client_id=%00&grant_type=client_credentials&scope=%20%20",
            b"&&==&%&grant_type",
        ]
    )
)
TARGETS = st.sampled_from(
    [
        ("PUT", managed(CUSTOMER) + "?upsert=true"),
        ("PUT", managed("new") + "?upsert=true"),
        ("POST", managed(CUSTOMER, "attributes")),
        ("PATCH", own()),
        ("POST", own("attributes")),
        ("POST", "/oauth/token"),
        ("POST", "/customer/acme/login"),
        ("PUT", f"/_sandbox/sessions/acme/{CUSTOMER}"),
        ("PATCH", "/_sandbox/switches"),
        ("POST", "/_sandbox/faults"),
        ("POST", "/_sandbox/tokens"),
        ("POST", "/_sandbox/carts/acme/x"),
    ]
)


async def raw(emporix: Emporix, request: bytes) -> int:
    """Send bytes as they are; the status of the answer, 0 when the connection was closed without one."""
    url = httpx.URL(emporix.url)
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        writer.write(request)
        line = await asyncio.wait_for(reader.readline(), 3)
    finally:
        writer.close()
        await writer.wait_closed()
    return int(line.split(b" ")[1]) if line else 0


async def make_good(emporix: Emporix) -> dict[str, str]:
    """As new, and the headers of a caller who may do everything."""
    emporix.sandbox.reset()
    for name in Switches.__struct_fields__:
        setattr(emporix.sandbox.switches, name, getattr(Switches(), name))
    return await emporix.service(saas=emporix.sandbox.saas_token)


TEXTS = [b"customerId", b"siteCode", b"currency", b"cartId", b"targetLocation", b"language"]


class TestAnyBody:
    @given(target=TARGETS, body=BODIES)
    async def test_is_taken_or_refused_and_what_is_there_stays_good(
        self, emporix: Emporix, target: tuple[str, str], body: bytes
    ) -> None:
        headers = await make_good(emporix)
        method, path = target
        if "/me/" in path or "/customer/" in path:
            headers = bearer(seed.CUSTOMER_TOKEN)
        answer = await emporix.http.request(method, path, content=body, headers=headers)
        assert answer.status_code < 500, (method, path, body)
        if path.startswith("/session-context"):
            await _assert_all_good(emporix)

    async def test_that_upstream_would_never_have_let_in_is_served_as_it_is(self, emporix: Emporix) -> None:
        headers = await make_good(emporix)
        odd = (
            b'{"sessionId":7,"context":"text","customerId":[],"metadata":{"version":5,"createdAt":"","modifiedAt":""}}'
        )
        await emporix.http.put(f"/_sandbox/sessions/acme/{CUSTOMER}", content=odd)
        assert (await emporix.get()).json()["context"] == "text"
        for answer in (
            await emporix.http.delete(managed(CUSTOMER, "attributes", "a"), headers=headers),
            await emporix.put({"metadata": {"version": 4}}),
            await emporix.http.post(managed(CUSTOMER, "attributes"), json={"key": "a", "value": 1}, headers=headers),
            await emporix.http.get(own(), headers=bearer(seed.CUSTOMER_TOKEN)),
        ):
            assert answer.status_code < 500

    @pytest.mark.parametrize(
        "fields",
        [
            *(b'"%b":7' % each for each in TEXTS),
            b'"context":[]',
            b'"context":"text"',
            b'"context":{"a":1e999}',
            b'"currency":"\xff"',
        ],
    )
    async def test_with_a_field_of_the_wrong_type_is_a_bad_request(self, emporix: Emporix, fields: bytes) -> None:
        body = b'{"metadata":{"version":10},' + fields + b"}"
        before = emporix.stored()
        headers = await make_good(emporix)
        assert (await emporix.http.put(managed(CUSTOMER), content=body, headers=headers)).status_code == 400
        headers = bearer(seed.CUSTOMER_TOKEN)
        assert (await emporix.http.patch(own(), content=body, headers=headers)).status_code == 400
        assert emporix.stored() == before

    async def test_that_ends_too_soon_is_not_acted_upon(self, emporix: Emporix) -> None:
        body = b'{"key":"a","value":1}'
        url = httpx.URL(emporix.url)
        _, writer = await asyncio.open_connection(url.host, url.port)
        writer.write(
            b"POST " + own("attributes").encode() + b" HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n"
            b"authorization: Bearer " + seed.ANONYMOUS_TOKEN.encode() + b"\r\n\r\n" + body
        )
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        assert (await emporix.http.get(own(), headers=bearer(seed.ANONYMOUS_TOKEN))).status_code == 200
        assert emporix.sandbox.count("add-own-attribute") == 0
        assert "context" not in (emporix.stored(ANONYMOUS) or {})


async def _assert_all_good(emporix: Emporix) -> None:
    """Every session context there is can be read, and its attributes written."""
    headers = await emporix.service()
    for tenant, session_id in emporix.sandbox.store.ids():
        if tenant != "acme":
            continue
        answer = await emporix.http.get(managed(session_id), headers=headers)
        assert answer.status_code == 200
        document: dict[str, Any] = json.loads(answer.content)
        assert document["sessionId"] == session_id
        assert isinstance(document.get("context", {}), dict)
        path = managed(session_id, "attributes")
        answer = await emporix.http.post(path, json={"key": "probe", "value": 1}, headers=headers)
        assert answer.status_code == 204


PATHS = st.lists(
    st.sampled_from(
        [
            *("session-context", "acme", "context", "me", "attributes", CUSTOMER, "_sandbox", "sessions", "history"),
            *("carts", "tokens", "oauth", "token", "customer", "login", "customerlogin", "auth", "anonymous", "", "*"),
            *(
                "%",
                "%zz",
                "%00",
                "%2F",
                "%2e%2e",
                "..",
                ".",
                "%ff",
                "%ed%a0%80",
                "%F0%9F%9B%92",
                "a+b",
                ";",
                "a:b",
                "~",
            ),
        ]
    ),
    max_size=6,
).map("/".join)
QUERIES = st.sampled_from(
    ["", "?", "?upsert", "?upsert=true", "?a=%", "?%zz=%ff", "?tenant=acme&client_id=%00", "?=&&="]
)
METHODS = st.sampled_from(["GET", "PUT", "POST", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE", "ODD"])


class TestAnyPath:
    @given(method=METHODS, path=PATHS, query=QUERIES, shopper=st.booleans())
    async def test_is_answered(self, emporix: Emporix, method: str, path: str, query: str, shopper: bool) -> None:
        headers = bearer(seed.CUSTOMER_TOKEN) if shopper else await make_good(emporix)
        lines = [f"{method} /{path}{query} HTTP/1.1", "host: x", "connection: close", "content-length: 0"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        status = await raw(emporix, "\r\n".join([*lines, "", ""]).encode())
        assert 200 <= status < 500

    @pytest.mark.parametrize(
        "line",
        [
            b"OPTIONS * HTTP/1.1",
            b"GET http://x/session-context/acme/me/context HTTP/1.1",
            b"GET http://x HTTP/1.1",
            b"GET x HTTP/1.1",
            b"GET  HTTP/1.1",
            b"CONNECT x:80 HTTP/1.1",
            b"GET /\xff\xfe HTTP/1.1",
            b"GET /?\xff HTTP/1.1",
            b"GET / HTTP/9.9",
            b"nonsense",
            b"\x16\x03\x01\x02\x00\x01\x00\x01",
        ],
    )
    async def test_that_is_none_is_refused(self, emporix: Emporix, line: bytes) -> None:
        assert await raw(emporix, line + b"\r\nhost: x\r\nconnection: close\r\n\r\n") in {0, *range(200, 500)}

    async def test_of_many_segments_is_answered(self, emporix: Emporix) -> None:
        assert (await emporix.http.get("/a" * 5_000)).status_code == 404


GOOD = saas_token(seed.CUSTOMER_ID, datetime(2100, 1, 1, tzinfo=UTC))


def signed(head: str) -> str:
    return f"{head}.{_signature(head)}"


class TestAnySaasToken:
    @pytest.mark.parametrize(
        "token",
        [
            *("a.b", "x", ".", "..", "...", "a.b.c", "a.b.c.d", "ü.ü.ü"),
            GOOD[:-1],
            GOOD + "=",
            GOOD.upper(),
            GOOD.replace(".", "", 1),
            signed(""),
            signed("a"),
            signed("a."),
            signed("a.!!!!"),
            signed("a.A"),
            signed("a.AAAA"),
            signed("a.bnVsbA"),
            signed("a.e30"),
            signed("a.eyJzdWIiOjF9"),
            signed("a.b.c"),
            signed("a." + "W1tb" * 2_000),
        ],
    )
    async def test_that_is_none_is_forbidden(self, emporix: Emporix, token: str) -> None:
        headers = httpx.Headers(await emporix.service(saas=token), encoding="latin-1")
        answer = await emporix.http.put(managed(CUSTOMER), json={"metadata": {"version": 10}}, headers=headers)
        assert (answer.status_code, answer.json()["status"]) == (403, "Forbidden")

    @given(st.text(alphabet=st.characters(min_codepoint=33, max_codepoint=126), max_size=40), st.booleans())
    def test_of_any_text_is_nobodys(self, emporix: Emporix, text: str, with_signature: bool) -> None:
        assert emporix.sandbox.tokens.customer_of(signed(text) if with_signature else text) is None

    def test_that_is_good_is_its_customers(self, emporix: Emporix) -> None:
        assert emporix.sandbox.tokens.customer_of(GOOD) == seed.CUSTOMER_ID
