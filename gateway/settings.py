"""Every setting there is. The environment and the configuration file are read here and nowhere else.

A setting comes from the environment (`SESSION_GATEWAY_GRPC__PORT=50052`), else from the TOML file (`[grpc]`, `port =
50052`), else it has its default. Bad ones are refused as a whole, a line for each, before anything listens.
"""

from __future__ import annotations

import os
import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    InitSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pydantic_core import ErrorDetails

__all__ = ["CONFIG_VARIABLE", "ConfigurationError", "Listener", "Settings", "Tenant", "load_settings"]

_PREFIX: Final = "SESSION_GATEWAY_"
CONFIG_VARIABLE: Final = f"{_PREFIX}CONFIG"
"""Names the configuration file, where the command line does not."""

_TENANT: Final = r"^[a-z][a-z0-9]{2,15}$"
"""As the API reference has it; `gateway.validation` holds callers to the same."""

Seconds: TypeAlias = Annotated[float, Field(gt=0, le=3600)]
Port: TypeAlias = Annotated[int, Field(ge=0, le=65535)]


class ConfigurationError(Exception):
    """The settings cannot be used. `problems` has one line for each thing that is wrong, with no value in it."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class _Section(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, use_attribute_docstrings=True, validate_default=True
    )


class Listener(_Section):
    """Where a door listens."""

    host: str = "127.0.0.1"
    """Address to listen on: loopback unless told otherwise."""
    port: Port = 0
    """Port to listen on; 0 takes a free one."""


class Upstream(_Section):
    """The REST API."""

    base_url: HttpUrl = HttpUrl("https://api.emporix.io")
    """Where it is."""
    timeout: Seconds = 5.0
    """Bound of one exchange, in seconds; a caller's deadline that comes sooner bounds it further."""


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
            secret = Path(str(path)).read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            what = error.strerror if isinstance(error, OSError) else "not UTF-8"
            raise ValueError(f"client_secret_file cannot be read: {what}") from None
        return {**values, "client_secret": secret}


class GraphQL(Listener):
    """The GraphQL door, at `/graphql`."""

    port: Port = 8000
    """Port to listen on; 0 takes a free one."""
    playground: bool = False
    """Whether a browser gets GraphiQL."""
    budget: Seconds = 10.0
    """Bound of one operation, in seconds."""
    max_body: int = Field(default=1_048_576, ge=1024)
    """Largest request body, in bytes."""


class Grpc(Listener):
    """The gRPC door."""

    port: Port = 50051
    """Port to listen on; 0 takes a free one."""
    budget: Seconds = 10.0
    """Bound of one call, in seconds, also for a caller that sets no deadline or a later one."""
    max_message: int = Field(default=1_048_576, ge=1024)
    """Largest request message, in bytes."""


class Admin(Listener):
    """The operator's listener: `/livez`, `/readyz`, `/metrics`."""

    port: Port = 9000
    """Port to listen on; 0 takes a free one."""


class Sandbox(Listener):
    """The stand-in for upstream, in `dev` alone."""

    port: Port = 8001
    """Port to listen on; 0 takes a free one."""


class Writes(_Section):
    """How writes are made safe."""

    max_attempts: int = Field(default=5, ge=1, le=100)
    """How often one write is sent at most, when other writers come first or answers are lost."""
    max_document: int = Field(default=1_048_576, ge=1024, le=10_485_760)
    """Largest document that is written, in bytes of JSON. Upstream's own bound is 10 MB."""


class Shutdown(_Section):
    """What happens when the gateway is told to stop."""

    grace: Annotated[float, Field(ge=0, le=3600)] = 10.0
    """Seconds that requests under way get."""


class Cache(_Section):
    """The read-through cache. All times are in seconds."""

    backend: SecretStr = SecretStr("none")
    """`none`, `memory`, or the URL of a Redis or Valkey: `redis://`, `rediss://` (TLS), `valkey://`, `valkeys://`, with
    user and password where it has them."""
    cluster: bool = False
    """Whether the URL is of one server of a cluster."""
    memory_tier: bool = False
    """Whether a small memory stands in front of Redis, kept in step by its messages."""
    max_silence: Seconds = 2.0
    """The memory in front of Redis is not used when nothing has been heard for so long: the bound on its staleness."""
    prefix: str = Field(default="session-gateway:", min_length=1, max_length=100)
    """Of all keys in Redis."""
    budget: Annotated[float, Field(gt=0, le=5)] = 0.05
    """Bound of one operation of Redis; past it upstream is asked."""
    max_entries: int = Field(default=10_000, ge=1)
    """Entries in memory; past that, the one that was used least recently goes."""
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

    @model_validator(mode="after")
    def _check_backend(self) -> Self:
        backend = self.backend.get_secret_value()
        if backend in {"none", "memory"}:
            if self.cluster or self.memory_tier:
                raise ValueError("cluster and memory_tier need a backend of Redis or Valkey")
        elif not re.match(r"(redis|valkey)s?://", backend):
            raise ValueError("backend must be none, memory, or a redis://, rediss://, valkey:// or valkeys:// URL")
        return self


