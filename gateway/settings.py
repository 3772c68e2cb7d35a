"""All settings: what each one does, its default and its bounds. `gateway.configuration` reads them.

Times are in seconds and sizes in bytes, unless a setting says otherwise.
"""

from __future__ import annotations

import re
import ssl
from contextlib import suppress
from ipaddress import ip_address
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self, TypeAlias

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    SecretStr,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from gateway.addresses import is_safe
from gateway.proxy import Proxy
from gateway.redis_url import check_redis_url, redis_database
from gateway.tenants import PATTERN as TENANT_PATTERN
from gateway.tls import CertificateError, CertificateFiles
from gateway.tls import load as load_certificate

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = [
    "PREFIX",
    "Access",
    "ConfigurationError",
    "GraphQL",
    "Grpc",
    "Limited",
    "Listener",
    "Log",
    "Settings",
    "Tenant",
    "Tls",
    "Upstream",
    "problem_of_ports",
]

PREFIX: Final = "SESSION_GATEWAY_"
"""Of the environment's variables."""

_TENANT: Final = f"^{TENANT_PATTERN}$"

_WITHOUT_REDIS: Final = {"none", "memory"}
"""What `cache.backend` may be besides a URL."""

_WILDCARDS: Final = {"0.0.0.0", "::"}  # noqa: S104 - for comparison
"""Addresses that mean all of their family."""

_host_name: Final = re.compile(r"[0-9A-Za-z._-]*").fullmatch
_origin: Final = re.compile(r"(?!http:.*:80$|https:.*:443$)https?://([a-z0-9.-]+|\[[0-9a-f:]+\])(:[1-9]\d*)?").fullmatch
"""Browsers leave out a port that the scheme has by itself (RFC 6454, 6.2)."""


def _check_path(path: Path) -> Path:
    if "\0" in str(path):
        raise ValueError("holds a NUL, which the name of a file cannot")
    return path


File: TypeAlias = Annotated[Path, AfterValidator(_check_path)]
Seconds: TypeAlias = Annotated[float, Field(gt=0, le=3600)]
Port: TypeAlias = Annotated[int, Field(ge=0, le=65535)]
CallsPerSecond: TypeAlias = Annotated[float, Field(ge=0, le=1e6)]
TenantOrAll: TypeAlias = Annotated[str, Field(pattern=rf"^({TENANT_PATTERN}|\*)$")]
CallerName: TypeAlias = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]


