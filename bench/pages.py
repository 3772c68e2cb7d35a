"""Shoppers who view pages: `python -m bench.pages NAME graphql|grpc --port P --shoppers N --seconds S`.

A page is five reads of one session of 10,000, one after another; one page in ten writes after the first of them, and
names the version that it has read. Of every answer it is seen whether it is of the session that was asked for, and not
older than what this shopper has just written. The first quarter of the time is not counted. Prints a
`bench.load.Sample` as JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Protocol, TypeAlias

import grpc
import msgspec
import uvloop

from bench.contenders import CONTENDERS
from bench.dialects import HEADERS
from bench.load import Sample

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from bench.dialects import GraphQL, Rpc

Calls: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[bytes, bytes]"

SESSIONS: Final = 10_000
READS: Final = 5
WRITE_EVERY: Final = 10
_PATIENCE: Final = 10.0


class Wrong(Exception):
    """An answer is not what was asked for."""


class Foreign(Exception):
    """It is of another session: some cache's key is too short."""


class Conflict(Exception):
    """The version was not the current one."""


class Door(Protocol):
    """A connection of one shopper."""

    async def read(self, session_id: str) -> int:
        """The version of the session. Raises Foreign."""
        ...

    async def write(self, session_id: str, version: int, page: int) -> None:
        """Replace the session. Raises Conflict."""
        ...


@dataclass
class Seen:
    """By all shoppers."""

    times: list[float] = field(default_factory=list)
    """Milliseconds of each request."""
    total: int = 0
    """Requests, with those that are not counted."""
    stale: int = 0
    foreign: int = 0
    conflicts: int = 0


async def shop(door: Door, chance: random.Random, seen: Seen, since: float, until: float) -> None:
    """View pages until the time has come."""

    def timed(seconds: float) -> None:
        seen.total += 1
        if time.perf_counter() > since:
            seen.times.append(seconds * 1000)

    page = chance.randrange(WRITE_EVERY)
    while time.perf_counter() < until:
        page += 1
        session_id = f"shopper-{chance.randrange(SESSIONS):05}"
        least = 0
        for number in range(READS):
            began = time.perf_counter()
            try:
                version = await door.read(session_id)
            except Foreign:
                version = None
                seen.foreign += 1
            timed(time.perf_counter() - began)
            if version is None:
                continue
            seen.stale += version < least
            if number == 0 and page % WRITE_EVERY == 0:
                began = time.perf_counter()
                try:
                    await door.write(session_id, version, page)
                except Conflict:
                    seen.conflicts += 1
                else:
                    least = version + 1
                timed(time.perf_counter() - began)


class _Metadata(msgspec.Struct):
    version: int


class _Context(msgspec.Struct):
    session_id: str = msgspec.field(name="sessionId")
    metadata: _Metadata


class _Read(msgspec.Struct):
    sessionContext: _Context  # noqa: N815 - as it is called in GraphQL


class _Answer(msgspec.Struct):
    data: _Read


