"""GraphQL over HTTP (https://graphql.github.io/graphql-over-http/draft/): one endpoint, GET for queries and POST."""

from __future__ import annotations

import asyncio
import uuid
from typing import TYPE_CHECKING, NoReturn

import structlog
from graphql import OperationType
from starlette.requests import ClientDisconnect
from strawberry.types import ExecutionResult

from gateway.deadline import Deadline
from gateway.eagerly import Begun
from gateway.errors import GatewayError
from gateway.graphql.documents import NotExecutable
from gateway.graphql.errors import code_of, time_to_wait
from gateway.graphql.head import LEGACY, Refused
from gateway.graphql.requests import Request, parameters_of
from gateway.graphql.responses import failed, refused, result_response, too_many
from gateway.graphql.schema import Context

if TYPE_CHECKING:
    from collections.abc import Coroutine

    import strawberry
    from graphql import DocumentNode
    from starlette.types import Receive, Scope, Send

    from gateway.access.guard import Guard
    from gateway.direct import Response
    from gateway.graphql.compiled import Plan
    from gateway.graphql.documents import Documents, Operation
    from gateway.graphql.playground import Playground
    from gateway.graphql.requests import Parameters
    from gateway.request import Request as Told
    from gateway.telemetry.requests import Requests

__all__ = ["GraphQLEndpoint"]

_log = structlog.stdlib.get_logger(__name__)


class GraphQLEndpoint:
    """Answers requests for `/graphql`; an ASGI application.

    `budget` bounds a request from its arrival on, in seconds; `max_body` its body, in bytes. With a playground, a
    browser's GET gets that. `requests` are told of all others.
    """

    def __init__(
        self,
        schema: strawberry.Schema,
        documents: Documents,
        guard: Guard,
        requests: Requests,
        *,
        budget: float,
        max_body: int,
        playground: Playground | None = None,
    ) -> None:
        self._schema = schema
        self._documents = documents
        self._guard = guard
        self._requests = requests
        self._budget = budget
        self._max_body = max_body
        self._playground = playground

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI 3)."""
        request = Request.of(scope, receive)
        if self._playground is not None and _is_browser(request):
            await self._playground.page()(scope, receive, send)
            return
        response = await self.answer(request)
        if response is not None:
            await response.send(send)

    async def answer(self, request: Request) -> Response | None:
        """What to answer; None when the client has gone away."""
        told = self._requests.begin("graphql", request.method, request.head.header)
        try:
            response = await self._answered(request, told)
        except ClientDisconnect:
            told.failed("CANCELLED")
            return None
        except asyncio.CancelledError:
            told.failed("CANCELLED")
            raise
        else:
            told.status = response.status
            response.headers.append((b"x-request-id", told.id.encode()))
            return response
        finally:
            self._requests.end(told)

    async def _answered(self, request: Request, told: Told) -> Response:
        try:
            return await self._answer(request, told)
        except ClientDisconnect:
            raise
        except Exception:  # noqa: BLE001 - the outermost frame: nothing of a defect may reach the caller
            incident = uuid.uuid4().hex
            _log.exception("defect", incident=incident)
            told.failed(GatewayError.reason)
            return failed(incident)

    async def _answer(self, request: Request, told: Told) -> Response:
        deadline = Deadline.after(self._budget)
        media_type = LEGACY
        try:
            media_type = request.head.accepted
            parameters = await parameters_of(request, max_body=self._max_body, deadline=deadline)
            document, plan = self._document(request, parameters, told)
            context = self._context(request, document, deadline)
            result = await _while_connected(request, self._execute(parameters, plan, context))
        except Refused as refusal:
            told.failed("BAD_REQUEST")
            return refused(refusal, media_type)
        except NotExecutable as refusal:
            told.failed(code_of(refusal.errors[0]))
            return result_response(ExecutionResult(data=None, errors=[*refusal.errors]), media_type)
        if result.errors:
            told.failed(code_of(result.errors[0]))
        if result.errors and context.untouched and not _has_data(result):
            wait = time_to_wait(result.errors)
            if wait is not None:
                return too_many(result, media_type, wait)
        wanted = parameters.extensions is not None and parameters.extensions.get("cache") is True
        return result_response(result, media_type, context.reads, tell_of_cache=wanted)

    def _document(self, request: Request, parameters: Parameters, told: Told) -> tuple[DocumentNode, Plan | None]:
        """The document and the plan, if the operation may be executed. Raises Refused and NotExecutable."""
        prepared = parameters.prepared(self._documents)
        operation = prepared.operation(parameters.operationName)
        if request.method == "GET":
            _check_is_query(operation)
        document = prepared.valid()
        self._documents.check_cost(prepared, operation, parameters.variables or {})
        told.operation, told.kind, told.name = operation.field, operation.kind.value, operation.name
        return document, operation.plan

    def _context(self, request: Request, document: DocumentNode, deadline: Deadline) -> Context:
        credentials = request.head.credentials
        return Context(
            document=document,
            sessions=self._guard.sessions(credentials),
            own=self._guard.own(credentials),
            deadline=deadline,
            max_age=request.head.max_age,
        )

    async def _execute(self, parameters: Parameters, plan: Plan | None, context: Context) -> ExecutionResult:
        if plan is not None:
            return await plan.execute(context, parameters.variables)
        return await self._schema.execute(
            None,  # the context has the document
            variable_values=parameters.variables,
            operation_name=parameters.operationName,
            context_value=context,
        )


def _is_browser(request: Request) -> bool:
    """Whether a person is asking for a page: only a browser prefers HTML, and it sends no query along."""
    return request.method == "GET" and not request.query and "text/html" in (request.head.header("accept") or "")


def _check_is_query(operation: Operation) -> None:
    """GET is safe (RFC 9110, 9.2.1), so that it may carry queries alone."""
    if operation.kind is not OperationType.QUERY:
        kind = operation.kind.value
        raise Refused(405, f"a {kind} needs POST: GET is for queries", {"allow": "POST"})


async def _while_connected(request: Request, work: Coroutine[object, None, ExecutionResult]) -> ExecutionResult:
    """Do the work; once it waits, give it up when the client goes away. Raises ClientDisconnect then."""
    begun = Begun(work)
    if begun.done:
        return await begun
    try:
        async with asyncio.TaskGroup() as tasks:
            watch = tasks.create_task(_disconnected(request))
            result = await begun
            watch.cancel()
    except* ClientDisconnect:
        raise ClientDisconnect from None
    return result


async def _disconnected(request: Request) -> NoReturn:
    while (await request.receive())["type"] != "http.disconnect":
        pass
    raise ClientDisconnect


def _has_data(result: ExecutionResult) -> bool:
    return any(value is not None for value in (result.data or {}).values())
