"""Browsers: what a page of another site can make them send, and what they are told with every answer."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import urlsplit

import httpx
import pytest
import pytest_asyncio
from access.certificates import HERE, Authority, Files
from starlette.responses import PlainTextResponse

from gateway.configuration import load_settings
from gateway.development import DEV_DEFAULTS
from gateway.graphql.headers import BrowserHeaders
from gateway.listener import listening
from gateway.protocol import BoundedProtocol
from gateway.sandbox import seed
from gateway.settings import ConfigurationError
from gateway.tls import CertificateFiles, Certificates
from stage import opened

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from gateway.sandbox import Sandbox
    from stage import Dev

JSON_TYPE = "application/json"
QUERY = f'{{ sessionContext(tenant: "acme", sessionId: "{seed.CUSTOMER_SESSION}") {{ currency }} }}'
DATA = {"data": {"sessionContext": {"currency": "EUR"}}}
SHOP = "https://shop.example"
STRANGER = "https://stranger.example"


def message_of(response: httpx.Response) -> str:
    (error,) = response.json()["errors"]
    return str(error["message"])


# CSRF

FORMS = [
    "application/x-www-form-urlencoded",
    "multipart/form-data; boundary=x",
    "text/plain",
    "text/plain; charset=utf-8",
]
"""Media types that a page may have sent without asking first (Fetch, CORS-safelisted request headers)."""


@pytest.mark.parametrize("content_type", [None, "", *FORMS, f"text/plain; {JSON_TYPE}", f"text/plain, {JSON_TYPE}"])
@pytest.mark.parametrize("accept", ["*/*", "text/html", "image/*", "application/graphql-response+json"])
async def test_a_get_that_a_link_or_an_image_could_be_is_refused_and_nothing_is_done(
    dev: Dev, upstream: Sandbox, client: httpx.AsyncClient, content_type: str | None, accept: str
) -> None:
    headers = {"accept": accept, **({} if content_type is None else {"content-type": content_type})}
    response = await client.get(dev.graphql_url, params={"query": QUERY}, headers=headers)

    assert response.status_code in {400, 406}
    assert not upstream.requests
    if response.status_code == 400:
        assert "graphql-require-preflight: 1" in message_of(response)
        assert "content-type: application/json" in message_of(response)


@pytest.mark.parametrize(
    "headers",
    [
        {"graphql-require-preflight": "1"},
        {"apollo-require-preflight": "true"},
        {"x-apollo-operation-name": "Read"},
        {"content-type": JSON_TYPE},
        {"content-type": f"{JSON_TYPE}; charset=utf-8"},
    ],
)
async def test_a_get_that_browsers_ask_leave_for_is_answered(
    dev: Dev, upstream: Sandbox, client: httpx.AsyncClient, headers: dict[str, str]
) -> None:
    assert (await client.get(dev.graphql_url, params={"query": QUERY}, headers=headers)).json() == DATA


@pytest.mark.parametrize("content_type", ["application/xml", "application/graphql", "x", "multipart/mixed"])
async def test_a_media_type_of_a_get_shows_nothing_unless_it_is_json(
    dev: Dev, upstream: Sandbox, client: httpx.AsyncClient, content_type: str
) -> None:
    """By the specification browsers ask leave for these too; one of them did not, for a while (GHSA-9q82-xgwf-vj6h)."""
    response = await client.get(dev.graphql_url, params={"query": QUERY}, headers={"content-type": content_type})

    assert response.status_code == 400
    assert not upstream.requests


@pytest.mark.parametrize("header", ["graphql-require-preflight", "apollo-require-preflight", "x-apollo-operation-name"])
async def test_an_empty_header_shows_nothing(dev: Dev, client: httpx.AsyncClient, header: str) -> None:
    response = await client.get(dev.graphql_url, params={"query": QUERY}, headers={header: ""})

    assert response.status_code == 400


@pytest.mark.parametrize("content_type", FORMS)
@pytest.mark.parametrize("header", [{}, {"graphql-require-preflight": "1"}])
async def test_a_post_of_a_forms_media_type_is_refused_whatever_else_is_sent(
    dev: Dev, upstream: Sandbox, client: httpx.AsyncClient, content_type: str, header: dict[str, str]
) -> None:
    body = json.dumps({"query": QUERY})
    response = await client.post(dev.graphql_url, content=body, headers={"content-type": content_type, **header})

    assert response.status_code == 415
    assert JSON_TYPE in message_of(response)
    assert not upstream.requests


async def test_the_playgrounds_page_needs_no_header(dev: Dev, client: httpx.AsyncClient) -> None:
    response = await client.get(dev.graphql_url, headers={"accept": "text/html,*/*;q=0.8"})

    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")


# CORS


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared() -> AsyncIterator[Dev]:
    async with opened(graphql={"cors_origins": (SHOP, "http://localhost:3000")}) as dev:
        yield dev


async def preflight(
    client: httpx.AsyncClient, dev: Dev, origin: str, *, method: str = "POST", headers: str = "content-type"
) -> httpx.Response:
    asked = {"origin": origin, "access-control-request-method": method, "access-control-request-headers": headers}
    return await client.options(dev.graphql_url, headers=asked)


@pytest.mark.parametrize("origin", [SHOP, "http://localhost:3000"])
async def test_a_page_of_a_listed_origin_may_call(shared: Dev, client: httpx.AsyncClient, origin: str) -> None:
    headers = (
        "apollo-require-preflight,apollographql-client-name,apollographql-client-version,authorization,baggage,"
        "cache-control,content-type,graphql-require-preflight,saas-token,traceparent,tracestate,x-api-key,"
        "x-apollo-operation-name,x-request-id"
    )
    asked = await preflight(client, shared, origin, headers=headers)
    answered = await client.post(shared.graphql_url, json={"query": QUERY}, headers={"origin": origin})

    assert asked.status_code == 200
    assert asked.headers["access-control-allow-methods"] == "GET, POST"
    assert asked.headers["access-control-max-age"] == "7200"
    assert answered.json() == DATA
    exposed = set(answered.headers["access-control-expose-headers"].split(", "))
    assert exposed == {"age", "cache-status", "retry-after", "x-request-id"}
    for response in (asked, answered):
        assert response.headers["access-control-allow-origin"] == origin
        assert "access-control-allow-credentials" not in response.headers
        assert "Origin" in response.headers["vary"]


@pytest.mark.parametrize(
    "origin", [STRANGER, "null", f"{SHOP}.stranger.example", f"{SHOP}:8443", "http://shop.example", f"{SHOP}/", "*"]
)
async def test_a_page_of_another_origin_is_not_told_that_it_may(
    shared: Dev, client: httpx.AsyncClient, origin: str
) -> None:
    asked = await preflight(client, shared, origin)
    answered = await client.post(shared.graphql_url, json={"query": QUERY}, headers={"origin": origin})

    for response in (asked, answered):
        assert response.status_code == 200
        assert "access-control-allow-origin" not in response.headers
        assert "Origin" in response.headers["vary"]


@pytest.mark.parametrize(
    ("method", "headers", "names", "refused"),
    [
        ("DELETE", "content-type", "access-control-allow-methods", "DELETE"),
        ("POST", "content-type,x-forwarded-for", "access-control-allow-headers", "x-forwarded-for"),
    ],
)
async def test_a_page_may_not_send_anything_else_and_its_developer_can_see_what(
    shared: Dev, client: httpx.AsyncClient, *, method: str, headers: str, names: str, refused: str
) -> None:
    """Browsers name it if the answer is one of success. Of any other they say no more than that it is none."""
    asked = await preflight(client, shared, SHOP, method=method, headers=headers)

    assert asked.status_code == 200
    assert asked.headers["access-control-allow-origin"] == SHOP
    assert refused not in asked.headers[names].split(", ")


async def test_an_answer_to_nobody_in_particular_says_that_the_origin_matters(
    shared: Dev, client: httpx.AsyncClient
) -> None:
    response = await client.post(shared.graphql_url, json={"query": QUERY})

    assert "access-control-allow-origin" not in response.headers
    assert response.headers["vary"] == "Origin"


async def test_no_page_of_another_origin_may_call_unless_listed(dev: Dev, client: httpx.AsyncClient) -> None:
    asked = await preflight(client, dev, SHOP)
    answered = await client.post(dev.graphql_url, json={"query": QUERY}, headers={"origin": SHOP})

    assert asked.status_code == 405
    for response in (asked, answered):
        assert not [each for each in response.headers if each.startswith("access-control-")]


# Headers of every answer

POLICY = "default-src 'none'; frame-ancestors 'none'"


@pytest.mark.parametrize(
    ("method", "path", "headers", "status"),
    [
        ("POST", "", {}, 200),
        ("POST", "", {"content-type": "text/plain"}, 415),
        ("GET", "", {}, 400),
        ("GET", "", {"accept": "text/plain"}, 406),
        ("DELETE", "", {}, 405),
        ("HEAD", "", {}, 405),
        ("GET", "/nothing/here", {}, 404),
        ("GET", "/assets/nothing.js", {}, 404),
        ("OPTIONS", "", {"origin": SHOP, "access-control-request-method": "POST"}, 200),
        ("OPTIONS", "", {"origin": STRANGER, "access-control-request-method": "POST"}, 200),
    ],
)
async def test_every_answer_is_framed_guessed_at_and_followed_by_nobody(
    shared: Dev, client: httpx.AsyncClient, *, method: str, path: str, headers: dict[str, str], status: int
) -> None:
    headers = {"content-type": JSON_TYPE, **headers} if method == "POST" else headers
    content = json.dumps({"query": QUERY}) if method == "POST" else None
    response = await client.request(method, f"{shared.graphql_url}{path}", headers=headers, content=content)

    assert response.status_code == status
    assert response.headers["content-security-policy"] == POLICY
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert "strict-transport-security" not in response.headers
    assert "server" not in response.headers


async def test_the_playgrounds_page_has_a_policy_of_its_own(dev: Dev, client: httpx.AsyncClient) -> None:
    response = await client.get(dev.graphql_url, headers={"accept": "text/html"})

    assert response.headers.get_list("content-security-policy") != [POLICY]
    assert "script-src 'self'" in response.headers["content-security-policy"]
    assert "frame-ancestors 'none'" in response.headers["content-security-policy"]
    assert response.headers.get_list("x-content-type-options") == ["nosniff"]
    assert response.headers.get_list("cache-control") == ["no-store"]


@pytest.mark.parametrize(("scheme", "expected"), [("https", "max-age=31536000"), ("http", None)])
async def test_under_tls_browsers_are_told_to_stay_with_it(scheme: str, expected: str | None) -> None:
    transport = httpx.ASGITransport(BrowserHeaders(PlainTextResponse("", headers={"cache-control": "max-age=1"})))
    async with httpx.AsyncClient(transport=transport, base_url=f"{scheme}://gateway") as client:
        response = await client.get("/")

    assert response.headers.get("strict-transport-security") == expected
    assert response.headers["cache-control"] == "max-age=1"


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_a_request_says_of_its_way_changes_nothing(dev: Dev, client: httpx.AsyncClient, method: str) -> None:
    """Whoever has TLS in front of the gateway speaks of it to browsers, for all answers alike."""
    forwarded = {"x-forwarded-proto": "https", "x-forwarded-for": "192.0.2.1", "graphql-require-preflight": "1"}
    query = {"query": "{ __typename }"}
    if method == "GET":
        response = await client.get(dev.graphql_url, params=query, headers=forwarded)
    else:
        response = await client.post(dev.graphql_url, json=query, headers=forwarded)

    assert response.status_code == 200
    assert "strict-transport-security" not in response.headers


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("path", ["/", "/graphql/", "/graphql/assets", "/livez/", "/readyz/", "/metrics/"])
async def test_nobody_is_sent_elsewhere(
    dev: Dev, upstream: Sandbox, client: httpx.AsyncClient, method: str, path: str
) -> None:
    """Behind a proxy that ends TLS a redirect would lead to plain HTTP, and credentials after it. Words say where."""
    graphql = path in {"/", "/graphql/", "/graphql/assets"}
    door = dev.graphql_url.removesuffix("/graphql") if graphql else dev.doors.admin
    response = await client.request(method, f"{door}{path}", content=json.dumps({"query": QUERY}))

    assert response.status_code == 404
    assert response.text.endswith("only at /graphql\n" if graphql else "only at /livez, /readyz, /metrics\n")
    assert "location" not in response.headers
    assert not upstream.requests


# The head and the body of a request


async def answer_to(url: str, *parts: bytes) -> bytes:
    """What the server sends until it closes the connection."""
    address = urlsplit(url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        async with asyncio.timeout(5):
            for part in parts:
                writer.write(part)
            return await reader.read()
    finally:
        writer.transport.abort()


@pytest.mark.parametrize("part", [b"x-a: " + b"a" * 66_000, b"x-a: a\r\n" * 9_000])
async def test_a_head_that_does_not_end_is_refused(dev: Dev, upstream: Sandbox, part: bytes) -> None:
    answer = await answer_to(dev.graphql_url, b"POST /graphql HTTP/1.1\r\nhost: a\r\n", part)

    assert answer.startswith(b"HTTP/1.1 431 ")
    assert answer.count(b"HTTP/1.1 ") == 1


@pytest.mark.parametrize(("fields", "status"), [(127, b"404"), (128, b"431")])
async def test_a_head_has_a_bounded_number_of_fields(dev: Dev, fields: int, status: bytes) -> None:
    head = b"GET / HTTP/1.1\r\nhost: a\r\n" + b"a:\r\n" * (fields - 1) + b"connection: close\r\n\r\n"
    answer = await answer_to(dev.graphql_url, head)

    assert answer.startswith(b"HTTP/1.1 " + status)
    assert answer.count(b"HTTP/1.1 ") == 1


async def test_a_url_that_does_not_end_is_refused(dev: Dev) -> None:
    assert (await answer_to(dev.graphql_url, b"GET /graphql?" + b"a" * 66_000)).startswith(b"HTTP/1.1 431 ")


async def test_a_body_may_be_larger_than_a_head(dev: Dev, upstream: Sandbox, client: httpx.AsyncClient) -> None:
    for _ in range(2):  # on one connection
        response = await client.post(dev.graphql_url, json={"query": QUERY, "unknown": "x" * 400_000})
        assert response.json() == DATA


async def test_a_url_of_many_parameters_is_refused(dev: Dev, client: httpx.AsyncClient) -> None:
    headers = {"graphql-require-preflight": "1"}
    response = await client.get(f"{dev.graphql_url}?{'a&' * 1000}", headers=headers)

    assert response.status_code == 400
    assert "100 parameters" in message_of(response)


class _Impatient(BoundedProtocol):
    patience: ClassVar[float] = 0.05


@pytest.mark.parametrize(
    "parts",
    [
        [],
        [b"GET"],
        [b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", b"GET / HTTP"],
        [b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 1\r\n\r\na", b"GET / HTTP"],
    ],
    ids=["nothing", "the begin of a head", "after a request", "after a body"],
)
async def test_a_head_that_does_not_come_ends_the_connection(parts: list[bytes]) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await PlainTextResponse("ok")(scope, receive, send)

    async with listening(app, host="127.0.0.1", port=0, grace=0, protocol=_Impatient) as url:
        address = urlsplit(url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        async with asyncio.timeout(5):
            for part in parts[:-1]:
                writer.write(part)
                await reader.readuntil(b"ok")
            writer.write(b"".join(parts[-1:]))
            assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()


@pytest.mark.parametrize("rest", [b"a", b"ab"], ids=["a part", "the whole"])
async def test_what_is_left_of_a_body_that_was_answered_keeps_no_connection(rest: bytes) -> None:
    class Quick(_Impatient):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.timeout_keep_alive = 0.5  # type: ignore[assignment]  # uvicorn says int; any number will do

    async with listening(PlainTextResponse("ok"), host="127.0.0.1", port=0, grace=0, protocol=Quick) as url:
        address = urlsplit(url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        async with asyncio.timeout(5):
            writer.write(b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n")
            await reader.readuntil(b"ok")
            writer.write(rest)
            with suppress(ConnectionError):  # where that came too late
                assert await reader.read() == b""
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()


@pytest.mark.parametrize("part", [b"a: " + b"a" * 600_000, b"a: a\r\n" * 100_000], ids=["one field", "many fields"])
async def test_a_trailer_that_does_not_end_ends_the_connection(dev: Dev, upstream: Sandbox, part: bytes) -> None:
    head = b"POST /graphql HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"

    with suppress(ConnectionError):  # it did not read all of it
        assert await answer_to(dev.graphql_url, head, b"0\r\n", part) == b""


# Answers and connections

LARGE = 20_000_000
"""Bytes that no buffer of the kernel's has room for."""


