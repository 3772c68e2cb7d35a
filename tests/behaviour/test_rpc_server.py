"""The gRPC server as clients meet it: health, reflection, rich errors, deadlines, and what must not bring it down."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar
from urllib.parse import quote

import grpc
import pytest
import pytest_asyncio
import structlog.testing
from defaults import RPC_LIMITS
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from google.rpc import error_details_pb2 as details
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status
from workers_stage import APART

from gateway import errors
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2 as pb
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2_grpc as pb_grpc
from gateway.model import decode_session_context
from gateway.rpc.errors import abort
from gateway.sandbox import seed
from gateway.shutdown import Shutdown
from stage import channel_to, opened, served_rpc
from waiting import eventually

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from google.protobuf.message import Message

    from doors import Caller
    from gateway.sandbox import Sandbox
    from stage import Dev

Detail = TypeVar("Detail", bound="Message")

MANAGED = "emporix.sessioncontext.v1.SessionContextService"
OWN = "emporix.sessioncontext.v1.OwnSessionContextService"
HEALTH = "grpc.health.v1.Health"
REFLECTION = "grpc.reflection.v1alpha.ServerReflection"
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING
MAX_MESSAGE = RPC_LIMITS.max_message
REQUEST = pb.GetSessionContextRequest(tenant="acme", session_id=seed.CUSTOMER_SESSION)


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def channel(dev: Dev) -> AsyncIterator[grpc.aio.Channel]:
    async with channel_to(dev.doors.grpc) as channel:
        yield channel


@pytest.fixture
def managed(channel: grpc.aio.Channel) -> pb_grpc.SessionContextServiceAsyncStub:
    return pb_grpc.SessionContextServiceStub(channel)


def health_of(channel: grpc.aio.Channel) -> Any:
    """Its stub; that the stubs' own types know no methods is a fault of theirs."""
    return health_pb2_grpc.HealthStub(channel)


def raw(channel: grpc.aio.Channel, method: str) -> Any:
    """A method by its path, which takes and gives bytes."""
    return channel.unary_unary(method)


async def failure(call: Any) -> grpc.aio.AioRpcError:
    """How a call fails."""
    with pytest.raises(grpc.aio.AioRpcError) as failed:
        await call
    return failed.value


def detail(error: grpc.aio.AioRpcError, kind: type[Detail]) -> Detail | None:
    """The detail of a kind; None when there is none."""
    status = rpc_status.from_call(error)  # type: ignore[arg-type]  # documented to take it; the stubs want a Call
    assert status is not None, "there are no details at all"
    found = kind()
    return found if any(each.Unpack(found) for each in status.details) else None


def reason(error: grpc.aio.AioRpcError) -> str:
    info = detail(error, details.ErrorInfo)
    assert info is not None
    assert info.domain == "session-gateway"
    return str(info.reason)


# Health


@pytest.mark.parametrize("service", ["", MANAGED, OWN])
async def test_health_says_serving(channel: grpc.aio.Channel, service: str) -> None:
    health = health_of(channel)
    request = health_pb2.HealthCheckRequest(service=service)
    watch = health.Watch(request)

    assert (await health.Check(request)).status == SERVING
    assert (await watch.read()).status == SERVING
    watch.cancel()


async def test_health_of_a_service_that_is_not_here(channel: grpc.aio.Channel) -> None:
    request = health_pb2.HealthCheckRequest(service="some.other.Service")

    assert (await failure(health_of(channel).Check(request))).code() == grpc.StatusCode.NOT_FOUND


# Reflection


async def reflected(channel: Any, **question: Any) -> reflection_pb2.ServerReflectionResponse:
    stub: Any = reflection_pb2_grpc.ServerReflectionStub(channel)
    stream = stub.ServerReflectionInfo()
    await stream.write(reflection_pb2.ServerReflectionRequest(**question))
    answer: reflection_pb2.ServerReflectionResponse = await stream.read()
    await stream.done_writing()
    return answer


async def test_reflection_lists_every_service(channel: grpc.aio.Channel) -> None:
    answer = await reflected(channel, list_services="")

    assert {each.name for each in answer.list_services_response.service} == {MANAGED, OWN, HEALTH, REFLECTION}


