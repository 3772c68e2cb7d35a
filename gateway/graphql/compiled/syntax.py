"""What stands in a document."""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphql import Node, VariableNode

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["holds_variables", "nodes_of"]


def nodes_of(node: Node) -> Iterator[Node]:
    """The node and all below it."""
    pending = [node]
    while pending:
        each = pending.pop()
        yield each
        for key in each.keys:
            child = getattr(each, key, None)
            children = child if isinstance(child, list | tuple) else (child,)
            pending += [item for item in children if isinstance(item, Node)]


def holds_variables(node: Node) -> bool:
    """Whether it is a variable, or has one inside."""
    return any(isinstance(each, VariableNode) for each in nodes_of(node))
