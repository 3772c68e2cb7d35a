"""The gRPC listener: the two services, health (grpc.health.v1) and, if configured, reflection."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

import grpc
from grpc_health.v1 import health, health_pb2_grpc

from gateway.addresses import authority
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2 as pb
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2_grpc as pb_grpc
from gateway.listener import claim, limit_unsent
from gateway.rpc.accepting import start
from gateway.rpc.draining import drain
from gateway.rpc.handlers import Methods
from gateway.rpc.health import HealthServicer
from gateway.rpc.servicers import OwnSessionContextServicer, SessionContextServicer
from gateway.rpc.sockets import listeners

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.access.guard import Guard
    from gateway.readiness import Readiness
    from gateway.rpc.limits import Limits
    from gateway.shutdown import Shutdown
    from gateway.telemetry.requests import Requests
    from gateway.tls import Certificates, Identity

__all__ = ["SERVICES", "serve_rpc"]

SERVICES = tuple(service.full_name for service in pb.DESCRIPTOR.services_by_name.values())

_OLDEST: Final = 1.1
"""Largest age of a connection, as a share of the configured one: gRPC adds jitter, so that not all end at once."""
_RESUMABLE: Final = 60.0
"""Seconds, about, for which a client may resume its TLS session without its certificate being checked again. A session
ticket is valid for one configuration; with the same one gRPC would accept it for two days, whether or not the
certificate has expired."""
_POLLER: Final = "_poll_wrapper"
"""Part of the name of the thread in which grpc.aio waits for events."""


@asynccontextmanager
async def serve_rpc(
    guard: Guard,
    requests: Requests,
    *,
    host: str,
    port: int,
    budget: float,
    grace: float,
    limits: Limits,
    readiness: Readiness,
    shutdown: Shutdown,
    reflected: bool,
    certificates: Certificates | None,
    shared: bool,
) -> AsyncIterator[str]:
    """Listen while the block runs; yields host and port, as clients take them. Port 0 takes a free one.

    `requests` are told of calls. With certificates it speaks TLS, and each connection gets the current one. Health says
    what `readiness` does. `shared` is as in `gateway.listener.bind`.

    On leaving, or as soon as `shutdown` closes doors, health says NOT_SERVING, no new connections are taken, and calls
    under way get `grace` seconds, or less when it is hastened. If connections reach `limits.max_age` within the grace,
    that is waited for as long as calls come, since none is lost by it; else no new calls are taken.

    `budget` bounds a call, in seconds. Raises OSError when the port cannot be had.
    """
    methods: Any = Methods(requests, budget=budget, max_message=limits.max_message, max_answer=limits.max_answer)
    server = grpc.aio.server(
        handlers=[methods],
        options=[
            ("grpc.so_reuseport", int(shared)),
            ("grpc.http2.bdp_probe", 0),  # with long latencies it would accept ever more data that nobody reads yet
            *limits.options(),
        ],
        maximum_concurrent_rpcs=limits.max_calls,
    )
    managed = SessionContextServicer(guard, max_answer=limits.max_answer)
    pb_grpc.add_SessionContextServiceServicer_to_server(managed, methods)
    pb_grpc.add_OwnSessionContextServiceServicer_to_server(OwnSessionContextServicer(guard), methods)
    # At most half of all calls may be health watches, which need no credential: so they cannot starve the others.
    checks = HealthServicer(SERVICES, readiness, max_watches=max(1, limits.max_calls // 2))
    health_pb2_grpc.add_HealthServicer_to_server(checks, methods)
    if reflected:
        _add_reflection(methods)
    bound = _bind(server, host, port, certificates, shared=shared)
    for each in listeners(bound):
        limit_unsent(each)
    await start(server)
    _let_work_go_first()

    loop = asyncio.get_running_loop()

    async def close_when_told() -> None:
        await shutdown.wait_closing()
        checks.end()
        try:
            until = loop.time() + grace
            come_of_age = limits.max_age * _OLDEST <= grace
            await drain(bound, shutdown, calls=lambda: requests.begun["grpc"], within=grace if come_of_age else 0)
            await _stop(server, shutdown, grace=max(0, until - loop.time()))
        finally:
            await server.stop(None)  # nothing is left of it, even if that was cancelled

    async with asyncio.TaskGroup() as tasks:
        closing = tasks.create_task(close_when_told(), name="close when told")
        # Raises if it has ended by itself, once calls under way are over: a gateway with one door is better replaced.
        tasks.create_task(server.wait_for_termination(), name="end with the server")
        try:
            yield authority(host, bound)
        finally:
            shutdown.close()
            with shutdown.hastened_by_cancellation():
                await closing


def _add_reflection(methods: Any) -> None:
    """Under the names of both versions: their messages are the same, and grpcio-reflection has only the first."""
    from grpc_reflection.v1alpha import (  # noqa: PLC0415 - brings descriptors that nothing else needs
        reflection,
        reflection_pb2_grpc,
    )

    described = reflection.aio.ReflectionServicer((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME))
    add = reflection_pb2_grpc.add_ServerReflectionServicer_to_server
    add(described, methods)  # type: ignore[no-untyped-call]  # grpcio-reflection has no types
    methods.serve_also_as(reflection.SERVICE_NAME, reflection.SERVICE_NAME.replace("v1alpha", "v1"))


async def _stop(server: grpc.aio.Server, shutdown: Shutdown, *, grace: float) -> None:
    async with asyncio.TaskGroup() as tasks:
        hastening = tasks.create_task(_hasten(server, shutdown), name="cut the grace short")
        await server.stop(grace)
        hastening.cancel()


def _let_work_go_first() -> None:
    """Keep the thread that waits for gRPC's events from preempting the one that handles them.

    If they share a core, it would do so for every event. With this policy (sched(7), SCHED_BATCH) it runs when there is
    nothing else to do, takes several events at a time, and an echo costs three quarters of the CPU. On other systems
    than Linux, or if its name has changed, it is left alone.
    """
    if sys.platform != "linux":
        return
    for each in threading.enumerate():
        if _POLLER in each.name and each.native_id is not None:
            with suppress(OSError):
                os.sched_setscheduler(each.native_id, os.SCHED_BATCH, os.sched_param(0))


async def _hasten(server: grpc.aio.Server, shutdown: Shutdown) -> None:
    await shutdown.wait_hastened()
    await server.stop(None)


def _bind(server: grpc.aio.Server, host: str, port: int, certificates: Certificates | None, *, shared: bool) -> int:
    # Only this tells what is wrong: gRPC prints it, and raises an error that does not say.
    claim(host, port, shared=shared, section="grpc").close()
    try:
        if certificates is None:
            return server.add_insecure_port(authority(host, port))
        return server.add_secure_port(authority(host, port), _credentials(certificates))
    except RuntimeError as error:
        causes = "is the port in use?" if certificates is None else "is the port in use, or the key of a rare kind?"
        raise OSError(f"grpc: cannot listen on {authority(host, port)}: {causes}") from error


def _credentials(certificates: Certificates) -> grpc.ServerCredentials:
    """At each handshake gRPC asks for the certificate, on a thread of its own; None means the same as before."""
    used, since = certificates.current(), time.monotonic()

    def changed() -> grpc.ServerCertificateConfiguration | None:
        nonlocal used, since
        newest, now = certificates.current(), time.monotonic()
        if newest is used and (newest.client_ca is None or now - since < _RESUMABLE):
            return None
        used, since = newest, now
        return _configuration(newest)

    return grpc.dynamic_ssl_server_credentials(
        _configuration(used),
        changed,  # type: ignore[arg-type]  # documented to return None too
        require_client_authentication=used.client_ca is not None,
    )


def _configuration(identity: Identity) -> grpc.ServerCertificateConfiguration:
    return grpc.ssl_server_certificate_configuration(
        [(identity.key.get_secret_value(), identity.certificate)], root_certificates=identity.client_ca
    )
