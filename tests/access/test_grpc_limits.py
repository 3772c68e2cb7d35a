"""What one client, or all of them, may take of the gRPC listener: real connections, some of them badly behaved."""

from __future__ import annotations

import asyncio
import codecs
import json
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import grpc
import httpx
import pytest
import pytest_asyncio
from google.protobuf.struct_pb2 import Struct, Value
from google.rpc import error_details_pb2 as details
from google.rpc import status_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from h2.connection import H2Connection
from h2.events import ResponseReceived
from h2.settings import SettingCodes, Settings

from doors import refusal
from gateway import arrivals, memory_budget
from gateway.configuration import load_settings
from gateway.development import DEV_DEFAULTS
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2 as pb
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2_grpc as pb_grpc
from gateway.logs import is_fit_to_log
from gateway.rpc import accepting, servicers
from gateway.rpc.convert import fill_session_context
from gateway.sandbox import seed
from stage import channel_to, opened
from waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from gateway.model import SessionContext
    from stage import Dev

MANAGED = "emporix.sessioncontext.v1.SessionContextService"
OWN = "emporix.sessioncontext.v1.OwnSessionContextService"
REQUEST = pb.GetSessionContextRequest(tenant="acme", session_id=seed.CUSTOMER_SESSION)
HEALTH = health_pb2.HealthCheckRequest()
Status = health_pb2.HealthCheckResponse
KEY = ("x-api-key", "dev-key")
EXHAUSTED = grpc.StatusCode.RESOURCE_EXHAUSTED

HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 1, 3, 4, 6, 7
END_STREAM: Final = 1
END_HEADERS: Final = 4
REFUSED_STREAM, CANCEL = 7, 8
TWO_AT_A_TIME = 33_554_432
"""Bytes of the largest request, so that two of them take all the room there is."""
UNKNOWN = b"\xa2\x06\x80\x80\x08" + bytes(131_072)
"""A field that no message has. In any of them it is passed over."""
CALL = [
    (":method", "POST"),
    (":scheme", "http"),
    (":authority", "a"),
    ("content-type", "application/grpc"),
    ("te", "trailers"),
]


async def failure(call: Any) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return failed.value


def health_of(channel: grpc.aio.Channel) -> Any:
    """Its stub; that the stubs' own types know no methods is a fault of theirs."""
    return health_pb2_grpc.HealthStub(channel)


@asynccontextmanager
async def limited(**grpc_settings: object) -> AsyncIterator[tuple[Dev, pb_grpc.SessionContextServiceAsyncStub]]:
    """A gateway with such settings, which has its token already."""
    async with opened(grpc=grpc_settings, shutdown={"grace": 0.2}) as dev, channel_to(dev.doors.grpc) as channel:
        managed = pb_grpc.SessionContextServiceStub(channel)
        await served(managed)
        yield dev, managed


async def under_way(dev: Dev, number: int) -> None:
    """Wait until the gateway has begun with so many calls."""
    told = f'session_gateway_requests_in_flight{{door="grpc"}} {number:.1f}'
    async with httpx.AsyncClient() as client, asyncio.timeout(10):
        while told not in (await client.get(f"{dev.doors.admin}/metrics")).text:
            await asyncio.sleep(0.01)


async def served(managed: pb_grpc.SessionContextServiceAsyncStub) -> None:
    """Call until there is an answer: where calls or connections have little time, a loaded machine takes longer."""
    short_of_time = {grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE}
    while True:
        try:
            await managed.GetSessionContext(REQUEST)
        except grpc.aio.AioRpcError as error:
            if error.code() not in short_of_time:
                raise
        else:
            return


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def shared() -> AsyncIterator[Dev]:
    async with limited(
        max_metadata=4096, max_answer=16_384, max_calls_per_connection=1_000, budget=0.5, reflection=False
    ) as (dev, _):
        yield dev


