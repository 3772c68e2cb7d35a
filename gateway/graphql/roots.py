"""The name that an operation has in metrics: its root field, or one word for several, so that there are only a few."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from graphql import FieldNode, FragmentDefinitionNode, FragmentSpreadNode, InlineFragmentNode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from graphql import DocumentNode, OperationDefinitionNode, SelectionNode

__all__ = ["SEVERAL", "root_field"]

SEVERAL: Final = "several"


def root_field(operation: OperationDefinitionNode, document: DocumentNode) -> str:
    """The field at the top of an operation, in whatever fragment; `several` if there is more than one.

    It is the schema's own name, as far as the document is valid.
    """
    fragments = {each.name.value: each for each in document.definitions if isinstance(each, FragmentDefinitionNode)}
    found: dict[str, str] = {}
    for each in _fields(operation.selection_set.selections, fragments, set()):
        found[each.alias.value if each.alias else each.name.value] = each.name.value
        if len(found) > 1:
            return SEVERAL
    return next(iter(found.values()), SEVERAL)


def _fields(
    selections: Iterable[SelectionNode], fragments: Mapping[str, FragmentDefinitionNode], seen: set[str]
) -> Iterator[FieldNode]:
    """The fields of a selection, each fragment looked into once. One that is not there is validation's to find."""
    for node in selections:
        match node:
            case FieldNode():
                yield node
            case InlineFragmentNode():
                yield from _fields(node.selection_set.selections, fragments, seen)
            case FragmentSpreadNode(name=name) if name.value in fragments and name.value not in seen:
                seen.add(name.value)
                yield from _fields(fragments[name.value].selection_set.selections, fragments, seen)
