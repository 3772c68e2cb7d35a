"""The fork server: a process that imports once what workers need, and then forks them.

A worker's imports take most of a second of CPU, a fork takes milliseconds; and forks share memory that they only read.
A process that forks must not have threads, an event loop or gRPC running, since these do not survive a fork. The
supervisor has an event loop, so the fork server is itself forked from it before that starts. (multiprocessing's fork
server is a new interpreter, which would import again what the supervisor has imported.)
"""

from __future__ import annotations

import asyncio
import errno
import os
import selectors
import shutil
import signal
import socket
import sys
import traceback
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gateway.garbage import uncollected
from gateway.shutdown import hold_signals, release_signals
from gateway.workers.folder import metrics_folder
from gateway.workers.link import Exited, Forked, Link, NotForked, framed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["ForkServer", "Process", "fork_server"]

_NUMBER: Final = 4
"""Bytes of a request, which consists of a worker's number."""
_PATIENCE: Final = 30.0
"""Seconds for forking a worker; the first one waits for the imports."""


@contextmanager
def fork_server() -> Iterator[ForkServer]:
    """A fork server while the block runs. Enter it while this process has one thread and no event loop.

    It holds back SIGINT and SIGTERM, which could end this process and leave the folder behind: a `Shutdown` has to obey
    them within the block. Raises OSError if the process cannot be created.
    """
    hold_signals()
    with metrics_folder() as folder:
        ours, its = socket.socketpair()
        with ours:
            with its:
                pid = _in_a_fork(partial(_run, its, ours, folder))
            try:
                yield ForkServer(pid, folder, ours)
            finally:
                hold_signals()  # it is ending anyway, and must not be interrupted
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


class ForkServer:
    """The supervisor's side of the fork server."""

    def __init__(self, pid: int, folder: Path, control: socket.socket) -> None:
        self.pid: Final = pid
        self.folder: Final = folder
        """Where workers write what they count."""
        self._control = control
        self._control.setblocking(False)
        self._turn = asyncio.Lock()

    async def fork(self, number: int, end: socket.socket) -> Process:
        """Start a worker with this number, which gets this end of a link. Raises OSError if that fails."""
        async with self._turn:
            ours, its = socket.socketpair()
            life = await Link.over(ours)
            try:
                with its:
                    socket.send_fds(self._control, [number.to_bytes(_NUMBER)], [end.fileno(), its.fileno()])
                return Process(await _pid(life), life)
            except BaseException:
                await life.close()
                raise

    async def wait_ended(self) -> None:
        """Wait until it has ended, which should not happen."""
        with suppress(ConnectionError):
            await asyncio.get_running_loop().sock_recv(self._control, 1)  # it never sends anything here


class Process:
    """The process of a worker."""

    def __init__(self, pid: int, life: Link) -> None:
        self.pid: Final = pid
        self.exited: Exited | None = None
        """How it has exited, if it has and that is known."""
        self._life = life

    async def wait(self, seconds: float) -> None:
        """Wait until it has exited, or nobody can tell, or for so many seconds."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                message = await self._life.receive()
            if isinstance(message, Exited):
                self.exited = message

    def kill(self) -> None:
        """Kill it, unless it has exited."""
        if self.exited is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    async def close(self) -> None:
        """Stop waiting for it."""
        await self._life.close()


async def _pid(life: Link) -> int:
    """The process id of the requested worker. Raises OSError if there is none."""
    try:
        async with asyncio.timeout(_PATIENCE):
            answer = await life.receive()
    except TimeoutError:
        raise OSError(errno.ETIMEDOUT, "the fork server does not answer") from None
    match answer:
        case Forked(pid):
            return pid
        case NotForked(error):
            raise OSError(error, os.strerror(error))
        case _:
            raise OSError(errno.ESRCH, "the fork server has ended")


def _in_a_fork(work: Callable[[], int]) -> int:
    """Run `work` in a new process, which exits with its result; returns the process id."""
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        status = work()
    except BaseException:  # noqa: BLE001 - of this process nothing may go on but this
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _run(control: socket.socket, supervisors: socket.socket, folder: Path) -> int:
    """The main function of the fork server, and of each worker."""
    supervisors.close()
    for each in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)  # terminals and systemd send them to all, but the supervisor decides
    release_signals()
    _be_called("fork-server")
    with Path(os.devnull).open() as nothing:
        os.dup2(nothing.fileno(), 0)
    with uncollected():
        from gateway.workers import worker  # noqa: PLC0415 - here, and nowhere in the supervisor

    forked = _fork_when_asked(control)
    if forked is None:  # the supervisor was killed: otherwise it would have killed this process, and removed the folder
        _clear_up(folder)
        return 0
    number, end = forked
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _be_called(f"worker-{number}")
    return worker.main(number, end, folder)


def _fork_when_asked(control: socket.socket) -> tuple[int, socket.socket] | None:
    """Fork a worker for each request, and report its exit.

    Returns in each worker, with its number and its end of the link; and finally in the fork server, with None, when the
    supervisor is gone.
    """
    with ExitStack() as ours:  # closed in each worker
        lives = _Lives()
        ours.callback(lives.close)
        ours.enter_context(control)
        exits = ours.enter_context(_woken_by_exits())
        selector = ours.enter_context(selectors.DefaultSelector())
        for each in (control, exits):
            selector.register(each, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if exits in ready:
                exits.recv(4096)
                lives.tell_of_exits()
            if control in ready:
                number, descriptors, _, _ = socket.recv_fds(control, _NUMBER, 2)
                if not number:
                    return None
                end, life = (socket.socket(fileno=each) for each in descriptors)
                if lives.fork(life):
                    return int.from_bytes(number), end
                end.close()


def _clear_up(folder: Path) -> None:
    """Remove the folder when all workers have ended, which they do when the supervisor is gone."""
    with suppress(ChildProcessError):
        while True:
            os.wait()
    shutil.rmtree(folder, ignore_errors=True)


class _Lives:
    """The running workers, each with the socket by which the supervisor hears of its process."""

    def __init__(self) -> None:
        self._by_pid: dict[int, socket.socket] = {}

    def fork(self, life: socket.socket) -> bool:
        """Fork; returns true in the new process."""
        try:
            pid = os.fork()
        except OSError as error:
            _tell(life, NotForked(error.errno or errno.EAGAIN))
            life.close()
            return False
        if pid == 0:
            life.close()
            return True
        self._by_pid[pid] = life
        _tell(life, Forked(pid))
        return False

    def tell_of_exits(self) -> None:
        """Report all exits since the last call."""
        while self._by_pid:
            pid, status, used = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                return
            with self._by_pid.pop(pid) as life:
                _tell(life, Exited(os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime))

    def close(self) -> None:
        """Close all sockets."""
        for each in self._by_pid.values():
            each.close()


def _tell(life: socket.socket, message: Forked | NotForked | Exited) -> None:
    with suppress(OSError):  # the supervisor has gone, or has stopped waiting
        life.sendall(framed(message))


@contextmanager
def _woken_by_exits() -> Iterator[socket.socket]:
    """A socket that becomes readable when a child has exited."""
    woken, wakes = socket.socketpair()
    with woken, wakes:
        wakes.setblocking(False)
        before = signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(wakes.fileno(), warn_on_full_buffer=False)
        try:
            yield woken
        finally:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, before)


def _be_called(name: str) -> None:
    """Name this process for `top` and `ps -e`, if the system supports that."""
    with suppress(OSError):
        Path("/proc/self/comm").write_text(name)
