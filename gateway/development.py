"""What `session-gateway dev` runs: a gateway, the sandbox as its upstream, and credentials that both know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from gateway import sandbox
from gateway.app import open_gateway
from gateway.sandbox import seed
from gateway.shutdown import Shutdown

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.app import Addresses
    from gateway.settings import Settings

__all__ = ["DEV_DEFAULTS", "dev_headers", "develop"]

_DEV_KEY_HASH: Final = f"sha256:{'00' * 16}:a0e92f9cdeef31382974c159aaf30c0645a9aea28fde414a509d9be3ad5cadef"
"""Of `dev-key`."""

DEV_DEFAULTS: Final[dict[str, dict[str, object]]] = {
    "tenants": {
        tenant: {"client_id": client_id, "client_secret": secret}
        for tenant, (client_id, secret) in seed.CLIENTS.items()
    },
    "access": {
        "keys": {
            "dev": {
                "hash": _DEV_KEY_HASH,
                "permissions": ("sessions:read", "sessions:write"),
                "tenants": ("*",),
            }
        }
    },
    "graphql": {"playground": True, "introspection": True},
    "grpc": {"reflection": True},
    "cache": {"backend": "memory"},
    "upstream": {"lazy_tokens": True},
    "shutdown": {"grace": 1.0},
}
"""Defaults of `dev`, over which the environment and the file take precedence."""


async def develop(settings: Settings) -> None:
    """Run both until told to stop, and print how to call them. Raises OSError if a port cannot be bound."""
    shutdown = Shutdown()
    shutdown.obey_signals()
    host, port = settings.sandbox.host, settings.sandbox.port
    async with sandbox.serve(sandbox.Sandbox(), host, port, section="sandbox") as upstream:
        settings = settings.model_copy(
            update={"upstream": settings.upstream.model_copy(update={"base_url": upstream.url, "proxy": None})}
        )
        async with open_gateway(settings, dev_headers(upstream.sandbox), shutdown=shutdown) as doors:
            click.echo(_welcome(doors, upstream, tls=settings.grpc.tls is not None))
            await shutdown.wait()


def dev_headers(upstream: sandbox.Sandbox) -> Mapping[str, str]:
    """The headers that the playground sends: credentials that gateway and sandbox know."""
    return {
        "x-api-key": "dev-key",
        "authorization": f"Bearer {seed.CUSTOMER_TOKEN}",
        "saas-token": upstream.saas_token,
    }


def _welcome(doors: Addresses, upstream: sandbox.SandboxServer, *, tls: bool) -> str:
    query = f'{{ sessionContext(tenant: \\"acme\\", sessionId: \\"{seed.CUSTOMER_SESSION}\\") {{ currency context }} }}'
    request = f'{{"tenant": "acme", "session_id": "{seed.CUSTOMER_SESSION}"}}'
    method = "emporix.sessioncontext.v1.SessionContextService/GetSessionContext"
    return f"""
  GraphQL  {doors.graphql}   (GraphiQL in a browser)
  gRPC     {doors.grpc}
  admin    {doors.admin}   (/livez, /readyz, /metrics)
  sandbox  {upstream.url}   (stands in for Emporix; it fails on demand: /_sandbox)

  Tenant acme, session {seed.CUSTOMER_SESSION}. Examples to copy:

  curl {doors.graphql} -H 'content-type: application/json' -H 'x-api-key: dev-key' \\
    -d '{{"query": "{query}"}}'

  .venv/bin/buf curl {"" if tls else "--http2-prior-knowledge "}--protocol grpc -H 'x-api-key: dev-key' \\
    -d '{request}' \\
    {"https" if tls else "http"}://{doors.grpc}/{method}

  For the shopper's own session (mySessionContext, ...): -H 'authorization: Bearer {seed.CUSTOMER_TOKEN}'
  For replace, patch and versioned attribute writes: -H 'saas-token: {upstream.sandbox.saas_token}'

  Ctrl-C stops it.
"""
