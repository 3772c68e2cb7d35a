"""A gRPC and GraphQL gateway in front of Emporix's Session Context REST service."""

import os

os.environ.setdefault("GRPC_VERBOSITY", "NONE")
"""gRPC reads this on import. Otherwise it writes its own lines between those of the log, one for each client whose TLS
handshake fails. It can only be set in the environment."""

os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_listener")
"""Also read on import. gRPC's event engine passes each part of a call from thread to thread; without it, a call costs a
fifth less: 118 instead of 150 us of CPU for an echo with grpcio 1.85."""
