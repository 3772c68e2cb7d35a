"""A gRPC and GraphQL gateway in front of Emporix's Session Context REST service."""

import os

os.environ.setdefault("GRPC_VERBOSITY", "NONE")
"""gRPC reads this when it is imported, and else writes lines of its own between those of the log: one for each client
whose TLS handshake fails. Nothing but the environment reaches it."""