async def test_reflection_answers_by_the_name_of_v1_too(channel: grpc.aio.Channel) -> None:
    """Clients ask for v1 first, and some for nothing else; its messages are those of v1alpha."""
    kind = reflection_pb2.ServerReflectionResponse
    stream: Any = channel.stream_stream("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo")()
    await stream.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=MANAGED).SerializeToString())
    answer = kind.FromString(await stream.read())
    await stream.done_writing()

    assert answer == await reflected(channel, file_containing_symbol=MANAGED)


async def test_reflection_is_told_what_is_no_message(
    channel: grpc.aio.Channel, caplog: pytest.LogCaptureFixture
) -> None:
    stream: Any = channel.stream_stream(f"/{REFLECTION}/ServerReflectionInfo")()
    await stream.write(b"\xff\xff")
    answer = reflection_pb2.ServerReflectionResponse.FromString(await stream.read())
    await stream.done_writing()

    assert answer.error_response.error_code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert await stream.code() == grpc.StatusCode.OK
    assert caplog.records == []


@pytest.mark.parametrize(
    ("symbol", "name"),
    [
        (MANAGED, "emporix/sessioncontext/v1/session_context.proto"),
        ("emporix.sessioncontext.v1.VersionConflict", "emporix/sessioncontext/v1/session_context.proto"),
        (HEALTH, "grpc_health/v1/health.proto"),
    ],
)
async def test_reflection_has_the_file_of_a_symbol_and_all_that_it_imports(
    channel: grpc.aio.Channel, symbol: str, name: str
) -> None:
    answer = await reflected(channel, file_containing_symbol=symbol)
    file = FileDescriptorProto.FromString(answer.file_descriptor_response.file_descriptor_proto[0])

    assert file.name.endswith(name)
    for each in file.dependency:
        imported = await reflected(channel, file_by_filename=each)
        source = imported.file_descriptor_response.file_descriptor_proto[0]
        assert FileDescriptorProto.FromString(source).name == each


async def test_reflection_has_every_method(channel: grpc.aio.Channel) -> None:
    answer = await reflected(channel, file_containing_symbol=MANAGED)
    file = FileDescriptorProto.FromString(answer.file_descriptor_response.file_descriptor_proto[0])

    assert {each.name: [method.name for method in each.method] for each in file.service} == {
        service.name: [method.name for method in service.methods] for service in pb.DESCRIPTOR.services_by_name.values()
    }


# Rich errors


class Failing:
    """Use cases that fail as they are told to."""

    def __init__(self) -> None:
        self.error: Exception | None = None

    def sessions(self, _: object) -> Failing:
        return self

    def own(self, _: object) -> Failing:
        return self

    def __getattr__(self, name: str) -> Callable[..., Any]:
        async def fail(*_: object, **__: object) -> None:
            assert self.error is not None
            raise self.error

        return fail


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def failing() -> AsyncIterator[tuple[Failing, grpc.aio.Channel]]:
    """Use cases that fail, and a channel to them through the real server."""
    fake: Any = Failing()
    async with (
        served_rpc(fake, budget=5, grace=0, shutdown=Shutdown()) as address,
        channel_to(address) as channel,
    ):
        yield fake, channel


async def failed_with(failing: tuple[Failing, grpc.aio.Channel], error: Exception) -> grpc.aio.AioRpcError:
    fake, channel = failing
    fake.error = error
    return await failure(pb_grpc.SessionContextServiceStub(channel).GetSessionContext(REQUEST))


CURRENT = decode_session_context(seed.SESSIONS["acme", seed.CUSTOMER_SESSION])

