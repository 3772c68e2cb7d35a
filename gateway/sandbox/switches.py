"""What is not documented, or differs between deployments: each a switch."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

__all__ = ["Switches"]

_Lifetime: TypeAlias = Annotated[float, Meta(ge=0, le=1e9)]


class Switches(Struct, kw_only=True, forbid_unknown_fields=True):
    """How the sandbox behaves where the API reference leaves room. The defaults are what live use shows."""

    conflict: Literal["disguised-404", "409", "412"] = "disguised-404"
    """What a stale version is answered with."""
    put_requires_saas_token: bool = True
    """Refuse every PUT without `saas-token`; else only those of a customer's session (API reference)."""
    wrong_saas_token_status: Literal[403, 401] = 403
    """What a `saas-token` that is none, or has expired, is answered with. Another customer's is 403 (API reference)."""
    put_mode: Literal["replace", "merge"] = "replace"
    """Whether PUT replaces the whole document or merges its top-level fields."""
    created_status: Literal[204, 201] = 204
    """What a PUT that creates is answered with."""
    created_version: Literal["one", "given"] = "one"
    """Which version a PUT that creates stores."""
    missing_attribute_status: Literal[404, 204] = 404
    """What the removal of an attribute that is not there is answered with."""
    creation: Literal["on-login", "on-cart", "eventual"] = "on-login"
    """When the context of an anonymous session comes into being."""
    eventual_ms: Annotated[int, Meta(ge=0, le=3_600_000)] = 300
    """How long after login it takes, in milliseconds, when `creation` is `eventual`."""
    discard_writes: bool = False
    """Acknowledge every write of a context and do nothing."""
    require_tenant_header: bool = True
    """Refuse service tokens without the header `Emporix-Tenant`."""
    service_token_lifetime: _Lifetime = 14_399
    """Seconds until a service token expires."""
    shopper_token_lifetime: _Lifetime = 3_599
    """Seconds until an anonymous or customer token expires."""
    granted_scopes: tuple[str, ...] = ("sessioncontext.context_manage",)
    """Scopes that the clients have; others that are asked for are dropped without a word."""
