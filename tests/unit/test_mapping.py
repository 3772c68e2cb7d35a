"""What upstream's refusals mean, whatever the shape they come in."""

from __future__ import annotations

import contextlib
import json
import time
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from unit.unit_strategies import VALUES, written

from gateway.errors import (
    GatewayCredentialsRefused,
    GatewayError,
    InvalidArgument,
    PermissionDenied,
    RateLimited,
    SessionNotFound,
    Unauthenticated,
    UpstreamError,
    UpstreamFault,
    UpstreamTimeout,
    UpstreamUnavailable,
    VersionConflict,
)
from gateway.upstream.http import Answer
from gateway.upstream.mapping import Authority, error_for, retry_after

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gateway.model import JSON

CALLER, GATEWAY = Authority.CALLER, Authority.GATEWAY
HIDDEN = "com.emporix.Hidden.java:42"
"""Stands in every body, and must stand in no error."""


def shapes(message: str, field: str = "body", code: int = 400) -> dict[str, bytes]:
    """The shapes of error that the reference page tells of, all saying the same."""
    documents: dict[str, JSON] = {
        "details": {
            "code": code,
            "status": "Error",
            "message": HIDDEN,
            "details": [{"field": field, "type": HIDDEN, "message": message}],
        },
        "fault": {"fault": {"faultstring": message, "detail": {"errorcode": HIDDEN, "reason": HIDDEN}}},
        "plain": {"sessionId": "s1", "code": code, "message": message, "hint": HIDDEN},
        "typed": {"type": HIDDEN, "status": code, "message": message, "details": [HIDDEN]},
        "embedded": {
            "message": HIDDEN,
            "_links": {"self": {"href": HIDDEN, "templated": False}},
            "_embedded": {"errors": [{"message": message, "path": f"/{field}"}]},
        },
    }
    return {name: written(document) for name, document in documents.items()}


NOT_JSON = {
    "empty": b"",
    "html": f"<html><body>{HIDDEN} session not found version saas-token scope".encode(),
    "text": b"Session not found",
    "truncated": b'{"code":400,"message":"' + HIDDEN.encode(),
    "not utf-8": b'{"message":"\xff\xfe"}',
    "too deep": b"[" * 100_000,
    "null": b"null",
    "number": b"404",
}
ANY_BODY = {**shapes(HIDDEN), **NOT_JSON}


def answer(status: int, body: bytes = b"", **headers: str) -> Answer:
    fields = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    return Answer(status, httpx.Response(status, headers=fields), body)


def error(
    status: int,
    body: bytes = b"",
    *,
    authority: Authority = GATEWAY,
    session_id: str | None = "s1",
    versioned: bool = False,
    **headers: str,
) -> GatewayError:
    found = error_for(answer(status, body, **headers), authority=authority, session_id=session_id, versioned=versioned)
    assert HIDDEN not in f"{found} {found!r} {vars(found)}"
    return found


@pytest.mark.parametrize("body", ANY_BODY.values(), ids=ANY_BODY.keys())
class TestWhateverTheBody:
    @pytest.mark.parametrize(
        ("status", "authority", "kind"),
        [
            (400, GATEWAY, InvalidArgument),
            (400, CALLER, InvalidArgument),
            (413, GATEWAY, InvalidArgument),
            (422, GATEWAY, InvalidArgument),
            (401, GATEWAY, GatewayCredentialsRefused),
            (401, CALLER, Unauthenticated),
            (403, GATEWAY, GatewayCredentialsRefused),
            (403, CALLER, PermissionDenied),
            (404, GATEWAY, SessionNotFound),
            (404, CALLER, SessionNotFound),
            (409, GATEWAY, UpstreamFault),
            (412, CALLER, UpstreamFault),
            (429, GATEWAY, RateLimited),
            (500, CALLER, UpstreamFault),
            (501, GATEWAY, UpstreamFault),
            (502, GATEWAY, UpstreamUnavailable),
            (503, GATEWAY, UpstreamUnavailable),
            (504, GATEWAY, UpstreamTimeout),
            (200, GATEWAY, UpstreamFault),
            (202, GATEWAY, UpstreamFault),
            (302, GATEWAY, UpstreamFault),
            (405, GATEWAY, UpstreamFault),
            (408, GATEWAY, UpstreamFault),
            (418, GATEWAY, UpstreamFault),
            (599, GATEWAY, UpstreamFault),
        ],
    )
    def test_a_status_has_its_meaning(
        self, body: bytes, status: int, authority: Authority, kind: type[GatewayError]
    ) -> None:
        assert type(error(status, body, authority=authority)) is kind

    @pytest.mark.parametrize(
        ("status", "authority", "kind"),
        [
            (403, GATEWAY, PermissionDenied),
            (403, CALLER, PermissionDenied),
            (404, GATEWAY, VersionConflict),
            (404, CALLER, VersionConflict),
            (409, GATEWAY, VersionConflict),
            (412, GATEWAY, VersionConflict),
            (412, CALLER, VersionConflict),
        ],
    )
    def test_a_status_has_its_meaning_for_a_versioned_write(
        self, body: bytes, status: int, authority: Authority, kind: type[GatewayError]
    ) -> None:
        assert type(error(status, body, authority=authority, versioned=True)) is kind


