"""Callers who go away at whatever moment: no connection, and no place among the calls, stays taken."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import http2_server
import pytest
from access.certificates import HERE, Authority, Files

from gateway.deadline import Deadline
from gateway.telemetry import Unobserved
from gateway.upstream.attempts import Attempts
from gateway.upstream.breaker import Breaker, Rules
from gateway.upstream.connections import Origin
from gateway.upstream.http import Http
from gateway.upstream.http2 import Http2Connection
from gateway.upstream.limiter import Limiter
from gateway.upstream.transport import Transport
from waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine, Generator
    from pathlib import Path

    from gateway.upstream.connections import Connection

RULES = Rules(failure_rate=0.5, min_calls=1000, window=10.0, open_for=2.0, probes=3)
BEGUN, REST = b"a", b"bc"
"""Of a body that comes in two parts, each some time after what is before it."""


async def dribbles(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.closing(writer), contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
        while await reader.readuntil(b"\r\n\r\n"):
            for part in (b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n", BEGUN, REST):
                writer.write(part)
                await writer.drain()
                await asyncio.sleep(0.002)


def dribbles_by_http2(request: http2_server.Request) -> None:
    request.answer(BEGUN, whole=False)

    def end() -> None:
        if request.stream not in {stream for stream, _ in request.end.resets}:
            request.send(REST)

    asyncio.get_running_loop().call_later(0.002, end)


@asynccontextmanager
async def serving(kind: str, tls: ssl.SSLContext) -> AsyncIterator[str]:
    """The URL of a server."""
    if kind == "h2":
        async with http2_server.serving(dribbles_by_http2, tls) as server:
            yield server.url
        return
    listening = await asyncio.start_server(dribbles, "127.0.0.1", 0, ssl=tls if kind == "https" else None)
    try:
        yield f"{kind}://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    finally:
        listening.close()


class Leaving:
    """A call whose caller goes away while it waits for the so-many-th time, or just as that wait is over."""

    def __init__(self, call: Coroutine[Any, Any, object], wait: int, *, as_it_ends: bool) -> None:
        self._call = call
        self._wait = wait
        self._as_it_ends = as_it_ends

    def __await__(self) -> Generator[Any, None, None]:
        task = asyncio.current_task()
        assert task is not None
        error: BaseException | None = None
        for number in itertools.count():
            try:
                waits_for = self._call.send(None) if error is None else self._call.throw(error)
            except StopIteration:
                return
            if number == self._wait:
                if self._as_it_ends and waits_for is not None:
                    waits_for.add_done_callback(lambda _: task.cancel())
                else:
                    task.cancel()
            error = None
            try:
                yield waits_for
            except BaseException as thrown:  # noqa: BLE001 - it is the call's
                error = thrown

    async def end(self) -> bool:
        """Whether the call has ended before its caller went away."""

        async def leave() -> None:
            await self

        task = asyncio.create_task(leave())
        await asyncio.wait([task], timeout=30)
        return not task.cancelled()


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> set[Connection]:
    """The connections that there are."""
    found: set[Connection] = set()
    opened, ended = Origin.opened, Origin.ended

    def open_(origin: Origin, connection: Connection) -> None:
        opened(origin, connection)
        found.add(connection)

    def end(origin: Origin, connection: Connection) -> None:
        ended(origin, connection)
        found.discard(connection)

    monkeypatch.setattr(Origin, "opened", open_)
    monkeypatch.setattr(Origin, "ended", end)
    return found


@pytest.mark.parametrize("as_it_ends", [False, True], ids=["during the wait", "as it ends"])
@pytest.mark.parametrize("warm", [False, True], ids=["without a connection", "with one"])
@pytest.mark.parametrize("kind", ["http", "https", "h2"])
async def test_who_goes_away_at_any_wait_leaves_nothing_taken(
    kind: str, warm: bool, as_it_ends: bool, there: set[Connection], tmp_path: Path
) -> None:
    authority = Authority()
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    files = Files.of(tmp_path, authority.issue(*HERE))
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(files.certificate, files.key)
    async with serving(kind, tls) as url:
        for wait in itertools.count():
            limiter = Limiter(max_concurrent=1, max_queued=1, max_wait=30)
            breaker = Breaker(RULES)
            async with Transport(ca_file=tmp_path / "ca.pem", http2=Http2Connection) as transport:
                http = Http(
                    transport,
                    url,
                    timeout=30,
                    policy=lambda send: Attempts(send, breaker, limiter, Unobserved(), slow=60),  # noqa: B023
                )

                async def get(http: Http = http) -> bytes:
                    return (await http.send("GET", "/x", deadline=Deadline.after(30), headers={})).body

                if warm:
                    await get()
                assert limiter.take()
                asyncio.get_running_loop().call_later(0.002, limiter.give_back)
                ended = await Leaving(get(), wait, as_it_ends=as_it_ends).end()
                await eventually(lambda: limiter.in_flight == len(limiter._queue) == 0)  # noqa: B023
                assert await get() == BEGUN + REST
                await eventually(lambda: len(there) == 1)
            await eventually(lambda: not there)
            if ended:
                break
        assert wait > 0