REASONS: list[tuple[errors.GatewayError, str, str, dict[str, str]]] = [
    (errors.InvalidArgument.of("tenant", "no"), "INVALID_ARGUMENT", "INVALID_ARGUMENT", {}),
    (errors.Unauthenticated("no"), "UNAUTHENTICATED", "UNAUTHENTICATED", {}),
    (errors.PermissionDenied("no"), "PERMISSION_DENIED", "PERMISSION_DENIED", {}),
    (errors.TenantNotConfigured("acme"), "TENANT_NOT_CONFIGURED", "NOT_FOUND", {"tenant": "acme"}),
    (errors.SessionNotFound("ü 🛒"), "SESSION_NOT_FOUND", "NOT_FOUND", {"session_id": "ü 🛒"}),
    (errors.SessionNotFound(None), "SESSION_NOT_FOUND", "NOT_FOUND", {}),
    (
        errors.VersionConflict(7, CURRENT),
        "VERSION_CONFLICT",
        "ABORTED",
        {"expected_version": "7", "current_version": "10"},
    ),
    (errors.VersionConflict(None, None), "VERSION_CONFLICT", "ABORTED", {}),
    (errors.CallerUnauthenticated("no"), "CALLER_UNAUTHENTICATED", "UNAUTHENTICATED", {}),
    (errors.IssuerUnavailable(), "ISSUER_UNAVAILABLE", "UNAVAILABLE", {}),
    (
        errors.CallerNotPermitted("shop", "sessions:read", "acme"),
        "CALLER_NOT_PERMITTED",
        "PERMISSION_DENIED",
        {"caller": "shop", "permission": "sessions:read", "tenant": "acme"},
    ),
    (
        errors.MinVersionNotReached(8, 7),
        "MIN_VERSION_NOT_REACHED",
        "OUT_OF_RANGE",
        {"min_version": "8", "current_version": "7"},
    ),
    (errors.NotRepresentable("s", "a", "no"), "NOT_REPRESENTABLE", "FAILED_PRECONDITION", {"session_id": "s"}),
    (errors.AnswerTooLarge(1), "ANSWER_TOO_LARGE", "RESOURCE_EXHAUSTED", {}),
    (errors.RequestNotReceived(), "REQUEST_NOT_RECEIVED", "DEADLINE_EXCEEDED", {}),
    (errors.NoRoomForRequest(), "REQUEST_NOT_RECEIVED", "RESOURCE_EXHAUSTED", {}),
    (errors.WriteOutcomeUnknown(timed_out=False), "WRITE_OUTCOME_UNKNOWN", "UNKNOWN", {}),
    (errors.WriteOutcomeUnknown(timed_out=True), "WRITE_OUTCOME_UNKNOWN", "DEADLINE_EXCEEDED", {}),
    (errors.CallerRateLimited(0.5), "CALLER_RATE_LIMITED", "RESOURCE_EXHAUSTED", {}),
    (errors.RateLimited("no"), "RATE_LIMITED", "RESOURCE_EXHAUSTED", {}),
    (errors.UpstreamUnavailable("no"), "UPSTREAM_UNAVAILABLE", "UNAVAILABLE", {}),
    (errors.UpstreamUnreachable("no"), "UPSTREAM_UNAVAILABLE", "UNAVAILABLE", {}),
    (errors.UpstreamTimeout("no"), "UPSTREAM_TIMEOUT", "DEADLINE_EXCEEDED", {}),
    (errors.UpstreamFault("no"), "UPSTREAM_FAULT", "INTERNAL", {}),
    (errors.UpstreamMalformed("no"), "UPSTREAM_MALFORMED", "INTERNAL", {}),
    (errors.WriteDiscarded(), "WRITE_DISCARDED", "INTERNAL", {}),
    (errors.GatewayCredentialsRefused("no"), "GATEWAY_CREDENTIALS_REFUSED", "INTERNAL", {}),
]


@pytest.mark.parametrize(("error", "name", "code", "metadata"), REASONS)
async def test_every_error_has_its_reason_and_what_its_message_says(
    failing: tuple[Failing, grpc.aio.Channel],
    *,
    error: errors.GatewayError,
    name: str,
    code: str,
    metadata: dict[str, str],
) -> None:
    failed = await failed_with(failing, error)
    info = detail(failed, details.ErrorInfo)

    assert failed.code().name == code
    assert failed.details() == error.message
    assert info is not None
    assert (info.reason, info.domain, dict(info.metadata)) == (name, "session-gateway", metadata)


def test_the_reasons_are_all_there_are() -> None:
    def kinds(kind: type[errors.GatewayError]) -> set[str]:
        return {kind.reason}.union(*map(kinds, kind.__subclasses__()))

    assert {row[1] for row in REASONS} == kinds(errors.GatewayError) - {"INTERNAL"}


async def test_a_bad_request_has_every_violation(failing: tuple[Failing, grpc.aio.Channel]) -> None:
    given = [errors.Violation("tenant", "must be lower case"), errors.Violation("session_ids[3]", "must not be empty")]
    refusal = detail(await failed_with(failing, errors.InvalidArgument(given)), details.BadRequest)

    assert refusal is not None
    assert [errors.Violation(each.field, each.description) for each in refusal.field_violations] == given