class ConfigurationError(Exception):
    """The settings cannot be used. `problems` has one line for each problem, without any values."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class _Section(BaseModel):
    # Pydantic could read the docstrings under fields, but takes 0.1 s at every start to find them in the source.
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=True,
        defer_build=True,
    )


class Listener(_Section):
    """An address and port to listen on."""

    host: str = "127.0.0.1"
    """IP address or host name to listen on. `0.0.0.0` means all IPv4 addresses, `::` all IPv6 addresses. With the
    default, only this machine can connect."""
    port: Port = 0
    """TCP port. 0 chooses a free one."""

    @field_validator("host")
    @classmethod
    def _check_host(cls, host: str) -> str:
        with suppress(ValueError):
            ip_address(host)
            return host
        with suppress(UnicodeError):  # as sockets do, which report errors less clearly
            if _host_name(host.encode("idna").decode("ascii")):
                return host
        raise ValueError("must be an IP address or the name of a host, without scheme, port or brackets")

    @property
    def on_loopback(self) -> bool:
        """Whether no other machine can reach it. A name may mean any address, except `localhost`."""
        try:
            address = ip_address(self.host)
        except ValueError:
            return self.host.lower() == "localhost"
        return (getattr(address, "ipv4_mapped", None) or address).is_loopback

    def meets(self, other: Listener) -> bool:
        """Whether both listen at the same address, if their ports are equal. IPv6 is separate: see `claim`."""
        hosts = {_resolved(self.host), _resolved(other.host)}
        of_one_family = (":" in self.host) == (":" in other.host)
        return len(hosts) == 1 or (of_one_family and not hosts.isdisjoint(_WILDCARDS))


def _resolved(host: str) -> str:
    """A host in its canonical form. Names other than `localhost` are not resolved."""
    known = {"": "0.0.0.0", "localhost": "127.0.0.1"}.get(host.lower(), host.lower())  # noqa: S104 - as bind(2) has it
    try:
        return str(ip_address(known))
    except ValueError:
        return known


def problem_of_ports(listeners: Mapping[str, Listener]) -> str | None:
    """The problem if two listeners, given by their sections' names, have the same port; otherwise None.

    The doors share their ports, so that one gateway can replace another: with the same port for two doors of one
    process, the kernel would spread connections over both.
    """
    for (first, one), (second, other) in combinations(listeners.items(), 2):
        if one.port and one.port == other.port and one.meets(other):
            return f"{second}.port: must differ from {first}.port, as both listen at the same address"
    return None


class Tls(_Section):
    """TLS. When the files change, new connections use the new ones; no restart is needed."""

    certificate_file: File
    """PEM file with the certificate, followed by any intermediate certificates."""
    key_file: File
    """PEM file with the private key of the certificate. It must not be encrypted."""

    @property
    def files(self) -> CertificateFiles:
        """All of them."""
        return CertificateFiles(self.certificate_file, self.key_file)

    @model_validator(mode="after")
    def _check_files(self) -> Self:
        try:
            load_certificate(self.files)
        except CertificateError as error:
            raise ValueError(str(error)) from None
        return self


class GrpcTls(Tls):
    """TLS of the gRPC door, optionally mutual."""

    client_ca_file: File | None = None
    """PEM file with CA certificates. If it is set, every client must present a certificate issued by one of these CAs,
    even if it also sends an API key or a JWT. What such clients may do is set in `access.certificates`."""

    @property
    def files(self) -> CertificateFiles:
        """All of them."""
        return CertificateFiles(self.certificate_file, self.key_file, self.client_ca_file)


class Connections(_Section):
    """Limits for gRPC connections. The defaults suit most deployments."""

    max_number: int = Field(default=1_000, ge=1)
    """Maximum number of open connections, per process. Further ones are closed at once."""
    max_age: Seconds = 20.0
    """Age at which a connection is closed, give or take 10%. The client reconnects, possibly to another gateway, and
    sees the current certificate. No call is lost, except that one refused for its size may end with UNAVAILABLE just
    then, and that connect-node does not repeat by itself what it has not sent. Keep this plus 10% below
    `shutdown.grace`: otherwise calls that arrive just as the gateway stops may be cancelled."""
    max_age_grace: Seconds = 30.0
    """Time that calls in progress get to finish on a connection that has reached `max_age`. Values below `grpc.budget`
    are raised to it."""
    max_idle: Seconds = 600.0
    """A connection without a call is closed after this time."""
    keepalive_time: Annotated[float, Field(ge=1, le=3600)] = 60.0
    """If nothing has arrived from a client for this long, the gateway sends it a keepalive ping."""
    keepalive_timeout: Seconds = 20.0
    """If the ping is not answered within this time, the connection is closed."""


class Retries(_Section):
    """Retries of reads, and of writes that upstream did not start on.

    If the answer to a write is lost, the session is read back instead.
    """

    max_attempts: int = Field(default=3, ge=1, le=10)
    """Maximum number of attempts for one request, including the first. 1 turns retries off."""
    budget: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Retries allowed, as a share of all requests (0.1 is 10%), so that retries do not make an outage worse."""
    min_per_second: Annotated[float, Field(ge=0, le=1000)] = 1.0
    """Retries per second that are allowed in addition to `budget`, so that a gateway with few requests can retry
    too."""