@pytest.fixture
def strict(shared: Dev) -> Iterator[Dev]:
    """A gateway that allows little; the sandbox behind it is as new."""
    shared.sandbox.reset()
    yield shared
    shared.sandbox.faults.clear()


@pytest_asyncio.fixture(loop_scope="session")
async def managed(strict: Dev) -> AsyncIterator[pb_grpc.SessionContextServiceAsyncStub]:
    async with channel_to(strict.doors.grpc) as channel:
        yield pb_grpc.SessionContextServiceStub(channel)


@pytest_asyncio.fixture(loop_scope="session")
async def channel(strict: Dev) -> AsyncIterator[grpc.aio.Channel]:
    """For what needs no key, or has its own."""
    async with grpc.aio.insecure_channel(strict.doors.grpc) as channel:
        yield channel


# Sizes


async def test_a_request_that_is_compressed_is_refused(managed: pb_grpc.SessionContextServiceAsyncStub) -> None:
    """1 KB could stand for the largest request, which takes hundreds of times as long to decode as a usual one."""
    refused = await failure(managed.GetSessionContext(REQUEST, compression=grpc.Compression.Gzip))

    assert refused.code() == grpc.StatusCode.UNIMPLEMENTED
    await managed.GetSessionContext(REQUEST)


async def test_too_much_metadata_is_refused_and_the_connection_lives(
    managed: pb_grpc.SessionContextServiceAsyncStub,
) -> None:
    assert (await managed.GetSessionContext(REQUEST, metadata=[("a", "x" * 3000)])).session_context.currency == "EUR"
    for size in (4096, 100_000):
        failed = await failure(managed.GetSessionContext(REQUEST, metadata=[("a", "x" * size)]))
        assert failed.code() == EXHAUSTED
    await managed.GetSessionContext(REQUEST)


def enlarge(dev: Dev) -> None:
    document = seed.SESSIONS["acme", seed.CUSTOMER_SESSION].replace(b"customValue", b"x" * 20_000)
    dev.sandbox.store.seed("acme", seed.CUSTOMER_SESSION, document)


async def test_an_answer_that_is_too_large_is_refused_and_the_connection_lives(
    strict: Dev, managed: pb_grpc.SessionContextServiceAsyncStub, caplog: pytest.LogCaptureFixture
) -> None:
    enlarge(strict)
    batch = pb.BatchGetSessionContextsRequest(tenant="acme", session_ids=[seed.CUSTOMER_SESSION])
    for call in (managed.GetSessionContext(REQUEST), managed.BatchGetSessionContexts(batch)):
        failed = await failure(call)
        assert failed.code() == EXHAUSTED
        assert "more than 16384 bytes" in (failed.details() or "")
        assert refusal(failed).reason == "ANSWER_TOO_LARGE"
    assert caplog.records == []


@pytest.mark.parametrize("ids", [[seed.CUSTOMER_SESSION] * 100, [f"session-{each}" for each in range(100)]])
async def test_a_batch_is_made_no_further_than_it_may_be_sent(
    strict: Dev,
    managed: pb_grpc.SessionContextServiceAsyncStub,
    monkeypatch: pytest.MonkeyPatch,
    ids: list[str],
) -> None:
    """To make all of it held up everybody for half a minute, and took a gigabyte."""
    made: list[str] = []

    def fill(message: pb.SessionContext, context: SessionContext) -> None:
        made.append(context.session_id)
        fill_session_context(message, context)

    monkeypatch.setattr(servicers, "fill_session_context", fill)
    document = seed.SESSIONS["acme", seed.CUSTOMER_SESSION].replace(b"customValue", b"x" * 6_000)
    for each in ids:
        strict.sandbox.store.seed("acme", each, document.replace(seed.CUSTOMER_SESSION.encode(), each.encode()))

    few, all_of_them = (pb.BatchGetSessionContextsRequest(tenant="acme", session_ids=each) for each in (ids[:2], ids))
    answer = await managed.BatchGetSessionContexts(few)
    assert [each.session_context.session_id for each in answer.entries] == ids[:2]
    made.clear()

    failed = await failure(managed.BatchGetSessionContexts(all_of_them))
    assert refusal(failed).reason == "ANSWER_TOO_LARGE"
    assert len(made) == min(3, len(set(ids)))