@pytest.mark.parametrize(
    ("error", "kind", "name"),
    [
        (errors.SessionNotFound("some id"), "emporix.sessioncontext.v1.SessionContext", "some id"),
        (errors.SessionNotFound(None), "emporix.sessioncontext.v1.SessionContext", "me"),
        (errors.TenantNotConfigured("acme"), "tenant", "acme"),
    ],
)
async def test_what_is_not_found_is_named(
    failing: tuple[Failing, grpc.aio.Channel], error: errors.GatewayError, kind: str, name: str
) -> None:
    resource = detail(await failed_with(failing, error), details.ResourceInfo)

    assert resource is not None
    assert (resource.resource_type, resource.resource_name) == (kind, name)


@pytest.mark.parametrize("kind", [errors.RateLimited, errors.UpstreamUnavailable])
@pytest.mark.parametrize("seconds", [0.0, 2.25, 3600.0, None])
async def test_when_to_try_again_is_told_where_it_is_known(
    failing: tuple[Failing, grpc.aio.Channel], kind: type[errors.UpstreamError], seconds: float | None
) -> None:
    retry = detail(await failed_with(failing, kind("no", retry_after=seconds)), details.RetryInfo)

    assert (None if retry is None else retry.retry_delay.ToNanoseconds() / 1e9) == seconds


async def test_a_conflict_has_the_current_session_context(failing: tuple[Failing, grpc.aio.Channel]) -> None:
    conflict = detail(await failed_with(failing, errors.VersionConflict(0, CURRENT)), pb.VersionConflict)

    assert conflict is not None
    assert conflict.HasField("expected_version")
    assert conflict.expected_version == 0
    assert conflict.current_version == 10
    assert conflict.current.metadata.version == 10
    assert conflict.current.context["customProperty"] == "customValue"


async def test_a_conflict_says_nothing_that_is_not_known(failing: tuple[Failing, grpc.aio.Channel]) -> None:
    conflict = detail(await failed_with(failing, errors.VersionConflict(None, None)), pb.VersionConflict)

    assert conflict is not None
    assert not conflict.HasField("expected_version")
    assert not conflict.HasField("current_version")
    assert not conflict.HasField("current")


def size_of(error: grpc.aio.AioRpcError) -> int:
    """Bytes of the trailers as HTTP/2 counts them (RFC 9113, 10.5.1): what clients bound at 8 KiB."""
    fields = {
        "grpc-status": "13",
        "grpc-message": quote(error.details() or "", safe=" !\"#$&'()*+,-./:;<=>?@[]^_`{|}~"),
    }
    for name, value in error.trailing_metadata():
        fields[name] = base64.b64encode(value).decode() if isinstance(value, bytes) else value
    return sum(len(name) + len(value) + 32 for name, value in fields.items())


BULKY = b'{"sessionId": "x", "context": {"a": "' + b"x" * 100_000 + b'"}, "metadata": {"version": 8}}'
LARGE = [
    errors.VersionConflict(7, decode_session_context(BULKY)),
    errors.SessionNotFound("🛒" * 256),
    errors.InvalidArgument(errors.Violation(f"session_ids[{index}]", "must not be empty") for index in range(100)),
    errors.InvalidArgument(errors.Violation(f"field_{index}", "x" * 10_000) for index in range(100)),
    errors.InvalidArgument.of("update_mask", "🛒" * 10_000),
    errors.InvalidArgument(errors.Violation("context", "ü%\n" * 1_000) for _ in range(20)),
    errors.InvalidArgument.of("f" * 10_000, "no"),
    errors.UpstreamFault("%" * 10_000),
]


@pytest.mark.parametrize("error", LARGE, ids=lambda each: f"{type(each).__name__}-{each.message[:20]}")
async def test_no_status_is_too_large_for_its_reader(
    failing: tuple[Failing, grpc.aio.Channel], error: errors.GatewayError
) -> None:
    failed = await failed_with(failing, error)

    assert reason(failed) == error.reason
    assert size_of(failed) <= 8 * 1024


