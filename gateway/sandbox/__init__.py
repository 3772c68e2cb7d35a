"""A stand-in for Emporix: a real HTTP server that keeps state, and fails on demand.

The gateway is tested against it, so it imports nothing of that except the listener. What the API reference leaves open
is a switch.
"""

from gateway.sandbox.faults import Fault
from gateway.sandbox.sandbox import Sandbox
from gateway.sandbox.server import SandboxServer, serve
from gateway.sandbox.switches import Switches

__all__ = ["Fault", "Sandbox", "SandboxServer", "Switches", "serve"]
