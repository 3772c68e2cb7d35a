"""How large a document may be: measured on its syntax, before validation, some rules of which take quadratic time.

A fragment is measured once, however often it is spread, so that measuring takes linear time. What the spreads amount to
is computed, not visited, until it is known to be small.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from graphlib import CycleError, TopologicalSorter
from itertools import chain
from typing import TYPE_CHECKING, Final, TypeAlias

from graphql import (
    FieldNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    InlineFragmentNode,
    ListTypeNode,
    ListValueNode,
    NonNullTypeNode,
    ObjectValueNode,
    OperationDefinitionNode,
    VariableNode,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from graphql import (
        ArgumentNode,
        DirectiveNode,
        DocumentNode,
        GraphQLSchema,
        SelectionSetNode,
        TypeNode,
        ValueNode,
        VariableDefinitionNode,
    )

__all__ = ["Circular", "Cost", "Excess", "Limits", "Measure", "Price", "measure", "prices"]

_READ: Final = 10
"""Cost of reading a session context, in fields of an answer."""
_WRITE: Final = 50
"""Cost of a write: it reads and writes, and may have to repeat that."""


_MANY: Final = 2**31 - 1


@dataclass(frozen=True, slots=True)
class Limits:
    """Upper bounds. Fragments count wherever they are spread."""

    length: int
    """Characters of a document."""
    tokens: int
    """Tokens of a document; and comments as many again."""
    depth: int
    """Levels of fields in an operation."""
    root_fields: int
    """Fields at the top of an operation."""
    aliases: int
    """Fields of an operation that have another name in the answer."""
    directives: int
    """Directives of an operation."""
    selections: int
    """Fields and fragments of a document's operations."""
    values: int
    """Entries of lists and objects that a document's operations spell out; in a variable's default, once for each list
    of its type: `[[Int]]` makes a list of each 1 in `[1, 1]`."""
    repeats: int
    """Pairs of fields of one name, and pairs of fragments, at one place: validation compares each with the other."""
    cost: int
    """What an operation costs, in fields of the answer: to read a session context costs 10 more, to write 50 more.
    Entries of a list in a variable cost 1 each, unless they are sessions to read."""


@dataclass(frozen=True, slots=True)
class Excess:
    """A limit that is passed. Where counting ended there, `value` is what had been counted."""

    limit: str
    bound: int
    value: int

    @classmethod
    def of(cls, limit: str, bound: int, value: int) -> Excess:
        """Nested fragments make counts grow exponentially, so the value is at most GraphQL's largest Int."""
        return cls(limit, bound, min(value, _MANY))

    def __str__(self) -> str:
        return f"the limit of {self.limit.replace('_', ' ')} is {self.bound}, and the document has {self.value}"


