"""What can go wrong, by meaning. No class here knows gRPC, GraphQL or HTTP.

    GatewayError
    ├── InvalidArgument               the caller's input; carries every violation
    ├── Unauthenticated               the caller's own token is missing, expired or revoked
    │   └── CallerUnauthenticated     this gateway does not know the caller
    ├── PermissionDenied              the caller's own token, or saas-token, does not allow this
    │   └── CallerNotPermitted        this gateway does not permit it to the caller
    ├── IssuerUnavailable             the caller's token cannot be verified: its issuer's keys could not be fetched
    ├── CallerRateLimited             this gateway's own limit: the caller makes too many calls
    ├── NotFound
    │   ├── TenantNotConfigured       no such tenant in this gateway's settings
    │   └── SessionNotFound           no such session context, or none yet
    ├── VersionConflict               another writer came first; carries the current session context
    ├── MinVersionNotReached          upstream is older than what the caller has seen
    ├── NotRepresentable              a stored value that the caller's protocol cannot carry
    ├── AnswerTooLarge                an answer of more bytes than this gateway's callers are sent
    │   └── NoRoomForAnswer           or than there is room for: it is a large one among too many
    ├── RequestNotReceived            a call that was opened, and whose request did not come
    │   └── NoRoomForRequest          nor was taken: it is a large one among too many
    ├── WriteOutcomeUnknown           the answer of a write was lost, and reading back settled nothing
    └── UpstreamError                 Emporix, or the way there
        ├── RateLimited               too many requests, says upstream
        ├── UpstreamUnavailable       the connection failed, or the edge answers for it (502, 503)
        │   ├── UpstreamNotTaken      it has answered, and there is no room here for so large an answer
        │   └── UpstreamUnreachable   no connection that takes it: nothing was begun
        │       └── UpstreamSpared    nor was it tried: this gateway turns callers away for a moment
        ├── UpstreamTimeout           no answer in time (504 included)
        │   └── UpstreamNotAsked      the time was up before anything was sent
        ├── UpstreamFault             a server error
        ├── UpstreamMalformed         an answer that is not what the API reference says
        │   └── UpstreamTooLarge      or of more bytes than this gateway reads of any
        ├── WriteDiscarded            a write that upstream acknowledged and did not apply
        └── GatewayCredentialsRefused this gateway's own credentials: its operator has to fix them

Each door maps these classes to its own terms in one place (`gateway.rpc.errors`, `gateway.graphql.errors`). `reason` is
the stable name that callers switch on; the message is for people. Neither ever contains a token, a secret or text of an
upstream body.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from gateway.tenants import shortened

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Self

    from gateway.model import SessionContext

__all__ = [
    "AnswerTooLarge",
    "CallerNotPermitted",
    "CallerRateLimited",
    "CallerUnauthenticated",
    "GatewayCredentialsRefused",
    "GatewayError",
    "InvalidArgument",
    "IssuerUnavailable",
    "MinVersionNotReached",
    "NoRoomForAnswer",
    "NoRoomForRequest",
    "NotFound",
    "NotRepresentable",
    "PermissionDenied",
    "RateLimited",
    "RequestNotReceived",
    "SessionNotFound",
    "TenantNotConfigured",
    "Unauthenticated",
    "UpstreamError",
    "UpstreamFault",
    "UpstreamMalformed",
    "UpstreamNotAsked",
    "UpstreamNotTaken",
    "UpstreamSpared",
    "UpstreamTimeout",
    "UpstreamTooLarge",
    "UpstreamUnavailable",
    "UpstreamUnreachable",
    "VersionConflict",
    "Violation",
    "WriteDiscarded",
    "WriteOutcomeUnknown",
]


class GatewayError(Exception):
    """Base of all errors that this package raises on purpose."""

    reason: ClassVar[str] = "INTERNAL"

    leaves_doubt: bool = False
    """Whether a write that ended with this error may have been applied: what its kind says, unless it was set."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message

    def __copy__(self) -> Self:
        """The same error without its traceback, for each of several callers that get it."""
        new = type(self).__new__(type(self), *self.args)
        new.__dict__.update(self.__dict__)
        return new


