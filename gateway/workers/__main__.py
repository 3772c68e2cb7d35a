"""Where a worker begins: `python -m gateway.workers NAME DESCRIPTOR`, the descriptor of the socket that it inherits."""

from __future__ import annotations

import socket
import sys

from gateway.garbage import uncollected

if __name__ == "__main__":
    with uncollected():
        from gateway.workers import worker
    _, name, descriptor = sys.argv
    worker.main(name, socket.socket(fileno=int(descriptor)))
