"""The supervisor: has workers started, replaces those that end, and serves the operators' listener for all of them.

The ports are bound here, before anything else: so a port that is in use is reported at once, and a free one (port 0) is
the same for all workers. These sockets do not listen, so that no client connects to them.
"""

from __future__ import annotations

import asyncio
import os
import random
import socket
import time
from contextlib import ExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog

from gateway.admin import admin_app
from gateway.failures import Unserved
from gateway.listener import claim, listening
from gateway.readiness import Readiness, Report
from gateway.reloading import reloading
from gateway.telemetry.summed import SummedMetrics
from gateway.workers.link import Beat, Drain, Failed, Hasten, Link, Reload, Start, Up, packed

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

    from gateway.settings import Settings
    from gateway.shutdown import Shutdown
    from gateway.workers.forkserver import ForkServer, Process
    from gateway.workers.link import Message

__all__ = ["supervise"]

_LOOK_EVERY: Final = 1.0
"""Seconds between two checks for a heartbeat."""
_SILENCE: Final = 30
"""Checks in a row without a heartbeat after which a worker counts as hanging, and is killed. Checks are counted, not
seconds: those pass while a container is paused, too."""
_MARGIN: Final = 5.0
"""Seconds beyond the grace, after which a worker that was told to stop is killed."""
_LAST_WORDS: Final = 5.0
"""Seconds for a process to exit after its link has closed, or after it was killed."""
_UNKNOWN: Final = 255
"""The exit status if it is not known."""
_STEADY: Final = 60.0
"""A worker that has run for so many seconds is replaced at once; others after a growing delay."""
_LONGEST_WAIT: Final = 30.0


async def supervise(
    settings: Settings, count: int, server: ForkServer, shutdown: Shutdown, read_again: Callable[[], Settings]
) -> None:
    """Serve with so many workers until told to stop, and until they have ended; SIGHUP is obeyed (`gateway.reloading`).

    Raises OSError if a port cannot be bound, and Unserved, with the workers' messages, if they do not come up at the
    start. Later on, a worker that ends is replaced, repeatedly if necessary. Raises Unserved also if the fork server
    has ended, after an orderly stop.
    """
    with ExitStack() as claims:
        unclaimed, settings = settings, _claimed(settings, claims)
        supervisor = _Supervisor(settings, count, server, shutdown)
        async with (
            listening(
                admin_app(supervisor.metrics, supervisor),
                host=settings.admin.host,
                port=settings.admin.port,
                grace=1.0,
                shared=True,
                section="admin",
            ) as admin,
            reloading(unclaimed, read_again, supervisor.reload, supervisor.readiness),
        ):
            await supervisor.run(admin)


def _claimed(settings: Settings, claims: ExitStack) -> Settings:
    """The settings with the ports that were bound."""
    taken = {}
    for name, door in {"graphql": settings.graphql, "grpc": settings.grpc}.items():
        port = claims.enter_context(claim(door.host, door.port, shared=True, section=name)).getsockname()[1]
        taken[name] = door.model_copy(update={"port": port})
    return settings.model_copy(update=taken)


@dataclass(slots=True, eq=False)
class _Worker:
    """A place for a worker, with the worker that is there now."""

    number: int
    link: Link | None = None
    process: Process | None = None
    up: Up | None = None
    report: Report | None = None
    failed: Failed | None = None
    lives: int = 0

    @property
    def name(self) -> str:
        return str(self.number)

    def tell(self, message: Message) -> None:
        if self.link is not None:
            self.link.send(message)

    def reported(self) -> Report:
        return self.report or Report(ready=False, checks={"process": "is not up"})