class TestA404:
    @pytest.mark.parametrize("versioned", [True, False])
    @pytest.mark.parametrize("text", ["Session not found", "session NOT found", "Session not found."])
    def test_is_a_missing_session_when_its_text_says_so(self, text: str, versioned: bool) -> None:
        for body in shapes(text, code=404).values():
            found = error(404, body, versioned=versioned)
            assert isinstance(found, SessionNotFound)
            assert found.session_id == "s1"

    def test_is_a_conflict_in_disguise_when_its_text_is_about_the_version(self) -> None:
        text = "The context with sessionId s1 and version 7 has not been found."
        for body in shapes(text, code=404).values():
            found = error(404, body, versioned=True)
            assert isinstance(found, VersionConflict)
            assert (found.expected_version, found.current) == (None, None)

    def test_is_a_missing_session_for_whatever_carries_no_version(self) -> None:
        text = "The context with sessionId s1 and version 7 has not been found."
        for body in shapes(text, code=404).values():
            assert isinstance(error(404, body), SessionNotFound)

    def test_names_no_session_when_it_is_the_callers_own(self) -> None:
        found = error(404, authority=CALLER, session_id=None)
        assert isinstance(found, SessionNotFound)
        assert found.session_id is None


class TestABadRequest:
    @pytest.mark.parametrize("shape", shapes("").keys())
    @pytest.mark.parametrize(
        ("message", "field"),
        [
            ("Required Header [saas-token] not specified", "saas-token"),
            ("this version of the API is no more", "session_context"),
            ("siteCode is too long", "session_context.site_code"),
            ("currency must be three letters", "session_context.currency"),
            ("customerId is odd", "session_context.customer_id"),
            ("cartId is odd", "session_context.cart_id"),
            ("targetLocation is odd", "session_context.target_location"),
            ("language is odd", "session_context.language"),
            ("context must be an object", "session_context.context"),
            ("something is odd", "session_context"),
        ],
    )
    def test_names_the_field_that_upstream_names(self, shape: str, message: str, field: str) -> None:
        found = error(400, shapes(message)[shape])
        assert isinstance(found, InvalidArgument)
        assert [each.field for each in found.violations] == [field]
        assert message not in found.message

    def test_names_the_field_of_the_details(self) -> None:
        found = error(400, shapes("must not be blank", field="siteCode")["details"])
        assert isinstance(found, InvalidArgument)
        assert [each.field for each in found.violations] == ["session_context.site_code"]

    def test_does_not_take_the_address_of_the_request_for_a_field(self) -> None:
        body: JSON = {
            "message": "Bad Request",
            "_links": {"self": {"href": "/session-context/acme/context/s1", "templated": False}},
            "_embedded": {"errors": [{"message": "currency: must be three letters", "path": "/currency"}]},
        }
        found = error(400, written(body))
        assert isinstance(found, InvalidArgument)
        assert [each.field for each in found.violations] == ["session_context.currency"]

    def test_of_too_large_a_body_says_so(self) -> None:
        found = error(413, b"<html>")
        assert isinstance(found, InvalidArgument)
        assert "larger" in found.message


class TestARefusal:
    @pytest.mark.parametrize("message", ["missing scope: sessioncontext.context_manage", "Scope"])
    def test_for_want_of_the_scope_is_the_gateways_own_even_of_a_versioned_write(self, message: str) -> None:
        for body in shapes(message, code=403).values():
            assert isinstance(error(403, body, versioned=True), GatewayCredentialsRefused)

    def test_of_a_versioned_write_is_about_the_saas_token(self) -> None:
        found = error(403, shapes("User not authorized.")["typed"], versioned=True)
        assert isinstance(found, PermissionDenied)
        assert "saas-token" in found.message

    def test_of_the_callers_token_is_never_the_gateways_fault(self) -> None:
        for message in ("missing scope", "User not authorized."):
            for body in shapes(message, code=403).values():
                assert isinstance(error(403, body, authority=CALLER, versioned=True), PermissionDenied)


