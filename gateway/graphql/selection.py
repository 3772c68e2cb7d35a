"""What a selection contains, seen before it is executed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphql import BooleanValueNode, FieldNode, FragmentSpreadNode, InlineFragmentNode, VariableNode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from graphql import FragmentDefinitionNode, SelectionNode

__all__ = ["selects_session_context"]


def selects_session_context(
    nodes: Iterable[FieldNode],
    fragments: Mapping[str, FragmentDefinitionNode],
    variables: Mapping[str, object],
) -> bool:
    """Whether a mutation at these nodes selects the `sessionContext` of its payload, and does not skip it.

    It may be in any fragment. `variables` are the operation's, coerced.
    """
    search = _Search(fragments, variables)
    return any(node.selection_set and search.holds(node.selection_set.selections) for node in nodes)


class _Search:
    def __init__(self, fragments: Mapping[str, FragmentDefinitionNode], variables: Mapping[str, object]) -> None:
        self._fragments = fragments
        self._variables = variables

    def holds(self, selections: Iterable[SelectionNode]) -> bool:
        return any(self._is_or_holds(node) for node in selections if self._included(node))

    def _is_or_holds(self, node: SelectionNode) -> bool:
        match node:
            case FieldNode():
                return node.name.value == "sessionContext"
            case FragmentSpreadNode():
                return self.holds(self._fragments[node.name.value].selection_set.selections)
            case InlineFragmentNode():
                return self.holds(node.selection_set.selections)
            case _:
                return False

    def _included(self, node: SelectionNode) -> bool:
        """By `@skip` and `@include` (GraphQL specification, 3.13)."""
        return not self._says(node, "skip", default=False) and self._says(node, "include", default=True)

    def _says(self, node: SelectionNode, directive: str, *, default: bool) -> bool:
        for each in node.directives or ():
            if each.name.value == directive and each.arguments:
                match each.arguments[0].value:
                    case BooleanValueNode(value=value):
                        return value
                    case VariableNode(name=name):
                        return bool(self._variables.get(name.value))
        return default
