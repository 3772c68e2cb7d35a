"""The end of a gateway that is told to stop, as its clients meet it: in one process, and both doors at once."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import grpc
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from doors import GraphQLDoor, GrpcDoor, Refused
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2 as pb
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2_grpc as pb_grpc
from gateway.rpc.server import SERVICES
from gateway.sandbox import seed
from gateway.shutdown import Shutdown
from stage import channel_to, opened_until, served_rpc
from waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from doors import Door
    from stage import Dev

SERVING, NOT_SERVING = (health_pb2.HealthCheckResponse.SERVING, health_pb2.HealthCheckResponse.NOT_SERVING)
REQUEST = pb.GetSessionContextRequest(tenant="acme", session_id=seed.CUSTOMER_SESSION)


@dataclass
class Stoppable:
    """A gateway of one's own, what tells it to stop, and what ends when it has."""

    dev: Dev
    shutdown: Shutdown
    running: asyncio.Task[None]


@asynccontextmanager
async def stoppable(**sections: dict[str, object]) -> AsyncIterator[Stoppable]:
    started: asyncio.Future[Dev] = asyncio.get_running_loop().create_future()
    shutdown = Shutdown()

    async def run() -> None:
        async with opened_until(shutdown, sections) as dev:
            started.set_result(dev)
            await shutdown.wait()

    async with asyncio.TaskGroup() as tasks:
        running = tasks.create_task(run())
        try:
            yield Stoppable(await started, shutdown, running)
        finally:
            shutdown.begin()


def health_of(channel: grpc.aio.Channel) -> Any:
    return health_pb2_grpc.HealthStub(channel)


async def refuses_connections(address: str) -> None:
    host, _, port = address.rpartition(":")
    async with asyncio.timeout(10):
        while True:
            try:
                _, writer = await asyncio.open_connection(host, int(port))
            except ConnectionRefusedError:
                return
            writer.close()
            await asyncio.sleep(0.02)


async def calls_until_refused(managed: pb_grpc.SessionContextServiceAsyncStub) -> tuple[int, grpc.StatusCode]:
    """One after the other. How many were answered, and the code that the last ended with."""
    answered = 0
    try:
        while True:
            await managed.GetSessionContext(REQUEST)
            answered += 1
    except grpc.aio.AioRpcError as error:
        return answered, error.code()


async def test_who_watches_hears_of_the_end_before_the_server_closes() -> None:
    async with stoppable() as it, channel_to(it.dev.doors.grpc) as channel:
        health = health_of(channel)
        watches = [health.Watch(health_pb2.HealthCheckRequest(service=each)) for each in ("", *SERVICES)]
        assert [(await each.read()).status for each in watches] == [SERVING] * 3

        it.shutdown.begin()

        assert [(await each.read()).status for each in watches] == [NOT_SERVING] * 3
        assert not it.running.done()
        for each in watches:
            each.cancel()


async def test_who_would_watch_after_the_end_is_turned_away() -> None:
    """Clients that check health ask again after every watch: at once, and again, where it had an answer."""
    aged: dict[str, object] = {"connections": {"max_age": 50}}
    async with stoppable(grpc=aged, shutdown={"grace": 100}) as it, channel_to(it.dev.doors.grpc) as channel:
        health = health_of(channel)
        watch = health.Watch(health_pb2.HealthCheckRequest())
        await watch.read()

        it.shutdown.begin()
        assert (await watch.read()).status == NOT_SERVING

        with pytest.raises(grpc.aio.AioRpcError) as refused:
            assert not [each async for each in health.Watch(health_pb2.HealthCheckRequest())]
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


async def test_a_call_that_is_under_way_when_the_end_comes_is_answered() -> None:
    async with stoppable() as it, channel_to(it.dev.doors.grpc) as channel:
        managed = pb_grpc.SessionContextServiceStub(channel)
        it.dev.sandbox.faults.arm("latency=200ms", "get")
        call = managed.GetSessionContext(REQUEST)
        await eventually(lambda: it.dev.sandbox.under_way == 1)
        watch = health_of(channel).Watch(health_pb2.HealthCheckRequest())
        await watch.read()

        it.shutdown.begin()

        assert (await watch.read()).status == NOT_SERVING
        assert (await call).session_context.currency == "EUR"
        watch.cancel()


async def test_both_doors_close_together() -> None:
    """So that whatever is under way has the same grace, and the end comes when it is expected."""
    async with stoppable(upstream={"timeout": 60}, shutdown={"grace": 100}) as it, httpx.AsyncClient() as client:
        it.dev.sandbox.faults.arm("hang", "get")
        read = asyncio.create_task(GraphQLDoor(client, it.dev.graphql_url).get("acme", seed.CUSTOMER_SESSION))
        await eventually(lambda: it.dev.sandbox.under_way == 1)

        it.shutdown.begin()

        await refuses_connections(it.dev.doors.grpc)
        assert it.dev.sandbox.under_way == 1
        read.cancel()
        await asyncio.wait([read])


