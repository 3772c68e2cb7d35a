"""Documents, each prepared once: parsed, measured, validated and compiled, and kept under the hash of its text.

Preparing one costs a hundred times as much as looking it up, so failures are kept as well. The memory for them is
limited, except for the trusted documents, which the operator provides.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog
from cachetools import LRUCache
from graphql import (
    GraphQLError,
    NoSchemaIntrospectionCustomRule,
    OperationDefinitionNode,
    OperationType,
    parse,
    specified_rules,
    validate,
)
from strawberry.schema.validation_rules.maybe_null import MaybeNullValidationRule
from strawberry.schema.validation_rules.one_of import OneOfInputValidationRule

from gateway.graphql.errors import MAX_ERRORS
from gateway.graphql.limits import Circular, Excess, measure, prices
from gateway.graphql.roots import root_field

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from graphql import ASTValidationRule, DocumentNode, GraphQLSchema

    from gateway.graphql.compiled import Compiler, Plan
    from gateway.graphql.limits import Cost, Limits

__all__ = ["Documents", "NotExecutable", "Operation", "Prepared", "digest_of"]

_LONGEST_NAME: Final = 64
"""Characters of a name that an error repeats: it may be as long as a body."""
_NESTED: Final = 200
"""Levels that graphql-core parses, of anything (`MAX_NESTING_DEPTH` of its parser)."""
_EACH: Final = 2048
_PER_CHARACTER: Final = 16
_PER_TOKEN: Final = 576
"""Bytes of memory, by measurement: what a document takes, and each of its errors; each character, which stands in the
text, in a token and in the syntax tree; and each token, with the nodes of the tree that it makes. All of them at most.
"""

_log = structlog.stdlib.get_logger(__name__)


class NotExecutable(Exception):
    """The request cannot be executed, for these reasons."""

    def __init__(self, *errors: GraphQLError) -> None:
        super().__init__(*(each.message for each in errors))
        self.errors = errors

    @classmethod
    def because(cls, message: str, code: str, **extensions: object) -> NotExecutable:
        """For one reason."""
        return cls(GraphQLError(message, extensions={"code": code, **extensions}))


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of a document."""

    name: str | None
    kind: OperationType
    cost: Cost
    selections: int
    """Fields and fragments of the document, those in fragments counted wherever they are spread."""
    length: int
    """Of the document."""
    field: str
    """Its root field, or `several` if there is more than one. Names are the schema's if the document is valid."""
    size: int
    """Bytes of memory that the document takes with this plan alone, at most."""
    plan: Plan | None = None
    """How to answer it, if it is compiled."""


@dataclass(frozen=True, slots=True)
class Prepared:
    """What came of preparing a document: its syntax tree, or its errors."""

    digest: str
    """SHA-256 of its text, in hex."""
    length: int
    """Of its text."""
    operations: Sequence[Operation] = ()
    document: DocumentNode | None = None
    errors: Sequence[GraphQLError] = ()

    def operation(self, name: str | None) -> Operation:
        """The one that is to be executed (GraphQL, 6.1). Raises NotExecutable if that is not clear.

        If none is named, Strawberry would take the first of several, and so perhaps a mutation beside a query.
        """
        if not self.operations and self.errors:  # not even parsed
            raise NotExecutable(*self.errors)
        named = [each for each in self.operations if name is None or each.name == name]
        if len(named) == 1 or (named and name is not None):  # validation reports two of the same name
            return named[0]
        raise NotExecutable(
            GraphQLError(
                "the document must hold one operation, unless operationName names one of several"
                if name is None
                else f"the document holds no operation of the operationName {_shortened(name)!r}"
            )
        )

    def valid(self) -> DocumentNode:
        """The syntax tree. Raises NotExecutable when there are errors."""
        if self.document is None:
            raise NotExecutable(*self.errors)
        return self.document


