"""The settings' reference: a TOML file with all settings, commented out, with their defaults and descriptions.

It is generated from `gateway.settings`, whose docstrings are read from the source.
"""

from __future__ import annotations

import ast
import inspect
import json
import textwrap
from itertools import pairwise
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Final, Literal, NamedTuple, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from gateway import settings

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["settings_reference"]

_HEAD: Final = """\
# Every setting, with its default. Printed by `session-gateway settings`.
#
# A line with a name right behind the `#` is a setting: remove the `#` to set it. NAME is a name that you choose.
# Times are in seconds and sizes in bytes, unless a setting says otherwise. The environment takes precedence over this
# file: SESSION_GATEWAY_GRPC__PORT=50052 sets port in [grpc].
"""
_WIDTH: Final = 118


class _Field(NamedTuple):
    """A setting, or a section of them."""

    name: str
    info: FieldInfo
    description: str

    @property
    def kinds(self) -> list[object]:
        """The types that a value may have, without None."""
        return [each for each in _alternatives(self.info.annotation) if each is not NoneType]

    @property
    def section(self) -> type[BaseModel] | None:
        """The section's type, if it is a section or contains sections by name."""
        for kind in [*self.kinds, *(arg for each in self.kinds for arg in get_args(each))]:
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                return kind
        return None

    @property
    def by_name(self) -> bool:
        """Whether it contains sections by name."""
        return self.section is not None and get_origin(self.kinds[0]) is dict


def settings_reference() -> str:
    """All settings, as a configuration file that sets none of them."""
    return "\n".join([_HEAD, *_lines(settings.Settings, "")])


def _lines(model: type[BaseModel], path: str) -> Iterator[str]:
    """The settings of a section, required ones first, and then its subsections, as TOML requires."""
    fields = list(_fields(model))
    for each in sorted(fields, key=lambda each: not each.info.is_required()):
        if each.section is None:
            note = ", ".join(_notes(each))
            yield from _comment(each.description)
            yield f"#{each.name} = {_value(each)}{note and f'  # {note}'}"
            yield ""
    for each in fields:
        if each.section is not None:
            name = f"{path}{each.name}{'.NAME' if each.by_name else ''}"
            yield from _comment(f"{inspect.getdoc(each.section)} {each.description}")
            yield f"[{name}]" if isinstance(each.info.default, BaseModel) and not each.by_name else f"#[{name}]"
            yield ""
            yield from _lines(each.section, f"{name}.")


def _fields(model: type[BaseModel]) -> Iterator[_Field]:
    descriptions = {
        name: description
        for kind in reversed(model.__mro__)
        if kind.__module__ == settings.__name__
        for name, description in _descriptions(kind)
    }
    for name, info in model.model_fields.items():
        yield _Field(name, info, descriptions.get(name, ""))


def _descriptions(model: type) -> Iterator[tuple[str, str]]:
    """The docstrings under the fields of a class."""
    match ast.parse(inspect.getsource(model)).body:
        case [ast.ClassDef(body=body)]:
            for each in pairwise(body):
                match each:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(description))):
                        yield name, description


def _comment(text: str) -> list[str]:
    return textwrap.wrap(
        " ".join(text.split()), _WIDTH, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False
    )


def _value(field: _Field) -> str:
    """Its default as TOML, or a placeholder that shows its type."""
    default = None if field.info.is_required() else field.info.default
    if default is not None:
        return _toml(default)
    if any(get_origin(each) is tuple for each in field.kinds):
        return '["..."]'
    return "..." if any(each in {int, float} for each in field.kinds) else '"..."'


def _toml(value: object) -> str:
    """JSON is TOML for such plain values, except for objects."""
    match value:
        case dict():
            return f"{{ {', '.join(f'{json.dumps(name)} = {_toml(each)}' for name, each in value.items())} }}"
        case bool() | int() | float() | tuple():
            return json.dumps(value)
        case SecretStr():
            return json.dumps(value.get_secret_value())
        case _:
            return json.dumps(str(value))


def _notes(field: _Field) -> Iterator[str]:
    """Constraints on the value, as far as a few words can say them."""
    if field.info.is_required():
        yield "required"
    match field.kinds[0]:
        case kind if get_origin(kind) is Literal:
            yield f"one of {', '.join(get_args(kind))}"
        case kind if get_origin(kind) is tuple and get_origin(get_args(kind)[0]) is Literal:
            yield f"any of {', '.join(get_args(get_args(kind)[0]))}"
    bounds = [*field.info.metadata, *_metadata(field.info.annotation)]
    for each in bounds:
        match each:
            case Ge(ge=bound):
                yield f"at least {bound:.9g}"
            case Gt(gt=bound):
                yield f"more than {bound:.9g}"
            case Le(le=bound):
                yield f"at most {bound:.9g}"


def _alternatives(annotation: object) -> list[object]:
    """The members of a union, without annotations."""
    if get_origin(annotation) in {Union, UnionType}:
        return [kind for each in get_args(annotation) for kind in _alternatives(each)]
    return [get_args(annotation)[0] if get_origin(annotation) is Annotated else annotation]


def _metadata(annotation: object) -> Iterator[object]:
    """The annotations of the members of a union."""
    if get_origin(annotation) in {Union, UnionType}:
        for each in get_args(annotation):
            yield from _metadata(each)
    elif get_origin(annotation) is Annotated:
        for each in get_args(annotation)[1:]:
            yield from each.metadata if isinstance(each, FieldInfo) else [each]