class _InAHurry(BoundedProtocol):
    reading: ClassVar[float] = 0.2


class _Small(BoundedProtocol):
    room: ClassVar[int] = LARGE


async def large(scope: Any, receive: Any, send: Any) -> None:
    await receive()
    await PlainTextResponse("x" * LARGE)(scope, receive, send)


@pytest.fixture(params=[False, True], ids=["TCP", "TLS"])
def door(request: pytest.FixtureRequest, tmp_path: Path) -> Door:
    if not request.param:
        return Door(None, None)
    authority = Authority()
    files = Files.of(tmp_path, authority.issue(*HERE))
    return Door(Certificates(CertificateFiles(files.certificate, files.key), "door"), authority.trusted())


@dataclass
class Door:
    """A listener that answers everybody with what is large."""

    certificates: Certificates | None
    trusting: ssl.SSLContext | None

    @asynccontextmanager
    async def opened(self, protocol: type[BoundedProtocol] = BoundedProtocol) -> AsyncIterator[str]:
        async with listening(
            large, host="127.0.0.1", port=0, grace=5, protocol=protocol, certificates=self.certificates
        ) as url:
            yield url

    async def asked(self, url: str, *, connection: str = "keep-alive", taking: int = 0) -> Slow:
        """A client that has asked, and takes the first line of the answer, and so many bytes more."""
        address = urlsplit(url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port, limit=1024, ssl=self.trusting)
        writer.write(f"GET / HTTP/1.1\r\nhost: a\r\nconnection: {connection}\r\n\r\n".encode())
        await reader.readline()
        await reader.readexactly(taking)
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # asyncio's types know it not of a socket's
        return Slow(reader, writer, taking)


