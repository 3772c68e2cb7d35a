"""Several processes for one gateway: a supervisor, and workers that share the ports.

The supervisor takes no calls. It reads the settings, has the fork server start the workers, replaces those that end,
and serves the operators' listener for all of them. Each worker is a gateway with its own event loop, tokens and memory.
"""
