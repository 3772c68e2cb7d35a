"""A stand-in for Emporix: a real HTTP server that keeps state, and fails on demand.

It judges the gateway, and so imports nothing of it but how to listen. What the API reference leaves open is a switch.
"""

from gateway.sandbox.faults import Fault
from gateway.sandbox.sandbox import Sandbox
from gateway.sandbox.server import SandboxServer, serve
from gateway.sandbox.switches import Switches

__all__ = ["Fault", "Sandbox", "SandboxServer", "Switches", "serve"]
