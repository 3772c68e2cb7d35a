"""The command line: `session-gateway serve | dev | sandbox | check | schema`."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import click
import structlog
import uvloop

from gateway import contracts, sandbox
from gateway.app import open_gateway, open_upstream
from gateway.errors import GatewayError
from gateway.graphql.schema import make_schema
from gateway.logs import configure_logs
from gateway.sandbox import seed
from gateway.settings import CONFIG_VARIABLE, ConfigurationError, Settings, load_settings

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterator, Mapping

    from gateway.app import Addresses

__all__ = ["DEV_DEFAULTS", "dev_headers", "main"]

_log = structlog.stdlib.get_logger(__name__)

Result = TypeVar("Result")

_config = click.option(
    "--config",
    type=click.Path(path_type=Path),
    envvar=CONFIG_VARIABLE,
    help=f"TOML file of settings; else {CONFIG_VARIABLE} names it.",
)

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
    "graphql": {"playground": True},
    "cache": {"backend": "memory"},
    "shutdown": {"grace": 1.0},
}
"""What `dev` sets where neither the environment nor a file does."""


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="session-gateway")
def main() -> None:
    """A gRPC and GraphQL gateway in front of Emporix's Session Context service."""


@main.command()
@_config
def serve(config: Path | None) -> None:
    """Run the gateway for production."""
    settings = _settings(config)
    configure_logs(settings.log)
    _run(_serve(settings))


@main.command()
@_config
def dev(config: Path | None) -> None:
    """Run the gateway together with the sandbox, to try things out."""
    settings = _settings(config, DEV_DEFAULTS)
    configure_logs(settings.log)
    _run(_dev(settings))


@main.command("sandbox")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8001,
    show_default=True,
    help="Port to listen on; 0 takes a free one.",
)
def sandbox_command(host: str, port: int) -> None:
    """Run the sandbox alone: a stand-in for Emporix that keeps its state in memory."""
    _run(_sandbox(host, port))


@main.command()
@_config
def check(config: Path | None) -> None:
    """Read the settings, get a token for each tenant, and say what is wrong."""
    settings = _settings(config)
    configure_logs(settings.log)
    problems = _run(_check(settings))
    if problems:
        raise click.ClickException(f"{problems} of the tenants cannot be served")


@main.command()
@click.argument("contract", type=click.Choice(["graphql", "proto"]))
def schema(contract: str) -> None:
    """Print the GraphQL schema, or the protobuf source."""
    click.echo(f"{make_schema().as_str()}\n" if contract == "graphql" else contracts.proto(), nl=False)


def _settings(config: Path | None, defaults: Mapping[str, object] | None = None) -> Settings:
    try:
        return load_settings(config, defaults)
    except ConfigurationError as error:
        for problem in error.problems:
            click.echo(f"session-gateway: {problem}", err=True)
        sys.exit(2)


def _run(work: Coroutine[object, object, Result]) -> Result:
    try:
        return uvloop.run(work)
    except* OSError as group:
        for error in _leaves(group):
            click.echo(f"session-gateway: {error.strerror or error}", err=True)
    sys.exit(1)


def _leaves(group: BaseExceptionGroup[OSError]) -> Iterator[OSError]:
    """The errors themselves: each listener that is up already wraps what comes through it in a group of its own."""
    for each in group.exceptions:
        if isinstance(each, BaseExceptionGroup):
            yield from _leaves(each)
        else:
            yield each


async def _serve(settings: Settings) -> None:
    async with open_gateway(settings, {}) as doors:
        _log.info("listening", graphql=doors.graphql, grpc=doors.grpc, admin=doors.admin)
        await _told_to_stop()
        _log.info("stopping")


async def _dev(settings: Settings) -> None:
    async with sandbox.serve(sandbox.Sandbox(), settings.sandbox.host, settings.sandbox.port) as upstream:
        settings = settings.model_copy(
            update={"upstream": settings.upstream.model_copy(update={"base_url": upstream.url})}
        )
        async with open_gateway(settings, dev_headers(upstream.sandbox)) as doors:
            click.echo(_welcome(doors, upstream))
            await _told_to_stop()


async def _sandbox(host: str, port: int) -> None:
    async with sandbox.serve(sandbox.Sandbox(), host, port) as running:
        click.echo(f"sandbox  {running.url}")
        await _told_to_stop()


async def _check(settings: Settings) -> int:
    """Try every tenant's credentials; returns how many do not work."""
    problems = 0
    async with open_upstream(settings) as (_, tokens):
        for tenant in settings.tenants:
            try:
                token = await tokens.get(tenant)
            except GatewayError as error:
                found = error.message
            else:
                found = f"the client lacks the scope {token.missing_scope}" if token.missing_scope else ""
            problems += bool(found)
            click.echo(f"tenant {tenant}: {found or 'ok'}")
    return problems


async def _told_to_stop() -> None:
    """Wait for SIGINT or SIGTERM."""
    told = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, told.set)
    await told.wait()


def dev_headers(upstream: sandbox.Sandbox) -> Mapping[str, str]:
    """What the playground sends along: callers' credentials that the sandbox knows."""
    return {
        "x-api-key": "dev-key",
        "authorization": f"Bearer {seed.CUSTOMER_TOKEN}",
        "saas-token": upstream.saas_token,
    }


def _welcome(doors: Addresses, upstream: sandbox.SandboxServer) -> str:
    query = f'{{ sessionContext(tenant: \\"acme\\", sessionId: \\"{seed.CUSTOMER_SESSION}\\") {{ currency context }} }}'
    request = f'{{"tenant": "acme", "session_id": "{seed.CUSTOMER_SESSION}"}}'
    method = "emporix.sessioncontext.v1.SessionContextService/GetSessionContext"
    return f"""
  GraphQL  {doors.graphql}   (GraphiQL in a browser)
  gRPC     {doors.grpc}
  admin    {doors.admin}   (/livez, /readyz, /metrics)
  sandbox  {upstream.url}   (stands in for Emporix; its own API is below /_sandbox)

  Tenant acme, session {seed.CUSTOMER_SESSION}. Copy these:

  curl {doors.graphql} -H 'content-type: application/json' -H 'x-api-key: dev-key' \\
    -d '{{"query": "{query}"}}'

  .venv/bin/buf curl --http2-prior-knowledge --protocol grpc -H 'x-api-key: dev-key' \\
    -d '{request}' \\
    http://{doors.grpc}/{method}

  Shoppers' token for the fields and methods of one's own session: -H 'authorization: Bearer {seed.CUSTOMER_TOKEN}'
  For whole-object writes: -H 'saas-token: {upstream.sandbox.saas_token}'

  Ctrl-C stops it.
"""