class CircuitBreaker(_Section):
    """The circuit breaker: while upstream keeps failing, calls fail at once instead of waiting for it."""

    enabled: bool = True
    """Turn the circuit breaker on."""
    failure_rate: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of calls within `window` that must fail for the breaker to open (0.5 is half). A 5xx, a broken connection,
    a timeout and a slow call count as failures."""
    min_calls: int = Field(default=20, ge=1, le=100_000)
    """The breaker does not open while there are fewer calls than this within `window`. If `upstream.max_concurrent` is
    lower, that many are enough (but never one): while upstream hangs, not many more can end."""
    window: Seconds = 10.0
    """How far back calls are counted."""
    slow_call: Seconds = 4.0
    """A call that takes this long counts as a failure. Never more than 90% of `upstream.timeout`."""
    open_for: Seconds = 2.0
    """How long the breaker stays open before it tries upstream again."""
    probes: int = Field(default=3, ge=1, le=100)
    """How many calls in a row must then succeed before the breaker closes."""


class Upstream(_Section):
    """Emporix's REST API."""

    base_url: HttpUrl = HttpUrl("https://api.emporix.io")
    """URL of the API, `https://` or `http://`, with a path if it has one."""
    timeout: Seconds = 5.0
    """Longest time for one request to upstream, from connecting to the end of the answer. If the caller's deadline
    comes sooner, it applies instead."""
    ca_file: File | None = None
    """PEM file with CA certificates to trust in addition to the system's. From Python 3.13 on (the image has 3.14),
    these certificates, and those that they issued, must conform to RFC 5280 (ssl.VERIFY_X509_STRICT)."""
    http2: bool = False
    """Use HTTP/2 over TLS if upstream offers it. Needs `pip install 'session-gateway[http2]'`. One connection then
    carries up to a hundred calls at a time, but each call costs three to six times the CPU. Turn it on only if upstream
    wants few connections."""
    proxy: SecretStr | None = None
    """URL of an HTTP proxy for all connections to upstream: `http://[user:password@]host[:port]`. The gateway connects
    through it by `CONNECT`."""
    max_concurrent: int = Field(default=256, ge=1, le=10_000)
    """Maximum number of calls to upstream in progress at a time, and so of connections, per process. Set it near the
    number of calls that upstream can work on at a time, divided by the number of processes: then most callers still
    get an answer when upstream is slow."""
    max_queued: Annotated[int, Field(ge=0, le=100_000)] = 256
    """How many calls may wait while `max_concurrent` are in progress, per process. Further ones are rejected at
    once."""
    max_queue_wait: Annotated[float, Field(ge=0, le=60)] = 0.5
    """Longest time that a call waits in this queue before it is rejected."""
    max_answer: int = Field(default=2_097_152, ge=65_536, le=10_485_760)
    """Largest session context that is read, in bytes of JSON; most have a few KB. Upstream itself allows 10 MB, which
    any shopper may use up; to decode as much takes up to 0.3 s and 250 MB. A larger one becomes the error
    UPSTREAM_MALFORMED."""
    retries: Retries = Retries()
    breaker: CircuitBreaker = CircuitBreaker()
    lazy_tokens: bool = False
    """Request a tenant's token only when it is first needed. If false, all tokens are requested at startup, and the
    gateway is not ready until it has had one for every tenant. Turn it on if there are very many tenants."""

    @field_validator("base_url")
    @classmethod
    def _check_base_url(cls, url: HttpUrl) -> HttpUrl:
        if url.username or url.password or url.query or url.fragment:
            raise ValueError("must be http:// or https:// with host[:port][/path], and nothing else")
        return url

    @field_validator("ca_file")
    @classmethod
    def _check_ca_file(cls, file: Path | None) -> Path | None:
        if file is not None:
            try:
                ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(file)
            except OSError as error:  # ssl's errors are such
                raise ValueError(f"holds no certificates of CAs that can be read: {error.strerror}") from None
        return file

    @field_validator("proxy")
    @classmethod
    def _check_proxy(cls, proxy: SecretStr | None) -> SecretStr | None:
        if proxy is not None:
            Proxy.of(proxy)
        return proxy