async def test_what_was_written_stays_written_when_it_is_too_large_to_be_read_back(
    strict: Dev, managed: pb_grpc.SessionContextServiceAsyncStub
) -> None:
    enlarge(strict)
    request = pb.AddAttributeRequest(tenant="acme", session_id=seed.CUSTOMER_SESSION, attribute_name="a")
    request.value.string_value = "there"
    answer = await managed.AddAttribute(request, metadata=[("saas-token", strict.sandbox.saas_token)])

    assert not answer.HasField("session_context")
    assert b'"there"' in (strict.sandbox.store.get("acme", seed.CUSTOMER_SESSION) or b"")


# Calls


async def test_calls_past_the_limit_are_refused_until_others_have_ended() -> None:
    async with limited(max_calls=2) as (dev, managed):
        dev.sandbox.faults.arm("hang", "get", times=None)
        hanging = [managed.GetSessionContext(REQUEST) for _ in range(2)]
        await eventually(lambda: dev.sandbox.under_way == 2)

        assert (await failure(managed.GetSessionContext(REQUEST))).code() == EXHAUSTED

        for each in hanging:
            each.cancel()
        await eventually(lambda: dev.sandbox.under_way == 0)
        dev.sandbox.faults.clear()
        await managed.GetSessionContext(REQUEST)


async def test_calls_that_come_all_at_once_are_answered_or_refused() -> None:
    """By itself gRPC cancels some of those that nobody has begun with yet, beyond a thousand."""
    async with limited(max_calls_per_connection=2_500) as (_, managed):
        calls = [managed.GetSessionContext(REQUEST) for _ in range(2_500)]
        codes = {await each.code() for each in calls}

    assert codes <= {grpc.StatusCode.OK, EXHAUSTED}


async def test_one_connection_has_so_many_calls_at_a_time() -> None:
    async with limited(max_calls_per_connection=2) as (dev, managed):
        dev.sandbox.faults.arm("hang", "get", times=2)
        hanging = [managed.GetSessionContext(REQUEST) for _ in range(2)]
        await eventually(lambda: dev.sandbox.under_way == 2)

        further = asyncio.ensure_future(managed.GetSessionContext(REQUEST))
        await asyncio.wait([further], timeout=0.1)
        assert not further.done()

        hanging[0].cancel()
        assert (await further).session_context.currency == "EUR"


async def test_calls_beyond_that_wait_and_none_is_lost() -> None:
    """By itself gRPC also counted those that have ended and that it has not put away yet, and refused new ones."""
    async with limited() as (_, managed):
        for _ in range(3):
            answers = await asyncio.gather(*(managed.GetSessionContext(REQUEST) for _ in range(400)))
            assert {each.session_context.currency for each in answers} == {"EUR"}


