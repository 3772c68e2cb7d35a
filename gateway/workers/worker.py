"""A worker: a gateway process that is started by a supervisor, and ends with it."""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import structlog
import uvloop

from gateway.app import open_doors
from gateway.failures import explained
from gateway.garbage import settle
from gateway.logs import configure_logs
from gateway.readiness import Readiness
from gateway.settings import ConfigurationError
from gateway.shutdown import Shutdown
from gateway.telemetry.files import write_metrics_to
from gateway.telemetry.prometheus import Metrics
from gateway.tls import CertificateError
from gateway.workers.link import Beat, Drain, Failed, Hasten, Link, Reload, Start, Up, unpacked

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from gateway.app import Doors
    from gateway.settings import Settings

__all__ = ["main"]

_BEAT_EVERY: Final = 1.0


def main(number: int, end: socket.socket, folder: Path) -> int:
    """Serve until the supervisor, at the other end of this socket, says to stop or is gone.

    Metrics are written to the folder. Returns the exit status.
    """
    write_metrics_to(folder)
    return uvloop.run(_work(number, end))


async def _work(number: int, end: socket.socket) -> int:
    link = await Link.over(end)
    try:
        start = await link.receive()
        if not isinstance(start, Start):  # the supervisor is gone already
            return 0
        settings = unpacked(start.settings)
        configure_logs(settings.log)
        structlog.contextvars.bind_contextvars(worker=str(number))
        await _serve(settings, link)
    except* (OSError, CertificateError, ConfigurationError) as group:
        problems, status = explained(group)
        link.send(Failed(problems, status))
    else:
        status = 0
    finally:
        await link.close()
    return status


async def _serve(settings: Settings, link: Link) -> None:
    metrics, readiness, shutdown = Metrics(), Readiness(), Shutdown()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, shutdown.begin)
    reloads: asyncio.Queue[bytes] = asyncio.Queue(1)
    async with asyncio.TaskGroup() as tasks:
        aside = [
            tasks.create_task(_tell(link, metrics, readiness), name="tell the supervisor how we are"),
            tasks.create_task(_obey(link, shutdown, reloads), name="obey the supervisor"),
        ]
        async with open_doors(settings, {}, metrics, readiness, shutdown=shutdown, shared=True) as doors:
            aside.append(tasks.create_task(_reload(doors, reloads), name="reload when told"))
            settle()
            link.send(Up(doors.graphql, doors.grpc))
            await shutdown.wait()
        for each in aside:
            each.cancel()


async def _tell(link: Link, metrics: Metrics, readiness: Readiness) -> None:
    told = asyncio.Event()
    readiness.when_changed(told.set)
    while True:
        told.clear()
        metrics.sample()
        link.send(Beat(await readiness.report()))
        with suppress(TimeoutError):
            async with asyncio.timeout(_BEAT_EVERY):
                await told.wait()


async def _reload(doors: Doors, reloads: asyncio.Queue[bytes]) -> None:
    while True:
        await doors.reload(unpacked(await reloads.get()))


async def _obey(link: Link, shutdown: Shutdown, reloads: asyncio.Queue[bytes]) -> None:
    while (message := await link.receive()) is not None:
        match message:
            case Drain():
                shutdown.begin()
            case Hasten():
                shutdown.hasten()
            case Reload():
                if reloads.full():
                    reloads.get_nowait()  # the newer settings replace it
                reloads.put_nowait(message.settings)
            case _:
                pass
    shutdown.begin()  # the supervisor is gone