class Tenant(_Section):
    """A tenant, and the gateway's OAuth client for it."""

    client_id: str = Field(min_length=1)
    """The OAuth client id. White space around it is ignored."""
    client_secret: SecretStr = Field(min_length=1)
    """The OAuth client secret. White space around it is ignored. To read it from a file, set `client_secret_file`
    instead."""
    client_secret_file: File | None = None
    """File that contains only the client secret."""
    cache: bool = True
    """Allow this tenant's session contexts to be cached."""

    @field_validator("client_id", "client_secret", mode="before")
    @classmethod
    def _strip(cls, value: object) -> object:
        return value.strip() if isinstance(value, str) else value  # a Secret of Kubernetes may end with a newline

    @model_validator(mode="before")
    @classmethod
    def _read_secret(cls, values: object) -> object:
        if not isinstance(values, dict) or (path := values.get("client_secret_file")) is None:
            return values
        if "client_secret" in values:
            raise ValueError("give client_secret or client_secret_file, not both")
        try:
            secret = _check_path(Path(str(path))).read_text("utf-8-sig").strip()
        except OSError as error:
            raise ValueError(f"client_secret_file cannot be read: {error.strerror}") from None
        except UnicodeDecodeError:
            raise ValueError("client_secret_file cannot be read: not UTF-8") from None
        except ValueError as error:
            raise ValueError(f"client_secret_file {error}") from None
        if not secret:
            raise ValueError(f"client_secret_file is empty: {path}")
        return {**values, "client_secret": secret}


class GraphQL(Listener):
    """The GraphQL door, at `/graphql`."""

    port: Port = 8000
    """TCP port. 0 chooses a free one."""
    playground: bool = False
    """Serve GraphiQL to browsers."""
    introspection: bool = False
    """Allow introspection queries. If false, error messages do not suggest names from the schema either."""
    budget: Seconds = 10.0
    """Longest time for one request, counted from its headers."""
    max_body: int = Field(default=1_048_576, ge=1024)
    """Largest request body, in bytes."""
    max_answer: int = Field(default=4_194_304, ge=1024)
    """Largest answer, in bytes (approximate). A larger one becomes the error ANSWER_TOO_LARGE; its writes have been
    applied all the same."""
    max_connections: int = Field(default=1_000, ge=1)
    """Maximum number of open connections, per process. Further ones are closed at once."""
    limits: Literal["enforce", "measure"] = "enforce"
    """What happens to a document that exceeds one of the limits from `max_length` to `max_cost`: `enforce` refuses it,
    `measure` only logs it (`limit_exceeded`). Use `measure` to find out which limits your frontends need."""
    max_length: int = Field(default=16_384, ge=256)
    """Maximum length of a document, in characters."""
    max_tokens: int = Field(default=1000, ge=10)
    """Maximum number of tokens in a document, and of comments."""
    max_depth: int = Field(default=16, ge=1, le=200)
    """Maximum number of levels of nested fields in an operation."""
    max_root_fields: int = Field(default=20, ge=1)
    """Maximum number of root fields in an operation."""
    max_aliases: int = Field(default=30, ge=0)
    """Maximum number of fields with an alias in an operation."""
    max_directives: int = Field(default=32, ge=0)
    """Maximum number of directives in an operation."""
    max_selections: int = Field(default=300, ge=1)
    """Maximum number of fields and fragments in the operations of a document. A fragment counts each time that it is
    spread."""
    max_values: int = Field(default=200, ge=0)
    """Maximum number of entries of lists and objects that a document spells out. Values in variables do not count."""
    max_repeats: int = Field(default=1000, ge=0)
    """Maximum number of pairs of fields with the same name, or of fragments, in one place."""
    max_cost: int = Field(default=5000, ge=1)
    """Maximum cost of an operation: 1 for each field of the answer, 10 for each session context read, 50 for each
    write, and 1 for each entry of a list that a variable (of type `[String]`, for example) brings into a JSON literal.
    """
    documents_memory: int = Field(default=33_554_432, ge=4_194_304)
    """Memory for parsed documents that are kept for reuse, in bytes (approximate)."""
    documents_file: File | None = None
    """Manifest of trusted documents: a JSON object that maps SHA-256 hashes to documents, or Apollo's manifest."""
    documents_mode: Literal["open", "trusted"] = "open"
    """`open` executes all documents, `trusted` only those in `documents_file`. Use `trusted` if all clients are your
    own."""
    cors_origins: tuple[str, ...] = ()
    """Origins of web pages whose scripts may call the gateway (CORS), for example `https://shop.example`."""
    tls: Tls | None = None
    """Without this section the door uses plain HTTP. Do that only on loopback, or behind a proxy with TLS."""

    @model_validator(mode="after")
    def _check_documents(self) -> Self:
        if self.documents_mode == "trusted" and self.documents_file is None:
            raise ValueError("documents_mode trusted needs documents_file")
        return self

    @model_validator(mode="after")
    def _check_origins(self) -> Self:
        if not all(map(_origin, self.cors_origins)):
            raise ValueError(
                "cors_origins must be origins as browsers send them: "
                "https://shop.example, no path, no *, and no :443 for https or :80 for http"
            )
        return self


