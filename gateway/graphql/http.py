"""GraphQL over HTTP (https://graphql.github.io/graphql-over-http/draft/): one endpoint, GET for queries and POST.

Responses are `application/graphql-response+json` for those who accept it, with a status that tells a request that could
not be executed (400) from one that was (200); or `application/json`, for those who do not say, with 200 for every
well-formed request. Upstream's status never becomes this one's.
"""

from __future__ import annotations

import asyncio
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar
from urllib.parse import parse_qsl

import msgspec
import structlog
from graphql import GraphQLError, OperationType, get_operation_ast, parse
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from strawberry.types import ExecutionResult

from gateway.cache.freshness import combined, parse_cache_control
from gateway.credentials import CallerCredentials
from gateway.deadline import Deadline
from gateway.graphql.errors import formatted
from gateway.graphql.schema import Context

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence

    import strawberry
    from graphql import OperationDefinitionNode
    from starlette.types import Receive, Scope, Send

    from gateway.access.guard import Guard
    from gateway.graphql.playground import Playground
    from gateway.graphql.schema import CacheRead

__all__ = ["GraphQLEndpoint"]

_MODERN: Final = "application/graphql-response+json"
_LEGACY: Final = "application/json"

Decoded = TypeVar("Decoded")

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
        guard: Guard,
        *,
        budget: float,
        max_body: int,
        playground: Playground | None = None,
    ) -> None:
        self._schema = schema
        self._guard = guard
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
            media_type = _media_type(", ".join(request.headers.getlist("accept")) or "*/*")
            parameters = await self._parameters(request)
            operation = _operation(parameters)
            if request.method == "GET":
                _check_is_query(operation)
            context = self._context(request)
            result = await _while_connected(request, self._execute(parameters, context))
        except _Refused as refusal:
            errors = [{"message": refusal.message, "extensions": {"code": "BAD_REQUEST"}}]
            return _response(refusal.status, {"errors": errors}, media_type, refusal.headers)
        except GraphQLError as error:
            return _result_response(ExecutionResult(data=None, errors=[error]), media_type)
        wanted = (parameters.extensions or {}).get("cache") is True
        return _result_response(result, media_type, context.reads, tell_of_cache=wanted)

    async def _parameters(self, request: Request) -> _Parameters:
        match request.method:
            case "GET":
                return _from_query(request.scope["query_string"])
            case "POST":
                return _decode(await self._body(request), _Parameters, "the body")
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
                raise _Refused(413, f"the body is larger than {self._max_body} bytes")
        return bytes(body)

    def _context(self, request: Request) -> Context:
        credentials = CallerCredentials.read(request.headers.get)
        return Context(
            sessions=self._guard.sessions(credentials),
            own=self._guard.own(credentials),
            deadline=Deadline.after(self._budget),
            max_age=parse_cache_control(request.headers.get("cache-control")),
        )

    async def _execute(self, parameters: _Parameters, context: Context) -> ExecutionResult:
        return await self._schema.execute(
            parameters.query,
            variable_values=parameters.variables,
            operation_name=parameters.operationName,
            context_value=context,
        )


def _is_browser(request: Request) -> bool:
    """Whether a person is asking for a page: only a browser prefers HTML, and it sends no query along."""
    return request.method == "GET" and "text/html" in request.headers.get("accept", "") and not request.query_params


def _media_type(accept: str) -> str:
    """The one of ours that the client likes best (RFC 9110, 12.5.1), by the most specific range for each.

    Who likes both alike gets the one that is named first; who does not say gets what was usual before.
    """
    ranges = [_range(each) for each in accept.split(",")]
    names = [name for name, _ in ranges]

    def rank(media_type: str) -> tuple[float, int]:
        for name in (media_type, "application/*", "*/*"):
            if name in names:
                place = names.index(name)
                return -ranges[place][1], place
        return 0.0, 0

    best = min((_LEGACY, _MODERN), key=rank)
    if rank(best)[0] >= 0:
        raise _Refused(406, f"none of {accept!r} can be had: accept {_MODERN} or {_LEGACY}")
    return best


