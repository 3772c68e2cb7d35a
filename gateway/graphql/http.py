"""GraphQL over HTTP (https://graphql.github.io/graphql-over-http/draft/): one endpoint, GET for queries and POST."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import structlog
from starlette.requests import ClientDisconnect
from strawberry.types import ExecutionResult

from gateway.deadline import Deadline
from gateway.defects import reported
from gateway.errors import AnswerTooLarge, CallerRateLimited, GatewayError, UpstreamSpared
from gateway.graphql.answers import exceeds
from gateway.graphql.connected import while_connected
from gateway.graphql.documents import NotExecutable
from gateway.graphql.errors import code_of, time_to_wait
from gateway.graphql.executable import Executables
from gateway.graphql.head import LEGACY, Refused
from gateway.graphql.requests import HttpRequest
from gateway.graphql.resolvers import Context
from gateway.graphql.responses import failed, not_sent, refused, result_response, turned_away

if TYPE_CHECKING:
    from collections.abc import Coroutine, Sequence

    import strawberry
    from graphql import DocumentNode, GraphQLError
    from starlette.types import Receive, Scope, Send

    from gateway.access.guard import Guard
    from gateway.direct import Response
    from gateway.graphql.documents import Documents
    from gateway.graphql.executable import Executable
    from gateway.graphql.playground import Playground
    from gateway.request import Request
    from gateway.telemetry.requests import Requests

__all__ = ["GraphQLEndpoint"]

_PUNCTUATION: Final = 64
"""Bytes around a value in an answer, a type's name included but not its own name: at most."""
_WRITTEN_OUT: Final = 5
"""How many times as long as in its source a value may be in an answer: `1E15` becomes `1000000000000000.0`."""

_log = structlog.stdlib.get_logger(__name__)


class GraphQLEndpoint:
    """Answers requests for `/graphql`; an ASGI application.

    `budget` bounds a request from its arrival on, in seconds; `max_body` its body and `max_answer` the answer, in
    bytes. With a playground, a browser's GET gets that. `requests` are told of all others.
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
        max_answer: int,
        playground: Playground | None = None,
    ) -> None:
        self._schema = schema
        self._executables = Executables(documents, max_body=max_body)
        self._guard = guard
        self._requests = requests
        self._budget = budget
        self._max_answer = max_answer
        self._playground = playground

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI 3)."""
        http = HttpRequest.of(scope, receive)
        if self._playground is not None and _is_browser(http):
            await self._playground.page()(scope, receive, send)
            return
        response = await self.answer(http)
        if response is not None:
            await response.send(send)

    async def answer(self, http: HttpRequest) -> Response | None:
        """What to answer; None when the client has gone away."""
        request = self._requests.begin("graphql", http.method, http.head.header)
        response: Response | None = None
        try:
            response = await self._answer(http, request)
        except ClientDisconnect:
            request.failed("CANCELLED")
        except asyncio.CancelledError:
            request.failed("CANCELLED")
            raise
        except Exception as defect:  # noqa: BLE001 - the outermost frame: nothing of it may reach the caller
            request.failed(GatewayError.reason)
            response = failed(reported(defect, _log))
        finally:
            if response is not None:
                request.status = response.status
                response.headers.append((b"x-request-id", request.id.encode()))
            self._requests.end(request)
        return response

    async def _answer(self, http: HttpRequest, request: Request) -> Response:
        deadline = Deadline.after(self._budget)
        media_type = LEGACY
        try:
            media_type = http.head.accepted
            executable = await self._executables.of(http, deadline)
            operation = executable.operation
            request.operation, request.kind, request.name = operation.field, executable.kind, operation.name
            context = self._context(http, executable.document, deadline)
            result = await while_connected(http, self._execution(executable, context))
        except Refused as refusal:
            request.failed(refusal.code)
            return refused(refusal, media_type)
        except NotExecutable as refusal:
            request.failed(code_of(refusal.errors[0]))
            return result_response(ExecutionResult(data=None, errors=[*refusal.errors]), media_type)
        if result.errors:
            request.failed(code_of(result.errors[0]))
            away = _turned_away(result, context)
            if away is not None:
                return turned_away(result, media_type, *away)
        if not self._fits(executable, context) and exceeds(result.data, self._max_answer):
            error = AnswerTooLarge(self._max_answer)
            request.failed(error.reason)
            return not_sent(error, media_type)
        return result_response(result, media_type, context.reads, tell_of_cache=executable.wants_cache_told)

    def _fits(self, executable: Executable, context: Context) -> bool:
        """Whether the answer is certain to fit, as nearly all are, so that nothing has to be counted.

        A field that is read holds no more than the session context does, written out, under a name that the document
        has.
        """
        if executable.bound is None or executable.kind != "query":
            return False
        of_a_name = executable.operation.length + _PUNCTUATION
        read = sum([_WRITTEN_OUT * each.size + of_a_name for each in context.reads])
        return executable.operation.selections * read <= self._max_answer

    def _context(self, http: HttpRequest, document: DocumentNode, deadline: Deadline) -> Context:
        credentials = http.head.credentials
        return Context(
            document=document,
            sessions=self._guard.sessions(credentials),
            own=self._guard.own(credentials),
            deadline=deadline,
            max_age=http.head.max_age,
        )

    def _execution(self, executable: Executable, context: Context) -> Coroutine[Any, None, ExecutionResult]:
        if executable.bound is not None:
            return executable.bound.execute(context)
        return self._schema.execute(
            None,  # the context has the document
            variable_values=executable.variables,
            operation_name=executable.operation.name,
            context_value=context,
        )


def _is_browser(http: HttpRequest) -> bool:
    """Whether a person is asking for a page: only a browser prefers HTML, and it sends no query along."""
    return http.method == "GET" and not http.query and "text/html" in (http.head.header("accept") or "")


def _turned_away(result: ExecutionResult, context: Context) -> tuple[int, float] | None:
    """Status and seconds to wait, if this gateway has rejected all calls of the request, so that nothing was done.

    Calls that are rejected to spare upstream have passed the guard, and there is an error for each session context.
    """
    failed = result.errors or ()
    if any(_is_answered(key, value, failed) for key, value in (result.data or {}).items()):
        return None
    fields = len({error.path[0] for error in failed if error.path})
    for status, cause, let_in in ((429, CallerRateLimited, 0), (503, UpstreamSpared, fields)):
        wait = time_to_wait(failed, cause)
        if wait is not None and context.let_in == let_in:
            return status, wait
    return None


def _is_answered(key: str, value: object, failed: Sequence[GraphQLError]) -> bool:
    """Whether a root field has an answer, or a list in which some entry did not fail: one may be null all the same."""
    if isinstance(value, list):
        return not value or len(value) > sum(error.path is not None and error.path[0] == key for error in failed)
    return value is not None