class Grpc(Listener):
    """The gRPC door."""

    port: Port = 50051
    """TCP port. 0 chooses a free one."""
    budget: Seconds = 10.0
    """Longest time for one call, also if the caller sets a later deadline or none."""
    max_message: int = Field(default=1_048_576, ge=1024)
    """Largest request message, in bytes."""
    max_answer: int = Field(default=4_194_304, ge=1024)
    """Largest answer, in bytes. The default is what gRPC clients accept by default. A larger answer to a read becomes
    RESOURCE_EXHAUSTED; from the answer to a write, the session context is left out."""
    max_metadata: int = Field(default=16_384, ge=2048, le=1_048_576)
    """Maximum metadata of one call, in bytes: names and values, plus 32 for each entry (RFC 9113, section 6.5.2)."""
    max_calls: int = Field(default=1_000, ge=1)
    """Maximum number of calls in progress at a time, per process. Further ones get RESOURCE_EXHAUSTED, or CANCELLED
    if 3,000 have come so fast that they still wait to be begun with or refused. Health checks count too. At most half
    of all calls may be health watches; a client that checks health keeps one open on each connection."""
    max_calls_per_connection: int = Field(default=100, ge=1)
    """Maximum number of calls in progress at a time on one connection. Clients hold back further ones until one
    ends."""
    reflection: bool = False
    """Serve gRPC reflection, so that tools like grpcurl can list the services."""
    connections: Connections = Connections()
    tls: GrpcTls | None = None
    """Without this section the door uses HTTP/2 without TLS. Do that only on loopback, or behind a proxy with TLS."""


class Admin(Listener):
    """The listener for operators, with `/livez`, `/readyz` and `/metrics`. It needs no credential: keep it private."""

    port: Port = 9000
    """TCP port. 0 chooses a free one."""


class Sandbox(Listener):
    """The stand-in for upstream that `session-gateway dev` starts. Other commands ignore this section."""

    port: Port = 8001
    """TCP port. 0 chooses a free one."""


class Reads(_Section):
    """Reading several session contexts in one call."""

    max_batch: int = Field(default=100, ge=1, le=1000)
    """Maximum number of session ids in one `sessionContexts` or `BatchGetSessionContexts`."""
    batch_concurrency: int = Field(default=10, ge=1, le=100)
    """How many of these are requested from upstream at a time."""


class Writes(_Section):
    """Writing session contexts."""

    max_attempts: int = Field(default=5, ge=1, le=100)
    """Maximum number of attempts for one write, including the first, if other writers come first or answers are
    lost."""
    max_document: int = Field(default=1_048_576, ge=1024, le=10_485_760)
    """Largest session context that may be written, in bytes of JSON. Upstream itself allows 10 MB."""


