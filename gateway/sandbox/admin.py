"""The sandbox's own API, for tests and for trying things out. JSON in and out.

GET    /_sandbox                                  this text, and how faults are written
GET    /_sandbox/sessions                         tenant and id of every session context
GET    /_sandbox/sessions/{tenant}/{id}           one document; PUT puts one in place; DELETE removes it
GET    /_sandbox/history/{tenant}/{id}            every version it has had, and what made it
POST   /_sandbox/carts/{tenant}/{id}              do what the cart service does when it creates a cart
GET    /_sandbox/switches                         the switches; PATCH sets those named
GET    /_sandbox/faults                           the armed faults; DELETE disarms them
POST   /_sandbox/faults                           arm one: {"fault", "operation"?, "times"?, "probability"?}
GET    /_sandbox/figures                          requests under way, most at a time, and how often each fault struck
GET    /_sandbox/requests                         the requests that came; DELETE forgets them
POST   /_sandbox/tokens                           issue one: {"tenant", "session_id", "customer_id"?, "lifetime"?}
DELETE /_sandbox/tokens                           revoke all service tokens; /_sandbox/tokens/{token} one of any kind
POST   /_sandbox/reset                            back to the seed
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
from msgspec import Struct

from gateway.sandbox import answers, faults
from gateway.sandbox.switches import Switches

if TYPE_CHECKING:
    from gateway.sandbox.answers import Answer
    from gateway.sandbox.request import Request
    from gateway.sandbox.sandbox import Sandbox

__all__ = ["handle"]


class _Fault(Struct, forbid_unknown_fields=True):
    fault: str
    operation: str = "*"
    times: int | None = 1
    probability: float = 1.0


class _TokenRequest(Struct, forbid_unknown_fields=True):
    tenant: str
    session_id: str
    customer_id: str | None = None
    lifetime: float | None = None


def handle(sandbox: Sandbox, request: Request) -> Answer:
    """Answer a request for `/_sandbox/...`."""
    try:
        return _handle(sandbox, request)
    except (ValueError, KeyError, OverflowError, RecursionError) as error:
        return answers.json(400, {"code": 400, "message": str(error)})


def _handle(sandbox: Sandbox, request: Request) -> Answer:  # noqa: C901, PLR0912 - the table above, row by row
    match request.method, *request.segments[1:]:
        case ("GET",):
            return answers.Answer(200, f"{__doc__}\n{faults.__doc__}".encode(), "text/plain")
        case "GET", "sessions":
            return answers.json(200, [list(each) for each in sandbox.store.ids()])
        case method, "sessions", tenant, session_id:
            return _session(sandbox, method, tenant, session_id, request.body)
        case "GET", "history", tenant, session_id:
            revisions = sandbox.store.history(tenant, session_id)
            return answers.json(
                200, [{"version": v, "madeBy": by, "document": msgspec.Raw(source)} for v, source, by in revisions]
            )
        case "POST", "carts", tenant, session_id:
            sandbox.accounts.create_cart(tenant, session_id)
            return answers.no_content()
        case method, "switches":
            return _switches(sandbox, method, request.body)
        case method, "faults":
            return _faults(sandbox, method, request.body)
        case "GET", "figures":
            struck = dict(sandbox.faults.struck)
            return answers.json(200, {"underWay": sandbox.under_way, "peak": sandbox.peak, "struck": struck})
        case "GET", "requests":
            return answers.json(200, [each._asdict() for each in sandbox.requests])
        case "DELETE", "requests":
            sandbox.requests.clear()
            return answers.no_content()
        case "POST", "tokens":
            asked = msgspec.json.decode(request.body, type=_TokenRequest)
            token = sandbox.tokens.issue(asked.tenant, asked.lifetime, asked.session_id, asked.customer_id)
            return answers.json(201, {"access_token": token})
        case "DELETE", "tokens", *token:
            return answers.json(200, {"revoked": sandbox.tokens.revoke(*token[:1], service_only=not token)})
        case "POST", "reset":
            sandbox.reset()
            return answers.no_content()
        case _:
            return answers.unknown_path()


def _session(sandbox: Sandbox, method: str, tenant: str, session_id: str, body: bytes) -> Answer:
    match method:
        case "PUT":
            sandbox.store.seed(tenant, session_id, body)
            return answers.no_content()
        case "DELETE":
            sandbox.store.delete(tenant, session_id)
            return answers.no_content()
        case _:
            source = sandbox.store.get(tenant, session_id)
            return answers.no_session(session_id) if source is None else answers.Answer(200, source, "application/json")


def _switches(sandbox: Sandbox, method: str, body: bytes) -> Answer:
    if method == "PATCH":
        current = msgspec.to_builtins(sandbox.switches)
        changed = msgspec.convert({**current, **msgspec.json.decode(body, type=dict[str, object])}, Switches)
        for name in Switches.__struct_fields__:
            setattr(sandbox.switches, name, getattr(changed, name))
    return answers.json(200, sandbox.switches)


def _faults(sandbox: Sandbox, method: str, body: bytes) -> Answer:
    if method == "POST":
        asked = msgspec.json.decode(body, type=_Fault)
        sandbox.faults.arm(asked.fault, asked.operation, times=asked.times, probability=asked.probability)
    elif method == "DELETE":
        sandbox.faults.clear()
    return answers.json(200, sandbox.faults.all())
