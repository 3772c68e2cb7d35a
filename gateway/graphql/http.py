"""GraphQL over HTTP (https://graphql.github.io/graphql-over-http/draft/): one endpoint, GET for queries and POST.

Responses are `application/graphql-response+json` for those who accept it, with a status that tells a request that could
not be executed (400) from one that was (200); or `application/json`, for those who do not say, with 200 for every
well-formed request. Upstream's status never becomes this one's.
"""

from __future__ import annotations

import asyncio
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec
import structlog
from graphql import GraphQLError, OperationType, get_operation_ast, parse
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from strawberry.exceptions import MissingQueryError
from strawberry.schema.exceptions import CannotGetOperationTypeError
from strawberry.types import ExecutionResult

from gateway.credentials import CallerCredentials
from gateway.deadline import Deadline
from gateway.graphql.errors import formatted
from gateway.graphql.schema import Context

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping

    import strawberry
    from starlette.types import Receive, Scope, Send

    from gateway.graphql.playground import Playground
    from gateway.sessions.service import OwnSessionContexts, SessionContexts

__all__ = ["GraphQLEndpoint"]

_MODERN: Final = "application/graphql-response+json"
_LEGACY: Final = "application/json"

_log = structlog.stdlib.get_logger(__name__)


class _Refused(Exception):
    """The request is not one of GraphQL over HTTP. `headers` go into the response."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = headers or {}


class _Parameters(msgspec.Struct):
    """The request parameters (GraphQL over HTTP, 5.1). Others are ignored."""

    query: str
    operationName: str | None = None  # noqa: N815 - the parameter's name
    variables: dict[str, object] | None = None
    extensions: dict[str, object] | None = None


class GraphQLEndpoint:
    """Answers requests for `/graphql`; an ASGI application.

    `budget` bounds an operation, in seconds; `max_body` a request's body, in bytes. With a playground, a browser's GET
    gets that.
    """

    def __init__(
        self,
        schema: strawberry.Schema,
        sessions: SessionContexts,
        own: OwnSessionContexts,
        *,
        budget: float,
        max_body: int,
        playground: Playground | None = None,
    ) -> None:
        self._schema = schema
        self._sessions = sessions
        self._own = own
        self._budget = budget
        self._max_body = max_body
        self._playground = playground

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI 3)."""
        request = Request(scope, receive)
        try:
            response = await self._answer(request)
        except ClientDisconnect:
            return
        except Exception:  # noqa: BLE001 - the outermost frame: nothing of a defect may reach the caller
            incident = uuid.uuid4().hex
            _log.exception("defect", incident=incident)
            message = f"internal error; its id in the log is {incident}"
            response = _response(500, {"errors": [{"message": message, "extensions": {"code": "INTERNAL"}}]}, _LEGACY)
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        if self._playground is not None and _is_browser(request):
            return self._playground.page()
        media_type = _LEGACY
        try:
            media_type = _media_type(request.headers.get("accept", "*/*"))
            parameters = await self._parameters(request)
            if request.method == "GET":
                _check_is_query(parameters)
            result = await _while_connected(request, self._execute(parameters, request))
        except _Refused as refusal:
            error = {"message": refusal.message, "extensions": {"code": "BAD_REQUEST"}}
            return _response(refusal.status, {"errors": [error]}, media_type, refusal.headers)
        return _result_response(result, media_type)

    async def _parameters(self, request: Request) -> _Parameters:
        match request.method:
            case "GET":
                return _from_query(request.query_params)
            case "POST":
                return _decode(await self._body(request))
            case method:
                raise _Refused(405, f"{method} is not supported: use GET for queries, or POST", {"allow": "GET, POST"})

    async def _body(self, request: Request) -> bytes:
        content_type = request.headers.get("content-type", "")
        media_type, _, rest = content_type.partition(";")
        charset = rest.partition("charset=")[2].strip(' "').lower() or "utf-8"
        if media_type.strip().lower() != _LEGACY or charset not in {"utf-8", "utf8"}:
            raise _Refused(415, f"content-type {content_type!r} is not supported: send application/json in UTF-8")
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > self._max_body:
                raise _Refused(413, f"the body is larger than {self._max_body} bytes", {"connection": "close"})
        return bytes(body)

    async def _execute(self, parameters: _Parameters, request: Request) -> ExecutionResult:
        context = Context(
            sessions=self._sessions,
            own=self._own,
            credentials=CallerCredentials.read(request.headers.get),
            deadline=Deadline.after(self._budget),
        )
        try:
            return await self._schema.execute(
                parameters.query,
                variable_values=parameters.variables,
                operation_name=parameters.operationName,
                context_value=context,
            )
        except (CannotGetOperationTypeError, MissingQueryError) as error:
            return ExecutionResult(data=None, errors=[GraphQLError(str(error))])