async def test_of_many_violations_those_that_fit_are_told(failing: tuple[Failing, grpc.aio.Channel]) -> None:
    violations = [errors.Violation(f"field_{index}", "x" * 10_000) for index in range(100)]
    refusal = detail(await failed_with(failing, errors.InvalidArgument(violations)), details.BadRequest)

    assert refusal is not None
    assert [each.field for each in refusal.field_violations][:5] == [f"field_{index}" for index in range(5)]


async def test_a_conflict_over_a_large_session_context_still_arrives(
    managed: pb_grpc.SessionContextServiceAsyncStub, upstream: Sandbox, customer: Caller
) -> None:
    document = seed.SESSIONS["acme", seed.CUSTOMER_SESSION].replace(b"customValue", b"x" * 100_000)
    upstream.store.seed("acme", seed.CUSTOMER_SESSION, document)
    request = pb.ReplaceSessionContextRequest(
        tenant="acme", session_id=seed.CUSTOMER_SESSION, session_context=pb.SessionContext(), expected_version=7
    )
    failed = await failure(managed.ReplaceSessionContext(request, metadata=tuple(customer.headers().items())))
    info = detail(failed, details.ErrorInfo)

    assert failed.code() == grpc.StatusCode.ABORTED
    assert info is not None
    assert dict(info.metadata) == {"expected_version": "7", "current_version": "10"}
    assert detail(failed, pb.VersionConflict) == pb.VersionConflict(expected_version=7, current_version=10)


@pytest.mark.parametrize(
    ("value", "what"),
    [
        (b"9" * 400, "a number beyond a double's range"),
        (b"[" * 60 + b"]" * 60, "a value that is nested deeper than a protobuf message can be"),
    ],
)
async def test_what_no_message_can_carry_is_told_with_its_session(
    managed: pb_grpc.SessionContextServiceAsyncStub, upstream: Sandbox, customer: Caller, value: bytes, what: str
) -> None:
    document = seed.SESSIONS["acme", seed.CUSTOMER_SESSION].replace(b'"customValue"', value)
    upstream.store.seed("acme", seed.CUSTOMER_SESSION, document)
    request = pb.BatchGetSessionContextsRequest(
        tenant="acme", session_ids=[seed.ODD_SESSION, seed.CUSTOMER_SESSION, seed.ANONYMOUS_SESSION]
    )
    metadata = tuple(customer.headers().items())
    failed = await failure(managed.BatchGetSessionContexts(request, metadata=metadata))
    info = detail(failed, details.ErrorInfo)

    assert failed.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert f"{seed.CUSTOMER_SESSION!r} holds {what} in 'customProperty'" in (failed.details() or "")
    assert info is not None
    assert (info.reason, dict(info.metadata)) == ("NOT_REPRESENTABLE", {"session_id": seed.CUSTOMER_SESSION})

    request.session_ids.remove(info.metadata["session_id"])
    assert len((await managed.BatchGetSessionContexts(request, metadata=metadata)).entries) == 2


async def test_a_defect_is_told_by_its_id_alone(failing: tuple[Failing, grpc.aio.Channel]) -> None:
    with structlog.testing.capture_logs() as log:
        failed = await failed_with(failing, RuntimeError("secret"))

    (line,) = log
    assert line["event"] == "defect"
    assert line["log_level"] == "error"
    assert line["exc_info"]
    assert failed.code() == grpc.StatusCode.INTERNAL
    assert failed.details() == f"internal error; its id in the log is {line['incident']}"
    assert reason(failed) == "INTERNAL"
    assert "secret" not in str(failed.trailing_metadata())


async def test_a_caller_who_goes_just_as_an_error_is_sent_has_gone_and_that_is_all() -> None:
    class Gone:
        async def abort(self, *_: object) -> NoReturn:
            raise grpc.aio.InternalError("a batch of operations failed")

        def trailing_metadata(self) -> None:
            """None was set."""

    context: Any = Gone()
    with pytest.raises(asyncio.CancelledError):  # of which grpc.aio logs nothing
        await abort(context, errors.SessionNotFound("s"))