class _Supervisor:
    def __init__(self, settings: Settings, count: int, server: ForkServer, shutdown: Shutdown) -> None:
        self._settings = settings
        self._server = server
        self._shutdown = shutdown
        self._workers = [_Worker(number) for number in range(1, count + 1)]
        self._all_up = asyncio.Event()
        self._lost = False
        self.metrics = SummedMetrics(server.folder, self._pids)
        self.readiness = Readiness()
        self.readiness.set("workers", "starting", met=False)
        self._log = structlog.stdlib.get_logger(__name__)

    async def report(self) -> Report:
        """Ready when all have come up, and after that as long as one of them is, until told to stop."""
        reports = tuple(each.reported() for each in self._workers)
        ready = sum(each.ready for each in reports)
        if self._shutdown.begun:
            self.readiness.set("workers", "stopping", met=False)
        elif self._all_up.is_set():
            self.readiness.set("workers", f"{ready} of {len(reports)} ready", met=ready > 0)
        own = await self.readiness.report()
        return Report(own.ready, own.checks, reports)

    async def reload(self, found: Settings) -> None:
        """Have workers apply what can change from these settings; new workers get it too."""
        self._settings = self._settings.model_copy(update={"access": found.access, "tenants": found.tenants})
        self._tell(Reload(packed(self._settings)))

    async def run(self, admin: str) -> None:
        """Run until told to stop, and until all have ended. `admin` is for the log.

        Raises Unserved in the end, if it stopped because the fork server had ended.
        """
        self._shutdown.when_begun(lambda: self._tell(Drain()))
        async with asyncio.TaskGroup() as tasks:
            keeping = [tasks.create_task(self._keep(each), name=f"keep worker {each.name}") for each in self._workers]
            announcing = tasks.create_task(self._announce(admin), name="announce the doors")
            aside = [
                tasks.create_task(self._hasten(), name="hasten workers"),
                tasks.create_task(self._watch(), name="watch the fork server"),
            ]
            await self._shutdown.wait()
            announcing.cancel()
            self._log.info("stopping")
            allowed = self._settings.shutdown.delay + self._settings.shutdown.grace + _MARGIN
            _, late = await asyncio.wait(keeping, timeout=allowed)
            if late:
                self._log.error("workers_killed", workers=[each.name for each in self._workers if each.process])
            for each in (*late, *aside):
                each.cancel()
        if self._lost:
            raise Unserved(("the fork server, which starts workers, has ended",), 1)

    async def _announce(self, admin: str) -> None:
        await self._all_up.wait()
        doors = self._workers[0].up
        if doors is not None:
            self._log.info("listening", graphql=doors.graphql, grpc=doors.grpc, admin=admin, workers=len(self._workers))

    async def _hasten(self) -> None:
        await self._shutdown.wait_hastened()
        self._tell(Hasten())

    async def _watch(self) -> None:
        """Stop if the fork server ends, since no worker could be replaced: the gateway has to be started again."""
        await self._server.wait_ended()
        if not self._shutdown.begun:
            self._lost = True
            self._log.critical("fork_server_ended")
            self._shutdown.begin()

    def _tell(self, message: Message) -> None:
        for each in self._workers:
            each.tell(message)

    def _pids(self) -> Iterable[int]:
        yield os.getpid()
        yield self._server.pid
        for each in self._workers:
            if each.process is not None:
                yield each.process.pid

    async def _keep(self, worker: _Worker) -> None:
        """Keep a worker running in this place until told to stop."""
        failures = 0
        while not self._shutdown.begun:
            began = time.monotonic()
            try:
                status = await self._live(worker)
            except OSError as error:  # too little memory, too many processes or files, perhaps only for now
                status, worker.failed = 1, Failed((f"a worker cannot be started: {error.strerror}",), 1)
            if not self._all_up.is_set():
                self._give_up(worker, status)
            steady = status == 0 or time.monotonic() - began >= _STEADY
            failures = 0 if steady else failures + 1
            await self._mourn(worker, status, _wait_after(failures))

    def _give_up(self, worker: _Worker, status: int) -> None:
        """At the start, a failure of one worker is a failure of all. Raises Unserved, unless told to stop."""
        if not self._shutdown.begun:
            said = worker.failed or Failed((f"a worker ended with status {status} before it was up",), 1)
            raise Unserved(said.problems, said.status)

    async def _mourn(self, worker: _Worker, status: int, wait: float) -> None:
        """Log that a worker has ended, and wait before the next."""
        if self._shutdown.begun:
            return
        said = () if worker.failed is None else worker.failed.problems
        self._log.error("worker_ended", worker=worker.name, status=status, problems=said, next_in=round(wait, 1))
        self.metrics.restarted()
        with suppress(TimeoutError):
            async with asyncio.timeout(wait):
                await self._shutdown.wait()

    async def _live(self, worker: _Worker) -> int:
        """Start a worker, and handle its messages until it ends; returns its exit status."""
        async with self._started(worker) as (link, process):
            link.send(Start(packed(self._settings)))
            if self._shutdown.begun:
                link.send(Drain())
            try:
                while (message := await _heard(link)) is not None:
                    self._take(worker, message)
            except TimeoutError:
                self._log.error("worker_hangs", worker=worker.name, silent_for=_SILENCE * _LOOK_EVERY)
                process.kill()
            await process.wait(_LAST_WORDS)
        return _UNKNOWN if process.exited is None else process.exited.status

    def _take(self, worker: _Worker, message: Message) -> None:
        match message:
            case Up():
                worker.up = message
                if worker.lives > 1:
                    self._log.info("worker_replaced", worker=worker.name)
                if all(each.up is not None for each in self._workers):
                    self._all_up.set()
            case Beat():
                worker.report = message.report
            case Failed():
                worker.failed = message
            case _:
                pass

    @asynccontextmanager
    async def _started(self, worker: _Worker) -> AsyncIterator[tuple[Link, Process]]:
        """A worker in this place, which is killed at the end of the block."""
        ours, its = socket.socketpair()
        link = await Link.over(ours)
        try:
            with its:
                process = await self._server.fork(worker.number, its)
        except BaseException:
            await link.close()
            raise
        worker.link, worker.process, worker.failed = link, process, None
        worker.lives += 1
        try:
            yield link, process
        finally:
            if process.exited is None:
                process.kill()
                await process.wait(_LAST_WORDS)
            worker.link = worker.process = worker.up = worker.report = None
            self.metrics.ended(process.pid, 0.0 if process.exited is None else process.exited.cpu)
            await link.close()
            await process.close()


async def _heard(link: Link) -> Message | None:
    """The next message; None if the other end is gone. Raises TimeoutError if it is silent."""
    receiving = asyncio.create_task(link.receive(), name="hear a worker")
    try:
        for _ in range(_SILENCE):
            if (await asyncio.wait([receiving], timeout=_LOOK_EVERY))[0]:
                return receiving.result()
    finally:
        receiving.cancel()
        await asyncio.wait([receiving])
    raise TimeoutError


def _wait_after(failures: int) -> float:
    """Seconds before the next try: none after the first failure, then doubling from one on, with jitter."""
    if failures < 2:
        return 0.0
    return min(_LONGEST_WAIT, 2.0 ** (failures - 2)) * random.uniform(0.5, 1.0)  # noqa: S311 - jitter
