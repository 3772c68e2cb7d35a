"""A gateway into which secrets go at every opening, and to which everything happens. Run by test_redaction.

Logs go to standard error, as configured in production; what callers got, metrics, traces and `repr`s go to standard
output.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import sys
from typing import TYPE_CHECKING, Any

import grpc
import httpx
from access.calls import ATTRIBUTE, CALLS, Clients
from access.issuing import AUDIENCE, FakeIssuer, issuing, rsa_key
from access.test_table import GRANTS, KEYS, bearer, key
from h2.connection import H2Connection
from h2.events import ResponseReceived, TrailersReceived
from observability.collector import collecting

from gateway.configuration import load_settings
from gateway.credentials import CallerCredentials
from gateway.logs import configure_logs
from gateway.sandbox import seed
from gateway.sessions.service import OwnSessionContexts, SessionContexts
from gateway.settings import Log
from stage import opened

if TYPE_CHECKING:
    from collections.abc import Mapping

CLIENT_SECRET = "canary-of-a-client-secret"
REDIS_PASSWORD = "canary-of-a-redis-password"
SHOPPER = "canary-of-a-shoppers-token"
WRONG_KEY = "both-canary-of-a-wrong-key"
SENT_NAME, SENT_VALUE, STORED_NAME, STORED_VALUE = (
    f"canary-of-an-attribute-{each}" for each in ("name-sent", "value-sent", "name-stored", "value-stored")
)
SESSION = "canary-of-a-session-id"
"""Everything that must not be seen has this in it, or is told by name."""

FAULTS = (
    "",
    "status=400",
    "status=401",
    "status=403",
    "status=404",
    "status=409",
    "status=413",
    "status=429;retry-after=1",
    "status=500",
    "status=503-after-write",
    "drop",
    "drop-after-write",
    "truncated",
    "not-json",
    "wrong-json",
    "hang",
)
OPERATIONS = (
    *("get", "put", "add-attribute", "remove-attribute"),
    *("get-own", "patch-own", "add-own-attribute", "remove-own-attribute"),
)


async def main(form: str) -> None:
    configure_logs(Log(level="debug", format=form))  # type: ignore[arg-type]  # pydantic checks it
    seed.CLIENTS["acme"] = ("acme-client", CLIENT_SECRET)
    ATTRIBUTE[:] = SENT_NAME, SENT_VALUE
    seed.CUSTOMER_SESSION = SESSION  # type: ignore[misc]  # for all calls that are made from here on
    keys = {
        name: {"hash": KEYS[name][1], "permissions": permissions, "tenants": tenants}
        for name, (permissions, tenants) in GRANTS.items()
    }
    async with issuing() as fake, collecting() as collector:
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = collector.url
        os.environ["OTEL_BSP_SCHEDULE_DELAY"] = "50"
        issuer = {"issuer": fake.url, "audience": AUDIENCE, "tenants_claim": "tenants"}
        sections: dict[str, Any] = {
            "tenants": {"acme": {"client_id": "acme-client", "client_secret": CLIENT_SECRET}},
            "access": {"keys": keys, "issuers": {"corp": issuer}},
            "upstream": {"timeout": 0.1},
            "cache": {"backend": f"redis://:{REDIS_PASSWORD}@127.0.0.1:1/0", "own_sessions": True, "memory_tier": True},
            "rate_limits": {"rate": 1000, "own_rate": 1000},
            "writes": {"max_attempts": 2},
            "telemetry": {"traces": True},
        }
        async with opened(**sections) as dev:
            async with grpc.aio.insecure_channel(dev.doors.grpc) as channel, httpx.AsyncClient() as http:
                clients = Clients(dev, channel, http)
                seen = await everything(clients, fake)
                metrics = (await http.get(f"{dev.doors.admin}/metrics")).text
            settings = load_settings(None, {**_DEFAULTS, **sections})
            credentials = CallerCredentials.read({"x-api-key": WRONG_KEY, **bearer(SHOPPER), "saas-token": "x"}.get)
            secrets = [
                CLIENT_SECRET,
                REDIS_PASSWORD,
                SHOPPER,
                WRONG_KEY,
                dev.sandbox.saas_token,
                fake.token(),
                *(each[0].get_secret_value() for each in KEYS.values()),
                *dev.sandbox.tokens._tokens,
            ]
            told: dict[str, Any] = {
                "secrets": sorted({*secrets, *ISSUED} - {seed.CUSTOMER_TOKEN, seed.ANONYMOUS_TOKEN}),
                "seen": seen,
                "metrics": metrics,
                "reprs": [repr(settings), repr(credentials), *reprs()],
            }
        told["spans"] = sorted({each.name for each in collector.spans})
        told["traces"] = [each.decode("latin-1") for each in collector.raw]
    sys.stdout.write(json.dumps(told))


_DEFAULTS: dict[str, Any] = {"tenants": {}}
ISSUED: set[str] = set()
"""Tokens that were good at some time."""


async def everything(clients: Clients, fake: FakeIssuer) -> list[list[str]]:
    """All calls, with all faults, with all credentials; what they were answered."""
    upstream = clients.dev.sandbox
    good = {**key("both"), **bearer(SHOPPER), "saas-token": upstream.saas_token}
    seen: list[list[str]] = []

    async def all_calls(headers: Mapping[str, str], *, usual: bool = True) -> None:
        answers = await asyncio.gather(*(each(clients, headers, good=usual) for each in CALLS.values()))
        ISSUED.update(upstream.tokens._tokens)
        seen.extend([name, each.reason, each.text] for name, each in zip(CALLS, answers, strict=True))

    for fault in FAULTS:
        renew(clients)
        for operation in OPERATIONS if fault else ():
            upstream.faults.arm(fault, operation, times=None)
        await all_calls(good)
        await all_calls(good, usual=False)
    for fault in FAULTS[1:-1]:
        renew(clients)
        upstream.tokens.revoke(service_only=True)
        upstream.faults.arm(fault, "token", times=None)
        await all_calls(good)
    renew(clients)
    token = fake.token()
    ISSUED.add(token)
    for headers in (
        {},
        {"x-api-key": WRONG_KEY},
        {"x-api-key": "canary-of-a-key\xff"},
        bearer(token),
        bearer(f"{token[:-4]}AAAA"),
        bearer(fake.unsigned(sub="canary-of-a-wrong-key")),
        bearer(fake.token(rsa_key("unknown"))),
        {**key("read-only"), "saas-token": "canary-of-a-saas-token"},
        {**key("both"), **bearer("canary of a token with spaces"), "saas-token": "canary of a saas-token"},
    ):
        await all_calls({name: value for name, value in headers.items() if value.isascii()})
    await no_text(clients, seen)
    fake.status = 500
    await defects(clients, good, all_calls)
    await nonsense(clients, good, seen)
    return seen


def renew(clients: Clients) -> None:
    """The sandbox as new, with one session that the canary token is of."""
    upstream = clients.dev.sandbox
    upstream.reset()
    document = seed.SESSIONS["acme", "62528895-b561-4518-bfdc-2cbf52a07845"]
    document = document.replace(b"62528895-b561-4518-bfdc-2cbf52a07845", SESSION.encode())
    document = document.replace(b"customProperty", STORED_NAME.encode()).replace(b"customValue", STORED_VALUE.encode())
    upstream.store.seed("acme", SESSION, document)
    upstream.tokens.issue("acme", None, SESSION, seed.CUSTOMER_ID, value=SHOPPER)


async def defects(clients: Clients, headers: Mapping[str, str], all_calls: Any) -> None:
    """Each use case meets a defect, with secrets all around it."""

    async def broken(self: object, *arguments: object, **named: object) -> None:
        secrets: dict[str, Any] = {CLIENT_SECRET: SHOPPER, "arguments": arguments, "named": named}
        try:
            secrets["not there"].count("x")
        except KeyError as error:
            raise RuntimeError("a defect") from error

    for cases in (SessionContexts, OwnSessionContexts):
        for name in ("get", "batch_get", "replace", "patch", "update", "add_attribute", "remove_attribute"):
            if hasattr(cases, name):
                setattr(cases, name, broken)
    await all_calls(headers)
    await all_calls(headers, usual=False)


async def nonsense(clients: Clients, headers: Mapping[str, str], seen: list[list[str]]) -> None:
    """Requests that are none."""
    bodies = [
        b"{",
        f'{{"query": "{SENT_VALUE} {{"}}'.encode(),
        json.dumps({"query": f'{{ sessionContext(tenant: "{SENT_VALUE}", no: "{SENT_NAME}") {{ x }} }}'}).encode(),
        json.dumps({"query": "query($v: Version) { x }", "variables": {"v": SENT_VALUE}}).encode(),
        json.dumps({"query": SENT_VALUE, "variables": [SENT_VALUE]}).encode(),
        json.dumps({"query": 7, SENT_NAME: SENT_VALUE}).encode(),
        b"\xff" + SENT_VALUE.encode(),
    ]
    for body in bodies:
        response = await clients.http.post(
            clients.dev.graphql_url, content=body, headers={**headers, "content-type": "application/json"}
        )
        seen.append(["nonsense", "BAD_REQUEST", response.text])
    call: Any = clients.channel.unary_unary("/emporix.sessioncontext.v1.SessionContextService/AddAttribute")
    for message in (b"\xff", SENT_VALUE.encode()):
        try:
            await call(message, metadata=tuple(headers.items()))
        except grpc.aio.AioRpcError as error:
            seen.append(["nonsense", "BAD_REQUEST", f"{error.details()}{error.trailing_metadata()}"])


async def no_text(clients: Clients, seen: list[list[str]]) -> None:
    """Credentials with a byte that no text has, as a client sends them that is not gRPC's own."""
    connection = H2Connection()
    connection.initiate_connection()
    connection.send_headers(
        1,
        [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":authority", b"gateway"),
            (b":path", b"/emporix.sessioncontext.v1.SessionContextService/GetSessionContext"),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            *((name, b"canary-of-no-text\xff") for name in (b"x-api-key", b"authorization", b"saas-token")),
        ],
    )
    connection.send_data(1, bytes(5), end_stream=True)
    host, _, port = clients.dev.doors.grpc.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(connection.data_to_send())
    while True:
        for event in connection.receive_data(await reader.read(65_536)):
            if isinstance(event, TrailersReceived | ResponseReceived) and event.stream_ended:
                seen.append(["no text", "CALLER_UNAUTHENTICATED", str(event.headers)])
                writer.close()
                return


def reprs() -> list[str]:
    """Of every object of the gateway's that is in memory."""
    found = []
    for each in gc.get_objects():
        module = str(type(each).__module__)
        if module.startswith("gateway.") and not module.startswith(("gateway.sandbox", "gateway.gen")):
            found.append(repr(each))
    return found


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
