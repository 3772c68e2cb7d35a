"""The command line: `session-gateway serve | dev | sandbox | check | settings | keys | cache | schema`.

Each command imports what only it needs when it runs: a supervisor of workers does not need gRPC, nor `keys new`
GraphQL.
"""

from __future__ import annotations

import json
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final, NoReturn, TypeVar

import click
import structlog
import uvloop
from pydantic import ValidationError

from gateway import contracts
from gateway.access.keys import new_key
from gateway.access.principal import Permission
from gateway.addresses import authority
from gateway.configuration import CONFIG_VARIABLE, load_settings
from gateway.descriptors import allow_many
from gateway.failures import Unserved, explained
from gateway.garbage import settle, uncollected
from gateway.listener import shared_with_others
from gateway.logs import configure_logs
from gateway.settings import Access, ConfigurationError, Settings, problem_of_ports
from gateway.shutdown import Shutdown
from gateway.tls import CertificateError
from gateway.workers.count import count_workers
from gateway.workers.forkserver import fork_server

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Mapping

__all__ = ["main"]

_log = structlog.stdlib.get_logger(__name__)

_REDIS_TIME: Final = 60.0
"""Seconds for counting or removing all entries."""
_OTHER_FILES: Final = 128
"""Open files of a process besides connections of callers and to upstream, about: up to 65 are to Redis."""

Result = TypeVar("Result")

_config = click.option(
    "--config",
    type=click.Path(path_type=Path),
    envvar=CONFIG_VARIABLE,
    help=f"TOML file with the settings. Default: the file that {CONFIG_VARIABLE} names.",
)
_insecure = click.option(
    "--insecure",
    is_flag=True,
    help="Let callers in without a credential, even if other machines can reach the gateway.",
)

_REMEDY: Final = (
    "add a caller (`session-gateway keys new NAME` prints one), listen on 127.0.0.1, or start with --insecure"
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="session-gateway")
def main() -> None:
    """A gRPC and GraphQL gateway in front of Emporix's Session Context service."""


@main.command()
@_config
@_insecure
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    help="Number of processes, which share the ports. Default: the setting `workers`, or one per core.",
)
def serve(config: Path | None, *, insecure: bool, workers: int | None) -> None:
    """Run the gateway in production."""
    overrides = {} if workers is None else {"workers": workers}

    def read_again() -> Settings:
        found = load_settings(config, overrides=overrides)
        if not insecure and (exposed := _exposed(found)):
            raise ConfigurationError(exposed)
        return found

    settings = _settings(config, overrides=overrides)
    exposed = _exposed(settings)
    if exposed and not insecure:
        click.echo(f"session-gateway: {exposed}: {_REMEDY}", err=True)
        sys.exit(2)
    configure_logs(settings.log)
    _tell_of_files(settings, allow_many())
    if exposed:
        _log.critical("insecure", problem=exposed)
    workers, reason = count_workers(settings)
    if reason is not None:
        _log.info("one_worker", reason=reason)
    _tell_of_sharing(settings)
    if workers == 1:
        _serve(settings, read_again)
    else:
        _serve_by(workers, settings, read_again)


@main.command()
@_config
def dev(config: Path | None) -> None:
    """Run the gateway with the sandbox, for development."""
    with uncollected():
        from gateway.development import DEV_DEFAULTS, develop

    settings = _settings(config, DEV_DEFAULTS, {"workers": 1})
    listeners = {"graphql": settings.graphql, "grpc": settings.grpc, "admin": settings.admin}
    if problem := problem_of_ports({**listeners, "sandbox": settings.sandbox}):
        _refuse(ConfigurationError(problem))
    configure_logs(settings.log)
    _run(develop(settings))


@main.command("sandbox")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8001,
    show_default=True,
    help="Port to listen on; 0 chooses a free one.",
)
def sandbox_command(host: str, port: int) -> None:
    """Run the sandbox alone. It stands in for Emporix, and keeps its state in memory."""
    _run(_sandbox(host, port))


