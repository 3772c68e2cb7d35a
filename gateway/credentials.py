"""Callers' credentials, from HTTP headers or gRPC metadata of the same names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct
from pydantic import SecretStr

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CallerCredentials"]


class CallerCredentials(Struct, frozen=True):
    """The credentials of one caller; None if not sent."""

    api_key: SecretStr | None = None
    """The caller's key at this gateway, from `x-api-key`."""
    access_token: SecretStr | None = None
    """From `authorization: Bearer ...` (RFC 6750, 2.1): the shopper's Emporix token, for their own session, or else the
    caller's JWT."""
    saas_token: SecretStr | None = None
    """The shopper's Emporix customer token, from `saas-token`."""
    certificate_names: tuple[str, ...] = ()
    """Subject alternative names of the client's certificate, which the listener has verified."""

    @classmethod
    def read(cls, header: Callable[[str], str | None], certificate_names: tuple[str, ...] = ()) -> CallerCredentials:
        """Read them; `header` looks up a header by its name in lower case."""
        api_key, authorization, saas_token = header("x-api-key"), header("authorization"), header("saas-token")
        return cls(
            SecretStr(api_key) if api_key else None,
            _bearer(authorization) if authorization else None,
            SecretStr(saas_token) if saas_token else None,
            certificate_names,
        )


def _bearer(authorization: str) -> SecretStr | None:
    scheme, _, token = authorization.partition(" ")
    return SecretStr(token.strip()) if scheme.lower() == "bearer" and token.strip() else None
