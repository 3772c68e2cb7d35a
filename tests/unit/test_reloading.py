"""What of other settings can be taken while the gateway runs, and what is said of the rest."""

from __future__ import annotations

import pytest

from gateway.reloading import merged
from gateway.settings import Settings, load_settings

HASH = f"sha256:{'0' * 32}:{'0' * 64}"
KEY = {"hash": HASH, "permissions": ["sessions:read"], "tenants": ["*"]}


def settings(**sections: object) -> Settings:
    return load_settings(None, {"tenants": {"acme": {"client_id": "a", "client_secret": "b"}}, **sections})


def tenants(**tenants: dict[str, object]) -> dict[str, object]:
    return {name: {"client_id": "a", "client_secret": "b", **each} for name, each in tenants.items()}


@pytest.mark.parametrize(
    "found",
    [
        {},
        {"access": {"keys": {"shop": KEY}}},
        {"tenants": tenants(acme={"client_secret": "another"})},
        {"tenants": tenants(acme={"client_id": "another"})},
    ],
)
def test_callers_and_tenants_clients_are_taken(found: dict[str, object]) -> None:
    in_force, left = merged(settings(), settings(**found))

    assert dict(in_force) == dict(settings(**found))
    assert left == ()


@pytest.mark.parametrize(
    ("found", "names"),
    [
        ({"grpc": {"port": 1}}, ("grpc.port",)),
        (
            {"grpc": {"connections": {"max_age": 9}}, "log": {"level": "debug"}},
            ("grpc.connections.max_age", "log.level"),
        ),
        ({"tenants": tenants(acme={}, globex={})}, ("tenants.globex",)),
        ({"tenants": tenants(globex={})}, ("tenants.acme", "tenants.globex")),
        ({"tenants": tenants(acme={"cache": False})}, ("tenants.acme.cache",)),
        ({"workers": 3, "cache": {"backend": "redis://:hidden@a"}}, ("workers", "cache.backend")),
    ],
)
def test_all_else_is_named_and_stays(found: dict[str, object], names: tuple[str, ...]) -> None:
    in_force, left = merged(settings(), settings(**found))

    assert dict(in_force) == dict(settings())
    assert left == names