@main.command()
@_config
@_insecure
def check(config: Path | None, *, insecure: bool) -> None:
    """Validate the settings, and try what the gateway depends on.

    That is a token for each tenant, the keys of each issuer of JWTs, and Redis.
    """
    from gateway.checking import check_dependencies, check_documents

    settings = _settings(config)
    configure_logs(settings.log)
    with _explaining():
        check_documents(settings)
    problems = []
    if exposed := _exposed(settings):
        click.echo(f"INSECURE: {exposed}" if insecure else f"access: {exposed}: {_REMEDY}")
        if not insecure:
            problems.append("serve will not start")
    problems += _run(check_dependencies(settings))
    if problems:
        raise click.ClickException(", and ".join(problems))


@main.command("settings")
def settings_command() -> None:
    """Print every setting, with its default, as a configuration file."""
    from gateway.reference import settings_reference

    click.echo(settings_reference(), nl=False)


@main.group()
def keys() -> None:
    """Create API keys for callers."""


@keys.command("new")
@click.argument("name")
@click.option(
    "--permission",
    "permissions",
    multiple=True,
    default=["sessions:read"],
    show_default=True,
    type=click.Choice([each.value for each in Permission]),
    help="What the caller may do. Can be repeated.",
)
@click.option(
    "--tenant",
    "tenants",
    multiple=True,
    default=["*"],
    show_default=True,
    help="Tenant whose sessions the caller may use, or * for all. Can be repeated.",
)
def new(name: str, permissions: tuple[str, ...], tenants: tuple[str, ...]) -> None:
    """Create an API key for the caller NAME. Print it, and its entry for the configuration."""
    key, hashed = new_key(name)
    entry = {"hash": hashed, "permissions": permissions, "tenants": tenants}
    try:
        Access.model_validate({"keys": {name: entry}})
    except ValidationError as error:
        if any("tenants" in each["loc"] for each in error.errors()):
            raise click.BadParameter(
                "must be 3 to 16 lowercase letters and digits, or *", param_hint="--tenant"
            ) from None
        raise click.BadParameter(
            "must be lowercase letters, digits and hyphens, 63 at most", param_hint="NAME"
        ) from None
    click.echo("This key is shown once and stored nowhere. Add the lines below it to the configuration file.", err=True)
    click.echo(f"{key.get_secret_value()}\n")
    click.echo(f"[access.keys.{name}]")
    for setting, value in entry.items():
        click.echo(f"{setting} = {json.dumps(value)}")  # of such plain strings, JSON is TOML


@main.group("cache")
def cache_group() -> None:
    """Inspect or clear the cache in Redis."""


@cache_group.command()
@_config
def clear(config: Path | None) -> None:
    """Remove all entries. Gateways drop those in their memory (cache.memory_tier) too."""
    from gateway.cache.shared import EVERYTHING, message_of
    from gateway.wiring.cache import ask_redis

    message = message_of("cli", EVERYTHING)
    removed = _run(ask_redis(_settings(config), lambda store: store.clear(message), within=_REDIS_TIME))
    click.echo(f"{removed} keys removed")


@cache_group.command()
@_config
def stats(config: Path | None) -> None:
    """Count the entries, and the marks of recent writes. `bytes` is the memory that both take."""
    from gateway.wiring.cache import ask_redis

    found = _run(ask_redis(_settings(config), lambda store: store.stats(), within=_REDIS_TIME))
    for name, count in found.items():
        click.echo(f"{name} {count}")


@main.command()
@click.argument("contract", type=click.Choice(["graphql", "proto", "service-config"]))
def schema(contract: str) -> None:
    """Print a contract: GraphQL, protobuf, or gRPC service config.

    That is the GraphQL schema, the protobuf source, or the service config for gRPC channels.
    """
    if contract != "graphql":
        click.echo(contracts.proto() if contract == "proto" else contracts.service_config(), nl=False)
        return

    from gateway.graphql.schema import make_schema

    click.echo(f"{make_schema().as_str()}")


