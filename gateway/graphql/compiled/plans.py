"""Plans: an operation's root fields with their resolvers and projections, made once and executed for each request.

What is not compiled is left to Strawberry: an operation as a whole (introspection, directives other than `@skip` and
`@include`), or one request if its variables are invalid, so that every such error is graphql-core's own. Nothing has
been executed by then.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain, count
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from graphql import (
    DirectiveNode,
    FragmentDefinitionNode,
    FragmentSpreadNode,
    GraphQLError,
    GraphQLNonNull,
    OperationType,
    VariableNode,
    is_union_type,
)
from graphql.execution.values import VariableValues
from msgspec import Raw
from strawberry.types import ExecutionResult

from gateway.encoded import LARGEST, Encoded
from gateway.graphql.answers import encode, exceeds
from gateway.graphql.compiled.arguments import Arguments, NotCompiled, Variables
from gateway.graphql.compiled.projections import Projector
from gateway.graphql.errors import failure
from gateway.graphql.resolvers import RESOLVERS, Call
from gateway.graphql.scalars import serialize_time
from gateway.graphql.selection import selects_session_context
from gateway.graphql.syntax import nodes_of
from gateway.model import SessionContext

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

    from graphql import DocumentNode, Node, OperationDefinitionNode
    from graphql.execution.collect_fields import FieldDetailsList

    from gateway.graphql.compiled.projections import Projection
    from gateway.graphql.resolvers import Context, Resolver
    from gateway.graphql.schema import GatewaySchema

__all__ = ["Bound", "Compiler", "Plan"]

_VARIANTS: Final = 8
"""Selections that a plan keeps at most: one for each combination of values of its conditions."""
_TIMES: Final = 2_000
"""Times whose text is kept: a session context has two, and to format them takes as long as all the rest of it."""
_PER_FIELD: Final = 1280
"""Bytes of memory, by measurement, that a field of a selection takes at most. A root field takes as much as three."""
_SELECTING: Final = {"include": True, "skip": False}
"""Directives that are compiled, and the condition by which each lets its selection be."""


class Compiler:
    """Makes plans. `schema` executes what is not compiled."""

    def __init__(self, schema: GatewaySchema) -> None:
        self.schema = schema
        self.times = lru_cache(_TIMES)(serialize_time)
        """Formats a time."""
        self.encoded = Encoded()
        self.forms = count()
        """Numbers for what its plans keep in `encoded`."""

    def plan(self, document: DocumentNode, operation: OperationDefinitionNode) -> Plan | None:
        """The plan of an operation of a valid document. None if it is left to Strawberry."""
        try:
            return Plan(self, document, operation)
        except NotCompiled:
            return None


class Plan:
    """How to answer an operation. Raises NotCompiled if it is left to Strawberry."""

    def __init__(self, compiler: Compiler, document: DocumentNode, operation: OperationDefinitionNode) -> None:
        schema = compiler.schema
        root = schema.core.get_root_type(operation.operation)
        if root is None or operation.operation not in _FOLLOWS:
            raise NotCompiled(operation)
        self._compiler = compiler
        self._root = root
        self._operation = operation
        self._follow = _FOLLOWS[operation.operation]
        self._fragments = {
            each.name.value: each for each in document.definitions if isinstance(each, FragmentDefinitionNode)
        }
        parts = [operation, *_spread(operation, self._fragments)]
        everything = _conditions(parts)
        self._conditions = tuple(everything)
        self._variables = Variables(schema, operation.variable_definitions or (), parts)
        self._selections: dict[tuple[object, ...], _Selection] = {}
        fields = self._selection(VariableValues({}, dict(everything))).size
        self.size: int = _PER_FIELD * fields * min(_VARIANTS, 1 << len(everything))
        """Bytes of memory that it may take in time, about."""

    def bound(self, variables: Mapping[str, object] | None) -> Bound | None:
        """The plan with these variables; None if they are invalid: Strawberry reports why."""
        try:
            values = self._variables.coerced(variables or {})
            selection = self._selection(values)
            steps = [(each, each.arguments.bound(values)) for each in selection.fields]
        except NotCompiled:
            return None
        return Bound(selection.blank, steps, self._follow)

    def _selection(self, variables: VariableValues) -> _Selection:
        """What is selected with these variables. Raises NotCompiled."""
        coerced = variables.coerced
        conditions = tuple([coerced.get(name) for name in self._conditions])
        selection = self._selections.get(conditions)
        if selection is None:
            selection = self._compiled(dict(zip(self._conditions, conditions, strict=True)))
            if len(self._selections) == _VARIANTS:
                del self._selections[next(iter(self._selections))]
            self._selections[conditions] = selection
        return selection

    def _compiled(self, conditions: Mapping[str, object]) -> _Selection:
        if not all(isinstance(each, bool) for each in conditions.values()):
            raise NotCompiled(conditions)
        projector = Projector(
            self._compiler.schema.core, self._compiler.times, self._operation, self._fragments, conditions
        )
        try:
            roots = projector.roots(self._root)
            fields = [self._field(projector, key, each) for key, each in roots.items() if _name(each) != "__typename"]
        except (GraphQLError, RecursionError) as error:
            raise NotCompiled from error
        blank: dict[str, object] = {
            key: self._root.name if _name(each) == "__typename" else None for key, each in roots.items()
        }
        return _Selection(blank, fields, projector.size + 2 * len(roots) + 1)

    def _field(self, projector: Projector, key: str, details: FieldDetailsList) -> _Field:
        name = _name(details)
        definition = self._root.fields.get(name)
        if definition is None or name not in RESOLVERS:  # introspection
            raise NotCompiled(name)
        if isinstance(definition.type, GraphQLNonNull):  # its failure would null the others too; ours has none of these
            raise NotCompiled(name)
        nodes = [each.node for each in details]
        return _Field(
            key=key,
            name=name,
            resolve=RESOLVERS[name],
            arguments=Arguments(self._compiler.schema, definition, nodes[0]),
            project=projector.projection(self._root, details),
            has_failures=is_union_type(definition.type),
            reads_back=selects_session_context(nodes, self._fragments, projector.conditions),
            encoded=self._compiler.encoded,
            form=next(self._compiler.forms),
        )


class Bound(NamedTuple):
    """A plan with values for its variables. It may be executed several times."""

    blank: dict[str, object]
    steps: _Steps
    follow: _Follow

    async def execute(self, context: Context) -> ExecutionResult:
        """Execute the operation. What goes wrong is in the result."""
        errors: list[GraphQLError] = []
        data = self.blank | await self.follow(context, self.steps, errors)
        return ExecutionResult(data=data, errors=errors or None)


class _Selection(NamedTuple):
    """Root fields, with all conditions decided."""

    blank: dict[str, object]
    """The answer with its fields in order, and nulls for those still to be resolved."""
    fields: Sequence[_Field]
    size: int
    """Memory that it takes, in fields."""


@dataclass(frozen=True, slots=True)
class _Field:
    """A root field."""

    key: str
    name: str
    resolve: Resolver
    arguments: Arguments
    project: Projection
    has_failures: bool
    reads_back: bool
    encoded: Encoded
    form: int
    """The number under which `encoded` has what this field makes of session contexts."""

    async def answer(self, context: Context, arguments: Mapping[str, object], errors: list[GraphQLError]) -> object:
        """Resolve it, and project the result. Null after a failure, which is added to the errors."""
        try:
            value = await self.resolve(Call(context, self.key, self.reads_back), **arguments)
        except Exception as error:  # noqa: BLE001 - whatever it is, it is the field's error
            value = (failure(error, self.name) if self.has_failures else None) or error
        if isinstance(value, SessionContext):
            return self._encoded(value, errors)
        return self.project(value, (), self.key, errors)

    def _encoded(self, value: SessionContext, errors: list[GraphQLError]) -> object:
        """Project it, or take what was made of the same document before."""
        known = self.encoded.get(value, self.form)
        if known is None:
            before = len(errors)
            projected = self.project(value, (), self.key, errors)
            if not self.encoded.recurs(value) or len(errors) > before or exceeds(projected, LARGEST):
                return projected
            known = encode(projected)
            self.encoded.put(value, self.form, known)
        return Raw(known)


_Steps: TypeAlias = "Sequence[tuple[_Field, Mapping[str, object]]]"
_Follow: TypeAlias = "Callable[[Context, _Steps, list[GraphQLError]], Awaitable[dict[str, object]]]"


async def _side_by_side(context: Context, steps: _Steps, errors: list[GraphQLError]) -> dict[str, object]:
    """Concurrently."""
    if len(steps) == 1:
        ((field, arguments),) = steps
        return {field.key: await field.answer(context, arguments, errors)}
    async with asyncio.TaskGroup() as tasks:
        answers = [
            (field.key, tasks.create_task(field.answer(context, arguments, errors))) for field, arguments in steps
        ]
    return {key: answer.result() for key, answer in answers}


async def _in_turn(context: Context, steps: _Steps, errors: list[GraphQLError]) -> dict[str, object]:
    """One after another (GraphQL specification, 6.2.2)."""
    return {field.key: await field.answer(context, arguments, errors) for field, arguments in steps}


_FOLLOWS: Final = {OperationType.QUERY: _side_by_side, OperationType.MUTATION: _in_turn}


def _name(details: FieldDetailsList) -> str:
    return details[0].node.name.value


def _spread(node: Node, fragments: Mapping[str, FragmentDefinitionNode]) -> Sequence[FragmentDefinitionNode]:
    """The fragments that are spread below a node, at any depth."""
    found: dict[str, FragmentDefinitionNode] = {}
    pending = [node]
    while pending:
        for each in nodes_of(pending.pop()):
            if isinstance(each, FragmentSpreadNode) and each.name.value not in found:
                fragment = fragments[each.name.value]
                found[each.name.value] = fragment
                pending.append(fragment)
    return list(found.values())


def _conditions(parts: Iterable[Node]) -> Mapping[str, bool]:
    """Variables in conditions, each with the value that selects most. Raises NotCompiled for any other directive."""
    conditions: dict[str, bool] = {}
    for each in chain.from_iterable(map(nodes_of, parts)):
        if not isinstance(each, DirectiveNode):
            continue
        if each.name.value not in _SELECTING:
            raise NotCompiled(each.name.value)
        for argument in each.arguments or ():
            if isinstance(argument.value, VariableNode):
                conditions[argument.value.name.value] = _SELECTING[each.name.value]
    return conditions