@pytest.mark.parametrize(
    "method", [f"{MANAGED}/GetSessionContext", "grpc.health.v1.Health/Check", "grpc.health.v1.Health/Watch"]
)
async def test_a_call_whose_request_does_not_come_is_ended(
    channel: grpc.aio.Channel, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Or whoever opens calls and sends nothing would soon hold all that there may be."""
    call: Any = channel.stream_unary(f"/{method}")(metadata=[KEY])

    assert await call.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert await call.details() == "the request did not come in time"
    status, info = status_pb2.Status(), details.ErrorInfo()
    status.ParseFromString(dict(await call.trailing_metadata())["grpc-status-details-bin"])
    assert status.details[0].Unpack(info)
    assert info.reason == "REQUEST_NOT_RECEIVED"
    assert caplog.records == []


async def test_so_is_each_that_began_a_little_later(channel: grpc.aio.Channel) -> None:
    calls: list[Any] = []
    for _ in range(3):
        calls.append(channel.stream_unary(f"/{MANAGED}/GetSessionContext")(metadata=[KEY]))
        await asyncio.sleep(0.1)

    async with asyncio.timeout(10):
        assert {await each.code() for each in calls} == {grpc.StatusCode.DEADLINE_EXCEEDED}


async def test_requests_take_turns_where_they_could_be_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "_TURN", 0.3)
    async with limited(max_message=TWO_AT_A_TIME) as (dev, managed), channel_to(dev.doors.grpc) as channel:
        silent: list[Any] = [channel.stream_unary(f"/{MANAGED}/GetSessionContext")(metadata=[KEY]) for _ in range(2)]
        await under_way(dev, 2)

        answer = await managed.GetSessionContext(REQUEST, timeout=5)

        assert answer.session_context.currency == "EUR"
        await eventually(lambda: any(each.done() for each in silent))  # its client may hear of that a little later
        ended = [each for each in silent if each.done()]
        assert [await each.code() for each in ended] == [grpc.StatusCode.DEADLINE_EXCEEDED]
        assert await ended[0].details() == "the request did not come in time"


async def test_who_waits_for_a_turn_does_not_wait_for_all_that_never_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arrivals, "_TURN", 0.3)
    async with limited(max_message=TWO_AT_A_TIME, budget=60) as (dev, managed), channel_to(dev.doors.grpc) as channel:
        silent: list[Any] = [channel.stream_unary(f"/{MANAGED}/GetSessionContext")(metadata=[KEY]) for _ in range(7)]
        await under_way(dev, 7)

        assert (await managed.GetSessionContext(REQUEST, timeout=10)).session_context.currency == "EUR"

        assert {await each.code() for each in silent if each.done()} == {grpc.StatusCode.DEADLINE_EXCEEDED}


async def test_a_turn_is_given_back_however_the_request_ends() -> None:
    async with limited(max_message=TWO_AT_A_TIME) as (dev, managed), channel_to(dev.doors.grpc) as channel:
        for _ in range(3):
            calls: list[Any] = [channel.stream_unary(f"/{MANAGED}/GetSessionContext")(metadata=[KEY]) for _ in range(2)]
            await under_way(dev, 2)
            calls[0].cancel()
            await calls[1].done_writing()
            assert await calls[1].code() == grpc.StatusCode.INVALID_ARGUMENT
        assert (await managed.GetSessionContext(REQUEST, timeout=5)).session_context.currency == "EUR"


async def test_what_is_decoded_has_so_much_room_until_it_is_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody can send it: a few hundred such requests would take all memory there is, while upstream is asked."""
    monkeypatch.setattr(memory_budget, "_ROOM", 5_000_000)
    large = pb.AddOwnAttributeRequest(tenant="acme", attribute_name="n")
    large.value.list_value.values.extend([Value(struct_value=Struct())] * 40_000)
    own = [("authorization", f"Bearer {seed.CUSTOMER_TOKEN}")]
    async with opened(upstream={"timeout": 8.0}) as dev, grpc.aio.insecure_channel(dev.doors.grpc) as channel:
        service = pb_grpc.OwnSessionContextServiceStub(channel)
        dev.sandbox.faults.arm("latency=1500ms", "*")
        first = asyncio.ensure_future(service.AddOwnAttribute(large, metadata=own))
        await eventually(lambda: dev.sandbox.under_way == 1)

        refused = await failure(service.AddOwnAttribute(large, metadata=own))
        assert refused.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refused.details() == "too many large requests are under way: send it again"
        small = pb.AddOwnAttributeRequest(tenant="acme", attribute_name="m", value=Value(bool_value=True))
        await service.AddOwnAttribute(small, metadata=own)

        await first
        await service.AddOwnAttribute(large, metadata=own)


async def test_who_does_not_take_an_answer_keeps_no_room_for_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is done with. A few such calls would keep out all others."""
    monkeypatch.setattr(memory_budget, "_ROOM", 5_000_000)
    large = pb.GetOwnSessionContextRequest(tenant="acme")
    large.MergeFromString(UNKNOWN)
    token = f"Bearer {seed.CUSTOMER_TOKEN}"
    path = "/emporix.sessioncontext.v1.OwnSessionContextService/GetOwnSessionContext"
    async with opened() as dev, grpc.aio.insecure_channel(dev.doors.grpc) as channel:
        host, _, port = dev.doors.grpc.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        client = H2Connection()
        client.local_settings = Settings(initial_values={SettingCodes.INITIAL_WINDOW_SIZE: 0})
        client.initiate_connection()
        client.send_headers(1, [(":path", path), *CALL, ("authorization", token)])
        message = large.SerializeToString()
        left = b"\0" + len(message).to_bytes(4, "big") + message
        answered = False
        try:
            async with asyncio.timeout(10):
                while not answered:
                    while left and (room := min(16_384, client.local_flow_control_window(1))):
                        client.send_data(1, left[:room], end_stream=len(left) <= room)
                        left = left[room:]
                    writer.write(client.data_to_send())
                    events = client.receive_data(await reader.read(65_536))
                    answered = any(isinstance(each, ResponseReceived) for each in events)

            service = pb_grpc.OwnSessionContextServiceStub(channel)
            answer = await service.GetOwnSessionContext(large, metadata=[("authorization", token)])
            assert answer.session_context.session_id == seed.CUSTOMER_SESSION
        finally:
            writer.transport.abort()


@pytest.mark.parametrize("method", ["Check", "List", "Watch"])
async def test_requests_of_health_checks_are_small(channel: grpc.aio.Channel, method: str) -> None:
    """They need no credential, and a watch goes on for as long as its client likes."""
    health: Any = channel.unary_stream(f"/grpc.health.v1.Health/{method}")
    call = health(UNKNOWN, timeout=5)

    assert await call.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert await call.details() == "request: must not be larger than 4096 bytes"


async def test_what_clients_have_still_to_take_has_so_much_room(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Anybody with a shopper's token can ask for large answers, and take none of them."""
    monkeypatch.setattr(memory_budget, "_ROOM", 1_000_000)
    add = pb.AddOwnAttributeRequest(tenant="acme", attribute_name="n", value=Value(bool_value=True))
    get = pb.GetOwnSessionContextRequest(tenant="acme")
    own = [("authorization", f"Bearer {seed.CUSTOMER_TOKEN}")]
    async with opened() as dev, grpc.aio.insecure_channel(dev.doors.grpc) as channel:
        service = pb_grpc.OwnSessionContextServiceStub(channel)
        large = json.loads(seed.SESSIONS["acme", seed.CUSTOMER_SESSION]) | {"context": {"large": "x" * 400_000}}
        dev.sandbox.store.seed("acme", seed.CUSTOMER_SESSION, json.dumps(large).encode())
        host, _, port = dev.doors.grpc.rpartition(":")
        _, writer = await asyncio.open_connection(host, int(port))
        client = H2Connection()
        client.initiate_connection()
        message = get.SerializeToString()
        client.send_headers(1, [(":path", f"/{OWN}/GetOwnSessionContext"), *CALL, *own])
        client.send_data(1, b"\0" + len(message).to_bytes(4, "big") + message, end_stream=True)
        writer.write(client.data_to_send())
        await eventually(lambda: dev.sandbox.count("get-own") == 1)

        refused = await failure(service.GetOwnSessionContext(get, metadata=own))
        assert refused.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert refused.details() == "too many large answers are under way: ask again, or for less at a time"
        assert refusal(refused).reason == "ANSWER_TOO_LARGE"
        assert refusal(refused).retry_after == 1.0
        assert not (await service.AddOwnAttribute(add, metadata=own)).HasField("session_context")

        writer.transport.abort()
        async with asyncio.timeout(5):
            while not (await service.AddOwnAttribute(add, metadata=own)).HasField("session_context"):
                pass
    assert [each for each in caplog.records if is_fit_to_log(each)] == []


async def test_what_nobody_reads_yet_stays_with_its_client() -> None:
    async with limited(max_message=TWO_AT_A_TIME) as (dev, _):
        host, _, port = dev.doors.grpc.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        client = H2Connection()
        client.initiate_connection()
        sent = dict.fromkeys((1, 3, 5, 7), 0)
        for stream in sent:
            client.send_headers(stream, [(":path", f"/{MANAGED}/GetSessionContext"), *CALL])
            client.send_data(stream, b"\0" + (4_000_000).to_bytes(4, "big"))
        with suppress(TimeoutError):  # there is no more room
            while True:
                for stream in sent:
                    while room := min(16_384, 3_000_000 - sent[stream], client.local_flow_control_window(stream)):
                        client.send_data(stream, bytes(room))
                        sent[stream] += room
                writer.write(client.data_to_send())
                async with asyncio.timeout(1):
                    client.receive_data(await reader.read(65_536))
        writer.transport.abort()

        assert sorted(each for each in sent.values() if each > 200_000) == [3_000_000, 3_000_000]


async def test_a_call_that_ends_without_a_request_is_refused(channel: grpc.aio.Channel) -> None:
    call: Any = channel.stream_unary(f"/{MANAGED}/GetSessionContext")(metadata=[KEY])
    await call.done_writing()

    assert await call.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_calls_that_are_cancelled_at_any_moment_leave_nothing_behind(
    strict: Dev,
    channel: grpc.aio.Channel,
    managed: pb_grpc.SessionContextServiceAsyncStub,
    caplog: pytest.LogCaptureFixture,
) -> None:
    for turns in range(40):
        silent: Any = channel.stream_unary(f"/{MANAGED}/GetSessionContext")(metadata=[KEY])
        sent = managed.GetSessionContext(REQUEST)
        for _ in range(turns):
            await asyncio.sleep(0)
        silent.cancel()
        sent.cancel()

    calls = [managed.GetSessionContext(REQUEST) for _ in range(20)]
    assert all(each.session_context.currency == "EUR" for each in await asyncio.gather(*calls))
    await eventually(lambda: strict.sandbox.under_way == 0)
    assert caplog.records == []


@pytest.mark.parametrize("method", ["Check", "List", "Watch"])
async def test_what_is_no_message_is_refused_by_health_too(
    channel: grpc.aio.Channel, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    call: Any = channel.unary_unary(f"/grpc.health.v1.Health/{method}")

    assert (await failure(call(b"\xff\xff"))).code() == grpc.StatusCode.INVALID_ARGUMENT
    assert caplog.records == []


# Connections, as a client without manners has them


def frame(kind: int, payload: bytes = b"", *, flags: int = 0, stream: int = 0) -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def head_of_a_call(method: str | bytes) -> bytes:
    """By HPACK (RFC 7541, 6.2.2): literals, none of which are indexed."""
    fields = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": b"/" + (method.encode() if isinstance(method, str) else method),
        b":authority": b"gateway",
        b"content-type": b"application/grpc",
        b"te": b"trailers",
    }
    strings = [each for field in fields.items() for each in field]
    named = [bytes((len(each),)) + each for each in strings]
    return b"".join(b"\0" + name + value for name, value in zip(named[::2], named[1::2], strict=True))


def call_of(method: bytes) -> bytes:
    """A whole one, without a message."""
    return frame(HEADERS, head_of_a_call(method), flags=END_HEADERS | END_STREAM, stream=1)


@asynccontextmanager
async def connected(dev: Dev) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """HTTP/2 by hand, which answers nothing by itself."""
    host, _, port = dev.doors.grpc.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + frame(SETTINGS) + frame(SETTINGS, flags=1))
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def next_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    head = await reader.readexactly(9)
    return head[3], await reader.readexactly(int.from_bytes(head[:3], "big"))


