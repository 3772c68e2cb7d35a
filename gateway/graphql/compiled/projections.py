"""From what resolvers return to what a selection asks for: errors, order and nulls as graphql-core has them.

A projection is made for one selection, with all conditions (`@skip`, `@include`) decided.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final, Never, TypeAlias

from graphql import (
    Executor,
    GraphQLError,
    GraphQLNonNull,
    GraphQLObjectType,
    is_abstract_type,
    is_leaf_type,
    is_list_type,
    located_error,
)
from graphql.execution.collect_fields import FragmentDetails, collect_fields, collect_subfields
from graphql.execution.values import VariableValues
from strawberry.types.base import StrawberryObjectDefinition
from strawberry.types.field import StrawberryField

from gateway.graphql.answers import Json
from gateway.graphql.compiled.arguments import NotCompiled

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from datetime import datetime

    from graphql import (
        FieldNode,
        FragmentDefinitionNode,
        GraphQLField,
        GraphQLLeafType,
        GraphQLList,
        GraphQLOutputType,
        GraphQLSchema,
        OperationDefinitionNode,
    )
    from graphql.execution.collect_fields import FieldDetailsList, GroupedFieldSet

__all__ = ["Path", "Projection", "Projector"]

Path: TypeAlias = tuple[str | int, ...]

Projection: TypeAlias = "Callable[[object, Path, str | int, list[GraphQLError]], object]"
"""Makes the output of a value, given the path of what contains it and its key in that.

It appends errors, and raises one that nulls what contains the value.
"""

_Complete: TypeAlias = "Callable[[object, Path, list[GraphQLError]], object]"
"""The same for a value that is not null; errors are raised."""

_MOST_FIELDS: Final = 1000
"""More are not compiled: a few fragments are enough to make many fields, and a plan holds them all."""
_AS_THEY_ARE: Final = {"String", "ID"}
"""Scalars whose values are the model's own."""


class Projector:
    """Makes the projections of an operation, for some values of its conditions. Raises NotCompiled."""

    def __init__(
        self,
        schema: GraphQLSchema,
        times: Callable[[datetime], str],
        operation: OperationDefinitionNode,
        fragments: Mapping[str, FragmentDefinitionNode],
        conditions: Mapping[str, object],
    ) -> None:
        self.conditions = conditions
        """Values of the variables in `@skip` and `@include`."""
        self.size = 0
        """How many fields it has made projections for."""
        self._schema = schema
        self._times = times
        self._operation = operation
        self._fragments = {name: FragmentDetails(each) for name, each in fragments.items()}
        self._variables = VariableValues({}, dict(conditions))

    def roots(self, type_: GraphQLObjectType) -> GroupedFieldSet:
        """The root fields, merged."""
        collected = collect_fields(self._schema, self._fragments, self._variables, type_, self._operation)
        return collected.grouped_field_set

    def projection(self, parent: GraphQLObjectType, details: FieldDetailsList) -> Projection:
        """The projection of one field."""
        nodes = [each.node for each in details]
        name = nodes[0].name.value
        return self._protected(parent.fields[name].type, details, nodes, f"{parent}.{name}")

    def _protected(
        self, type_: GraphQLOutputType, details: FieldDetailsList, nodes: Sequence[FieldNode], name: str
    ) -> Projection:
        bare = type_.of_type if isinstance(type_, GraphQLNonNull) else type_
        if is_leaf_type(bare):
            return _leaf(self._serializer(bare), nodes, name, nullable=bare is type_)
        complete = self._complete(bare, details, nodes, name)
        return _nullable(complete, nodes) if bare is type_ else _not_null(complete, nodes, name)

    def _complete(
        self, type_: GraphQLOutputType, details: FieldDetailsList, nodes: Sequence[FieldNode], name: str
    ) -> _Complete:
        if is_list_type(type_):
            return self._list(type_, details, nodes, name)
        if is_abstract_type(type_):
            possible = self._schema.get_possible_types(type_)
            return _by_class({_class(each): self._object(each, details) for each in possible})
        if isinstance(type_, GraphQLObjectType):
            return self._object(type_, details)
        raise NotCompiled(type_)

    def _serializer(self, type_: GraphQLLeafType) -> Callable[[Any], object]:
        return self._times if type_.name == "DateTime" else partial(Executor.complete_leaf_value, type_)

    def _list(
        self, type_: GraphQLList[GraphQLOutputType], details: FieldDetailsList, nodes: Sequence[FieldNode], name: str
    ) -> _Complete:
        item = self._protected(type_.of_type, details, nodes, name)

        def complete(value: object, path: Path, errors: list[GraphQLError]) -> object:
            if not isinstance(value, list):
                raise TypeError(f"{name} is no list")
            return [item(each, path, index, errors) for index, each in enumerate(value)]

        return complete

    def _object(self, type_: GraphQLObjectType, details: FieldDetailsList) -> _Complete:
        collected = collect_subfields(self._schema, self._fragments, self._variables, self._operation, type_, details)
        self.size += len(collected.grouped_field_set)
        if self.size > _MOST_FIELDS:
            raise NotCompiled(self.size)
        keys: list[str] = []
        attributes: list[str] = []
        documents: defaultdict[str, list[str]] = defaultdict(list)
        projections: list[tuple[str, Projection]] = []
        for key, each in collected.grouped_field_set.items():
            keys.append(key)
            name = each[0].node.name.value
            if name == "__typename":
                attributes.append("__class__")
                projections.append((key, _constant(type_.name)))
                continue
            field = type_.fields[name]
            attributes.append(_attribute(field))
            if str(field.type) == "JSON":
                documents[attributes[-1]].append(key)
            elif str(field.type) not in _AS_THEY_ARE:
                projections.append((key, self.projection(type_, each)))
        read = _reader(attributes)
        same_json = list(documents.values())

        def complete(value: object, path: Path, errors: list[GraphQLError]) -> object:
            fields = dict(zip(keys, read(value), strict=True))
            for key, project in projections:
                fields[key] = project(fields[key], path, key, errors)
            for names in same_json:
                _complete_json(fields, names)
            return fields

        return complete


