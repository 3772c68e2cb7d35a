"""Every setting there is: its default, what it may be, and what it is for. `gateway.configuration` reads them."""

from __future__ import annotations

import re
import ssl
from ipaddress import ip_address
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

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
"""Addresses that stand for all of their family."""

Seconds: TypeAlias = Annotated[float, Field(gt=0, le=3600)]
Port: TypeAlias = Annotated[int, Field(ge=0, le=65535)]
CallsPerSecond: TypeAlias = Annotated[float, Field(ge=0, le=1e6)]
TenantOrAll: TypeAlias = Annotated[str, Field(pattern=rf"^({TENANT_PATTERN}|\*)$")]
CallerName: TypeAlias = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")]


class ConfigurationError(Exception):
    """The settings cannot be used. `problems` has one line for each thing that is wrong, with no value in it."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class _Section(BaseModel):
    # Pydantic could read the docstrings under fields, but takes 0.1 s of every start to find them in the source.
    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=True,
        defer_build=True,
    )


class Listener(_Section):
    """Where a door listens."""

    host: str = "127.0.0.1"
    """Address to listen on: loopback unless told otherwise."""
    port: Port = 0
    """Port to listen on; 0 takes a free one."""

    @field_validator("host")
    @classmethod
    def _check_host(cls, host: str) -> str:
        try:
            host.encode("idna")  # as sockets do, with less to say of what they cannot
        except UnicodeError:
            raise ValueError("is no address, and no name of a host") from None
        return host

    @property
    def on_loopback(self) -> bool:
        """Whether no other machine can reach it. A name may stand for any address, `localhost` excepted."""
        try:
            address = ip_address(self.host)
        except ValueError:
            return self.host.lower() == "localhost"
        return (getattr(address, "ipv4_mapped", None) or address).is_loopback

    def meets(self, other: Listener) -> bool:
        """Whether both listen at one address, if their ports are the same. IPv6 stands for itself: see `claim`."""
        hosts = {_resolved(self.host), _resolved(other.host)}
        of_one_family = (":" in self.host) == (":" in other.host)
        return len(hosts) == 1 or (of_one_family and not hosts.isdisjoint(_WILDCARDS))


def _resolved(host: str) -> str:
    """A host in the one way of writing it; of other names than `localhost` nobody knows what they stand for."""
    known = {"": "0.0.0.0", "localhost": "127.0.0.1"}.get(host.lower(), host.lower())  # noqa: S104 - as bind(2) has it
    try:
        return str(ip_address(known))
    except ValueError:
        return known


def problem_of_ports(listeners: Mapping[str, Listener]) -> str | None:
    """What is wrong when two listeners, given by their sections' names, would have one port; else None.

    The doors share their ports, so that a gateway can take another's place: the kernel would take two of one process
    for such a pair, and spread connections over both.
    """
    for (first, one), (second, other) in combinations(listeners.items(), 2):
        if one.port and one.port == other.port and one.meets(other):
            return f"{second}.port: must differ from {first}.port, as both listen at the same address"
    return None


class Tls(_Section):
    """TLS of a door. The files are read again when they change, for connections that are made from then on."""

    certificate_file: Path
    """File of its certificate in PEM, and after it those between it and the CA's."""
    key_file: Path
    """File of the certificate's private key in PEM, not encrypted."""

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
    """TLS of the gRPC door, which can be mutual."""

    client_ca_file: Path | None = None
    """File of CAs' certificates in PEM. With it every client has to show a certificate that one of them has issued,
    even if it has an API key or a JWT besides; `access.certificates` tells who they are."""

    @property
    def files(self) -> CertificateFiles:
        """All of them."""
        return CertificateFiles(self.certificate_file, self.key_file, self.client_ca_file)


