"""Both ways of executing an operation, and what can be told apart of their results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import structlog.testing
from compiled.outcomes import Script, context_of
from defaults import LIMITS, MEMORY

from gateway.graphql.answers import encode
from gateway.graphql.compiled import Compiler
from gateway.graphql.documents import Documents
from gateway.graphql.errors import formatted
from gateway.graphql.schema import make_schema

if TYPE_CHECKING:
    from collections.abc import Mapping

    from strawberry.types import ExecutionResult

    from gateway.graphql.compiled import Plan
    from gateway.graphql.resolvers import Context, FieldRead

__all__ = ["Told", "Ways"]


@dataclass(frozen=True)
class Told:
    """What came of an operation."""

    data: bytes
    errors: list[object]
    reads: list[FieldRead]
    calls: list[tuple[object, ...]]
    let_in: tuple[int, int]


class Ways:
    """Documents that are compiled, and the schema that executes them too."""

    def __init__(self, *, introspection: bool = True) -> None:
        self.schema = make_schema(introspection=introspection)
        self.documents = Documents(
            self.schema.core, LIMITS, memory=MEMORY, compiler=Compiler(self.schema), introspection=introspection
        )

    def plan(self, text: str) -> Plan | None:
        """The plan of the only operation."""
        prepared = self.documents.by_text(text)
        prepared.valid()
        return prepared.operation(None).plan

    async def by_plan(
        self, text: str, variables: Mapping[str, Any] | None, script: Script, caller: str = "writer"
    ) -> Told:
        plan = self.plan(text)
        assert plan is not None, f"not compiled: {text}"
        context = context_of(self.documents.by_text(text).valid(), script, caller)
        bound = plan.bound(variables)
        if bound is None:
            return await self.by_strawberry(text, variables, script, caller)
        return _told(await bound.execute(context), context, script)

    async def by_strawberry(
        self, text: str, variables: Mapping[str, Any] | None, script: Script, caller: str = "writer"
    ) -> Told:
        context = context_of(self.documents.by_text(text).valid(), script, caller)
        result = await self.schema.execute(
            None, variable_values=None if variables is None else dict(variables), context_value=context
        )
        return _told(result, context, script)

    async def alike(
        self,
        text: str,
        variables: Mapping[str, Any] | None = None,
        *,
        seed: int = 0,
        failures: float = 0.0,
        caller: str = "writer",
    ) -> Told:
        """What came of it, if it is the same both ways, and once more by what the plan has kept of the first time."""
        expected = await self.by_strawberry(text, variables, Script(seed, failures), caller)
        for _ in range(2):
            told = await self.by_plan(text, variables, Script(seed, failures), caller)
            assert told == expected, f"{text}\n{variables}\n{told}\n{expected}"
        return expected


def _told(result: ExecutionResult, context: Context, script: Script) -> Told:
    with structlog.testing.capture_logs():
        errors = [_error(each) for each in result.errors or ()]
    assert result.errors is None or result.errors
    return Told(
        encode(result.data),
        errors,
        [*context.reads],
        script.calls,
        (context.sessions.let_in, context.own.let_in),
    )


def _error(error: Any) -> object:
    shown = formatted(error)
    if shown["extensions"]["code"] == "INTERNAL":
        shown["message"] = "internal error"  # its id differs each time
    cause = error.original_error
    return shown, error.message, error.path, error.locations, error.extensions, type(cause), str(cause)