async def until_the_end(reader: asyncio.StreamReader, within: float = 5) -> list[tuple[int, bytes]]:
    """All frames that come before the connection is closed."""
    frames = []
    try:
        async with asyncio.timeout(within):
            while True:
                frames.append(await next_frame(reader))
    except (asyncio.IncompleteReadError, ConnectionError):
        return frames


@pytest.mark.parametrize(
    ("connections", "why"),
    [
        ({"max_age": 0.2, "max_age_grace": 0.1}, b"max connection age"),
        ({"max_idle": 0.2}, b"connection idle"),
        ({"keepalive_time": 1.0, "keepalive_timeout": 0.2}, b"ping_timeout"),
    ],
)
async def test_a_connection_is_closed_by(connections: dict[str, float], why: bytes) -> None:
    async with limited(connections=connections, budget=0.1) as (dev, managed), connected(dev) as (reader, _):
        kind, payload = (await until_the_end(reader))[-1]

        assert (kind, payload[8:]) == (GOAWAY, why)
        await served(managed)


async def test_a_call_under_way_outlives_its_connections_age() -> None:
    async with limited(connections={"max_age": 0.1, "max_age_grace": 0.01}, budget=5) as (dev, managed):
        dev.sandbox.faults.arm("latency=500ms", "get")

        assert (await managed.GetSessionContext(REQUEST)).session_context.currency == "EUR"


