"""What requests ask to have executed: an operation with its variables and its plan.

Pages send the same few operations about the same session, so that many a body has been seen before, to the byte. What
came of it then, up to the point where callers are checked, comes of it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from graphql import OperationType
from msgspec import Struct

from gateway.errors import NoRoomForRequest
from gateway.graphql.bodies import Bodies, NotReceived
from gateway.graphql.head import Refused
from gateway.graphql.requests import parameters_in_body, parameters_in_query
from gateway.memory_budget import PER_BYTE, SMALL, MemoryBudget
from gateway.model import decoded_size

if TYPE_CHECKING:
    from graphql import DocumentNode

    from gateway.deadline import Deadline
    from gateway.graphql.compiled import Bound
    from gateway.graphql.documents import Documents, Operation
    from gateway.graphql.requests import HttpRequest, Parameters

__all__ = ["Executable", "Executables"]

_MOST: Final = 256
"""Bodies that are remembered."""
_LONGEST: Final = 4096
"""Bytes of a body that is remembered."""
_LARGEST: Final = 131_072
"""Bytes of its document and plan, which are kept with it, here too."""


class Executable(Struct, frozen=True):
    """A valid operation within the limits, with its variables."""

    document: DocumentNode
    operation: Operation
    kind: str
    """`query` or `mutation`."""
    variables: dict[str, object] | None
    bound: Bound | None
    """The plan with these variables; None where Strawberry is to execute the operation."""
    wants_cache_told: bool
    """Whether the answer is to say in its body where it came from."""


class Executables:
    """Makes executables of requests. `max_body` bounds a body, in bytes."""

    def __init__(self, documents: Documents, *, max_body: int) -> None:
        self._documents = documents
        self._bodies = Bodies(max_body)
        self._memory = MemoryBudget()
        self._known: dict[bytes, Executable] = {}
        """By body, the oldest first."""

    async def of(self, request: HttpRequest, deadline: Deadline) -> Executable:
        """What a request asks for. Raises Refused, NotExecutable and ClientDisconnect."""
        match request.method:
            case "GET":
                if len(request.query) > SMALL:
                    self._reserve(PER_BYTE * len(request.query))
                executable = self._executable(parameters_in_query(request))
                _check_is_query(executable.operation)
                return executable
            case "POST":
                body = await self._bodies.of(request, deadline)
                return self._known.get(body) or self._found(body)
            case method:
                raise Refused(405, f"{method} is not supported: use GET for queries, or POST", {"allow": "GET, POST"})

    def _found(self, body: bytes) -> Executable:
        """What an unknown body asks for; it is remembered if that is worth while."""
        if len(body) > SMALL:
            self._reserve(decoded_size(body))
        parameters = parameters_in_body(body)
        executable = self._executable(parameters)
        if (
            executable.bound is not None
            and executable.operation.size <= _LARGEST
            and len(body) <= _LONGEST
            and executable.operation.kind is OperationType.QUERY
            and "persistedQuery" not in (parameters.extensions or ())  # which is to bring its document into use
            and not self._documents.measure_only  # then each request is logged that is beyond the limits
        ):
            if len(self._known) == _MOST:
                del self._known[next(iter(self._known))]
            self._known[body] = executable
        return executable

    def _reserve(self, size: int) -> None:
        if not self._memory.reserve(size):
            error = NoRoomForRequest()
            raise NotReceived(503, error.message, {"retry-after": f"{error.retry_after:g}"})

    def _executable(self, parameters: Parameters) -> Executable:
        prepared = parameters.prepared(self._documents)
        operation = prepared.operation(parameters.operationName)
        document = prepared.valid()
        variables = parameters.variables
        self._documents.check_cost(prepared, operation, variables or {})
        bound = None if operation.plan is None else operation.plan.bound(variables)
        wants_cache_told = parameters.extensions is not None and parameters.extensions.get("cache") is True
        return Executable(document, operation, operation.kind.value, variables, bound, wants_cache_told)


def _check_is_query(operation: Operation) -> None:
    """GET is safe (RFC 9110, 9.2.1), so that it may carry queries alone."""
    if operation.kind is not OperationType.QUERY:
        raise Refused(405, f"a {operation.kind.value} needs POST: GET is for queries", {"allow": "POST"})
