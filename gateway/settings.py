"""Every setting there is. The environment and the configuration file are read here and nowhere else.

A setting comes from the environment (`SESSION_GATEWAY_GRPC__PORT=50052`), else from the TOML file (`[grpc]`, `port =
50052`), else it has its default. Bad ones are refused as a whole, a line for each, before anything listens.
"""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, HttpUrl, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    TomlConfigSettingsSource,
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

    @model_validator(mode="before")
    @classmethod
    def _read_secret(cls, values: dict[str, object]) -> dict[str, object]:
        path = values.get("client_secret_file")
        if path is None:
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
            return env_settings, TomlConfigSettingsSource(settings_cls, file), init_settings

    if problems := [*_unreadable(file), *_unknown_variables()]:
        raise ConfigurationError(*problems)
    try:
        return Layered(**dict(defaults or {}))  # type: ignore[arg-type]  # checked by the model itself
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{file}: is not TOML: {error}") from None
    except SettingsError as error:
        raise ConfigurationError(str(error)) from None
    except ValidationError as error:
        raise ConfigurationError(*map(_problem, error.errors(include_input=False, include_url=False))) from None


def _unreadable(file: Path | None) -> Iterator[str]:
    if file is not None and not os.access(file, os.R_OK):
        yield f"{file}: cannot be read"


def _unknown_variables() -> Iterator[str]:
    """Variables with our prefix that are none of ours: a misspelt setting must not be passed over."""
    for name in os.environ:
        section = name.removeprefix(_PREFIX).partition("__")[0].lower()
        if name.startswith(_PREFIX) and name != CONFIG_VARIABLE and section not in Settings.model_fields:
            yield f"{name}: is not a setting"
    if os.environ.get("AIOCACHE_DISABLE") == "1":
        yield "AIOCACHE_DISABLE: must not be set: tokens are kept through aiocache, which this turns off"


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
        case "too_short":
            what = "is missing: configure at least one, [tenants.NAME] with client_id and client_secret"
        case _:
            what = error["msg"].removeprefix("Value error, ")
    return f"{'.'.join(path)}: {what}"