async def test_a_client_may_ping_as_often_as_it_likes() -> None:
    """To cut it off, as gRPC does by itself, costs far more (see `gateway.rpc.limits`)."""
    flood = 20_000
    async with limited() as (dev, managed), connected(dev) as (reader, writer):
        writer.write(frame(PING, bytes(8)) * flood)
        answered = 0
        async with asyncio.timeout(10):
            while answered < flood:
                kind, _ = await next_frame(reader)
                assert kind != GOAWAY
                answered += kind == PING

        await managed.GetSessionContext(REQUEST)


@pytest.mark.parametrize("method", [b"\xff", f"{MANAGED}/GetSessionContext\xff".encode("latin-1"), b"\xed\xa0\x80"])
async def test_a_path_that_is_not_utf_8_is_no_methods_and_the_door_stays_open(method: bytes) -> None:
    """In grpc.aio one such call ends the server (see `gateway.rpc.accepting`)."""
    async with limited() as (dev, managed), connected(dev) as (reader, writer):
        writer.write(call_of(method))
        async with asyncio.timeout(10):
            while (await next_frame(reader))[0] != HEADERS:
                pass
        async with channel_to(dev.doors.grpc) as another:
            await pb_grpc.SessionContextServiceStub(another).GetSessionContext(REQUEST)
        await managed.GetSessionContext(REQUEST)


