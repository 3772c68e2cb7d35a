"""Reads the settings: the environment and the configuration file are read here and nowhere else.

A setting comes from the environment (`SESSION_GATEWAY_GRPC__PORT=50052`), or else from the TOML file (`[grpc]`, `port =
50052`), or else it has its default. Invalid ones are reported all together, a line for each, before anything listens.
"""

from __future__ import annotations

import os
import sys
import tomllib
from difflib import get_close_matches
from typing import TYPE_CHECKING, Final, get_args

from pydantic import BaseModel, ValidationError
from pydantic_settings import EnvSettingsSource, InitSettingsSource, SettingsError

from gateway.settings import PREFIX, ConfigurationError, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from pydantic_core import ErrorDetails
    from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

__all__ = ["CONFIG_VARIABLE", "load_settings"]

CONFIG_VARIABLE: Final = f"{PREFIX}CONFIG"
"""Names the configuration file, unless the command line does."""


def load_settings(
    file: Path | None = None,
    defaults: Mapping[str, object] | None = None,
    overrides: Mapping[str, object] | None = None,
) -> Settings:
    """Read the settings: overrides, then environment, then TOML file, then defaults. Raises ConfigurationError."""

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
            over = InitSettingsSource(settings_cls, dict(overrides or {}))
            return over, env_settings, InitSettingsSource(settings_cls, given), init_settings

    problems = [*_unknown_variables(), *_undecoded_variables()]
    try:
        given = _read(file)
        settings = Layered(**dict(defaults or {}))  # type: ignore[arg-type]  # checked by the model itself
    except ConfigurationError as error:
        problems += error.problems
    except (SettingsError, RecursionError):
        problems += list(_unreadable_variables()) or ["the settings are nested too deeply"]
    except ValidationError as error:
        problems += _problems(error.errors(include_input=False, include_url=False))
    else:
        if not problems:
            return settings
    raise ConfigurationError(*problems) from None


def _read(file: Path | None) -> dict[str, object]:
    """The content of the file. Raises ConfigurationError."""
    try:
        return {} if file is None else tomllib.loads(file.read_text("utf-8-sig"))
    except OSError as error:
        raise ConfigurationError(f"{file}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{file}: is not UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{file}: is not TOML: {error}") from None
    except ValueError as error:  # a number of more digits than Python takes (sys.set_int_max_str_digits)
        raise ConfigurationError(f"{file}: holds what cannot be read: {error}") from None
    except RecursionError:
        raise ConfigurationError(f"{file}: is nested too deeply") from None


def _unknown_variables() -> Iterator[str]:
    """Variables with our prefix that are no settings: a misspelt one must not be ignored."""
    for name in os.environ:
        prefix, rest = name[: len(PREFIX)], name[len(PREFIX) :]
        section = rest.partition("__")[0].lower()
        if prefix.upper() == PREFIX and name != CONFIG_VARIABLE and section not in Settings.model_fields:
            yield f"{name}: is not a setting{_meant_by_variable(rest)}"
    if os.environ.get("AIOCACHE_DISABLE") == "1":
        yield "AIOCACHE_DISABLE: must not be set: tokens are kept through aiocache, which this turns off"


def _undecoded_variables() -> Iterator[str]:
    """Variables of ours that are not valid text: Python would pass on surrogates, which cannot be encoded."""
    for name, value in os.environ.items():
        if name.startswith(PREFIX) and name != CONFIG_VARIABLE:
            try:
                value.encode()
            except UnicodeEncodeError:
                yield f"{name}: is not {sys.getfilesystemencoding().upper()}"


def _unreadable_variables() -> Iterator[str]:
    """Variables that should be JSON but are not. pydantic-settings names only the section of the first."""
    for name, value in os.environ.items():
        source = EnvSettingsSource(Settings)
        source.env_vars = {name.lower(): value}
        try:
            source()
        except SettingsError:
            yield f'{name}: is not JSON: a list is written ["acme", "globex"], a section {{"port": 8000}}'
        except RecursionError:
            yield f"{name}: is nested too deeply"


def _problems(errors: list[ErrorDetails]) -> Iterator[str]:
    """A line for each. A list may be too short only without its invalid entries: then only these are reported."""
    for error in errors:
        place = error["loc"]
        if error["type"] == "too_short" and any(each["loc"][: len(place)] == place for each in errors if each != error):
            continue
        yield _problem(error)


_KINDS: Final = {
    "bool_parsing": "must be true or false",
    "bool_type": "must be true or false",
    "dict_type": "must be a section",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "model_type": "must be a section",
    "string_too_short": "is empty",
    "string_type": "must be a string, in quotes",
    "too_short": "is empty",
    "tuple_type": 'must be a list: ["...", "..."]',
    "url_parsing": "must be a valid URL that begins with http:// or https://",
    "url_scheme": "must be a valid URL that begins with http:// or https://",
}
"""Pydantic describes these in terms of Python."""


def _problem(error: ErrorDetails) -> str:
    path = [str(each) for each in error["loc"] if each != "[key]"]
    variable = PREFIX + "__".join(path).upper()
    match error["type"]:
        case "missing" | "too_short" if path == ["tenants"]:
            what = "is missing: configure at least one, [tenants.NAME] with client_id and client_secret"
        case "missing":
            what = f"is missing: set it in the file, or {variable} in the environment"
        case "extra_forbidden":
            what = f"is not a setting{_meant(path[-1], _section(path[:-1]).model_fields)}"
        case "string_pattern_mismatch" if path[0] == "access":
            what = _misspelt(path)
        case "string_pattern_mismatch":
            what = "must be 3 to 16 lowercase letters and digits, beginning with a letter"
        case kind if kind in _KINDS:
            what = _KINDS[kind]
        case _:
            what = error["msg"].removeprefix("Value error, ").replace("Input should be", "must be")
    return f"{'.'.join(path)}: {what}" if path else what


def _meant_by_variable(rest: str) -> str:
    """The variable that was meant, as far as can be told: with a `_` too few, or of a section that is misspelt."""
    for section in Settings.model_fields:
        before, _, name = rest.lower().partition(f"{section}_")
        if not before and name in _section([section]).model_fields:
            return f": did you mean {PREFIX}{section.upper()}__{name.upper()}?"
    section, *deeper = rest.split("__")
    return _meant(section.lower(), Settings.model_fields, lambda name: PREFIX + "__".join([name, *deeper]).upper())


def _meant(name: str, known: Iterable[str], written: Callable[[str], str] = str) -> str:
    """The name that was meant, if one is like it."""
    return "".join(f": did you mean {written(each)}?" for each in get_close_matches(name, known, n=1))


def _section(path: list[str]) -> type[BaseModel]:
    """The section there, of those that exist. What is no field is a name that somebody chose: all such are alike."""
    section: type[BaseModel] = Settings
    for name in path:
        field = section.model_fields.get(name)
        section = next(_sections(field.annotation), section) if field is not None else section
    return section


def _sections(annotation: object) -> Iterator[type[BaseModel]]:
    """All sections in what annotates a field."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for each in get_args(annotation):
        yield from _sections(each)


def _misspelt(path: list[str]) -> str:
    """What is wrong with a string in the section `access`."""
    if path[-1] == "hash":
        return "is not the hash of a key: `session-gateway keys new NAME` prints one"
    if "tenants" in path[3:]:
        return "must be 3 to 16 lowercase letters and digits, beginning with a letter, or *"
    return "the name must be at most 63 lowercase letters, digits and hyphens"
