"""Settings that come faster than a worker takes them."""

from __future__ import annotations

import asyncio
import socket

from gateway.shutdown import Shutdown
from gateway.workers.link import Drain, Link, Reload
from gateway.workers.worker import _obey


async def test_only_the_newest_settings_wait_to_be_taken() -> None:
    supervisor, worker = [await Link.over(end) for end in socket.socketpair()]
    shutdown, reloads = Shutdown(), asyncio.Queue[bytes](1)
    obeying = asyncio.create_task(_obey(worker, shutdown, reloads))

    for number in range(100):
        supervisor.send(Reload(b"%d" % number))
    supervisor.send(Drain())
    await shutdown.wait()  # by now all before it has been read

    assert reloads.get_nowait() == b"99"
    assert reloads.empty()
    await supervisor.close()
    await obeying
    await worker.close()
