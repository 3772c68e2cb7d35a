"""Settings of access and of rate limits: what is refused, and what is said of it."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.configuration import load_settings
from gateway.settings import ConfigurationError, Settings

HASH = f"sha256:{'0' * 32}:{'0' * 64}"
KEY = {"hash": HASH, "permissions": ["sessions:read"], "tenants": ["acme"]}
ISSUER = {"issuer": "https://issuer.example", "audience": "gateway", "tenants": ["acme"]}


def loaded(**sections: Any) -> Settings:
    return load_settings(None, {"tenants": {"acme": {"client_id": "x", "client_secret": "y"}}, **sections})


def test_nobody_is_let_in_and_nobody_is_limited_unless_told() -> None:
    settings = loaded()

    assert not settings.access.configured
    assert (settings.rate_limits.rate, settings.rate_limits.own_rate) == (0, 0)


@pytest.mark.parametrize("issuer", ["https://issuer.example", "http://127.0.0.1:8080/realm", "http://localhost"])
def test_an_issuer_needs_but_few_settings(issuer: str) -> None:
    settings = loaded(access={"issuers": {"corp": {**ISSUER, "issuer": issuer}}})

    assert settings.access.issuers["corp"].algorithms == ("RS256", "ES256")


@pytest.mark.parametrize(
    ("access", "problem"),
    [
        ({"keys": {"Bad Name": KEY}}, "the name must be at most 63 lowercase letters, digits and hyphens"),
        ({"keys": {"a": {**KEY, "hash": "dev-key"}}}, "is not the hash of a key: `session-gateway keys new NAME`"),
        ({"keys": {"a": {**KEY, "tenants": ["Acme"]}}}, "must be 3 to 16 lowercase letters and digits, beginning"),
        ({"keys": {"a": {**KEY, "tenants": ["**"]}}}, "must be 3 to 16 lowercase letters and digits, beginning"),
        ({"keys": {"a": {**KEY, "tenants": []}}}, "is empty"),
        ({"keys": {"a": {**KEY, "permissions": []}}}, "is empty"),
        ({"keys": {"a": {**KEY, "burst": 5}}}, "burst needs rate beside it"),
        ({"keys": {"a": {**KEY, "rate": -1}}}, "greater than or equal to 0"),
        ({"issuers": {"a:b": ISSUER}}, "the name must be at most 63 lowercase letters, digits and hyphens"),
        ({"issuers": {"a": {**ISSUER, "algorithms": []}}}, "is empty"),
        ({"issuers": {"a": {**ISSUER, "algorithms": ["HS256"]}}}, "must be 'RS256'"),
        ({"issuers": {"a": {**ISSUER, "algorithms": ["none"]}}}, "must be 'RS256'"),
        ({"issuers": {"a": ISSUER, "b": {**ISSUER, "audience": "x"}}}, "two issuers have the same value of issuer"),
        ({"issuers": {"a": {**ISSUER, "tenants": []}}}, "give either tenants_claim or tenants"),
        ({"issuers": {"a": {**ISSUER, "tenants_claim": "t"}}}, "give either tenants_claim or tenants"),
        ({"issuers": {"a": {**ISSUER, "issuer": "corp"}}}, "issuer must be a URL, unless jwks_url is given"),
        ({"issuers": {"a": {**ISSUER, "issuer": "http://issuer.example"}}}, "keys must come over https://"),
        ({"issuers": {"a": {**ISSUER, "issuer": "http://localhost.example"}}}, "keys must come over https://"),
        ({"issuers": {"a": {**ISSUER, "issuer": "http://127.0.0.1@a.example"}}}, "keys must come over https://"),
        ({"issuers": {"a": {**ISSUER, "issuer": "http://localhost:x@a.example"}}}, "keys must come over https://"),
        ({"issuers": {"a": {**ISSUER, "jwks_url": "http://issuer.example/k"}}}, "keys must come over https://"),
    ],
)
def test_what_would_let_in_others_than_were_meant_is_refused(access: dict[str, object], problem: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        loaded(access=access)

    assert any(problem in each for each in refused.value.problems)
    assert all(each.startswith("access") for each in refused.value.problems)


def test_keys_may_come_without_tls_if_somebody_says_so() -> None:
    issuer = {**ISSUER, "issuer": "corp", "jwks_url": "http://keycloak.internal/keys", "plain_http": True}

    assert loaded(access={"issuers": {"corp": issuer}}).access.issuers["corp"].plain_http
