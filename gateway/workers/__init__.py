"""Several processes for one gateway: a supervisor, and workers that share the ports.

The supervisor takes no calls. It reads the settings, has the fork server start the workers, replaces one that ends, and
answers the operator for all of them. Each worker is a gateway with a loop, tokens and a cache tier of its own.
"""