async def test_grpcs_connections_that_come_of_age_within_the_grace_are_served_until_then() -> None:
    aged: dict[str, object] = {"connections": {"max_age": 3}}
    async with stoppable(grpc=aged, shutdown={"grace": 100}) as it, channel_to(it.dev.doors.grpc) as channel:
        managed = pb_grpc.SessionContextServiceStub(channel)
        await managed.GetSessionContext(REQUEST)

        it.shutdown.begin()

        await refuses_connections(it.dev.doors.grpc)
        served, refusal = await calls_until_refused(managed)
        assert served > 0
        assert refusal is grpc.StatusCode.UNAVAILABLE  # there is nobody any more; none was cancelled
        await eventually(it.running.done)


async def test_grpcs_connections_are_not_waited_for_when_no_call_comes_any_more() -> None:
    aged: dict[str, object] = {"connections": {"max_age": 50}}
    async with stoppable(grpc=aged, shutdown={"grace": 100}) as it, channel_to(it.dev.doors.grpc) as channel:
        await pb_grpc.SessionContextServiceStub(channel).GetSessionContext(REQUEST)

        it.shutdown.begin()

        await eventually(it.running.done)


async def test_who_hastens_the_end_does_not_wait_for_grpcs_connections() -> None:
    aged: dict[str, object] = {"connections": {"max_age": 50}}
    async with stoppable(grpc=aged, shutdown={"grace": 100}) as it, channel_to(it.dev.doors.grpc) as channel:
        managed = pb_grpc.SessionContextServiceStub(channel)
        await managed.GetSessionContext(REQUEST)
        calls = asyncio.create_task(calls_until_refused(managed))
        it.shutdown.begin()
        await refuses_connections(it.dev.doors.grpc)
        for _ in range(30):  # longer than it waits for those by which none comes
            await asyncio.sleep(0.1)
            assert not it.running.done()

        it.shutdown.hasten()

        await eventually(it.running.done)
        await calls


async def test_what_takes_longer_than_the_grace_is_cut_off_and_is_no_defect(caplog: pytest.LogCaptureFixture) -> None:
    async with (
        stoppable(upstream={"timeout": 60}, shutdown={"grace": 0.1}) as it,
        httpx.AsyncClient(timeout=60) as client,
    ):
        it.dev.sandbox.faults.arm("hang", "get")
        read = asyncio.create_task(GraphQLDoor(client, it.dev.graphql_url).get("acme", seed.CUSTOMER_SESSION))
        await eventually(lambda: it.dev.sandbox.under_way == 1)

        it.shutdown.begin()

        with pytest.raises(httpx.RemoteProtocolError):
            await read
        await eventually(it.running.done)
    assert [each for each in caplog.records if each.levelname == "ERROR"] == []


@pytest.mark.parametrize("both", [True, False], ids=["at both doors", "at gRPC's"])
async def test_an_end_that_is_cancelled_leaves_nothing_open_nor_under_way(both: bool) -> None:
    async with (
        stoppable(upstream={"timeout": 60}, shutdown={"grace": 100}) as it,
        channel_to(it.dev.doors.grpc) as channel,
        httpx.AsyncClient(timeout=60) as client,
    ):
        graphql = httpx.URL(it.dev.graphql_url).netloc.decode()
        it.dev.sandbox.faults.arm("hang", "get", times=2)
        doors: list[Door] = [GrpcDoor(channel)]
        if both:
            doors.append(GraphQLDoor(client, it.dev.graphql_url))
        waiting = [asyncio.create_task(door.get("acme", seed.CUSTOMER_SESSION)) for door in doors]
        await eventually(lambda: it.dev.sandbox.under_way == len(waiting))
        it.shutdown.begin()
        await refuses_connections(it.dev.doors.grpc)
        await refuses_connections(graphql)

        it.running.cancel()

        await eventually(it.running.done, within=8)  # calls have 10 s
        ends = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(each) for each in ends] == [Refused, httpx.RemoteProtocolError][: len(waiting)]


@pytest.mark.parametrize("begun", [False, True])
async def test_a_gateway_that_is_cancelled_as_its_end_begins_or_before_leaves_no_port_open(begun: bool) -> None:
    async with stoppable() as it:
        if begun:
            it.shutdown.begin()
            await refuses_connections(it.dev.doors.grpc)

        it.running.cancel()

        await eventually(it.running.done)
        for url in (it.dev.graphql_url, it.dev.doors.admin):
            await refuses_connections(httpx.URL(url).netloc.decode())
        await refuses_connections(it.dev.doors.grpc)


async def test_a_grpc_server_whose_end_is_cancelled_ends_its_calls_whatever_they_wait_for() -> None:
    started, shutdown = asyncio.Event(), Shutdown()

    class Endless:
        def sessions(self, _: object) -> Endless:
            return self

        async def get(self, *_: object, **__: object) -> None:
            started.set()
            await asyncio.Event().wait()

    guard: Any = Endless()
    listening: asyncio.Future[str] = asyncio.get_running_loop().create_future()

    async def run() -> None:
        async with served_rpc(guard, budget=60, grace=20, shutdown=shutdown) as address:
            listening.set_result(address)
            await shutdown.wait()

    running = asyncio.create_task(run())
    async with channel_to(await listening) as channel:
        call = pb_grpc.SessionContextServiceStub(channel).GetSessionContext(REQUEST)
        await started.wait()
        shutdown.begin()
        await refuses_connections(listening.result())

        running.cancel()

        with pytest.raises(grpc.aio.AioRpcError):
            async with asyncio.timeout(10):
                await call
        await eventually(running.done)