class Connections(_Section):
    """gRPC's connections. All times are in seconds."""

    max_number: int = Field(default=1_000, ge=1)
    """Connections at a time; further ones are closed at once."""
    max_age: Seconds = 20.0
    """How long one lasts, give or take a tenth. Its client makes another, with the certificates there are by then, and
    maybe to another gateway, and no call is lost; only one that is refused for its size may end with UNAVAILABLE in
    that moment. Where it and a tenth are more than `shutdown.grace`, some may be lost when the gateway stops: gRPC then
    cancels what reaches it in the very moment in which it says GOAWAY."""
    max_age_grace: Seconds = 30.0
    """How long calls on it have after that; never less than `grpc.budget`."""
    max_idle: Seconds = 600.0
    """How long one lasts without a call."""
    keepalive_time: Annotated[float, Field(ge=1, le=3600)] = 60.0
    """A client of which nothing was heard for so long is asked for a sign of life."""
    keepalive_timeout: Seconds = 20.0
    """How long that may take; then its connection is closed."""
    min_ping_interval: Seconds = 30.0
    """How often a client may ask for a sign of life. One that does so more often is told `too_many_pings`."""
    max_ping_strikes: int = Field(default=2, ge=1, le=100)
    """How many times it may do so sooner, before its connection is closed."""
    pings_without_calls: bool = True
    """Whether it may do so while it has no call under way; else it may every two hours."""


class Retries(_Section):
    """Repetitions of reads, and of what upstream has not begun on; lost writes are read back instead."""

    max_attempts: int = Field(default=3, ge=1, le=10)
    """How often one request is sent at most; 1 for no repetition."""
    budget: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Repetitions, as a share of all requests, so that an outage is not made worse."""
    min_per_second: Annotated[float, Field(ge=0, le=1000)] = 1.0
    """Repetitions a second that there may be besides, however few requests there are."""


class CircuitBreaker(_Section):
    """Leaves upstream alone while it keeps failing. All times are in seconds."""

    enabled: bool = True
    """Whether it does."""
    failure_rate: Annotated[float, Field(gt=0, le=1)] = 0.5
    """Share of the calls in the window that have to fail: by a 5xx, a broken connection, a time-out, or slowness."""
    min_calls: int = Field(default=20, ge=1, le=100_000)
    """Calls in the window below which nothing is concluded."""
    window: Seconds = 10.0
    """For how long a call counts."""
    slow_call: Seconds = 4.0
    """A call that takes so long has failed; never more than `upstream.timeout`."""
    open_for: Seconds = 2.0
    """How long upstream is left alone before it is tried again."""
    probes: int = Field(default=3, ge=1, le=100)
    """Calls that have to be well then."""


class Upstream(_Section):
    """The REST API."""

    base_url: HttpUrl = HttpUrl("https://api.emporix.io")
    """Where it is."""
    timeout: Seconds = 5.0
    """Bound of one exchange, in seconds; a caller's deadline that comes sooner bounds it further."""
    ca_file: Path | None = None
    """File of CAs' certificates in PEM that are trusted besides the system's. From Python 3.13 on, which the image has,
    they and what they have issued must be as RFC 5280 says (ssl.VERIFY_X509_STRICT)."""
    http2: bool = False
    """Whether connections that have TLS are by HTTP/2 where upstream has it, with what `session-gateway[http2]`
    installs. One of them does for a hundred calls at a time, of which each costs three to six times the CPU: h2 is
    Python."""
    proxy: SecretStr | None = None
    """`http://[user:password@]host[:port]` of an HTTP proxy through which all connections go, by `CONNECT`."""
    max_concurrent: int = Field(default=256, ge=1, le=10_000)
    """Calls, and connections, at a time in one process. A number near what upstream works on at a time answers most
    callers when it gets slow."""
    max_queued: Annotated[int, Field(ge=0, le=100_000)] = 256
    """Calls that may wait for one of these to end; further ones are turned away at once."""
    max_queue_wait: Annotated[float, Field(ge=0, le=60)] = 0.5
    """How long one waits at most, in seconds, before it is turned away."""
    retries: Retries = Retries()
    breaker: CircuitBreaker = CircuitBreaker()
    lazy_tokens: bool = False
    """Whether a tenant's token is asked for when it is needed first. Else all are asked for at the start, and `/readyz`
    says no until each has been had once."""

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
    """A tenant's client at upstream's token endpoint."""

    client_id: str = Field(min_length=1)
    """Its client id."""
    client_secret: SecretStr = Field(min_length=1)
    """Its client secret. In a file of its own, give `client_secret_file` instead."""
    client_secret_file: Path | None = None
    """File that holds the secret and nothing else; white space around it is dropped."""
    cache: bool = True
    """Whether this tenant's session contexts may be kept in the cache."""

    @model_validator(mode="before")
    @classmethod
    def _read_secret(cls, values: object) -> object:
        if not isinstance(values, dict) or (path := values.get("client_secret_file")) is None:
            return values
        if "client_secret" in values:
            raise ValueError("give client_secret or client_secret_file, not both")
        try:
            secret = Path(str(path)).read_text("utf-8-sig").strip()
        except (OSError, UnicodeDecodeError) as error:
            what = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise ValueError(f"client_secret_file cannot be read: {what}") from None
        if not secret:
            raise ValueError(f"client_secret_file is empty: {path}")
        return {**values, "client_secret": secret}