def _exposed(settings: Settings) -> str | None:
    """The problem if other machines can reach a door and no callers are configured, otherwise None."""
    listeners = {"graphql.host": settings.graphql, "grpc.host": settings.grpc}
    reachable = [name for name, listener in listeners.items() if not listener.on_loopback]
    if settings.access.configured or not reachable:
        return None
    return (
        f"{' and '.join(reachable)}: whoever reaches this address may read and write every session, as nothing is"
        " configured under [access]"
    )


def _settings(
    config: Path | None, defaults: Mapping[str, object] | None = None, overrides: Mapping[str, object] | None = None
) -> Settings:
    try:
        return load_settings(config, defaults, overrides)
    except ConfigurationError as error:
        _refuse(error)


def _refuse(error: ConfigurationError) -> NoReturn:
    for problem in error.problems:
        click.echo(f"session-gateway: {problem}", err=True)
    sys.exit(2)


def _run(work: Coroutine[object, object, Result]) -> Result:
    with _explaining():
        return uvloop.run(work)


@contextmanager
def _explaining() -> Iterator[None]:
    """Print a line for each error that ends the block, and exit with the status for it."""
    try:
        yield
    except* (OSError, CertificateError, ConfigurationError, Unserved) as group:
        problems, status = explained(group)
    else:
        return
    for each in problems:
        click.echo(f"session-gateway: {each}", err=True)
    sys.exit(status)


def _serve(settings: Settings, read_again: Callable[[], Settings]) -> None:
    """In this process."""
    with uncollected():
        from gateway.app import open_gateway

    async def serving() -> None:
        shutdown = Shutdown()
        shutdown.obey_signals()
        async with open_gateway(settings, {}, shutdown=shutdown, shared=True, read_again=read_again) as doors:
            settle()
            _log.info("listening", graphql=doors.graphql, grpc=doors.grpc, admin=doors.admin, workers=1)
            await shutdown.wait()
            _log.info("stopping")

    _run(serving())


def _serve_by(workers: int, settings: Settings, read_again: Callable[[], Settings]) -> None:
    """In several processes."""
    if settings.limits_rates and not settings.cache.in_redis:
        _log.warning("rates_by_worker", workers=workers, problem="without Redis each worker counts by itself")
    with _explaining(), fork_server() as server:  # it imports for workers while we import for the supervisor
        with uncollected():
            from gateway.workers.supervisor import supervise

        async def supervising() -> None:
            shutdown = Shutdown()
            shutdown.obey_signals()
            await supervise(settings, workers, server, shutdown, read_again)

        uvloop.run(supervising())


def _tell_of_files(settings: Settings, allowed: int) -> None:
    """A process without a free file accepts no connection, not even that of a health check."""
    connections = settings.graphql.max_connections + settings.grpc.connections.max_number
    needed = connections + settings.upstream.max_concurrent + _OTHER_FILES
    if allowed < needed:
        _log.warning(
            "files_short",
            allowed=allowed,
            needed=needed,
            remedy="raise the hard limit, or lower graphql.max_connections and grpc.connections.max_number",
        )


def _tell_of_sharing(settings: Settings) -> None:
    """Another gateway on the same ports is normal during a rolling restart, and otherwise a mistake."""
    for name, door in {"graphql": settings.graphql, "grpc": settings.grpc}.items():
        if door.port and shared_with_others(door.host, door.port):
            _log.warning("port_shared", listener=name, address=authority(door.host, door.port))


async def _sandbox(host: str, port: int) -> None:
    from gateway import sandbox

    shutdown = Shutdown()
    shutdown.obey_signals()
    async with sandbox.serve(sandbox.Sandbox(), host, port) as running:
        click.echo(f"sandbox  {running.url}")
        await shutdown.wait()
