"""What callers may send."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from gateway import validation
from gateway.errors import InvalidArgument, Violation
from gateway.model import MAX_VERSION


def test_one_error_names_every_violation() -> None:
    with pytest.raises(InvalidArgument) as caught:
        validation.check(
            validation.tenant("A"),
            validation.segment("session_id", ""),
            validation.segment("attribute_name", "good"),
            validation.currency("session_context.currency", "EURO"),
            validation.version("expected_version", -1),
        )
    assert [each.field for each in caught.value.violations] == [
        "tenant",
        "session_id",
        "session_context.currency",
        "expected_version",
    ]
    assert all(each.field in caught.value.message for each in caught.value.violations)


def test_nothing_wrong_is_no_error() -> None:
    validation.check()
    validation.check([], iter(()))
    validation.check(validation.tenant("acme"), validation.currency("currency", None))


def test_an_error_can_be_had_for_one_violation() -> None:
    error = InvalidArgument.of("currency", "must be three letters")
    assert error.violations == (Violation("currency", "must be three letters"),)


@pytest.mark.parametrize("value", ["abc", "acme", "a1b2", "a" * 16])
def test_a_tenant_is_good(value: str) -> None:
    assert list(validation.tenant(value)) == []


@pytest.mark.parametrize("value", ["", "ab", "a" * 17, "1abc", "Acme", "ac-me", "acme ", "acme\n", "ácme", "ab٣"])
def test_a_tenant_is_refused(value: str) -> None:
    assert [each.field for each in validation.tenant(value)] == ["tenant"]


@pytest.mark.parametrize("value", ["EUR", "eur", "Xyz"])
def test_a_currency_is_good(value: str) -> None:
    assert list(validation.currency("currency", value)) == []


@pytest.mark.parametrize("value", ["", "EU", "EURO", "E1R", "EUR\n", " EUR", "ÄÖÜ"])
def test_a_currency_is_refused(value: str) -> None:
    assert [each.field for each in validation.currency("currency", value)] == ["currency"]


@pytest.mark.parametrize("value", ["a", "x.y-z_~+/=", "!", "~", "a" * 10_000])
def test_a_token_is_good(value: str) -> None:
    assert list(validation.token("saas-token", SecretStr(value))) == []


@pytest.mark.parametrize("value", ["", " ", "hu sh", "hush\n", "hush\r\nx: y", "hüsh", "hush\x00", "hush\x7f"])
def test_a_token_is_refused_and_not_told(value: str) -> None:
    (violation,) = validation.token("saas-token", SecretStr(value))
    assert violation.field == "saas-token"
    assert "sh" not in violation.message.replace("should", "")


@pytest.mark.parametrize("value", [None, 0, 1, MAX_VERSION])
def test_a_version_is_good(value: int | None) -> None:
    assert list(validation.version("expected_version", value)) == []


@pytest.mark.parametrize("value", [-1, MAX_VERSION + 1, -(2**63)])
def test_a_version_is_refused(value: int) -> None:
    assert [each.field for each in validation.version("expected_version", value)] == ["expected_version"]


@given(st.text(alphabet=st.characters(exclude_categories=()), max_size=300))
def test_any_text_has_one_verdict_as_a_segment(value: str) -> None:
    assert len(list(validation.segment("session_id", value))) <= 1


@pytest.mark.parametrize("value", ["a", "a" * 256, "🛒" * 256, "/", "...", " ", "\n", "%00"])
def test_a_segment_is_good(value: str) -> None:
    assert list(validation.segment("session_id", value)) == []


@pytest.mark.parametrize("value", ["", ".", "..", "a" * 257, "\x00", "a\x00", "\ud800", "a\udfff"])
def test_a_segment_is_refused_without_repeating_what_cannot_be_printed(value: str) -> None:
    (violation,) = validation.segment("attribute_name", value)
    assert violation.field == "attribute_name"
    assert violation.message.encode()
