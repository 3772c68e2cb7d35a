"""What a selection asks for, seen ahead of its execution."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphql import (
    FieldNode,
    FragmentSpreadNode,
    GraphQLIncludeDirective,
    GraphQLSkipDirective,
    InlineFragmentNode,
    get_directive_values,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from graphql import GraphQLResolveInfo, SelectionNode

__all__ = ["selects"]


def selects(info: GraphQLResolveInfo[object], field: str) -> bool:
    """Whether the selection below this field holds `field`, in whatever fragment, and does not skip it."""
    return any(node.selection_set and _holds(info, node.selection_set.selections, field) for node in info.field_nodes)


def _holds(info: GraphQLResolveInfo[object], selections: Iterable[SelectionNode], field: str) -> bool:
    return any(_is_or_holds(info, node, field) for node in selections if _included(info, node))


def _is_or_holds(info: GraphQLResolveInfo[object], node: SelectionNode, field: str) -> bool:
    match node:
        case FieldNode():
            return node.name.value == field
        case FragmentSpreadNode():
            return _holds(info, info.fragments[node.name.value].selection_set.selections, field)
        case InlineFragmentNode():
            return _holds(info, node.selection_set.selections, field)
        case _:
            return False


def _included(info: GraphQLResolveInfo[object], node: SelectionNode) -> bool:
    skip = get_directive_values(GraphQLSkipDirective, node, info.variable_values)
    include = get_directive_values(GraphQLIncludeDirective, node, info.variable_values)
    return not (skip and skip["if"]) and not (include and not include["if"])
