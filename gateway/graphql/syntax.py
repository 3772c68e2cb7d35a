"""Looking into the syntax tree of a document."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphql import ListValueNode, Node, ObjectFieldNode, VariableNode
from graphql.language.ast import QUERY_DOCUMENT_KEYS

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["holds_variables", "is_composed", "nodes_of"]


def nodes_of(node: Node) -> Iterator[Node]:
    """The node and all below it."""
    pending = [node]
    while pending:
        each = pending.pop()
        yield each
        for key in QUERY_DOCUMENT_KEYS.get(each.kind, ()):
            below = getattr(each, key)
            if isinstance(below, Node):
                pending.append(below)
            elif below:
                pending += below


def holds_variables(node: Node) -> bool:
    """Whether it is a variable, or has one inside."""
    return any(isinstance(each, VariableNode) for each in nodes_of(node))


def is_composed(node: Node) -> bool:
    """Whether it is a literal of which a variable is a part."""
    if isinstance(node, ListValueNode):
        return any(isinstance(each, VariableNode) for each in node.values)
    return isinstance(node, ObjectFieldNode) and isinstance(node.value, VariableNode)