async def test_everywhere_else_what_is_not_utf_8_stays_an_error() -> None:
    async with limited():
        for wrong in (b"\xff".decode, "\ud800".encode):
            with pytest.raises(UnicodeError):
                wrong()
            with pytest.raises(UnicodeError):
                await asyncio.to_thread(wrong)


async def test_the_gateway_ends_if_its_grpc_server_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accepting, "_strict", codecs.strict_errors)

    with pytest.RaisesGroup(UnicodeDecodeError, flatten_subgroups=True):
        async with limited() as (dev, _), asyncio.timeout(10):
            async with connected(dev) as (reader, writer):
                writer.write(call_of(b"\xff"))
                while (await next_frame(reader))[0] != GOAWAY:
                    pass
            await asyncio.Event().wait()


async def test_calls_that_are_cancelled_in_a_flood_are_refused() -> None:
    """What a client may have under way does not bound them: none of them is under way any more (CVE-2023-44487)."""
    flood, allowed = 5_000, 20
    head, cancel = head_of_a_call(f"{MANAGED}/GetSessionContext"), CANCEL.to_bytes(4, "big")
    async with (
        limited(max_calls_per_connection=allowed) as (dev, managed),
        connected(dev) as (reader, writer),
    ):
        calls = (
            frame(HEADERS, head, flags=END_HEADERS, stream=each) + frame(RST_STREAM, cancel, stream=each)
            for each in range(1, 2 * flood, 2)
        )
        writer.write(b"".join(calls))
        async with asyncio.timeout(10):  # how many are refused is up to how fast the machine puts the others away
            while await next_frame(reader) != (RST_STREAM, REFUSED_STREAM.to_bytes(4, "big")):
                pass
        await managed.GetSessionContext(REQUEST)