@pytest.mark.parametrize("service", [MANAGED, OWN])
async def test_no_method_of_any_service_tells_of_a_defect(
    failing: tuple[Failing, grpc.aio.Channel], service: str
) -> None:
    fake, channel = failing
    fake.error = RuntimeError("secret")
    for method in pb.DESCRIPTOR.services_by_name[service.rpartition(".")[2]].methods:
        request = getattr(pb, method.input_type.name)()
        if method.name.startswith("Add"):
            request.value.bool_value = True  # what is not there is refused before the use case is called
        with structlog.testing.capture_logs() as log:
            failed = await failure(raw(channel, f"/{service}/{method.name}")(request.SerializeToString()))

        assert [each["event"] for each in log] == ["defect"], method.name
        assert (failed.code(), reason(failed)) == (grpc.StatusCode.INTERNAL, "INTERNAL"), method.name
        assert "secret" not in f"{failed.details()} {failed.trailing_metadata()}"


# Deadlines and cancellation


async def test_a_callers_deadline_is_answered_in_time_and_ends_the_upstream_call(
    managed: pb_grpc.SessionContextServiceAsyncStub, upstream: Sandbox
) -> None:
    upstream.faults.arm("hang", "get")
    failed = await failure(managed.GetSessionContext(REQUEST, timeout=0.3))

    assert failed.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert reason(failed) == "UPSTREAM_TIMEOUT"
    await eventually(lambda: upstream.under_way == 0)


async def test_a_deadline_that_has_all_but_passed_is_no_defect(
    managed: pb_grpc.SessionContextServiceAsyncStub, upstream: Sandbox
) -> None:
    """Whoever is first tells of it, the client itself or the gateway."""
    upstream.faults.arm("hang", "get", times=None)
    with structlog.testing.capture_logs() as log:
        for timeout in (0.0, 0.000_001, 0.001, 0.005):
            failed = await failure(managed.GetSessionContext(REQUEST, timeout=timeout))
            assert failed.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        await eventually(lambda: upstream.under_way == 0)

    assert log == []


async def test_a_call_without_a_deadline_is_bounded_all_the_same() -> None:
    async with opened(grpc={"budget": 0.2}) as dev, channel_to(dev.doors.grpc) as channel:
        dev.sandbox.faults.arm("hang", "get")
        failed = await failure(pb_grpc.SessionContextServiceStub(channel).GetSessionContext(REQUEST))

        assert reason(failed) == "UPSTREAM_TIMEOUT"
        await eventually(lambda: dev.sandbox.under_way == 0)


async def test_a_call_that_is_cancelled_ends_the_upstream_call(
    managed: pb_grpc.SessionContextServiceAsyncStub, upstream: Sandbox
) -> None:
    await managed.GetSessionContext(REQUEST)  # a token is there, so that the read is what hangs
    upstream.faults.arm("hang", "get")
    call = managed.GetSessionContext(REQUEST)
    await eventually(lambda: upstream.under_way == 1)

    with structlog.testing.capture_logs() as log:
        call.cancel()
        await eventually(lambda: upstream.under_way == 0, within=0.8)  # sooner than any timeout of the gateway

    assert log == []


async def test_a_connection_that_is_closed_ends_the_upstream_call(dev: Dev, upstream: Sandbox) -> None:
    async with channel_to(dev.doors.grpc) as channel:
        managed = pb_grpc.SessionContextServiceStub(channel)
        await managed.GetSessionContext(REQUEST)
        upstream.faults.arm("hang", "get")
        call = managed.GetSessionContext(REQUEST)
        await eventually(lambda: upstream.under_way == 1)

    await eventually(lambda: upstream.under_way == 0, within=0.8)
    assert call.cancelled()


# What must not bring it down


@pytest.mark.parametrize("method", [f"/{MANAGED}/NoSuchMethod", "/no.such.Service/Get", f"/{OWN}/GetSessionContext"])
async def test_a_method_that_is_not_there(channel: grpc.aio.Channel, method: str) -> None:
    failed = await failure(raw(channel, method)(b""))

    assert failed.code() == grpc.StatusCode.UNIMPLEMENTED


async def test_a_message_of_the_largest_size_is_read(channel: grpc.aio.Channel, upstream: Sandbox) -> None:
    """It is the id in it that is refused."""
    empty = pb.GetSessionContextRequest(tenant="acme", session_id="x" * (MAX_MESSAGE - 100))
    room = MAX_MESSAGE - empty.ByteSize()
    request = pb.GetSessionContextRequest(tenant="acme", session_id="x" * (MAX_MESSAGE - 100 + room))
    assert request.ByteSize() == MAX_MESSAGE

    failed = await failure(pb_grpc.SessionContextServiceStub(channel).GetSessionContext(request))

    assert reason(failed) == "INVALID_ARGUMENT"


