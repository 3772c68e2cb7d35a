"""API keys: which is whose, and what may be known of them."""

from __future__ import annotations

import hmac
import itertools
import re
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from gateway.access import keys
from gateway.access.keys import KeyRing, hash_of, new_key
from gateway.access.principal import Permission, Principal
from gateway.errors import CallerNotPermitted, CallerUnauthenticated

if TYPE_CHECKING:
    from collections.abc import Callable

CHECKOUT = Principal.of("check-out", "key", [Permission.READ], ["acme"])
KEY, HASH = new_key("check-out")
RING = KeyRing({"check-out": (HASH, CHECKOUT)})


def test_a_key_is_its_callers() -> None:
    assert RING.principal(KEY) is CHECKOUT


def test_a_new_key_has_its_callers_name_and_192_random_bits() -> None:
    keys = {new_key("check-out")[0].get_secret_value() for _ in range(100)}

    assert len(keys) == 100
    assert all(re.fullmatch(r"check-out-[0-9a-f]{48}", each) for each in keys)


def test_two_hashes_of_one_key_differ_and_both_are_good() -> None:
    again = hash_of(KEY)

    assert again != HASH
    assert KeyRing({"check-out": (again, CHECKOUT)}).principal(KEY) is CHECKOUT


def test_a_hash_says_nothing_of_its_key() -> None:
    assert KEY.get_secret_value().rpartition("-")[2] not in HASH
    assert re.fullmatch(r"sha256:[0-9a-f]{32}:[0-9a-f]{64}", HASH)


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "-",
        "check-out",
        "check-out-",
        f"check-out-{'0' * 48}",
        f"{KEY.get_secret_value()}0",
        KEY.get_secret_value()[:-1],
        KEY.get_secret_value().upper(),
        KEY.get_secret_value().replace("check-out", "checkout"),
        KEY.get_secret_value().removeprefix("check-out-"),
        f" {KEY.get_secret_value()}",
        HASH,
        HASH.rpartition(":")[2],
        "check-out-ключ",
        "check-out-\ud800",
        "check-out-\x00",
        "x" * 1_000_000,
    ],
    ids=itertools.count(),  # the key is another in every run
)
def test_any_other_key_is_nobodys(wrong: str) -> None:
    with pytest.raises(CallerUnauthenticated) as refused:
        RING.principal(SecretStr(wrong))

    assert len(wrong) < 10 or wrong not in refused.value.message


@given(st.text())
def test_whatever_is_sent_for_a_key_is_refused_in_the_same_words(text: str) -> None:
    with pytest.raises(CallerUnauthenticated, match="the API key is not known"):
        RING.principal(SecretStr(text))


@pytest.mark.parametrize("name", ["check-out", "nobody"])
def test_a_name_that_there_is_costs_as_much_as_one_that_there_is_not(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Counted, not timed: one hash and one comparison in constant time, whatever the name."""
    counted: list[str] = []

    def counting(what: str, call: Callable[..., object]) -> Callable[..., object]:
        def counted_call(*arguments: object) -> object:
            counted.append(what)
            return call(*arguments)

        return counted_call

    monkeypatch.setattr(keys, "_digest", counting("hash", keys._digest))
    monkeypatch.setattr(hmac, "compare_digest", counting("compare", hmac.compare_digest))
    with pytest.raises(CallerUnauthenticated):
        RING.principal(SecretStr(f"{name}-{'0' * 48}"))

    assert counted == ["hash", "compare"]


def test_a_key_that_is_far_too_long_is_not_hashed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keys, "_digest", None)
    with pytest.raises(CallerUnauthenticated):
        RING.principal(SecretStr(f"check-out-{'0' * 1000}"))


# What a principal may do


@pytest.mark.parametrize(
    ("permission", "tenant"),
    [
        (Permission.WRITE, "acme"),
        (Permission.READ, "globex"),
        (Permission.READ, ""),
        (Permission.READ, "*"),
        (Permission.READ, "acme "),
    ],
)
def test_a_caller_may_do_no_more_than_its_entry_says(permission: Permission, tenant: str) -> None:
    CHECKOUT.check(Permission.READ, "acme")
    with pytest.raises(CallerNotPermitted):
        CHECKOUT.check(permission, tenant)


def test_a_star_among_the_tenants_is_all_of_them() -> None:
    anywhere = Principal.of("anywhere", "key", [Permission.READ], ["acme", "*"])

    anywhere.check(Permission.READ, "globex")
    with pytest.raises(CallerNotPermitted):
        anywhere.check(Permission.WRITE, "globex")


def test_a_caller_without_tenants_may_do_nothing() -> None:
    with pytest.raises(CallerNotPermitted):
        Principal.of("nowhere", "jwt", Permission, []).check(Permission.READ, "acme")


def test_a_tenant_that_is_too_long_to_be_one_is_told_in_part() -> None:
    """Else it would push the reason out of a status that has to fit into a header."""
    with pytest.raises(CallerNotPermitted) as refused:
        CHECKOUT.check(Permission.READ, "x" * 100_000)

    assert refused.value.tenant == f"{'x' * 16}…"
    assert len(refused.value.message) < 100