def _is_browser(request: Request) -> bool:
    """Whether a person is asking for a page: only a browser prefers HTML, and it sends no query along."""
    return request.method == "GET" and "text/html" in request.headers.get("accept", "") and not request.query_params


def _media_type(accept: str) -> str:
    """The first of ours in the order that the client prefers. Who does not say gets what was usual before."""
    ranges = sorted((_range(each) for each in accept.split(",")), key=lambda each: -each[1])
    for name, quality in ranges:
        if quality > 0 and name in {_MODERN, _LEGACY}:
            return name
        if quality > 0 and name in {"*/*", "application/*"}:
            return _LEGACY
    raise _Refused(406, f"none of {accept!r} can be had: accept {_MODERN} or {_LEGACY}")


def _range(text: str) -> tuple[str, float]:
    name, _, parameters = text.partition(";")
    quality = parameters.replace(" ", "").partition("q=")[2].partition(";")[0]
    with suppress(ValueError):
        return name.strip().lower(), float(quality or 1)
    return name.strip().lower(), 0.0


def _from_query(query: Mapping[str, str]) -> _Parameters:
    document = {name: query[name] for name in ("query", "operationName") if name in query}
    raw = {name: msgspec.Raw(query[name].encode() or b"null") for name in ("variables", "extensions") if name in query}
    return _decode(_encode({**document, **raw}))


def _encode(document: object) -> bytes:
    try:
        return msgspec.json.encode(document)
    except ValueError as error:
        raise _Refused(400, "the request's parameters are not UTF-8") from error


def _decode(body: bytes) -> _Parameters:
    try:
        return msgspec.json.decode(body, type=_Parameters)
    except msgspec.ValidationError as error:
        raise _Refused(400, f"the request's parameters are not right: {error}") from error
    except (ValueError, RecursionError) as error:
        raise _Refused(400, "the request's body or variables are not JSON") from error


def _check_is_query(parameters: _Parameters) -> None:
    """GET is safe (RFC 9110, 9.2.1), so that it may carry queries alone."""
    try:
        operation = get_operation_ast(parse(parameters.query), parameters.operationName)
    except (GraphQLError, RecursionError):
        return  # to be told of by the execution
    if operation is not None and operation.operation is not OperationType.QUERY:
        kind = operation.operation.value
        raise _Refused(405, f"a {kind} needs POST: GET is for queries", {"allow": "POST"})


async def _while_connected(request: Request, work: Coroutine[object, object, ExecutionResult]) -> ExecutionResult:
    """Do the work, and give it up when the client goes away. Raises ClientDisconnect then."""
    async with asyncio.TaskGroup() as tasks:
        watch = tasks.create_task(_disconnected(request))
        running = tasks.create_task(work)
        await asyncio.wait((watch, running), return_when=asyncio.FIRST_COMPLETED)
        gone = not running.done()
        watch.cancel()
        running.cancel()
    if gone:
        raise ClientDisconnect
    return running.result()


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _result_response(result: ExecutionResult, media_type: str) -> Response:
    errors = [formatted(error) for error in result.errors or ()]
    executed = result.data is not None or any(error.path for error in result.errors or ())
    document: dict[str, object] = {"data": result.data} if executed else {}
    if errors:
        document = {"errors": errors, **document}
    status = 200 if executed or media_type == _LEGACY else 400
    return _response(status, document, media_type)


def _response(status: int, document: object, media_type: str, headers: Mapping[str, str] | None = None) -> Response:
    return Response(
        msgspec.json.encode(document),
        status,
        {
            "content-type": f"{media_type}; charset=utf-8",
            "cache-control": "private, no-store",
            "x-content-type-options": "nosniff",
            **(headers or {}),
        },
    )
