"""The whole sandbox, an ASGI application: its state, and how it handles a request."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import deque
from contextlib import suppress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, NamedTuple
from urllib.parse import parse_qsl

from gateway.sandbox import admin, answers, seed
from gateway.sandbox.accounts import Accounts
from gateway.sandbox.contexts import Contexts
from gateway.sandbox.faults import Fault, Faults
from gateway.sandbox.request import Request, split_path
from gateway.sandbox.store import Store
from gateway.sandbox.switches import Switches
from gateway.sandbox.tokens import Tokens, saas_token

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import Receive, Scope, Send

    from gateway.sandbox.answers import Answer

__all__ = ["CUT", "Recorded", "Sandbox"]

CUT: Final = "sandbox.cut"
"""Key in the scope of the function that cuts the connection."""

_HANG: Final = 60.0
_KEPT_REQUESTS: Final = 20_000
_SECRET: Final = frozenset({"authorization", "saas-token"})


class Recorded(NamedTuple):
    """A request, and the status of its answer. Of secrets only a fingerprint is kept."""

    method: str
    path: str
    operation: str
    headers: dict[str, str]
    status: int
    """0 if the connection was cut."""
    at: float
    """Seconds on the monotonic clock."""


class Sandbox:
    """Emporix, on a small scale. `clock` tells the time in UTC."""

    def __init__(
        self, switches: Switches | None = None, clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    ) -> None:
        self.switches = switches or Switches()
        self.store = Store(clock)
        self.tokens = Tokens(clock)
        self.faults = Faults()
        self.requests: deque[Recorded] = deque(maxlen=_KEPT_REQUESTS)
        self.peak = 0
        """Highest number of requests in progress at a time."""
        self.under_way = 0
        """Requests in progress; one whose client has gone does not count."""
        self.stopping = asyncio.Event()
        """Set when it is no longer served, so that nothing waits any longer."""
        self._contexts = Contexts(self.store, self.tokens, self.switches)
        self.accounts = Accounts(self.store, self.tokens, self.switches, clock, _later)
        self.reset()

    def reset(self) -> None:
        """Back to the seed. Switches stay as they are, and so do service tokens: clients hold them."""
        self.store.clear()
        self.tokens.clear_shoppers()
        self.accounts.reset()
        self.faults.clear()
        self.requests.clear()
        self.peak = 0
        for (tenant, session_id), source in seed.SESSIONS.items():
            self.store.seed(tenant, session_id, source)
        self.tokens.issue("acme", None, seed.CUSTOMER_SESSION, seed.CUSTOMER_ID, value=seed.CUSTOMER_TOKEN)
        self.tokens.issue("acme", None, seed.ANONYMOUS_SESSION, value=seed.ANONYMOUS_TOKEN)

    @property
    def saas_token(self) -> str:
        """The seeded customer's saas-token, always the same, valid until the year 2100."""
        return saas_token(seed.CUSTOMER_ID, datetime(2100, 1, 1, tzinfo=UTC))

    def count(self, operation: str) -> int:
        """How many requests for an operation there have been."""
        return sum(each.operation == operation for each in self.requests)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request (ASGI 3)."""
        if scope["type"] != "http":
            return
        request = await _read(scope, receive)
        if request is None:
            return
        if request.segments[:1] == ("_sandbox",):
            await _send(send, admin.handle(self, request))
            return
        operation = operation_of(request)
        self.under_way += 1
        self.peak = max(self.peak, self.under_way)
        try:
            status = await self._answer(scope, receive, send, request, operation)
        finally:
            self.under_way -= 1
        self.requests.append(_recorded(scope, request, operation, status))
        if not status:
            await asyncio.sleep(0.01)  # lets the server see that the connection is gone, so that it does not answer too

    async def _answer(self, scope: Scope, receive: Receive, send: Send, request: Request, operation: str) -> int:
        """Answer, or fail as the fault says; returns the status, 0 for a connection that was cut."""
        header = request.headers.get("x-sandbox-fault")
        try:
            fault = Fault.parse(header) if header else self.faults.strike(operation) or Fault()
        except ValueError as error:
            answer = answers.json(400, {"code": 400, "message": str(error)})
            await _send(send, answer)
            return answer.status
        if fault.latency and await self._stops_within(fault.latency):
            scope[CUT]()
            return 0
        if fault.kind == "hang":
            await _until_gone(receive)
        if fault.kind == "" or fault.after_write:
            answer = self._handle(request, operation)
        else:
            answer = answers.of_status(fault.status or 503, fault.retry_after)
        match fault.kind:
            case "drop" | "hang":
                scope[CUT]()
                return 0
            case "truncated":
                status = 200 if answer.status == 204 else answer.status  # what has no body cannot be cut short
                await _send(send, answer._replace(status=status, body=answer.body or b"{}"), cut_short=True)
                scope[CUT]()
                return 0
            case "status":
                answer = answers.of_status(fault.status, fault.retry_after)
            case "not-json":
                answer = answers.Answer(200, b"<!doctype html><p>All is well.", "text/html")
            case "wrong-json":
                answer = answers.json(200, {"items": [], "sessionId": 7})
        await _send(send, answer)
        return answer.status

    async def _stops_within(self, seconds: float) -> bool:
        """Wait so long, or until it stops: whether it does."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.stopping.wait()
        return self.stopping.is_set()

    def _handle(self, request: Request, operation: str) -> Answer:
        match operation:
            case "token":
                return self.accounts.service_token(request)
            case "anonymous-login":
                return self.accounts.anonymous_login(request)
            case "anonymous-refresh":
                return self.accounts.anonymous_refresh(request)
            case "customer-login":
                return self.accounts.customer_login(request.segments[1], request)
            case "":
                return answers.unknown_path()
            case _ if request.segments[2] == "me":
                return self._own(request, operation)
            case _:
                return self._managed(request, operation)

    def _managed(self, request: Request, operation: str) -> Answer:
        """Operations 1 to 4: a service token of this tenant, with the scope."""
        tenant, session_id = request.segments[1], request.segments[3]
        token = self.tokens.find(request.bearer)
        if token is None or token.session_id is not None or token.tenant != tenant:
            return self._refused_token(request)
        if self.switches.require_tenant_header and request.headers.get("emporix-tenant") != tenant:
            return answers.fault("Invalid access token", "oauth.v2.InvalidAccessToken")
        if "sessioncontext.context_manage" not in token.scopes:
            return answers.forbidden("missing scope: sessioncontext.context_manage")
        match operation:
            case "get":
                return self._contexts.get(tenant, session_id)
            case "put":
                return self._contexts.put(tenant, session_id, request)
            case "add-attribute":
                return self._contexts.add_attribute(tenant, session_id, request)
            case _:
                return self._contexts.remove_attribute(tenant, session_id, request.segments[5])

    def _own(self, request: Request, operation: str) -> Answer:
        """Operations 5 to 8: the session is the token's."""
        tenant = request.segments[1]
        token = self.tokens.find(request.bearer)
        if token is None or token.session_id is None or token.tenant != tenant:
            return self._refused_token(request)
        match operation:
            case "get-own":
                return self._contexts.get(tenant, token.session_id)
            case "patch-own":
                return self._contexts.patch_own(tenant, token.session_id, request)
            case "add-own-attribute":
                return self._contexts.add_own_attribute(tenant, token.session_id, request)
            case _:
                return self._contexts.remove_attribute(tenant, token.session_id, request.segments[5])

    def _refused_token(self, request: Request) -> Answer:
        if self.tokens.known(request.bearer) and self.tokens.find(request.bearer) is None:
            return answers.fault("Access Token expired", "keymanagement.service.access_token_expired")
        return answers.fault("Invalid access token", "oauth.v2.InvalidAccessToken")