def _range(text: str) -> tuple[str, float]:
    name, _, parameters = text.partition(";")
    quality = f";{parameters.replace(' ', '')}".lower().partition(";q=")[2].partition(";")[0]
    with suppress(ValueError):
        return name.strip().lower(), float(quality or 1)
    return name.strip().lower(), 0.0


def _from_query(query: bytes) -> _Parameters:
    try:
        found = dict(parse_qsl(query.decode(), keep_blank_values=True, errors="strict"))
    except UnicodeDecodeError as error:
        raise _Refused(400, "the URL's query is not UTF-8") from error
    given: dict[str, object] = {name: found[name] for name in ("query", "operationName") if name in found}
    for name in ("variables", "extensions"):
        if found.get(name):
            given[name] = _decode(found[name].encode(), object, name)
    try:
        return msgspec.convert(given, _Parameters)
    except msgspec.ValidationError as error:
        raise _not_right(error) from error


def _decode(source: bytes, kind: type[Decoded], what: str) -> Decoded:
    """Decode JSON, and refuse in words what is none; the decoder's own hold nothing of the source."""
    try:
        return msgspec.json.decode(source, type=kind)
    except msgspec.ValidationError as error:
        raise _not_right(error) from error
    except RecursionError as error:
        raise _Refused(400, f"{what}: JSON is nested too deeply") from error
    except UnicodeDecodeError as error:
        raise _Refused(400, f"{what}: is not UTF-8") from error
    except ValueError as error:
        raise _Refused(400, f"{what}: {error}") from error


def _not_right(error: msgspec.ValidationError) -> _Refused:
    return _Refused(400, f"the request's parameters are not right: {error}")


def _operation(parameters: _Parameters) -> OperationDefinitionNode:
    """The one operation that is to be executed (GraphQL, 6.1). Raises GraphQLError when there is no telling.

    Strawberry would take the first of several where none is named, and so a mutation beside a query.
    """
    operation = get_operation_ast(parse(parameters.query), parameters.operationName)
    if operation is None:
        named = parameters.operationName
        raise GraphQLError(
            "the document must hold one operation, unless operationName names one of several"
            if named is None
            else f"the document holds no operation of the operationName {named!r}"
        )
    return operation


def _check_is_query(operation: OperationDefinitionNode) -> None:
    """GET is safe (RFC 9110, 9.2.1), so that it may carry queries alone."""
    if operation.operation is not OperationType.QUERY:
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


def _result_response(
    result: ExecutionResult, media_type: str, reads: Sequence[CacheRead] = (), *, tell_of_cache: bool = False
) -> Response:
    errors = [formatted(error) for error in result.errors or ()]
    executed = result.data is not None or any(error.path for error in result.errors or ())
    document: dict[str, object] = {"data": result.data} if executed else {}
    if errors:
        document = {"errors": errors, **document}
    if tell_of_cache and reads:
        document["extensions"] = {"cache": [_cache_extension(each) for each in reads]}
    status = 200 if executed or media_type == _LEGACY else 400
    return _response(status, document, media_type, _cache_headers(reads))


def _cache_headers(reads: Sequence[CacheRead]) -> dict[str, str]:
    """Where the answer came from (RFC 9211) and how old it is (RFC 9111, 5.1), for people and gateways in between."""
    if not reads:
        return {}
    status = combined(each.status for each in reads)
    return {"cache-status": status.header(), "age": str(int(status.age))}


def _cache_extension(read: CacheRead) -> dict[str, object]:
    status = read.status
    return {
        "path": read.path,
        "hit": status.hit,
        "fwd": status.fwd or None,
        "age": round(status.age, 3),
        "ttl": None if status.ttl is None else round(status.ttl, 3),
        "stored": status.stored,
        "collapsed": status.collapsed,
    }


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
