"""Floors of gRPC in Python: `rpc.py echo|aiohttp|httpx PORT UPSTREAM`, as a team would write them by hand."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import aiohttp
import grpc
import httpx
from google.protobuf.json_format import Parse

from bench.stub import document
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2 as pb

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

Get: TypeAlias = "Callable[[str, dict[str, str]], Awaitable[tuple[int, bytes]]]"
Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

_SERVICE: Final = "emporix.sessioncontext.v1.SessionContextService"
_CONNECTIONS: Final = 64
_PATIENCE: Final = 5.0
_FORM: Final = {
    "grant_type": "client_credentials",
    "client_id": "bench",
    "client_secret": "not-a-secret",
    "scope": "tenant=acme sessioncontext.context_manage",
}
_CODES: Final = {
    401: grpc.StatusCode.UNAUTHENTICATED,
    404: grpc.StatusCode.NOT_FOUND,
    409: grpc.StatusCode.ABORTED,
}


class Echo:
    """Answers one message."""

    def __init__(self) -> None:
        self._answer = _response(json.dumps(document()).encode())

    async def __call__(self, _: pb.GetSessionContextRequest, __: Context) -> pb.GetSessionContextResponse:
        """GetSessionContext."""
        return self._answer


class Forwarding:
    """Reads upstream for each call."""

    def __init__(self, get: Get, fetch_token: Callable[[], Awaitable[dict[str, Any]]]) -> None:
        self._get = get
        self._fetch_token = fetch_token
        self._authorization = ""
        self._until = 0.0

    async def __call__(self, request: pb.GetSessionContextRequest, context: Context) -> pb.GetSessionContextResponse:
        """GetSessionContext."""
        if time.monotonic() > self._until:
            token = await self._fetch_token()
            self._authorization = f"Bearer {token['access_token']}"
            self._until = time.monotonic() + token["expires_in"] - 60
        path = f"/session-context/{request.tenant}/context/{request.session_id}"
        status, body = await self._get(path, {"authorization": self._authorization})
        if status != 200:
            await context.abort(_CODES.get(status, grpc.StatusCode.UNAVAILABLE), body.decode())
        return _response(body)


def _response(body: bytes) -> pb.GetSessionContextResponse:
    return pb.GetSessionContextResponse(session_context=Parse(body, pb.SessionContext(), ignore_unknown_fields=True))


async def _serve(get_session_context: Echo | Forwarding, port: str) -> None:
    server = grpc.aio.server()
    handler: Any = grpc.unary_unary_rpc_method_handler(
        get_session_context.__call__,  # a bound coroutine function, as gRPC looks for one
        request_deserializer=pb.GetSessionContextRequest.FromString,
        response_serializer=pb.GetSessionContextResponse.SerializeToString,
    )
    # As generated code does it.
    server.add_registered_method_handlers(_SERVICE, {"GetSessionContext": handler})
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


async def _over_httpx(port: str, upstream: str) -> None:
    limits = httpx.Limits(max_connections=_CONNECTIONS, max_keepalive_connections=_CONNECTIONS)
    async with httpx.AsyncClient(base_url=upstream, limits=limits, timeout=_PATIENCE) as client:

        async def get(path: str, headers: dict[str, str]) -> tuple[int, bytes]:
            response = await client.get(path, headers=headers)
            return response.status_code, response.content

        async def fetch_token() -> dict[str, Any]:
            token: dict[str, Any] = (await client.post("/oauth/token", data=_FORM)).json()
            return token

        await _serve(Forwarding(get, fetch_token), port)


async def _over_aiohttp(port: str, upstream: str) -> None:
    connector = aiohttp.TCPConnector(limit=_CONNECTIONS)
    timeout = aiohttp.ClientTimeout(_PATIENCE)
    async with aiohttp.ClientSession(upstream, connector=connector, timeout=timeout) as client:

        async def get(path: str, headers: dict[str, str]) -> tuple[int, bytes]:
            async with client.get(path, headers=headers) as response:
                return response.status, await response.read()

        async def fetch_token() -> dict[str, Any]:
            async with client.post("/oauth/token", data=_FORM) as response:
                token: dict[str, Any] = await response.json()
                return token

        await _serve(Forwarding(get, fetch_token), port)


def main() -> None:
    """Serve until the end."""
    kind, port, upstream = sys.argv[1:]
    serving = {
        "echo": lambda: _serve(Echo(), port),
        "aiohttp": lambda: _over_aiohttp(port, upstream),
        "httpx": lambda: _over_httpx(port, upstream),
    }
    asyncio.run(serving[kind]())  # asyncio's own loop: grpc.aio does a little more on it than on uvloop


if __name__ == "__main__":
    main()