class Shutdown(_Section):
    """How the gateway stops after SIGTERM or SIGINT.

    Whoever stops it must wait longer than `delay` and `grace` together before killing it: `stop_grace_period` in
    Compose, `terminationGracePeriodSeconds` in Kubernetes.
    """

    delay: Annotated[float, Field(ge=0, le=3600)] = 0.0
    """For this time the gateway serves on as before, but `/readyz` and gRPC health say that it is not ready. Set it to
    the time that your load balancer takes to notice; 5 in Kubernetes."""
    grace: Annotated[float, Field(ge=0, le=3600)] = 25.0
    """Longest time that requests in progress get to finish after that. Busy gRPC connections are also kept open until
    they reach `grpc.connections.max_age`, so `grace` should be longer than that plus 10%."""


class Cache(_Section):
    """The read-through cache for session contexts."""

    backend: SecretStr = SecretStr("none")
    """`none` (no cache), `memory` (of one process), or the URL of a Redis or Valkey that all gateways share:
    `redis://[user:password@]host[:port][/database]`, also `valkey://`, or with TLS `rediss://` and `valkeys://`.
    Percent-encode special characters in user and password, for example `/` as `%2F`. With TLS, PEM files can be named
    in the query: `?ssl_ca_certs=FILE`, `&ssl_certfile=FILE`, `&ssl_keyfile=FILE`."""
    cluster: bool = False
    """Set this if `backend` is a server of a Redis or Valkey cluster. The others are found through it."""
    memory_tier: bool = False
    """Keep a cache in the memory of each process in front of Redis. Redis tells it of changes."""
    max_silence: Annotated[float, Field(ge=1, le=3600)] = 2.0
    """If a process has heard nothing from Redis for this long, it stops using its `memory_tier`. So entries there can
    be out of date for at most this time."""
    prefix: str = Field(default="session-gateway:", min_length=1, max_length=100)
    """Prefix of all keys and channels in Redis. Change it if several installations share one Redis."""
    budget: Annotated[float, Field(gt=0, le=5)] = 0.05
    """Longest time for one Redis operation. If Redis does not answer by then, the gateway goes on without it, and asks
    upstream."""
    max_entries: int = Field(default=10_000, ge=1)
    """Maximum number of entries kept in memory, per process. Above that, the least recently used entry is dropped."""
    max_memory: int = Field(default=67_108_864, ge=8_388_608)
    """Maximum memory for these entries, in bytes (estimated), per process; above that, likewise. Shoppers' own sessions
    (`own_sessions`) may take as much again."""
    ttl: Seconds = 5.0
    """How long an entry is served without asking upstream again. Longer means less load on upstream, but changes made
    directly there are seen later."""
    stale_while_revalidate: Annotated[float, Field(ge=0, le=86_400)] = 0.0
    """For this time after `ttl`, an entry is still served at once while it is refreshed in the background (RFC 5861). 0
    turns this off."""
    stale_if_error: Annotated[float, Field(ge=0, le=86_400)] = 0.0
    """For this time after `ttl`, an entry is served if upstream fails (RFC 5861). 0 turns this off."""
    missing_ttl: Annotated[float, Field(ge=0, le=3600)] = 0.0
    """How long the gateway remembers that a session has no context. With 0 it asks upstream each time."""
    own_sessions: bool = False
    """Also cache shoppers' own sessions. They stay in the memory of each process, each under a keyed hash of the
    shopper's token. A token that upstream has revoked is answered from there for as long as its entry is served."""

    @property
    def in_memory(self) -> bool:
        """Whether the backend is the memory of the process only."""
        return self.backend.get_secret_value() == "memory"

    @property
    def in_redis(self) -> bool:
        """Whether the backend is a Redis, which all processes share."""
        return self.backend.get_secret_value() not in _WITHOUT_REDIS

    @field_validator("backend")
    @classmethod
    def _check_backend(cls, backend: SecretStr) -> SecretStr:
        if backend.get_secret_value() not in _WITHOUT_REDIS:
            check_redis_url(backend)
        return backend

    @model_validator(mode="after")
    def _check_what_needs_redis(self) -> Self:
        if not self.in_redis and (self.cluster or self.memory_tier):
            raise ValueError("cluster and memory_tier need a backend of Redis or Valkey")
        if self.cluster and redis_database(self.backend):
            raise ValueError("cluster needs a backend without a number after the host, as a cluster has one database")
        return self