async def test_connections_past_the_limit_are_closed_until_others_have_gone() -> None:
    async with limited(connections={"max_number": 3}) as (dev, managed):  # the first is the channel's
        async with connected(dev) as (first, _), connected(dev) as (second, _):
            for each in (first, second):
                assert (await each.readexactly(9))[3] == SETTINGS
            async with connected(dev) as (third, _):
                assert await until_the_end(third) == []
            await managed.GetSessionContext(REQUEST)

        async def served() -> bool:
            async with connected(dev) as (reader, _):
                return bool(await reader.read(9))

        async with asyncio.timeout(5):
            while not await served():
                await asyncio.sleep(0.01)


# Health and reflection


async def test_who_watches_does_not_hold_up_the_end() -> None:
    async with opened(shutdown={"grace": 30.0}) as dev:
        channel = grpc.aio.insecure_channel(dev.doors.grpc)
        services = ("", MANAGED, "some.other.Service")
        watches = [health_of(channel).Watch(health_pb2.HealthCheckRequest(service=each)) for each in services]
        for each in watches:
            await each.read()
        began = time.monotonic()
    assert time.monotonic() - began < 5

    *known, unknown = watches
    assert [(await each.read()).status for each in known] == [Status.NOT_SERVING] * 2
    assert await unknown.read() is grpc.aio.EOF  # a watch tells of changes, and there was none
    assert [await each.code() for each in watches] == [grpc.StatusCode.OK] * 3
    await channel.close()


async def test_half_of_all_calls_may_watch_and_all_others_are_served_nonetheless() -> None:
    async with limited(max_calls=8) as (dev, managed), grpc.aio.insecure_channel(dev.doors.grpc) as channel:
        health = health_of(channel)
        watches = [health.Watch(HEALTH) for _ in range(4)]
        for each in watches:
            await each.read()

        assert await health.Watch(HEALTH).code() == EXHAUSTED
        assert (await health.Check(HEALTH)).status == Status.SERVING
        await managed.GetSessionContext(REQUEST)

        watches[0].cancel()
        async with asyncio.timeout(5):
            while await health.Watch(HEALTH).read() is grpc.aio.EOF:
                await asyncio.sleep(0.005)


async def test_health_lists_every_service(channel: grpc.aio.Channel) -> None:
    answer = await health_of(channel).List(health_pb2.HealthListRequest())  # type: ignore[attr-defined]

    assert {name: each.status for name, each in answer.statuses.items()} == dict.fromkeys(
        ("", MANAGED, MANAGED.replace("Session", "OwnSession", 1)), Status.SERVING
    )


def test_reflection_is_for_dev_unless_it_is_set() -> None:
    assert not load_settings(None, {"tenants": DEV_DEFAULTS["tenants"]}).grpc.reflection
    assert load_settings(None, DEV_DEFAULTS).grpc.reflection


async def test_without_reflection_nobody_is_told_of_the_services(channel: grpc.aio.Channel) -> None:
    call: Any = channel.stream_stream("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo")()
    await call.done_writing()

    assert await call.code() == grpc.StatusCode.UNIMPLEMENTED