@dataclass(frozen=True, slots=True)
class Violation:
    """One thing wrong with the caller's input: the field by its path in the contract, and what to do."""

    field: str
    message: str


class InvalidArgument(GatewayError):
    """The input was refused before anything was sent to upstream, or upstream refused it."""

    reason = "INVALID_ARGUMENT"

    def __init__(self, violations: Iterable[Violation]) -> None:
        self.violations = tuple(violations)
        super().__init__("; ".join(f"{v.field}: {v.message}" for v in self.violations))

    @classmethod
    def of(cls, field: str, message: str) -> InvalidArgument:
        """The error with a single violation."""
        return cls([Violation(field, message)])


class Unauthenticated(GatewayError):
    """The caller's own Emporix token is missing, expired or revoked, or the saas-token is no longer valid."""

    reason = "UNAUTHENTICATED"


class CallerUnauthenticated(Unauthenticated):
    """The caller sent no credential of this gateway, or an unknown one."""

    reason = "CALLER_UNAUTHENTICATED"


class PermissionDenied(GatewayError):
    """The caller's own Emporix token, or its saas-token, does not allow the operation."""

    reason = "PERMISSION_DENIED"


class CallerNotPermitted(PermissionDenied):
    """This gateway knows the caller, but does not permit this with this tenant's sessions."""

    reason = "CALLER_NOT_PERMITTED"

    def __init__(self, caller: str, permission: str, tenant: str) -> None:
        tenant = shortened(tenant)
        super().__init__(f"{caller!r} has no permission {permission} for tenant {tenant!r}")
        self.caller = caller
        self.permission = permission
        self.tenant = tenant


class IssuerUnavailable(GatewayError):
    """The keys of the caller's issuer could not be fetched yet. The caller's token may be valid."""

    reason = "ISSUER_UNAVAILABLE"

    def __init__(self) -> None:
        super().__init__("the issuer's keys cannot be fetched: try again later")


class CallerRateLimited(GatewayError):
    """The caller makes more calls than its rate limit at this gateway allows. `retry_after` is in seconds."""

    reason = "CALLER_RATE_LIMITED"

    def __init__(self, retry_after: float) -> None:
        super().__init__("you have reached your rate limit at this gateway: call again later")
        self.retry_after = retry_after


class NotFound(GatewayError):
    """Something named by the caller does not exist."""


class TenantNotConfigured(NotFound):
    """The gateway's settings have no such tenant."""

    reason = "TENANT_NOT_CONFIGURED"

    def __init__(self, tenant: str) -> None:
        super().__init__(f"tenant {tenant!r} is not configured in this gateway")
        self.tenant = tenant


class SessionNotFound(NotFound):
    """There is no such session context, or none yet. `session_id` is None for the caller's own session."""

    reason = "SESSION_NOT_FOUND"

    def __init__(self, session_id: str | None) -> None:
        super().__init__(
            "there is no session context for this token yet: it comes with a cart or shortly after login"
            if session_id is None
            else f"session {session_id!r} not found"
        )
        self.session_id = session_id


class VersionConflict(GatewayError):
    """Another writer came first.

    `expected_version` is None if the caller named none and the gateway's own attempts were used up; `current` is None
    if the session context could not be read in time.
    """

    reason = "VERSION_CONFLICT"

    def __init__(self, expected_version: int | None, current: SessionContext | None) -> None:
        expected = "" if expected_version is None else f" does not have version {expected_version}"
        found = "" if current is None else f"; the current version is {current.metadata.version}"
        super().__init__(f"the session context{expected or ' was changed by other writers at every attempt'}{found}")
        self.expected_version = expected_version
        self.current = current


class MinVersionNotReached(GatewayError):
    """Upstream's session context has a lower version than the caller's minimum."""

    reason = "MIN_VERSION_NOT_REACHED"

    def __init__(self, min_version: int, current_version: int) -> None:
        super().__init__(f"upstream has version {current_version}, and you asked for {min_version} or higher")
        self.min_version = min_version
        self.current_version = current_version


