"""Operations from the schema, and the same told otherwise: with variables, fragments, aliases, conditions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from graphql import (
    ArgumentNode,
    BooleanValueNode,
    DirectiveNode,
    DocumentNode,
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLInputObjectType,
    GraphQLList,
    GraphQLNonNull,
    GraphQLObjectType,
    InlineFragmentNode,
    ListValueNode,
    NamedTypeNode,
    NameNode,
    ObjectFieldNode,
    ObjectValueNode,
    OperationDefinitionNode,
    SelectionSetNode,
    VariableDefinitionNode,
    VariableNode,
    get_named_type,
    is_union_type,
    parse,
    parse_const_value,
    parse_type,
    print_ast,
    value_from_ast_untyped,
)
from hypothesis import strategies as st
from hypothesis_graphql import from_schema, nodes

if TYPE_CHECKING:
    import random

    from graphql import GraphQLNamedType, GraphQLSchema, SelectionNode, ValueNode

__all__ = ["Request", "operations", "told_otherwise"]

_ODD: tuple[object, ...] = (None, 7, 2**31, -1, "x", "", True, 1.5, [], ["a", 3], [None], {}, {"tenant": "t"})
"""Values that are wrong for most variables."""


@dataclass(frozen=True)
class Request:
    text: str
    variables: dict[str, object]


def operations(schema: GraphQLSchema) -> st.SearchStrategy[str]:
    """Queries and mutations that are valid."""
    times = st.just(nodes.String("2026-02-04T16:36:44.047Z"))
    values = [nodes.String("x"), nodes.Int(3), nodes.Null, nodes.Object([]), nodes.List([nodes.Float(0.5)])]
    scalars = {"JSON": st.sampled_from(values), "Version": st.integers(0, 20).map(nodes.Int), "DateTime": times}
    made: st.SearchStrategy[str] = from_schema(schema, custom_scalars=scalars)
    return made


def told_otherwise(text: str, schema: GraphQLSchema, chance: random.Random) -> Request:
    """About the same operation, in other words. Not always valid; its variables not always such as will do."""
    return _Teller(schema, chance).told(parse(text))


@dataclass
class _Teller:
    schema: GraphQLSchema
    chance: random.Random
    definitions: list[VariableDefinitionNode] = field(default_factory=list)
    fragments: list[FragmentDefinitionNode] = field(default_factory=list)
    values: dict[str, object] = field(default_factory=dict)

    def told(self, document: DocumentNode) -> Request:
        (operation,) = document.definitions
        assert isinstance(operation, OperationDefinitionNode)
        root = self.schema.get_root_type(operation.operation)
        several = self.chance.choice((1, 1, 2, 2, 3, 7))
        some = self.chance.sample(
            operation.selection_set.selections, min(several, len(operation.selection_set.selections))
        )
        selections = self._selections(_set(*some), root)
        if self.maybe(0.02):
            selections = _set(
                *selections.selections,
                FieldNode(
                    name=NameNode(value="__schema"),
                    selection_set=_set(FieldNode(name=NameNode(value="queryType"), selection_set=_set(_typename()))),
                ),
            )
        operation = OperationDefinitionNode(
            operation=operation.operation,
            name=NameNode(value="Told") if self.maybe(0.5) else None,
            variable_definitions=tuple(self.definitions),
            directives=(),
            selection_set=selections,
        )
        return Request(print_ast(DocumentNode(definitions=(operation, *self.fragments))), self.values)

    def maybe(self, probability: float) -> bool:
        return self.chance.random() < probability

    def _selections(self, below: SelectionSetNode, type_: GraphQLNamedType | None) -> SelectionSetNode:
        told: list[SelectionNode] = []
        for each in below.selections:
            told += self._selection(each, type_)
        if self.maybe(0.25):
            told.insert(self.chance.randrange(len(told) + 1), _typename("kind" if self.maybe(0.3) else None))
        if is_union_type(type_) and self.maybe(0.4):
            failure = [FieldNode(name=NameNode(value=name)) for name in ("code", "message") if self.maybe(0.7)]
            told.append(self._fragment("Failure", _set(*failure or [_typename()])))
        if len(told) > 1 and self.maybe(0.2):
            cut = self.chance.randrange(1, len(told))
            told = [*told[:cut], self._fragment(str(type_), _set(*told[cut:]))]
        return _set(*told)

    def _selection(self, node: SelectionNode, type_: GraphQLNamedType | None) -> list[SelectionNode]:
        if isinstance(node, InlineFragmentNode):
            assert node.type_condition is not None
            name = node.type_condition.name.value
            below = self._selections(node.selection_set, self.schema.type_map[name])
            return [self._fragment(name, below)]
        assert isinstance(node, FieldNode)
        assert isinstance(type_, GraphQLObjectType)
        definition = type_.fields.get(node.name.value)
        if definition is None:
            return [node]
        named = get_named_type(definition.type)
        arguments = tuple(
            ArgumentNode(name=each.name, value=self._value(each.value, definition.args[each.name.value].type))
            for each in node.arguments or ()
        )
        told = [
            FieldNode(
                name=node.name,
                alias=node.alias,
                arguments=arguments,
                directives=self._conditions(),
                selection_set=self._selections(node.selection_set, named) if node.selection_set else None,
            )
        ]
        if self.maybe(0.15):  # once more, under another name or merged
            told.append(
                FieldNode(
                    name=node.name,
                    alias=NameNode(value=f"again_{node.name.value}") if self.maybe(0.6) else node.alias,
                    arguments=arguments,
                    directives=self._conditions(),
                    selection_set=self._selections(node.selection_set, named) if node.selection_set else None,
                )
            )
        return [*told]

    def _fragment(self, on: str, below: SelectionSetNode) -> SelectionNode:
        condition = NamedTypeNode(name=NameNode(value=on))
        if self.maybe(0.5):
            return InlineFragmentNode(type_condition=condition, directives=self._conditions(), selection_set=below)
        name = f"F{len(self.fragments)}"
        self.fragments.append(
            FragmentDefinitionNode(
                name=NameNode(value=name), type_condition=condition, directives=(), selection_set=below
            )
        )
        return FragmentSpreadNode(name=NameNode(value=name), directives=self._conditions())

    def _conditions(self) -> tuple[DirectiveNode, ...]:
        told = []
        for name, holds in (("skip", 0.3), ("include", 0.8)):
            if self.maybe(0.06):
                value = self.maybe(holds)
                node: ValueNode = BooleanValueNode(value=value)
                if self.maybe(0.6):
                    node = self._variable(node, "Boolean!", value)
                told.append(
                    DirectiveNode(
                        name=NameNode(value=name), arguments=(ArgumentNode(name=NameNode(value="if"), value=node),)
                    )
                )
        return tuple(told)

    def _value(self, node: ValueNode, type_: Any) -> ValueNode:
        if self.maybe(0.2):
            return self._variable(node, str(type_), value_from_ast_untyped(node))
        bare = type_.of_type if isinstance(type_, GraphQLNonNull) else type_
        if isinstance(node, ObjectValueNode) and isinstance(bare, GraphQLInputObjectType):
            fields = [
                ObjectFieldNode(name=each.name, value=self._value(each.value, bare.fields[each.name.value].type))
                for each in node.fields
            ]
            return ObjectValueNode(fields=tuple(fields))
        if isinstance(node, ListValueNode) and isinstance(bare, GraphQLList):
            return ListValueNode(values=tuple(self._value(each, bare.of_type) for each in node.values))
        if isinstance(node, ListValueNode) and str(bare) == "JSON":
            return ListValueNode(values=tuple(self._value(each, bare) for each in node.values))
        return node

    def _variable(self, node: ValueNode, type_: str, value: object) -> VariableNode:
        variable = VariableNode(name=NameNode(value=f"v{len(self.definitions)}"))
        name = variable.name.value
        written = print_ast(node)
        has_default = written != "null" and "$" not in written and self.maybe(0.25)
        self.definitions.append(
            VariableDefinitionNode(
                variable=variable,
                type=parse_type(type_.removesuffix("!") if has_default and self.maybe(0.5) else type_),
                default_value=parse_const_value(written) if has_default else None,
                directives=(),
            )
        )
        if self.maybe(0.04):
            self.values[name] = self.chance.choice(_ODD)
        elif not (self.maybe(0.5) if has_default else self.maybe(0.03)):
            self.values[name] = value
        return variable


def _typename(alias: str | None = None) -> FieldNode:
    return FieldNode(name=NameNode(value="__typename"), alias=NameNode(value=alias) if alias else None)


def _set(*selections: SelectionNode) -> SelectionSetNode:
    return SelectionSetNode(selections=selections)
