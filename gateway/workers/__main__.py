"""Where a worker begins: `python -m gateway.workers NAME DESCRIPTOR`, the descriptor of the socket that it inherits."""

from __future__ import annotations

import signal
import socket
import sys

from gateway.garbage import uncollected

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to us too, but the supervisor decides
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with uncollected():
        from gateway.workers import worker
    _, name, descriptor = sys.argv
    worker.main(name, socket.socket(fileno=int(descriptor)))