class Documents:
    """Prepares documents and keeps them, up to about `memory` bytes of them.

    The `trusted` ones, by their ids, are prepared at once; `only_trusted` refuses all others unseen. With
    `measure_only`, documents that exceed the limits are logged, and not refused. Without a compiler they have no plans.
    """

    def __init__(
        self,
        schema: GraphQLSchema,
        limits: Limits,
        *,
        memory: int,
        compiler: Compiler | None = None,
        introspection: bool = False,
        measure_only: bool = False,
        trusted: Mapping[str, str] | None = None,
        only_trusted: bool = False,
    ) -> None:
        self._schema = schema
        self._limits = limits
        self._compiler = compiler
        self._prices = prices(schema)
        self._introspection = introspection
        self._rules = tuple(_rules(introspection=introspection))
        self.measure_only = measure_only
        self._kept: LRUCache[str, Prepared] = LRUCache(memory, getsizeof=_size_of)
        self._trusted: dict[str, Prepared] = {}
        self._only_trusted = only_trusted
        for name, text in (trusted or {}).items():
            digest = digest_of(text)
            prepared = self._trusted.get(digest) or self._prepare(text, digest, held_to_limits=False)
            self._trusted[name] = self._trusted[digest] = prepared

    def __len__(self) -> int:
        return len(self._kept)

    def bad(self) -> Iterator[tuple[str, str]]:
        """What is wrong with trusted documents: the id, and the first error of each."""
        seen = set()
        for name, each in self._trusted.items():
            if each.errors and each.digest not in seen:
                seen.add(each.digest)
                yield name, each.errors[0].message

    def by_text(self, text: str) -> Prepared:
        """The document with this text. Raises NotExecutable if it is refused unseen."""
        digest = digest_of(text)
        if (trusted := self._trusted.get(digest)) is not None:
            return trusted
        if self._only_trusted:
            raise NotExecutable.because(
                "this gateway executes the documents of its manifest alone, and this is none of them",
                "QUERY_NOT_IN_SAFELIST",
            )
        if len(text) > self._limits.length:
            self._check(Excess.of("length", self._limits.length, len(text)), digest)
        try:
            return self._kept[digest]
        except KeyError:
            prepared = self._prepare(text, digest)
        if _size_of(prepared) <= self._kept.maxsize:
            self._kept[digest] = prepared
        return prepared

    def by_id(self, name: str) -> Prepared:
        """The document with this id or hash. Raises NotExecutable if there is none."""
        name = name.removeprefix("sha256:")
        prepared = self._trusted.get(name) or self._kept.get(name)
        if prepared is not None:
            return prepared
        if self._only_trusted:
            raise NotExecutable.because(
                "this gateway executes the documents of its manifest alone, and none of them has this id",
                "PERSISTED_QUERY_NOT_IN_LIST",
            )
        raise NotExecutable.because("PersistedQueryNotFound", "PERSISTED_QUERY_NOT_FOUND")

    def check_cost(self, prepared: Prepared, operation: Operation, variables: Mapping[str, object]) -> None:
        """Hold an operation with its variables to the limit of cost. Raises NotExecutable."""
        cost = operation.cost.of(variables, self._limits.cost)
        if cost > self._limits.cost:
            self._check(Excess.of("cost", self._limits.cost, cost), prepared.digest)

    def _prepare(self, text: str, digest: str, *, held_to_limits: bool = True) -> Prepared:
        try:
            return self._prepared(text, digest, held_to_limits=held_to_limits)
        except GraphQLError as error:
            return Prepared(digest, len(text), errors=(_detached(error),))
        except NotExecutable as refusal:
            return Prepared(digest, len(text), errors=refusal.errors)

    def _prepared(self, text: str, digest: str, *, held_to_limits: bool) -> Prepared:
        document = self._parse(text, digest) if held_to_limits else parse(text)
        try:
            measured = measure(document, self._prices, self._limits)
        except Circular as circular:
            raise GraphQLError(_circular(circular)) from None
        if held_to_limits:
            for excess in measured.excesses(self._limits):
                self._check(excess, digest)
        errors = validate(
            self._schema, document, self._rules, max_errors=MAX_ERRORS, hide_suggestions=not self._introspection
        )
        compiler = None if errors else self._compiler
        nodes = [each for each in document.definitions if isinstance(each, OperationDefinitionNode)]
        plans = [compiler.plan(document, each) if compiler else None for each in nodes]
        size = _size(len(text), document)
        operations = [
            Operation(
                node.name.value if node.name else None,
                node.operation,
                cost,
                measured.selections,
                len(text),
                root_field(node, document),
                size + (plan.size if plan else 0),
                plan,
            )
            for node, cost, plan in zip(nodes, measured.costs, plans, strict=True)
        ]
        kept = None if errors else document
        return Prepared(digest, len(text), operations, kept, tuple(map(_detached, errors)))

    def _parse(self, text: str, digest: str) -> DocumentNode:
        tokens = self._limits.tokens
        try:
            return parse(text, max_lexical_tokens=tokens, max_comments=tokens)
        except GraphQLError as error:
            excess = _excess_of(error, self._limits)
            if excess is None:
                raise
        self._check(excess, digest)
        return parse(text)

    def _check(self, excess: Excess, digest: str | None = None) -> None:
        """Refuse, or log where it is only measured."""
        if self.measure_only:
            _log.warning("limit_exceeded", limit=excess.limit, value=excess.value, bound=excess.bound, document=digest)
            return
        raise NotExecutable.because(
            str(excess), "GRAPHQL_LIMIT_EXCEEDED", limit=excess.limit, value=excess.value, bound=excess.bound
        )


def digest_of(text: str) -> str:
    """The hash under which documents are kept."""
    return hashlib.sha256(text.encode()).hexdigest()


def _rules(*, introspection: bool) -> Iterable[type[ASTValidationRule]]:
    """The rules of the specification, and Strawberry's own."""
    yield from specified_rules
    yield MaybeNullValidationRule
    yield OneOfInputValidationRule
    if not introspection:
        yield NoSchemaIntrospectionCustomRule


def _shortened(name: str) -> str:
    """The name, or as much of it as an error repeats."""
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"


def _size_of(prepared: Prepared) -> int:
    plans = sum(each.plan.size for each in prepared.operations if each.plan)
    errors = sum(_size(len(each.message)) for each in prepared.errors)
    return _size(prepared.length, prepared.document) + plans + errors


def _size(length: int, document: DocumentNode | None = None) -> int:
    return _EACH + _PER_CHARACTER * length + _PER_TOKEN * _tokens(document)


def _tokens(document: DocumentNode | None) -> int:
    """How many tokens and comments the syntax tree keeps."""
    count, token = 0, document.loc.start_token if document and document.loc else None
    while token:
        count, token = count + 1, token.next
    return count


def _detached(error: GraphQLError) -> GraphQLError:
    """The same error without the syntax tree, and without its traceback."""
    return GraphQLError(error.message, source=error.source, positions=error.positions)


def _circular(circular: Circular) -> str:
    first, *via = circular.names[:-1]
    through = f" via {', '.join(map(repr, via))}" if via else ""
    return f"Cannot spread fragment {first!r} within itself{through}."


def _excess_of(error: GraphQLError, limits: Limits) -> Excess | None:
    """The limit that ended parsing, which the parser tells only by its message."""
    words = error.message.removeprefix("Syntax Error: Document ")
    if words.startswith(("contains more than", "contains more comments")):
        return Excess.of("tokens", limits.tokens, limits.tokens + 1)
    if words.startswith("is nested too deeply"):
        return Excess.of("depth", min(limits.depth, _NESTED), _NESTED + 1)
    return None