class _Grant(_Section):
    """What a caller may do."""

    permissions: tuple[Literal["sessions:read", "sessions:write"], ...] = Field(min_length=1)
    """Any of `sessions:read` and `sessions:write`."""
    tenants: tuple[str, ...] = Field(min_length=1)
    """The tenants it may do it for; `*` for all."""


class AccessKey(_Grant):
    """A caller with an API key. `session-gateway keys new NAME` prints one, and this entry for it."""

    hash: str = Field(pattern=r"^sha256:[0-9a-f]{32}:[0-9a-f]{64}$")
    """The key's salted hash. The key itself is nowhere."""


class AccessCertificate(_Grant):
    """A caller with a client certificate."""


class AccessIssuer(_Section):
    """An issuer of callers' JWTs."""

    issuer: str = Field(min_length=1)
    """Value of the claim `iss`; its OIDC discovery document tells where the keys are, unless `jwks_url` does."""
    audience: str = Field(min_length=1)
    """Value of the claim `aud`."""
    jwks_url: HttpUrl | None = None
    """Where its keys are."""
    algorithms: tuple[
        Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"], ...
    ] = (
        "RS256",
        "ES256",
    )
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
    tenants: tuple[str, ...] = ()
    """The tenants of all of its tokens; `*` for all."""

    @model_validator(mode="after")
    def _check_tenants(self) -> Self:
        if (self.tenants_claim is None) == (not self.tenants):
            raise ValueError("give either tenants_claim or tenants")
        return self


class Access(_Section):
    """Who may call. With nothing here everybody may, and the gateway listens on loopback alone."""

    keys: dict[Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")], AccessKey] = {}
    """API keys, by name."""
    issuers: dict[str, AccessIssuer] = {}
    """Issuers of JWTs, by name."""
    certificates: dict[str, AccessCertificate] = {}
    """Client certificates of gRPC's callers, by a subject alternative name: `spiffe://...`, or a DNS name."""

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


class Settings(BaseSettings):
    """All settings."""

    model_config = SettingsConfigDict(
        env_prefix=_PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        hide_input_in_errors=True,
        validate_default=True,
    )

    upstream: Upstream = Upstream()
    tenants: dict[Annotated[str, Field(pattern=_TENANT)], Tenant] = Field(min_length=1)
    graphql: GraphQL = GraphQL()
    grpc: Grpc = Grpc()
    admin: Admin = Admin()
    sandbox: Sandbox = Sandbox()
    writes: Writes = Writes()
    cache: Cache = Cache()
    access: Access = Access()
    log: Log = Log()
    shutdown: Shutdown = Shutdown()


def load_settings(file: Path | None = None, defaults: Mapping[str, object] | None = None) -> Settings:
    """Read the environment, over the TOML file, over the defaults. Raises ConfigurationError."""

    class Layered(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic-settings passes all four by name
            file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            return env_settings, InitSettingsSource(settings_cls, given), init_settings

    problems = list(_unknown_variables())
    try:
        given = _read(file)
        settings = Layered(**dict(defaults or {}))  # type: ignore[arg-type]  # checked by the model itself
    except ConfigurationError as error:
        problems += error.problems
    except SettingsError as error:
        problems.append(_not_json(error))
    except ValidationError as error:
        problems += map(_problem, error.errors(include_input=False, include_url=False))
    else:
        if not problems:
            return settings
    raise ConfigurationError(*problems) from None


def _read(file: Path | None) -> dict[str, object]:
    """What the file holds. Raises ConfigurationError."""
    try:
        return {} if file is None else tomllib.loads(file.read_text("utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{file}: is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{file}: is not TOML: {error}") from None


def _unknown_variables() -> Iterator[str]:
    """Variables with our prefix that are none of ours: a misspelt setting must not be passed over."""
    for name in os.environ:
        section = name.removeprefix(_PREFIX).partition("__")[0].lower()
        if name.startswith(_PREFIX) and name != CONFIG_VARIABLE and section not in Settings.model_fields:
            yield f"{name}: is not a setting"
    if os.environ.get("AIOCACHE_DISABLE") == "1":
        yield "AIOCACHE_DISABLE: must not be set: tokens are kept through aiocache, which this turns off"


def _not_json(error: SettingsError) -> str:
    """A section given as a whole must be JSON; which one it is, only the error's words tell."""
    section = re.search(r'field "(\w+)"', str(error))
    return f"{_PREFIX}{section[1].upper() if section else ''}: is not JSON"


def _problem(error: ErrorDetails) -> str:
    path = [str(each) for each in error["loc"] if each != "[key]"]
    variable = _PREFIX + "__".join(path).upper()
    match error["type"]:
        case "missing":
            what = f"is missing: set it in the file, or {variable} in the environment"
        case "extra_forbidden":
            what = "is not a setting"
        case "string_pattern_mismatch":
            what = "must be 3 to 16 lowercase letters and digits, beginning with a letter"
        case "too_short" if path != ["tenants"]:
            what = "is empty"
        case "too_short":
            what = "is missing: configure at least one, [tenants.NAME] with client_id and client_secret"
        case _:
            what = error["msg"].removeprefix("Value error, ")
    return f"{'.'.join(path)}: {what}"
