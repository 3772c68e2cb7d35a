"""No secret comes out of the gateway: canaries go into every input, everything happens to it, and all is read."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from access import redaction_program as program

FORMATS = ("json", "console")


@dataclass(frozen=True)
class Run:
    """What came out of one run."""

    log: str
    secrets: list[str]
    seen: list[list[str]]
    metrics: str
    reprs: list[str]
    spans: list[str]
    traces: list[str]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def runs() -> dict[str, Run]:
    return dict(zip(FORMATS, await asyncio.gather(*map(run, FORMATS)), strict=True))


async def run(form: str) -> Run:
    tests = Path(__file__).parents[1]
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        program.__file__,
        form,
        cwd=tests.parent,
        env={
            **{name: value for name, value in os.environ.items() if not name.startswith("SESSION_GATEWAY_")},
            "PYTHONPATH": f"{tests}:{tests.parent}",
        },
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, log = await process.communicate()
    assert process.returncode == 0, log.decode()[-3000:]
    told: dict[str, Any] = json.loads(out)
    return Run(log.decode(), **told)


@pytest.fixture(params=FORMATS)
def result(request: pytest.FixtureRequest, runs: dict[str, Run]) -> Run:
    return runs[request.param]


def found(secrets: list[str], text: str) -> list[str]:
    """Those that are in a text, and where."""
    return [text[max(0, text.index(each) - 200) : text.index(each) + 100] for each in secrets if each in text]


def test_everything_has_happened(result: Run) -> None:
    """Else the other tests say nothing."""
    reasons = {reason for _, reason, _ in result.seen}

    assert reasons >= {
        "OK",
        "INVALID_ARGUMENT",
        "UNAUTHENTICATED",
        "CALLER_UNAUTHENTICATED",
        "CALLER_NOT_PERMITTED",
        "PERMISSION_DENIED",
        "VERSION_CONFLICT",
        "RATE_LIMITED",
        "UPSTREAM_UNAVAILABLE",
        "UPSTREAM_TIMEOUT",
        "UPSTREAM_FAULT",
        "UPSTREAM_MALFORMED",
        "GATEWAY_CREDENTIALS_REFUSED",
        "INTERNAL",
    }
    for event in ("request", "authentication_failed", "refused", "write", "defect", "cache_unavailable"):
        assert event in result.log
    assert len(result.log.splitlines()) > 500
    assert len(result.reprs) > 200
    assert {"session.get", "own_session.update", "cache.get", "shared_cache.get", "token.get", "GET", "POST"} <= {
        *result.spans
    }
    assert len(result.secrets) > 12
    assert program.STORED_VALUE in json.dumps(result.seen)


def test_no_log_line_holds_a_secret_an_attribute_or_a_session(result: Run) -> None:
    assert found([*result.secrets, "canary"], result.log) == []


def test_no_caller_is_told_a_secret(result: Run) -> None:
    for name, reason, text in result.seen:
        assert found(result.secrets, text) == [], (name, reason)


def test_no_caller_is_told_by_an_error_what_another_has_stored(result: Run) -> None:
    for name, reason, text in result.seen:
        if reason not in {"OK", "VERSION_CONFLICT"}:
            assert found([program.STORED_NAME, program.STORED_VALUE], text) == [], (name, reason)


def test_no_metric_holds_a_secret_an_attribute_or_a_session(result: Run) -> None:
    assert "session_gateway_writes_total" in result.metrics
    assert found([*result.secrets, "canary"], result.metrics) == []


def test_no_span_holds_a_secret_an_attribute_or_a_session(result: Run) -> None:
    assert sum(map(len, result.traces)) > 100_000
    for each in result.traces:
        assert found([*result.secrets, "canary"], each) == []


def test_no_object_shows_a_secret(result: Run) -> None:
    for each in result.reprs:
        assert found(result.secrets, each) == []