class GraphQL(Listener):
    """The GraphQL door, at `/graphql`."""

    port: Port = 8000
    """Port to listen on; 0 takes a free one."""
    playground: bool = False
    """Whether a browser gets GraphiQL."""
    introspection: bool = False
    """Whether the schema may be asked for. Without it, errors suggest no names either."""
    budget: Seconds = 10.0
    """Bound of one request, in seconds, from its head on."""
    max_body: int = Field(default=1_048_576, ge=1024)
    """Largest request body, in bytes."""
    max_answer: int = Field(default=4_194_304, ge=1024)
    """Largest answer, in bytes, about. A larger one is ANSWER_TOO_LARGE; what was to be written has been."""
    max_connections: int = Field(default=1_000, ge=1)
    """Connections at a time; further ones are closed at once."""
    limits: Literal["enforce", "measure"] = "enforce"
    """Whether documents beyond the bounds below are refused, or logged and let through."""
    max_length: int = Field(default=16_384, ge=256)
    """Longest document, in characters."""
    max_tokens: int = Field(default=1000, ge=10)
    """Most tokens of a document, and most comments."""
    max_depth: int = Field(default=16, ge=1, le=200)
    """Most levels of fields in an operation."""
    max_root_fields: int = Field(default=20, ge=1)
    """Most fields at the top of an operation."""
    max_aliases: int = Field(default=30, ge=0)
    """Most fields with an alias in an operation."""
    max_directives: int = Field(default=32, ge=0)
    """Most directives in an operation."""
    max_selections: int = Field(default=300, ge=1)
    """Most fields and fragments in a document's operations, fragments counted wherever they are spread."""
    max_values: int = Field(default=200, ge=0)
    """Most entries of lists and objects that they spell out; variables may hold more."""
    max_repeats: int = Field(default=1000, ge=0)
    """Most pairs of fields of one name, or of fragments, at one place."""
    max_cost: int = Field(default=5000, ge=1)
    """Most that an operation may cost: 1 for each field of the answer, 10 for each session context that is read, 50
    for each write."""
    documents_memory: int = Field(default=33_554_432, ge=4_194_304)
    """Memory for documents that are kept ready, in bytes, about."""
    documents_file: Path | None = None
    """Manifest of trusted documents: a JSON object of SHA-256 hashes to documents, or Apollo's manifest."""
    documents_mode: Literal["open", "trusted"] = "open"
    """Whether all documents are executed, or those of the manifest alone."""
    cors_origins: tuple[str, ...] = ()
    """Origins of pages whose scripts may call, for example `https://shop.example`."""

    @model_validator(mode="after")
    def _check_documents(self) -> Self:
        if self.documents_mode == "trusted" and self.documents_file is None:
            raise ValueError("documents_mode trusted needs documents_file")
        if not all(
            re.fullmatch(r"https?://[a-z0-9.\-]+(:\d+)?|https?://\[[0-9a-f:]+\](:\d+)?", each)
            for each in self.cors_origins
        ):
            raise ValueError("cors_origins must be origins as browsers send them: https://shop.example, no path, no *")
        return self

    tls: Tls | None = None
    """Left out, it speaks plain HTTP, for loopback or a proxy that has TLS."""