class GraphQLDoor:
    """HTTP/1.1 on a connection of its own. Only as much of it as the load needs: it must cost little."""

    def __init__(self, dialect: GraphQL, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._dialect = dialect
        self._reader = reader
        self._writer = writer
        lines = {"host": "127.0.0.1", "content-type": "application/json", **HEADERS}
        self._head = f"POST {dialect.path} HTTP/1.1\r\n" + "".join(f"{name}: {lines[name]}\r\n" for name in lines)
        before, _, after = dialect.read_body("all", "SESSION").decode().partition("SESSION")
        self._before, self._after = before, after
        self._decoder = msgspec.json.Decoder(_Answer)

    async def read(self, session_id: str) -> int:
        """As a Door has it."""
        body = await self._post(f"{self._before}{session_id}{self._after}".encode())
        try:
            found = self._decoder.decode(body).data.sessionContext
        except msgspec.MsgspecError:
            raise Wrong(body.decode()) from None
        if found.session_id != session_id:
            raise Foreign
        return found.metadata.version

    async def write(self, session_id: str, version: int, page: int) -> None:
        """As a Door has it."""
        body = await self._post(self._dialect.write_body(session_id, version, page))
        if b"VersionConflict" in body or b"CONFLICT" in body or b"409" in body:
            raise Conflict
        good = b"ReplaceSessionContextPayload" if self._dialect.ours else b'{"data":{"putSessionContext"'
        if good not in body or b'"errors"' in body:
            raise Wrong(body.decode())

    async def _post(self, body: bytes) -> bytes:
        self._writer.write(f"{self._head}content-length: {len(body)}\r\n\r\n".encode() + body)
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        _, found, rest = head.partition(b"content-length:")
        if found:
            return await self._reader.readexactly(int(rest[: rest.index(b"\r\n")]))
        if b"transfer-encoding: chunked" in head:
            return await self._chunks()
        raise Wrong(head.decode())

    async def _chunks(self) -> bytes:
        body = b""
        while size := int(await self._reader.readuntil(b"\r\n"), 16):
            body += (await self._reader.readexactly(size + 2))[:size]
        await self._reader.readexactly(2)
        return body


class GrpcDoor:
    """A channel of its own."""

    def __init__(self, dialect: Rpc, channel: grpc.aio.Channel) -> None:
        self._dialect = dialect
        self._metadata = tuple(HEADERS.items())
        self._read: Calls = channel.unary_unary(dialect.read_method)
        self._write: Calls = channel.unary_unary(dialect.write_method)

    async def read(self, session_id: str) -> int:
        """As a Door has it."""
        answer = await self._read(self._dialect.read_message(session_id), metadata=self._metadata)
        found = self._dialect.session_context(answer)
        if found.session_id != session_id:
            raise Foreign
        return found.metadata.version

    async def write(self, session_id: str, version: int, page: int) -> None:
        """As a Door has it."""
        try:
            await self._write(self._dialect.write_message(session_id, version, page), metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            # Envoy makes UNKNOWN of a 409.
            if error.code() is grpc.StatusCode.ABORTED or "409" in (error.details() or ""):
                raise Conflict from None
            raise


@contextlib.asynccontextmanager
async def _opened(name: str, door: str, port: int) -> AsyncIterator[Door]:
    contender = next(each for each in CONTENDERS if each.name == name)
    if door == "graphql":
        assert contender.graphql is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        try:
            yield GraphQLDoor(contender.graphql, reader, writer)
        finally:
            writer.close()
    else:
        assert contender.rpc is not None
        own = [("grpc.use_local_subchannel_pool", 1)]
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}", options=own) as channel:
            yield GrpcDoor(contender.rpc, channel)


async def main(name: str, door: str, port: int, number: int, seconds: float) -> Sample:
    """View pages, so many shoppers at a time."""
    seen = Seen()
    began = time.perf_counter()
    since, until = began + seconds / 4, began + seconds
    async with contextlib.AsyncExitStack() as stack:
        doors = [await stack.enter_async_context(_opened(name, door, port)) for _ in range(number)]
        async with asyncio.timeout(seconds + _PATIENCE), asyncio.TaskGroup() as tasks:
            for each, opened in enumerate(doors):
                chance = random.Random(f"{name} {began} {each}")  # noqa: S311 - not for secrets
                tasks.create_task(shop(opened, chance, seen, since, until))
    cuts = statistics.quantiles(seen.times, n=100)
    return Sample(
        requests=len(seen.times),
        total=seen.total,
        seconds=time.perf_counter() - since,
        p50=cuts[49],
        p99=cuts[98],
        stale=seen.stale,
        foreign=seen.foreign,
        conflicts=seen.conflicts,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("door", choices=["graphql", "grpc"])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--shoppers", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=5.0)
    arguments = parser.parse_args()
    sample = uvloop.run(main(arguments.name, arguments.door, arguments.port, arguments.shoppers, arguments.seconds))
    print(msgspec.json.encode(sample).decode())