class Circular(Exception):
    """Fragments that spread each other: `names`, of which the last is the first."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(" -> ".join(names))
        self.names = names


@dataclass(frozen=True, slots=True)
class Price:
    """What a root field costs: `base`, for each entry of the argument `per_item` if there is one."""

    base: int
    per_item: str | None = None


def prices(schema: GraphQLSchema) -> Mapping[str, Price]:
    """Root fields by name. One that takes a list does its work for each of the entries."""
    table: dict[str, Price] = {}
    for root, base in ((schema.query_type, _READ), (schema.mutation_type, _WRITE)):
        for name, definition in (root.fields if root else {}).items():
            lists = (argument for argument, each in definition.args.items() if "[" in str(each.type))
            table[name] = Price(base, next(lists, None))
    return table


@dataclass(frozen=True, slots=True)
class ListVariable:
    """A variable of a list type. Its value is coerced entry by entry, whatever it is used for."""

    price: int
    """Cost of each entry."""
    levels: int
    """How many lists its type nests: GraphQL makes a single value a list of one, at each level."""
    default: int
    """How many entries it has if it is left out."""


@dataclass(frozen=True, slots=True)
class Cost:
    """What an operation costs: `fixed`, and so much for each entry of the lists in some variables."""

    fixed: int
    lists: Mapping[str, ListVariable]

    def of(self, variables: Mapping[str, object], most: int) -> int:
        """The cost with these variables, as they were sent. Where it exceeds `most`, not all may have been counted."""
        if not self.lists:
            return self.fixed
        return self.fixed + sum(
            each.price * (_coerced(variables[name], each.levels, most) if name in variables else each.default)
            for name, each in self.lists.items()
        )


@dataclass(frozen=True, slots=True)
class Measure:
    """What was counted in a document."""

    depth: int
    root_fields: int
    aliases: int
    directives: int
    selections: int
    values: int
    repeats: int
    costs: Sequence[Cost]
    """Of each operation, in the order of the document."""

    def excesses(self, limits: Limits) -> Iterator[Excess]:
        """The limits that are exceeded, whatever the variables are."""
        for limit in ("depth", "root_fields", "aliases", "directives", "selections", "values", "repeats"):
            value, bound = getattr(self, limit), getattr(limits, limit)
            if value > bound:
                yield Excess.of(limit, bound, value)


def measure(document: DocumentNode, table: Mapping[str, Price], limits: Limits) -> Measure:
    """Measure a document. Repeats are not counted if there are too many selections to visit. Raises Circular."""
    operations = [each for each in document.definitions if isinstance(each, OperationDefinitionNode)]
    fragments = _Fragments([each for each in document.definitions if isinstance(each, FragmentDefinitionNode)], table)
    counts = [fragments.count(each) for each in operations]
    unused = fragments.unused(operations)
    everything = [*counts, *(fragments.counts[name] for name in unused)]
    selections = sum(each.selections for each in everything)
    depth = max((each.depth for each in everything), default=0)
    repeats = 0
    if selections <= limits.selections and depth <= limits.depth:
        roots = [*operations, *chain.from_iterable(map(fragments.named, unused))]
        repeats = sum(fragments.repeats([each.selection_set]) for each in roots)
    return Measure(
        depth=depth,
        root_fields=max((each.top for each in counts), default=0),
        aliases=max((each.aliases for each in everything), default=0),
        directives=max((each.directives for each in everything), default=0),
        selections=selections,
        values=sum(each.values for each in everything),
        repeats=repeats,
        costs=[
            Cost(each.fixed, _lists(operation, each.per_entry))
            for each, operation in zip(counts, operations, strict=True)
        ],
    )


@dataclass(slots=True)
class _Count:
    """The measures of a selection set.

    `top`, `fixed` and `per_entry` are of its own fields alone, as if they were root fields: the costs of all others are
    in theirs.
    """

    depth: int = 0
    top: int = 0
    fields: int = 0
    aliases: int = 0
    directives: int = 0
    selections: int = 0
    values: int = 0
    fixed: int = 0
    per_entry: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, other: _Count) -> None:
        """Add what stands beside it."""
        self.add_below(other, levels=0)
        self.top += other.top
        self.fixed += other.fixed
        for name, each in other.per_entry.items():
            self.per_entry[name] += each

    def add_below(self, other: _Count, *, levels: int = 1) -> None:
        """Add what stands below one of its fields."""
        self.depth = max(self.depth, other.depth + levels)
        self.fields += other.fields
        self.aliases += other.aliases
        self.directives += other.directives
        self.selections += other.selections
        self.values += other.values

    def add_directives(self, directives: Sequence[DirectiveNode] | None) -> None:
        """Add those of one place."""
        for each in directives or ():
            self.directives += 1
            self.add_arguments(each.arguments)

    def add_arguments(self, arguments: Sequence[ArgumentNode] | None) -> None:
        """Add what they spell out."""
        self.values += _spelt_out([each.value for each in arguments or ()])

    def add_variable(self, variable: VariableDefinitionNode) -> None:
        """Add its directives and its default, which is coerced with the document."""
        self.add_directives(variable.directives)
        if variable.default_value is not None:
            self.values += max(1, _levels(variable.type)) * _spelt_out([variable.default_value])


_NOTHING: Final = _Count()

_Definition: TypeAlias = OperationDefinitionNode | FragmentDefinitionNode


class _Fragments:
    """Fragments, measured from the innermost outwards. Several of one name, which is an error, count as one."""

    def __init__(self, fragments: Sequence[FragmentDefinitionNode], table: Mapping[str, Price]) -> None:
        self._table = table
        self._by_name: defaultdict[str, list[FragmentDefinitionNode]] = defaultdict(list)
        for each in fragments:
            self._by_name[each.name.value].append(each)
        self.counts: dict[str, _Count] = {}
        for name in self._inner_first():
            self.counts[name] = _Count()
            for each in self._by_name[name]:
                self.counts[name].add(self.count(each))

    def named(self, name: str) -> Sequence[FragmentDefinitionNode]:
        """Those of a name."""
        return self._by_name.get(name, ())

    def unused(self, operations: Sequence[OperationDefinitionNode]) -> Iterable[str]:
        """Names of those that are spread nowhere: from these and the operations, all others are reached."""
        spread = {name for each in chain(operations, *self._by_name.values()) for name in _spreads(each.selection_set)}
        return [name for name in self._by_name if name not in spread]

    def count(self, definition: _Definition) -> _Count:
        """Count a definition, whose fragments have been counted."""
        count = self._count(definition.selection_set)
        count.add_directives(definition.directives)
        for each in definition.variable_definitions or ():
            count.add_variable(each)
        return count

    def repeats(self, places: Iterable[SelectionSetNode]) -> int:
        """Pairs that are compared in these selection sets, taken together, and below."""
        fields: defaultdict[str, list[SelectionSetNode | None]] = defaultdict(list)
        fragments = 0
        pending = list(places)
        while pending:
            for node in pending.pop().selections:
                match node:
                    case FieldNode():
                        fields[(node.alias or node.name).value].append(node.selection_set)
                    case InlineFragmentNode():
                        fragments += 1
                        pending.append(node.selection_set)
                    case FragmentSpreadNode():
                        fragments += 1
                        pending += [each.selection_set for each in self.named(node.name.value)]
        return _pairs(fragments) + sum(
            _pairs(len(each)) + self.repeats([below for below in each if below is not None]) for each in fields.values()
        )

    def _inner_first(self) -> Iterable[str]:
        graph = {
            name: {inner for each in named for inner in _spreads(each.selection_set)} & self._by_name.keys()
            for name, named in self._by_name.items()
        }
        try:
            return list(TopologicalSorter(graph).static_order())
        except CycleError as error:
            raise Circular(error.args[1][::-1]) from None

    def _count(self, selection_set: SelectionSetNode) -> _Count:
        count = _Count()
        for node in selection_set.selections:
            count.selections += 1
            count.add_directives(node.directives)
            match node:
                case FieldNode():
                    self._add_field(count, node)
                case InlineFragmentNode():
                    count.add(self._count(node.selection_set))
                case FragmentSpreadNode():
                    count.add(self.counts.get(node.name.value, _NOTHING))
        return count

    def _add_field(self, count: _Count, node: FieldNode) -> None:
        below = _NOTHING if node.selection_set is None else self._count(node.selection_set)
        count.add_below(below)
        count.add_arguments(node.arguments)
        count.fields += 1
        count.aliases += node.alias is not None
        count.top += 1
        price = self._table.get(node.name.value, Price(0))
        items = next((each.value for each in node.arguments or () if each.name.value == price.per_item), None)
        if isinstance(items, VariableNode):
            count.per_entry[items.name.value] += price.base + below.fields
        else:
            count.fixed += (price.base + below.fields) * _entries(items)
        count.fixed += 1


def _spreads(selection_set: SelectionSetNode) -> Iterator[str]:
    """Names of the fragments that are spread, at whatever depth."""
    pending: list[SelectionSetNode] = [selection_set]
    while pending:
        for node in pending.pop().selections:
            if isinstance(node, FragmentSpreadNode):
                yield node.name.value
            elif isinstance(node, FieldNode | InlineFragmentNode) and node.selection_set is not None:
                pending.append(node.selection_set)


def _lists(operation: OperationDefinitionNode, per_entry: Mapping[str, int]) -> Mapping[str, ListVariable]:
    """The variables that are lists, with what their entries cost."""
    lists: dict[str, ListVariable] = {}
    for each in operation.variable_definitions or ():
        name, levels = each.variable.name.value, _levels(each.type)
        if levels:
            default = 0 if each.default_value is None else _entries(each.default_value)
            lists[name] = ListVariable(per_entry.get(name, 1), levels, default)
    return lists


def _levels(type_: TypeNode) -> int:
    """How many lists there are in a type."""
    levels = 0
    while isinstance(type_, ListTypeNode | NonNullTypeNode):
        levels += isinstance(type_, ListTypeNode)
        type_ = type_.type
    return levels


def _spelt_out(pending: list[ValueNode]) -> int:
    """Entries of lists and objects in these literals, at whatever depth."""
    entries = 0
    while pending:
        match pending.pop():
            case ListValueNode(values=values):
                entries += len(values)
                pending += values
            case ObjectValueNode(fields=fields):
                entries += len(fields)
                pending += [each.value for each in fields]
    return entries


def _entries(value: ValueNode | None) -> int:
    """How many entries a literal has; a single value is coerced to a list of one."""
    return len(value.values) if isinstance(value, ListValueNode) else 1


def _coerced(value: object, levels: int, most: int) -> int:
    """How many entries there are in the lists that a value is coerced to; counting ends where there are more."""
    entries = 0
    level = [value]
    for _ in range(levels):
        level = [inner for each in level for inner in (each if isinstance(each, list) else [each])]
        entries += len(level)
        if entries > most:
            break
    return entries


def _pairs(number: int) -> int:
    return number * (number - 1) // 2