class Grpc(Listener):
    """The gRPC door."""

    port: Port = 50051
    """Port to listen on; 0 takes a free one."""
    budget: Seconds = 10.0
    """Bound of one call, in seconds, also for a caller that sets no deadline or a later one."""
    max_message: int = Field(default=1_048_576, ge=1024)
    """Largest request message, in bytes."""
    max_answer: int = Field(default=4_194_304, ge=1024)
    """Largest answer, in bytes: by default what gRPC's clients take by default. A larger one is RESOURCE_EXHAUSTED, and
    of a write it is left out what was read back."""
    max_metadata: int = Field(default=16_384, ge=2048, le=1_048_576)
    """Most metadata of one call, in bytes: names, values, and 32 for each (RFC 9113, 6.5.2)."""
    max_calls: int = Field(default=1_000, ge=1)
    """Calls under way at a time, of all callers; a further one is RESOURCE_EXHAUSTED. Health checks count too, and
    half of all may be watches of health, of which each client that checks it has one on each connection."""
    max_calls_per_connection: int = Field(default=100, ge=1)
    """Calls under way at a time on one connection; a client keeps further ones waiting."""
    reflection: bool = False
    """Whether the services describe themselves to whoever asks, as grpcurl does."""
    connections: Connections = Connections()
    tls: GrpcTls | None = None
    """Left out, it speaks HTTP/2 in plain text, for loopback or a proxy that has TLS."""


class Admin(Listener):
    """The operator's listener: `/livez`, `/readyz`, `/metrics`."""

    port: Port = 9000
    """Port to listen on; 0 takes a free one."""


class Sandbox(Listener):
    """The stand-in for upstream, in `dev` alone."""

    port: Port = 8001
    """Port to listen on; 0 takes a free one."""


class Reads(_Section):
    """How several session contexts are read at once."""

    max_batch: int = Field(default=100, ge=1, le=1000)
    """Most ids in one `sessionContexts` or `BatchGetSessionContexts`."""
    batch_concurrency: int = Field(default=10, ge=1, le=100)
    """How many of them are read at a time."""


class Writes(_Section):
    """How writes are made safe."""

    max_attempts: int = Field(default=5, ge=1, le=100)
    """How often one write is sent at most, when other writers come first or answers are lost."""
    max_document: int = Field(default=1_048_576, ge=1024, le=10_485_760)
    """Largest document that is written, in bytes of JSON. Upstream's own bound is 10 MB."""


class Shutdown(_Section):
    """What happens when the gateway is told to stop."""

    delay: Annotated[float, Field(ge=0, le=3600)] = 0.0
    """Seconds for which everything is served as before, after `/readyz` and health have begun to say no: as long as
    load balancers take to hear of it, 5 in Kubernetes."""
    grace: Annotated[float, Field(ge=0, le=3600)] = 25.0
    """Seconds that requests under way get after that, and gRPC's connections, as long as calls come by them, to end of
    age: `grpc.connections.max_age` and a tenth. Whoever stops the gateway waits for longer than delay and grace."""