@dataclass
class Slow:
    """A client that has not taken its answer yet."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    taken: int

    async def takes_all(self) -> bool:
        """Go on: whether there is all of it."""
        self.writer.transport.resume_reading()  # type: ignore[attr-defined]  # as above
        with suppress(ConnectionResetError):
            async with asyncio.timeout(10):
                while self.taken < LARGE and (part := await self.reader.read(1_000_000)):
                    self.taken += len(part)
        self.writer.transport.abort()
        return self.taken >= LARGE


@pytest.mark.parametrize("taking", [0, 6_000_000], ids=["nothing", "some"])
async def test_who_does_not_take_an_answer_is_cut_off(door: Door, taking: int) -> None:
    async with door.opened(_InAHurry) as url:
        client = await door.asked(url, taking=taking)
        await asyncio.sleep(1)
        assert not await client.takes_all()


async def test_there_is_an_end_to_what_all_clients_have_still_to_take(door: Door) -> None:
    """Who has been longest about it makes room."""
    async with door.opened(_Small) as url:
        clients = [await door.asked(url, taking=taking) for taking in (0, 6_000_000, 0)]
        assert [await each.takes_all() for each in clients] == [False, False, True]


async def test_who_takes_the_last_answer_of_a_connection_later_gets_the_whole(door: Door) -> None:
    async with door.opened() as url:
        client = await door.asked(url, connection="close")
        await asyncio.sleep(1)
        assert await client.takes_all()


async def test_who_takes_an_answer_while_the_listener_ends_gets_the_whole(door: Door) -> None:
    async with asyncio.TaskGroup() as tasks:
        async with door.opened() as url:
            client = await door.asked(url)
            taken = tasks.create_task(later(client))
        assert await taken


async def later(client: Slow) -> bool:
    await asyncio.sleep(1)
    return await client.takes_all()


async def test_who_takes_an_answer_in_time_gets_the_whole() -> None:
    async with listening(large, host="127.0.0.1", port=0, grace=0) as url:
        answer = await answer_to(url, b"GET / HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
    assert answer.endswith(b"x" * LARGE)


async def test_connections_beyond_the_bound_are_closed_and_leave_the_others_alone(upstream: Sandbox) -> None:
    async with opened(graphql={"max_connections": 3}) as dev:
        address = urlsplit(dev.graphql_url)
        held = [await asyncio.open_connection(address.hostname, address.port) for _ in range(3)]
        try:
            assert await answer_to(dev.graphql_url) == b""
            for reader, writer in held:
                writer.write(b"GET /graphql HTTP/1.1\r\nhost: a\r\n\r\n")
                assert (await asyncio.wait_for(reader.readline(), 5)).startswith(b"HTTP/1.1 4")
        finally:
            for _, writer in held:
                writer.transport.abort()
        async with httpx.AsyncClient() as client:
            await eventually_answers(client, dev.graphql_url)


async def eventually_answers(client: httpx.AsyncClient, url: str) -> None:
    """The listener hears of what was closed a little later."""
    for _ in range(100):
        with suppress(httpx.TransportError):
            await client.post(url, json={"query": "{ __typename }"})
            return
        await asyncio.sleep(0.05)
    raise AssertionError("no connection is taken any more")


async def test_a_body_that_takes_its_time_ends_with_the_time_of_a_request(upstream: Sandbox) -> None:
    head = b"POST /graphql HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{"
    async with opened(graphql={"budget": 0.1}) as dev:
        answer = await answer_to(dev.graphql_url, head)

    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"longer to arrive" in answer
    assert b'"REQUEST_NOT_RECEIVED"' in answer


@pytest.mark.parametrize(
    "origins",
    [
        ["*"],
        ["https://*.example"],
        ["https://shop.example/"],
        ["shop.example"],
        ["HTTPS://shop.example"],
        ["null"],
        ["https://shop.example:443"],  # which browsers leave out: it would never be met
        ["http://shop.example:80"],
    ],
)
def test_what_is_no_origin_is_refused_at_the_start(origins: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="cors_origins must be origins"):
        load_settings(None, {**DEV_DEFAULTS, "graphql": {"cors_origins": origins}})


@pytest.mark.parametrize("origin", ["https://shop.example", "http://shop.example:443", "https://[::1]:8080"])
def test_what_browsers_send_is_an_origin(origin: str) -> None:
    assert load_settings(None, {**DEV_DEFAULTS, "graphql": {"cors_origins": [origin]}}).graphql.cors_origins == (
        origin,
    )


@pytest.mark.parametrize("headers", [{"origin": STRANGER}, {"origin": SHOP}])
async def test_cors_does_not_stand_in_for_a_header_against_csrf(
    shared: Dev, upstream: Sandbox, client: httpx.AsyncClient, headers: Mapping[str, str]
) -> None:
    response = await client.get(shared.graphql_url, params={"query": QUERY}, headers=headers)

    assert response.status_code == 400