class Limited(_Section):
    """A rate limit."""

    rate: CallsPerSecond | None = None
    """Calls per second, for each caller and tenant. 0 means no limit. If left out, `rate_limits` applies."""
    burst: Annotated[int, Field(ge=1)] | None = None
    """Calls that may come at once. If left out, as many as `rate` allows in one second."""

    @model_validator(mode="after")
    def _check_burst(self) -> Self:
        if self.burst is not None and self.rate is None:
            raise ValueError("burst needs rate beside it")
        return self


class RateLimits(_Section):
    """Rate limits (token buckets). They are counted in Redis if `cache.backend` is one, otherwise in each process."""

    rate: CallsPerSecond = 0.0
    """Calls per second, for each caller and tenant. 0 means no limit. A batch counts once for each session that it
    reads."""
    burst: Annotated[int, Field(ge=1)] | None = None
    """Calls that may come at once. If left out, as many as `rate` allows in one second."""
    own_rate: CallsPerSecond = 0.0
    """Calls per second for shoppers' own sessions, for each shopper's token, always counted in each process. 0 means no
    limit."""
    own_burst: Annotated[int, Field(ge=1)] | None = None
    """Calls that may come at once. If left out, as many as `own_rate` allows in one second."""


class _Grant(Limited):
    """A caller's permissions."""

    permissions: tuple[Literal["sessions:read", "sessions:write"], ...] = Field(min_length=1)
    """`sessions:read`, `sessions:write`, or both."""
    tenants: tuple[TenantOrAll, ...] = Field(min_length=1)
    """Tenants whose sessions the caller may use. `*` means all."""


class AccessKey(_Grant):
    """A caller with an API key. `session-gateway keys new NAME` prints a key, and its entry here."""

    hash: str = Field(pattern=r"^sha256:[0-9a-f]{32}:[0-9a-f]{64}$")
    """Salted hash of the key. The key itself is stored nowhere."""


class AccessCertificate(_Grant):
    """A caller with a client certificate."""