class NotRepresentable(GatewayError):
    """The session context contains a value that the caller's protocol cannot represent."""

    reason = "NOT_REPRESENTABLE"

    def __init__(self, session_id: str, name: str, what: str) -> None:
        super().__init__(f"session {session_id!r} holds {what} in {name!r}: read it through GraphQL")
        self.session_id = session_id


class AnswerTooLarge(GatewayError):
    """The answer is larger than allowed. Its writes have been applied."""

    reason = "ANSWER_TOO_LARGE"

    def __init__(self, bound: int) -> None:
        super().__init__(f"the answer has more than {bound} bytes: ask for less at a time")


class NoRoomForAnswer(AnswerTooLarge):
    """The answer is a large one, and there is no room for it beside others. `retry_after` is in seconds."""

    retry_after = 1.0

    def __init__(self) -> None:
        GatewayError.__init__(self, "too many large answers are under way: ask again, or for less at a time")


class RequestNotReceived(GatewayError):
    """The caller has opened a call, but not sent its request in time."""

    reason = "REQUEST_NOT_RECEIVED"

    def __init__(self, message: str = "the request did not come in time") -> None:
        super().__init__(message)


class NoRoomForRequest(RequestNotReceived):
    """There is no memory for a large request beside others. `retry_after` is in seconds."""

    retry_after = 1.0

    def __init__(self) -> None:
        super().__init__("too many large requests are under way: send it again")


class WriteOutcomeUnknown(GatewayError):
    """The answer to a write was lost, and it could not be found out whether the write was applied."""

    reason = "WRITE_OUTCOME_UNKNOWN"

    def __init__(self, *, timed_out: bool) -> None:
        super().__init__("write outcome unknown: it may or may not have been applied; read before you write again")
        self.timed_out = timed_out


class UpstreamError(GatewayError):
    """Emporix, or the connection to it, failed. `retry_after` is in seconds, if upstream said it or we know it."""

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class RateLimited(UpstreamError):
    """Upstream answered 429."""

    reason = "RATE_LIMITED"


class UpstreamUnavailable(UpstreamError):
    """No connection could be opened, or it broke, or upstream's edge answered 502 or 503."""

    reason = "UPSTREAM_UNAVAILABLE"
    leaves_doubt = True


class UpstreamNotTaken(UpstreamUnavailable):
    """Upstream's answer is a large one, and there is no room for it beside others."""


class UpstreamUnreachable(UpstreamUnavailable):
    """No connection took the request: nothing was sent, or upstream did not start on it (RFC 9113, 8.7)."""

    leaves_doubt = False


class UpstreamSpared(UpstreamUnreachable):
    """This gateway does not ask upstream at the moment, since that is busy or keeps failing."""

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message, retry_after=retry_after)


class UpstreamTimeout(UpstreamError):
    """Upstream, or its edge (504), did not answer in time."""

    reason = "UPSTREAM_TIMEOUT"
    leaves_doubt = True


class UpstreamNotAsked(UpstreamTimeout):
    """The time was up before anything of the request was sent, for want of a token or connection."""

    leaves_doubt = False


class UpstreamFault(UpstreamError):
    """Upstream answered 500, or a status that is not in the API reference."""

    reason = "UPSTREAM_FAULT"
    leaves_doubt = True


class UpstreamMalformed(UpstreamError):
    """Upstream's answer cannot be decoded, or is about another session."""

    reason = "UPSTREAM_MALFORMED"
    leaves_doubt = True


class UpstreamTooLarge(UpstreamMalformed):
    """Upstream's answer is larger than this gateway reads any. Whose session context it is may have made it so."""


class WriteDiscarded(UpstreamError):
    """Upstream acknowledged a write, but reading back shows that it was not applied."""

    reason = "WRITE_DISCARDED"

    def __init__(self) -> None:
        super().__init__("upstream acknowledged the write and did not apply it")


class GatewayCredentialsRefused(UpstreamError):
    """Upstream refuses this gateway's client id, secret or scope. The caller can do nothing about it."""

    reason = "GATEWAY_CREDENTIALS_REFUSED"