async def test_a_message_that_is_too_large_is_refused_and_the_connection_lives(dev: Dev, upstream: Sandbox) -> None:
    """One of its own: where a connection comes of age as this is refused, the rest of the message closes it."""
    async with channel_to(dev.doors.grpc, APART) as channel:
        managed = pb_grpc.SessionContextServiceStub(channel)
        request = pb.GetSessionContextRequest(tenant="acme", session_id="x" * MAX_MESSAGE)
        failed = await failure(managed.GetSessionContext(request))

        assert failed.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert str(MAX_MESSAGE) in (failed.details() or "")
        assert not upstream.requests
        assert (await managed.GetSessionContext(REQUEST)).session_context.currency == "EUR"


@pytest.mark.parametrize(
    "source",
    [b"\xff\xff\xff", b"\x0a\x03\xff\xfe\xfd", b"\x0a\x7f", b"\x0b" * 1_000, REQUEST.SerializeToString()[:-1]],
    ids=["garbage", "not UTF-8", "cut off", "groups without an end", "a byte short"],
)
async def test_bytes_that_are_no_message_are_refused_and_the_connection_lives(
    channel: grpc.aio.Channel, upstream: Sandbox, source: bytes
) -> None:
    failed = await failure(raw(channel, f"/{MANAGED}/GetSessionContext")(source))

    assert (failed.code(), reason(failed)) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_ARGUMENT")
    assert failed.details() == "request: is not the message that this method takes"
    assert not upstream.requests
    answer = await pb_grpc.SessionContextServiceStub(channel).GetSessionContext(REQUEST)
    assert answer.session_context.currency == "EUR"


async def test_fields_that_are_not_known_are_passed_over(channel: grpc.aio.Channel, upstream: Sandbox) -> None:
    """A client of a later version is served."""
    source = REQUEST.SerializeToString() + b"\x9a\x3e\x05later"
    answer = await raw(channel, f"/{MANAGED}/GetSessionContext")(source)

    assert pb.GetSessionContextResponse.FromString(answer).session_context.currency == "EUR"


BEARER = f"Bearer {seed.CUSTOMER_TOKEN}"


@pytest.mark.parametrize(
    ("metadata", "let_in"),
    [
        ([("authorization", BEARER)], True),
        ([("authorization", f"bearer   {seed.CUSTOMER_TOKEN} ")], True),
        ([("authorization", BEARER), ("authorization-bin", b"\x00\xff"), ("x-trace-bin", b"")], True),
        ([("authorization", "Bearer wrong"), ("authorization", BEARER)], True),
        ([("authorization", BEARER), ("authorization", "Bearer wrong")], False),
        ([("authorization-bin", BEARER.encode())], False),
        ([("authorization", "")], False),
        ([("authorization", "Bearer")], False),
        ([("authorization", seed.CUSTOMER_TOKEN)], False),
        ([("authorization", f"Basic {seed.CUSTOMER_TOKEN}")], False),
        ([], False),
    ],
)
async def test_odd_metadata(
    channel: grpc.aio.Channel, upstream: Sandbox, metadata: list[tuple[str, str | bytes]], let_in: bool
) -> None:
    own = pb_grpc.OwnSessionContextServiceStub(channel)
    call = own.GetOwnSessionContext(pb.GetOwnSessionContextRequest(tenant="acme"), metadata=metadata)
    if let_in:
        assert (await call).session_context.session_id == seed.CUSTOMER_SESSION
    else:
        failed = await failure(call)
        assert (failed.code(), reason(failed)) == (grpc.StatusCode.UNAUTHENTICATED, "UNAUTHENTICATED")
        assert seed.CUSTOMER_TOKEN not in (failed.details() or "")


async def test_a_saas_token_that_is_empty_is_one_that_is_missing(
    managed: pb_grpc.SessionContextServiceAsyncStub, upstream: Sandbox
) -> None:
    request = pb.PatchSessionContextRequest(
        tenant="acme", session_id=seed.CUSTOMER_SESSION, session_context=pb.SessionContext(currency="USD")
    )
    failed = await failure(managed.PatchSessionContext(request, metadata=[("saas-token", "")]))
    refusal = detail(failed, details.BadRequest)

    assert refusal is not None
    assert [each.field for each in refusal.field_violations] == ["saas-token"]