class AccessIssuer(Limited):
    """An issuer of JWTs that callers may use."""

    issuer: str = Field(min_length=1)
    """Required value of the claim `iss`. Unless `jwks_url` is set, this must be a URL: its OIDC discovery document says
    where the signing keys are."""
    audience: str = Field(min_length=1)
    """Required value of the claim `aud`."""
    jwks_url: HttpUrl | None = None
    """URL of the issuer's signing keys (JWKS). They are fetched directly: `upstream.proxy` and `upstream.ca_file` do
    not apply. To trust an internal CA for them, set OpenSSL's variable SSL_CERT_FILE."""
    plain_http: bool = False
    """Allow signing keys to be fetched from another machine without TLS. Insecure: anyone on the network path could
    then forge tokens."""
    algorithms: tuple[
        Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"],
        ...,
    ] = Field(default=("RS256", "ES256"), min_length=1)
    """Accepted signature algorithms. Only asymmetric ones are possible."""
    leeway: int = Field(default=30, ge=0, le=300)
    """How many seconds the issuer's clock and this machine's may differ."""
    permissions_claim: str = "scope"
    """Claim with the caller's permissions: a list, or words separated by spaces."""
    permissions: dict[str, Literal["sessions:read", "sessions:write"]] = {
        "sessions:read": "sessions:read",
        "sessions:write": "sessions:write",
    }
    """Maps the words in `permissions_claim` to permissions of the gateway. Other words are ignored."""
    tenants_claim: str | None = None
    """Claim with the tenants whose sessions the caller may use. Set either this or `tenants`."""
    tenants: tuple[TenantOrAll, ...] = ()
    """Tenants for all tokens of this issuer. `*` means all."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.tenants_claim is None) == (not self.tenants):
            raise ValueError("give either tenants_claim or tenants")
        source = self.issuer if self.jwks_url is None else str(self.jwks_url)
        if not re.match(r"https?://", source):
            raise ValueError("issuer must be a URL, unless jwks_url is given")
        if not (self.plain_http or is_safe(source)):
            raise ValueError("keys must come over https://, unless plain_http is set")
        return self


class Access(_Section):
    """Who may call.

    If nothing is set here, everybody may, and `serve` listens on loopback only, unless started with `--insecure`.
    """

    keys: dict[CallerName, AccessKey] = {}
    """NAME is the name of the caller, in the log too."""
    issuers: dict[CallerName, AccessIssuer] = {}
    """Each must have a different `issuer`."""
    certificates: dict[str, AccessCertificate] = {}
    """gRPC only. NAME is the certificate's subject alternative name: `spiffe://...`, or a DNS name. Needs
    `grpc.tls.client_ca_file`."""

    @model_validator(mode="after")
    def _check_issuers(self) -> Self:
        if len({each.issuer for each in self.issuers.values()}) < len(self.issuers):
            raise ValueError("two issuers have the same value of issuer")
        return self

    @property
    def configured(self) -> bool:
        """Whether any callers are configured."""
        return bool(self.keys or self.issuers or self.certificates)


class Log(_Section):
    """The log, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Lowest level to log."""
    format: Literal["auto", "json", "console"] = "auto"
    """`auto` writes readable text to a terminal, and JSON otherwise."""
    access: bool = True
    """Write a line of level `info` for each request."""


class Telemetry(_Section):
    """OpenTelemetry."""

    traces: bool = False
    """Send traces. Needs `pip install 'session-gateway[otel]'`. OpenTelemetry's own environment variables say where to
    send them, and how many: `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_TRACES_SAMPLER`, `OTEL_SERVICE_NAME` and others."""


class Settings(BaseSettings):
    """All settings."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=True,
        defer_build=True,
    )

    workers: Annotated[int, Field(ge=1, le=256)] | None = None
    """Number of processes that share the ports; the same as `serve --workers`. If left out, one for each core that the
    gateway may use, or one with `cache.backend = "memory"`. Limits count per process, unless they are kept in Redis."""
    upstream: Upstream = Upstream()
    tenants: dict[Annotated[str, Field(pattern=_TENANT)], Tenant] = Field(min_length=1)
    graphql: GraphQL = GraphQL()
    grpc: Grpc = Grpc()
    admin: Admin = Admin()
    sandbox: Sandbox = Sandbox()
    reads: Reads = Reads()
    writes: Writes = Writes()
    cache: Cache = Cache()
    access: Access = Access()
    rate_limits: RateLimits = RateLimits()
    log: Log = Log()
    telemetry: Telemetry = Telemetry()
    shutdown: Shutdown = Shutdown()

    @property
    def limits_rates(self) -> bool:
        """Whether any caller has a rate limit."""
        access = self.access
        entries = [*access.keys.values(), *access.issuers.values(), *access.certificates.values()]
        return bool(self.rate_limits.rate or any(each.rate for each in entries))

    @property
    def longest_call(self) -> float:
        """Seconds that a call may take, at either door."""
        return max(self.graphql.budget, self.grpc.budget)

    @model_validator(mode="after")
    def _check_workers(self) -> Self:
        if (self.workers or 1) > 1 and self.cache.in_memory:
            raise ValueError(
                "workers: must be 1 with cache.backend memory, since workers share no memory: one would serve what"
                " another has changed. For several, set cache.backend to a Redis or Valkey"
            )
        return self

    @model_validator(mode="after")
    def _check_sizes(self) -> Self:
        if self.writes.max_document > self.upstream.max_answer:
            raise ValueError("writes.max_document: must be upstream.max_answer or less, or what is written is not read")
        return self

    @model_validator(mode="after")
    def _check_ports(self) -> Self:
        if problem := problem_of_ports({"graphql": self.graphql, "grpc": self.grpc, "admin": self.admin}):
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _check_certificates(self) -> Self:
        if self.access.certificates and (self.grpc.tls is None or self.grpc.tls.client_ca_file is None):
            raise ValueError("access.certificates: needs grpc.tls.client_ca_file, or no client shows a certificate")
        return self