@pytest.fixture
def new_york(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The machine is there."""
    with monkeypatch.context() as there:
        there.setenv("TZ", "America/New_York")
        time.tzset()
        yield
    time.tzset()


class TestRetryAfter:
    @pytest.mark.parametrize("status", [429, 502, 503])
    def test_goes_along_with_the_statuses_that_pass(self, status: int) -> None:
        found = error(status, retry_after="7")
        assert isinstance(found, UpstreamError)
        assert found.retry_after == 7

    @pytest.mark.parametrize("status", [429, 502, 503, 500, 504])
    def test_is_unknown_when_upstream_does_not_say(self, status: int) -> None:
        found = error(status)
        assert isinstance(found, UpstreamError)
        assert found.retry_after is None

    @pytest.mark.parametrize(("value", "seconds"), [("0", 0), ("1", 1), ("007", 7), ("3600", 3600)])
    def test_is_a_number_of_seconds(self, value: str, seconds: float) -> None:
        assert retry_after(answer(429, retry_after=value)) == seconds

    def test_is_a_date(self) -> None:
        at = datetime.now(UTC) + timedelta(seconds=100)
        seconds = retry_after(answer(429, retry_after=format_datetime(at, usegmt=True)))
        assert seconds is not None
        assert 90 < seconds <= 100

    @pytest.mark.parametrize("form", ["%a, %d %b %Y %H:%M:%S GMT", "%A, %d-%b-%y %H:%M:%S GMT", "%a %b %e %H:%M:%S %Y"])
    @pytest.mark.usefixtures("new_york")
    def test_is_a_date_of_any_form_wherever_the_machine_is(self, form: str) -> None:
        """RFC 9110, section 5.6.7: all three have to be understood, and all are in UTC."""
        seconds = retry_after(answer(429, retry_after=(datetime.now(UTC) + timedelta(seconds=100)).strftime(form)))
        assert seconds is not None
        assert 90 < seconds <= 100

    def test_is_now_when_the_date_has_passed(self) -> None:
        assert retry_after(answer(429, retry_after="Wed, 21 Oct 2015 07:28:00 GMT")) == 0

    @pytest.mark.parametrize(
        "value",
        [
            "",
            " ",
            "-1",
            "1.5",
            "1e3",
            "soon",
            "0x10",
            "\N{SUPERSCRIPT TWO}",
            "\N{FULLWIDTH DIGIT TWO}",
            "Wed, 32 Oct 2015 07:28:00 GMT",
            "Wed",
            "Wed, 21 Oct 99999999999999 07:28:00 GMT",
            "Fri, 31 Dec 9999 23:59:59 -2300",
        ],
    )
    def test_is_unknown_when_it_is_neither(self, value: str) -> None:
        assert retry_after(answer(429, retry_after=value)) is None

    @pytest.mark.parametrize("value", ["9" * 400, "99999999999", "Wed, 21 Oct 9998 07:28:00 GMT"])
    def test_is_bounded(self, value: str) -> None:
        seconds = retry_after(answer(429, retry_after=value))
        assert seconds is None or seconds <= 86_400

    @given(st.text(alphabet=st.characters(min_codepoint=32, max_codepoint=126), max_size=40))
    @example("Mon, 01 Jan 0000 00:00:00 GMT")
    @example("Wed, 21 Oct 2015 99:99:99 GMT")
    @example("Wed, 21 Oct 2015 07:28:00 +9999")
    def test_of_any_text_is_a_number_that_can_be_waited_for_or_unknown(self, value: str) -> None:
        seconds = retry_after(answer(429, retry_after=value))
        assert seconds is None or seconds >= 0


@pytest.mark.parametrize("status", [400, 403, 404, 500])
def test_a_deep_body_is_an_error_like_any_other(status: int) -> None:
    found = None
    with contextlib.suppress(RecursionError):
        found = error(status, b'{"a":' * 900 + b'"x"' + b"}" * 900)
    assert isinstance(found, GatewayError)


@given(
    st.integers(100, 599),
    st.binary(max_size=40) | VALUES.map(written),
    st.sampled_from(Authority),
    st.none() | st.just("s1"),
    st.booleans(),
)
def test_any_answer_has_a_meaning(
    status: int, body: bytes, authority: Authority, session_id: str | None, versioned: bool
) -> None:
    found = error(status, body, authority=authority, session_id=session_id, versioned=versioned)
    assert found.message


@given(st.text(min_size=12, max_size=30).filter(lambda text: text.strip() == text))
def test_no_word_of_the_body_reaches_the_error(secret: str) -> None:
    marked = f"✂{secret}✂"
    for status in (400, 401, 403, 404, 409, 413, 422, 429, 500, 502, 503, 504):
        for versioned in (True, False):
            for body in (written({"message": marked, marked: [marked]}), json.dumps(marked).encode(), marked.encode()):
                found: Any = error(status, body, versioned=versioned)
                assert marked not in f"{found} {found!r} {vars(found)}"