class Cache(_Section):
    """The read-through cache. All times are in seconds."""

    @property
    def in_memory(self) -> bool:
        """Whether the backend is the memory of each process, and nothing else."""
        return self.backend.get_secret_value() == "memory"

    @property
    def in_redis(self) -> bool:
        """Whether the backend is a Redis, which all processes have in common."""
        return self.backend.get_secret_value() not in _WITHOUT_REDIS

    backend: SecretStr = SecretStr("none")
    """`none`, `memory`, or the URL of a Redis or Valkey: `redis://`, `valkey://`, or with TLS `rediss://`, `valkeys://`,
    and then `[user:password@]host[:port][/number]`. What is special in user and password is percent-encoded: `/` is
    `%2F`. With TLS, `?ssl_ca_certs=FILE` names a file in PEM, and so do `ssl_certfile` and `ssl_keyfile`."""
    cluster: bool = False
    """Whether the URL is of one server of a cluster."""
    memory_tier: bool = False
    """Whether a small memory stands in front of Redis, kept in step by its messages."""
    max_silence: Annotated[float, Field(ge=1, le=3600)] = 2.0
    """The memory in front of Redis is not used when nothing has been heard for so long: the bound on its staleness."""
    prefix: str = Field(default="session-gateway:", min_length=1, max_length=100)
    """Of all keys in Redis."""
    budget: Annotated[float, Field(gt=0, le=5)] = 0.05
    """Bound of one operation of Redis; past it upstream is asked."""
    max_entries: int = Field(default=10_000, ge=1)
    """Entries in memory; past that, the one that was used least recently goes."""
    max_memory: int = Field(default=67_108_864, ge=8_388_608)
    """Memory of each process for these entries, in bytes, about; past that, the same. Shoppers' own sessions
    (`own_sessions`) may take as much again."""
    ttl: Seconds = 5.0
    """How long an entry is fresh."""
    stale_while_revalidate: Annotated[float, Field(ge=0, le=86_400)] = 0.0
    """For so long after that it is served at once while one refresh runs behind (RFC 5861)."""
    stale_if_error: Annotated[float, Field(ge=0, le=86_400)] = 0.0
    """For so long after that it is served when upstream fails (RFC 5861)."""
    missing_ttl: Annotated[float, Field(ge=0, le=3600)] = 0.0
    """How long it is remembered that a session has no context; 0 for not at all, as one may come at any moment."""
    own_sessions: bool = False
    """Whether shoppers' own sessions are kept too, each under a keyed hash of the token, in this process alone."""

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
    """How many calls a caller may make."""

    rate: CallsPerSecond | None = None
    """Calls a second, of each caller and tenant; 0 for no bound. Left out, `rate_limits` decides."""
    burst: Annotated[int, Field(ge=1)] | None = None
    """Calls at once; left out, as many as in a second."""

    @model_validator(mode="after")
    def _check_burst(self) -> Self:
        if self.burst is not None and self.rate is None:
            raise ValueError("burst needs rate beside it")
        return self


class RateLimits(_Section):
    """How many calls a caller may make: token buckets, in Redis if the cache is there, else in each process."""

    rate: CallsPerSecond = 0.0
    """Calls a second, of each caller and tenant; 0 for no bound. A batch counts as many as it reads."""
    burst: Annotated[int, Field(ge=1)] | None = None
    """Calls at once; left out, as many as in a second."""
    own_rate: CallsPerSecond = 0.0
    """Calls a second about shoppers' own sessions, of each Emporix token, in each process; 0 for no bound."""
    own_burst: Annotated[int, Field(ge=1)] | None = None
    """Calls at once; left out, as many as in a second."""


class _Grant(Limited):
    """What a caller may do."""

    permissions: tuple[Literal["sessions:read", "sessions:write"], ...] = Field(min_length=1)
    """Any of `sessions:read` and `sessions:write`."""
    tenants: tuple[TenantOrAll, ...] = Field(min_length=1)
    """The tenants it may do it for; `*` for all."""


class AccessKey(_Grant):
    """A caller with an API key. `session-gateway keys new NAME` prints one, and this entry for it."""

    hash: str = Field(pattern=r"^sha256:[0-9a-f]{32}:[0-9a-f]{64}$")
    """The key's salted hash. The key itself is nowhere."""


class AccessCertificate(_Grant):
    """A caller with a client certificate."""


