"""The gRPC listener: the two services, health (grpc.health.v1) and reflection."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2 as pb
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2_grpc as pb_grpc
from gateway.listener import authority, bind
from gateway.rpc.servicers import OwnSessionContextServicer, SessionContextServicer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from gateway.access.guard import Guard

__all__ = ["SERVICES", "serve_rpc"]

SERVICES = tuple(service.full_name for service in pb.DESCRIPTOR.services_by_name.values())


@asynccontextmanager
async def serve_rpc(
    guard: Guard,
    *,
    host: str,
    port: int,
    budget: float,
    grace: float,
    max_message: int,
) -> AsyncIterator[str]:
    """Listen while the block runs; yields host and port, as clients take them. Port 0 takes a free one.

    On leaving, health says NOT_SERVING, no new calls are taken, and those under way get `grace` seconds. `budget`
    bounds a call, in seconds; `max_message` a request, in bytes. Raises OSError when the port cannot be had.
    """
    server = grpc.aio.server(
        options=[("grpc.so_reuseport", 0), ("grpc.max_receive_message_length", max_message)],
    )
    pb_grpc.add_SessionContextServiceServicer_to_server(SessionContextServicer(guard, budget=budget), server)
    pb_grpc.add_OwnSessionContextServiceServicer_to_server(OwnSessionContextServicer(guard, budget=budget), server)
    checks = await _add_health(server)
    reflection.enable_server_reflection((*SERVICES, health.SERVICE_NAME, reflection.SERVICE_NAME), server)
    bound = _bind(server, host, port)
    await server.start()
    try:
        yield authority(host, bound)
    finally:
        await checks.enter_graceful_shutdown()
        await server.stop(grace)


async def _add_health(server: grpc.aio.Server) -> health.aio.HealthServicer:
    checks = health.aio.HealthServicer()
    health_pb2_grpc.add_HealthServicer_to_server(checks, server)
    for service in ("", *SERVICES):
        await checks.set(service, health_pb2.HealthCheckResponse.SERVING)
    return checks


def _bind(server: grpc.aio.Server, host: str, port: int) -> int:
    bind(host, port).close()  # what is wrong is said by this alone: gRPC prints it and raises nothing of it
    try:
        return server.add_insecure_port(authority(host, port))
    except RuntimeError as error:
        raise OSError(f"cannot listen on {authority(host, port)}: is the port in use?") from error