def _complete_json(fields: dict[str, object], names: Sequence[str]) -> None:
    """Complete JSON that stands there under these names: it is encoded once for all of them, and may be large."""
    if (document := fields[names[0]]) is not None:
        json = Json(document)
        for name in names:
            fields[name] = json


def _nullable(complete: _Complete, nodes: Sequence[FieldNode]) -> Projection:
    def project(value: object, around: Path, key: str | int, errors: list[GraphQLError]) -> object:
        if value is None:
            return None
        try:
            if isinstance(value, Exception):
                _fail(value)
            return complete(value, (*around, key), errors)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the field's error
            errors.append(located_error(error, nodes, [*around, key]))
            return None

    return project


def _not_null(complete: _Complete, nodes: Sequence[FieldNode], name: str) -> Projection:
    def project(value: object, around: Path, key: str | int, errors: list[GraphQLError]) -> object:
        try:
            if value is None:
                _fail(TypeError(f"Cannot return null for non-nullable field {name}."))
            if isinstance(value, Exception):
                _fail(value)
            return complete(value, (*around, key), errors)
        except Exception as error:
            raise located_error(error, nodes, [*around, key]) from error

    return project


def _fail(error: Exception) -> Never:
    raise error


def _leaf(serialize: Callable[[Any], object], nodes: Sequence[FieldNode], name: str, *, nullable: bool) -> Projection:
    def project(value: object, around: Path, key: str | int, errors: list[GraphQLError]) -> object:
        if value is None and nullable:
            return None
        try:
            if value is None:
                _fail(TypeError(f"Cannot return null for non-nullable field {name}."))
            return serialize(value)
        except Exception as error:
            located = located_error(error, nodes, [*around, key])
            if not nullable:
                raise located from error
            errors.append(located)
            return None

    return project


def _constant(value: object) -> Projection:
    def project(_value: object, _around: Path, _key: str | int, _errors: list[GraphQLError]) -> object:
        return value

    return project


def _by_class(completes: Mapping[type, _Complete]) -> _Complete:
    def complete(value: object, path: Path, errors: list[GraphQLError]) -> object:
        return completes[type(value)](value, path, errors)

    return complete


def _reader(attributes: Sequence[str]) -> Callable[[object], tuple[object, ...]]:
    """Reads all these attributes at once."""
    if not attributes:
        return lambda _: ()
    if len(attributes) == 1:
        read_one = attrgetter(attributes[0])
        return lambda value: (read_one(value),)
    read: Callable[[object], tuple[object, ...]] = attrgetter(*attributes)
    return read


def _attribute(field: GraphQLField) -> str:
    """The attribute that holds the field's value, if it needs no resolver."""
    definition = field.extensions["strawberry-definition"]
    if isinstance(definition, StrawberryField) and definition.base_resolver is None and definition.python_name:
        return definition.python_name
    raise NotCompiled(definition)


def _class(type_: GraphQLObjectType) -> type:
    definition = type_.extensions["strawberry-definition"]
    if isinstance(definition, StrawberryObjectDefinition):
        return definition.origin
    raise NotCompiled(type_)
