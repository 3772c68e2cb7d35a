"""Variables and arguments: analysed once for each operation, bound to values for each request.

What graphql-core or Strawberry would refuse raises NotCompiled: then they execute the request, and report the error.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple

from graphql import (
    GraphQLNonNull,
    Undefined,
    VariableNode,
    get_variable_values,
    is_input_type,
    is_leaf_type,
    is_required_argument,
    type_from_ast,
)
from graphql.execution.values import VariableValues
from graphql.utilities import coerce_input_literal, coerce_input_value
from graphql.utilities.coerce_input_value import coerce_default_value
from strawberry.types.arguments import StrawberryArgument, convert_argument

from gateway.graphql.syntax import holds_variables, is_composed, nodes_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from graphql import (
        FieldNode,
        GraphQLArgument,
        GraphQLField,
        GraphQLInputType,
        Node,
        ValueNode,
        VariableDefinitionNode,
    )

    from gateway.graphql.schema import GatewaySchema

__all__ = ["Arguments", "NotCompiled", "VariableValues", "Variables"]

_AS_THEY_ARE: Final = {"String": str, "ID": str, "Boolean": bool}
"""Scalars that accept a value of exactly this type as it is."""


class NotCompiled(Exception):
    """This is left to Strawberry."""


class _Variable(NamedTuple):
    name: str
    exact: type | None
    """A value of this type needs no coercion."""
    type_: GraphQLInputType
    default: object


class Variables:
    """The variables of an operation. Raises NotCompiled."""

    def __init__(
        self, schema: GatewaySchema, definitions: Sequence[VariableDefinitionNode], parts: Iterable[Node]
    ) -> None:
        self._schema = schema.core
        self._definitions = definitions
        self._with_sources = any(map(is_composed, chain.from_iterable(map(nodes_of, parts))))
        self._variables = [self._variable(each) for each in definitions]

    def coerced(self, given: Mapping[str, object]) -> VariableValues:
        """Their values (GraphQL specification, 6.1.2). Raises NotCompiled for invalid ones."""
        if self._with_sources:
            return self._coerced_with_sources(given)
        values: dict[str, object] = {}
        for name, exact, type_, default in self._variables:
            value = given.get(name, Undefined)
            if type(value) is exact:
                values[name] = value
            elif value is not Undefined:
                values[name] = _defined(coerce_input_value(value, type_))
            elif default is not Undefined:
                values[name] = default
            elif isinstance(type_, GraphQLNonNull):
                raise NotCompiled(name)
        return VariableValues({}, values)

    def _coerced_with_sources(self, given: Mapping[str, object]) -> VariableValues:
        """As graphql-core has them, which literals with variables in them need."""
        # No errors are needed: each repeats the value, and there may be one for each of its fields.
        values = get_variable_values(self._schema, self._definitions, dict(given), max_errors=0)
        if isinstance(values, list):
            raise NotCompiled(*values)
        return values

    def _variable(self, node: VariableDefinitionNode) -> _Variable:
        type_ = type_from_ast(self._schema, node.type)
        if not is_input_type(type_):
            raise NotCompiled(node)
        default = coerce_input_literal(node.default_value, type_) if node.default_value else None
        if default is Undefined:
            raise NotCompiled(node)
        exact = _AS_THEY_ARE.get(str(type_).removesuffix("!"))
        return _Variable(node.variable.name.value, exact, type_, default if node.default_value else Undefined)


class _Given(NamedTuple):
    """An argument that is a variable, or contains some."""

    name: str
    variable: str | None
    node: ValueNode
    definition: GraphQLArgument
    argument: StrawberryArgument
    is_plain: bool


class Arguments:
    """The arguments of a field in an operation. Raises NotCompiled."""

    def __init__(self, schema: GatewaySchema, definition: GraphQLField, node: FieldNode) -> None:
        self._schema = schema
        self._constant: dict[str, object] = {}
        self._given: list[_Given] = []
        nodes = {each.name.value: each.value for each in node.arguments or ()}
        for name, each in definition.args.items():
            self._add(each, nodes.get(name))

    def bound(self, variables: VariableValues) -> dict[str, object]:
        """Their values, by the names of the resolver's parameters. Raises NotCompiled for invalid ones."""
        values = self._constant.copy()
        coerced = variables.coerced
        for name, variable, node, definition, argument, is_plain in self._given:
            if variable is None:
                value = _defined(coerce_input_literal(node, definition.type, variables))
            elif variable in coerced:
                value = coerced[variable]
                if value is None and isinstance(definition.type, GraphQLNonNull):
                    raise NotCompiled(name)
            elif is_required_argument(definition):
                raise NotCompiled(name)
            else:
                value = coerce_default_value(definition)
            if value is not Undefined:
                values[name] = value if is_plain else self._converted(value, argument)
        return values

    def _add(self, definition: GraphQLArgument, node: ValueNode | None) -> None:
        argument = definition.extensions["strawberry-definition"]
        if not isinstance(argument, StrawberryArgument) or argument.python_name is None:
            raise NotCompiled(definition)
        name = argument.python_name
        if node is None:
            default = coerce_default_value(definition)
            if default is not Undefined:
                self._constant[name] = self._converted(default, argument)
        elif holds_variables(node):
            variable = node.name.value if isinstance(node, VariableNode) else None
            self._given.append(_Given(name, variable, node, definition, argument, _is_plain(definition)))
        else:
            self._constant[name] = self._converted(_defined(coerce_input_literal(node, definition.type)), argument)

    def _converted(self, value: object, argument: StrawberryArgument) -> object:
        return convert_argument(
            value, argument.type, self._schema.schema_converter.scalar_registry, self._schema.config
        )


def _is_plain(definition: GraphQLArgument) -> bool:
    """Whether Strawberry takes such values as they are."""
    type_ = definition.type
    return is_leaf_type(type_.of_type if isinstance(type_, GraphQLNonNull) else type_)


def _defined(value: object) -> object:
    if value is Undefined:
        raise NotCompiled
    return value
