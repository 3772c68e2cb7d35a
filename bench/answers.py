"""What is measured must be right: whole answers are compared before, and their number at upstream after."""

from __future__ import annotations

import http.client
import json
from typing import TYPE_CHECKING, Final

import grpc

from bench.dialects import HEADERS
from bench.stub import SESSION, document

if TYPE_CHECKING:
    from collections.abc import Mapping

    from bench.contenders import Up
    from bench.load import Sample

__all__ = ["Wrong", "check_answer", "check_sample", "check_upstream"]

_PATIENCE: Final = 20.0
_TOLERANCE: Final = 0.02
"""Of sizes: wrk counts bytes of the answers that it had not yet read to their end, too."""
_REFRESHES: Final = 20
"""Calls upstream that a cache may make during a run: an entry expires, a token is fetched."""


class Wrong(Exception):
    """An answer, or their number, is not what it should be: such a figure counts for nothing."""


def check_answer(up: Up, door: str, fields: str) -> float:
    """Ask once, and compare all of it. Returns the size of an answer as its load will see it. Raises Wrong."""
    return _check_rpc(up) if door == "grpc" else _check_http(up, fields)


def check_sample(up: Up, sample: Sample, size: float) -> None:
    """All answers were successes, and as long as the one that was compared. Raises Wrong."""
    if sample.bad or not sample.requests:
        raise Wrong(f"{up.name}: {sample.bad} of {sample.requests} answers were no success")
    if abs(sample.size / size - 1) > _TOLERANCE:
        raise Wrong(f"{up.name}: answers had {sample.size:.0f} bytes on average, the right one has {size:.0f}")


def check_upstream(up: Up, sample: Sample, calls: int, in_flight: int, *, expected: bool) -> None:
    """Upstream was called for each request, or for hardly any. Raises Wrong."""
    if not expected and calls > _REFRESHES:
        raise Wrong(f"{up.name}: {calls} calls upstream, and should answer from its cache")
    # What was under way at the end was counted by upstream alone; both ends may be cut off.
    if expected and abs(calls - sample.requests) > 2 * in_flight + _REFRESHES:
        raise Wrong(f"{up.name}: {calls} calls upstream for {sample.requests} requests")


def _check_http(up: Up, fields: str) -> float:
    contender = up.contender
    dialect = contender.graphql
    if dialect is not None:
        method, path, body = "POST", dialect.path, dialect.read_body(fields)
        expected = dialect.expected(fields)
        headers: Mapping[str, str] = {**HEADERS, "content-type": "application/json"}
    else:
        method, path, body, headers = "GET", f"/session-context/acme/context/{SESSION}", None, HEADERS
        expected = document() if contender.floor == "get" else {"data": {"sessionContext": document()}}
    connection = http.client.HTTPConnection("127.0.0.1", up.port, timeout=_PATIENCE)
    try:
        size = 0.0
        for _ in range(3):  # the third is as all that follow: a cache may tell in a head that it has filled
            connection.request(method, path, body, dict(headers))
            answer = connection.getresponse()
            found = answer.read()
            if answer.status != 200 or json.loads(found) != expected:
                raise Wrong(f"{up.name} answers {answer.status} {found.decode(errors='replace')}, not {expected}")
            head = sum(len(name) + len(value) + 4 for name, value in answer.getheaders())
            size = len(f"HTTP/1.1 {answer.status} {answer.reason}\r\n\r\n") + head + len(found)
    except (OSError, ValueError, http.client.HTTPException) as problem:
        raise Wrong(f"{up.name} does not answer: {problem!r}") from None
    finally:
        connection.close()
    return size


def _check_rpc(up: Up) -> float:
    dialect = up.contender.rpc
    assert dialect is not None
    with grpc.insecure_channel(f"127.0.0.1:{up.rpc_port}") as channel:
        call: grpc.UnaryUnaryMultiCallable[bytes, bytes] = channel.unary_unary(dialect.read_method)
        try:
            # Anything but grpc-status 0 is raised.
            for _ in range(3):
                answer = call(dialect.read_message(), metadata=tuple(HEADERS.items()), timeout=_PATIENCE)
        except grpc.RpcError as error:
            raise Wrong(f"{up.name}: {error}") from None
    found, expected = dialect.found(answer), dialect.expected()
    if found != expected:
        raise Wrong(f"{up.name} answers {found}, not {expected}")
    return len(answer) + 5
