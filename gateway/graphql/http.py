"""GraphQL over HTTP (https://graphql.github.io/graphql-over-http/draft/): one endpoint, GET for queries and POST.

Responses are `application/graphql-response+json` for those who accept it, with a status that tells a request that could
not be executed (400) from one that was (200); or `application/json`, for those who do not say, with 200 for every
well-formed request. Upstream's status never becomes this one's.
"""

from __future__ import annotations

import asyncio
import math
import uuid
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import msgspec
import structlog
from graphql import OperationType
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from strawberry.types import ExecutionResult

from gateway.cache.freshness import combined, parse_cache_control
from gateway.credentials import CallerCredentials
from gateway.deadline import Deadline
from gateway.graphql.documents import NotExecutable
from gateway.graphql.errors import formatted, time_to_wait
from gateway.graphql.requests import Refused, parameters_of
from gateway.graphql.schema import Context

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence

    import strawberry
    from graphql import DocumentNode
    from starlette.types import Receive, Scope, Send

    from gateway.access.guard import Guard
    from gateway.graphql.compiled import Plan
    from gateway.graphql.documents import Documents, Operation
    from gateway.graphql.playground import Playground
    from gateway.graphql.requests import Parameters
    from gateway.graphql.schema import CacheRead

__all__ = ["GraphQLEndpoint"]

_MODERN: Final = "application/graphql-response+json"
_LEGACY: Final = "application/json"

_log = structlog.stdlib.get_logger(__name__)


class GraphQLEndpoint:
    """Answers requests for `/graphql`; an ASGI application.

    `budget` bounds a request from its arrival on, in seconds; `max_body` its body, in bytes. With a playground, a
    browser's GET gets that.
    """

    def __init__(
        self,
        schema: strawberry.Schema,
        documents: Documents,
        guard: Guard,
        *,
        budget: float,
        max_body: int,
        playground: Playground | None = None,
    ) -> None:
        self._schema = schema
        self._documents = documents
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
        deadline = Deadline.after(self._budget)
        media_type = _LEGACY
        try:
            media_type = _media_type(", ".join(request.headers.getlist("accept")) or "*/*")
            parameters = await parameters_of(request, max_body=self._max_body, deadline=deadline)
            document, plan = self._document(request, parameters)
            context = self._context(request, document, deadline)
            result = await _while_connected(request, self._execute(parameters, plan, context))
        except Refused as refusal:
            errors = [{"message": refusal.message, "extensions": {"code": "BAD_REQUEST"}}]
            return _response(refusal.status, {"errors": errors}, media_type, refusal.headers)
        except NotExecutable as refusal:
            return _result_response(ExecutionResult(data=None, errors=[*refusal.errors]), media_type)
        wait = time_to_wait(result.errors or ()) if context.untouched and not _has_data(result) else None
        if wait is not None:
            return _too_many(result, media_type, wait)
        wanted = (parameters.extensions or {}).get("cache") is True
        return _result_response(result, media_type, context.reads, tell_of_cache=wanted)

    def _document(self, request: Request, parameters: Parameters) -> tuple[DocumentNode, Plan | None]:
        """The document and the plan, if the operation may be executed. Raises Refused and NotExecutable."""
        prepared = parameters.prepared(self._documents)
        operation = prepared.operation(parameters.operationName)
        if request.method == "GET":
            _check_is_query(operation)
        document = prepared.valid()
        self._documents.check_cost(prepared, operation, parameters.variables or {})
        return document, operation.plan

    def _context(self, request: Request, document: DocumentNode, deadline: Deadline) -> Context:
        credentials = CallerCredentials.read(request.headers.get)
        return Context(
            document=document,
            sessions=self._guard.sessions(credentials),
            own=self._guard.own(credentials),
            deadline=deadline,
            max_age=parse_cache_control(request.headers.get("cache-control")),
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
        raise Refused(406, f"none of {accept!r} can be had: accept {_MODERN} or {_LEGACY}")
    return best


def _range(text: str) -> tuple[str, float]:
    name, _, parameters = text.partition(";")
    quality = f";{parameters.replace(' ', '')}".lower().partition(";q=")[2].partition(";")[0]
    with suppress(ValueError):
        return name.strip().lower(), float(quality or 1)
    return name.strip().lower(), 0.0


def _check_is_query(operation: Operation) -> None:
    """GET is safe (RFC 9110, 9.2.1), so that it may carry queries alone."""
    if operation.kind is not OperationType.QUERY:
        kind = operation.kind.value
        raise Refused(405, f"a {kind} needs POST: GET is for queries", {"allow": "POST"})


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


def _has_data(result: ExecutionResult) -> bool:
    return any(value is not None for value in (result.data or {}).values())


def _too_many(result: ExecutionResult, media_type: str, wait: float) -> Response:
    """The request was refused as a whole, before anything was done: it has no `data` then, not even null."""
    document = {"errors": [formatted(error) for error in result.errors or ()]}
    return _response(429, document, media_type, {"retry-after": str(math.ceil(wait))})


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
            **(headers or {}),
        },
    )