class AccessIssuer(Limited):
    """An issuer of callers' JWTs."""

    issuer: str = Field(min_length=1)
    """Value of the claim `iss`; its OIDC discovery document tells where the keys are, unless `jwks_url` does."""
    audience: str = Field(min_length=1)
    """Value of the claim `aud`."""
    jwks_url: HttpUrl | None = None
    """Where its keys are."""
    plain_http: bool = False
    """Whether they may come over HTTP without TLS, from another machine: who is on the way could make tokens then."""
    algorithms: tuple[
        Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"],
        ...,
    ] = Field(default=("RS256", "ES256"), min_length=1)
    """Signatures that are taken; there are none among them whose key would have to be shared."""
    leeway: int = Field(default=30, ge=0, le=300)
    """Seconds that its clock and ours may differ."""
    permissions_claim: str = "scope"
    """Claim that holds permissions, a list or words with spaces between."""
    permissions: dict[str, Literal["sessions:read", "sessions:write"]] = {
        "sessions:read": "sessions:read",
        "sessions:write": "sessions:write",
    }
    """What each of its words means."""
    tenants_claim: str | None = None
    """Claim that holds the tenants; left out, it is `tenants` for all of its tokens."""
    tenants: tuple[TenantOrAll, ...] = ()
    """The tenants of all of its tokens; `*` for all."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if (self.tenants_claim is None) == (not self.tenants):
            raise ValueError("give either tenants_claim or tenants")
        source = self.issuer if self.jwks_url is None else str(self.jwks_url)
        if not re.match(r"https?://", source):
            raise ValueError("issuer must be a URL, unless jwks_url is given")
        if not (self.plain_http or re.match(r"https://|http://(localhost|127\.0\.0\.1|\[::1\])([:/]|$)", source)):
            raise ValueError("keys must come over https://, unless plain_http is set")
        return self


class Access(_Section):
    """Who may call. With nothing here everybody may, and the gateway listens on loopback alone."""

    keys: dict[CallerName, AccessKey] = {}
    """API keys, by name."""
    issuers: dict[CallerName, AccessIssuer] = {}
    """Issuers of JWTs, by name. No two have the same `issuer`."""
    certificates: dict[str, AccessCertificate] = {}
    """Client certificates of gRPC's callers, by a subject alternative name: `spiffe://...`, or a DNS name."""

    @model_validator(mode="after")
    def _check_issuers(self) -> Self:
        if len({each.issuer for each in self.issuers.values()}) < len(self.issuers):
            raise ValueError("two issuers have the same value of issuer")
        return self

    @property
    def configured(self) -> bool:
        """Whether callers are told apart at all."""
        return bool(self.keys or self.issuers or self.certificates)


class Log(_Section):
    """The log, on standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Lines of a lower level are left out."""
    format: Literal["auto", "json", "console"] = "auto"
    """`auto` is readable on a terminal and JSON elsewhere."""
    access: bool = True
    """Whether every request gets a line, of level `info`."""


class Telemetry(_Section):
    """What is told of the gateway's work besides logs and metrics."""

    traces: bool = False
    """Whether requests are traced, with what `session-gateway[otel]` installs. Where to and how many, the standard
    variables of OpenTelemetry say: `OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_TRACES_SAMPLER`, `OTEL_SERVICE_NAME`, ..."""


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
    """Processes that share the ports; as `serve --workers`. Left out, as many as there are cores for this gateway, or
    one with `cache.backend = "memory"`. Bounds and rates that are not kept in Redis are each worker's own."""
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
        """Whether any caller may make only so many calls a second."""
        access = self.access
        entries = [*access.keys.values(), *access.issuers.values(), *access.certificates.values()]
        return bool(self.rate_limits.rate or any(each.rate for each in entries))

    @property
    def longest_call(self) -> float:
        """Seconds that a call may take, by whichever door it came."""
        return max(self.graphql.budget, self.grpc.budget)

    @model_validator(mode="after")
    def _check_workers(self) -> Self:
        if (self.workers or 1) > 1 and self.cache.in_memory:
            raise ValueError(
                "workers: must be 1 with cache.backend memory, as what one worker writes would stay older in the memory"
                " of another; or let them share a Redis, with cache.memory_tier"
            )
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