def operation_of(request: Request) -> str:
    """The name of the operation that a request is for; empty when it is for none."""
    match request.method, *request.segments:
        case "POST", "oauth", "token":
            return "token"
        case "GET", "customerlogin", "auth", "anonymous", ("login" | "refresh") as what:
            return f"anonymous-{what}"
        case "POST", "customer", _, "login":
            return "customer-login"
        case _, "session-context", _, "me", "context", *rest:
            return _OWN.get((request.method, len(rest)), "") if rest[:1] in ([], ["attributes"]) else ""
        case _, "session-context", _, "context", _, *rest:
            return _MANAGED.get((request.method, len(rest)), "") if rest[:1] in ([], ["attributes"]) else ""
        case _:
            return ""


_MANAGED: Final = {
    ("GET", 0): "get",
    ("PUT", 0): "put",
    ("POST", 1): "add-attribute",
    ("DELETE", 2): "remove-attribute",
}
_OWN: Final = {
    ("GET", 0): "get-own",
    ("PATCH", 0): "patch-own",
    ("POST", 1): "add-own-attribute",
    ("DELETE", 2): "remove-own-attribute",
}


def _later(seconds: float, action: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(seconds, action)


async def _read(scope: Scope, receive: Receive) -> Request | None:
    """The whole request; None when the client has gone away before its end."""
    body = b""
    more = True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return Request(
        method=scope["method"],
        segments=split_path(scope["raw_path"]),
        query=dict(parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)),
        headers={name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]},
        body=body,
    )


async def _until_gone(receive: Receive) -> None:
    """Wait until the client goes away, for a minute at most."""
    with suppress(TimeoutError):
        async with asyncio.timeout(_HANG):
            while (await receive())["type"] != "http.disconnect":
                pass


async def _send(send: Send, answer: Answer, *, cut_short: bool = False) -> None:
    """Send an answer; `cut_short` promises more than it sends."""
    if answer.status in {204, 304}:
        await send({"type": "http.response.start", "status": answer.status, "headers": []})
        await send({"type": "http.response.body"})
        return
    headers = [(b"content-length", str(len(answer.body) + 10 * cut_short).encode())]
    if answer.content_type:
        headers.append((b"content-type", answer.content_type.encode()))
    if answer.retry_after:
        headers.append((b"retry-after", answer.retry_after.encode()))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    half = answer.body[: len(answer.body) // 2]
    await send({"type": "http.response.body", "body": half if cut_short else answer.body, "more_body": cut_short})


def _recorded(scope: Scope, request: Request, operation: str, status: int) -> Recorded:
    headers = {
        name: hashlib.sha256(value.encode()).hexdigest()[:8] if name in _SECRET else value
        for name, value in request.headers.items()
    }
    path = scope["raw_path"].decode("latin-1")
    if scope["query_string"]:
        path += f"?{scope['query_string'].decode('latin-1')}"
    return Recorded(request.method, path, operation, headers, status, time.monotonic())
