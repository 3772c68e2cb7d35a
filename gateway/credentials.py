"""What callers show of themselves, in HTTP headers or gRPC metadata of the same names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec import Struct
from pydantic import SecretStr

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CallerCredentials"]


class CallerCredentials(Struct, frozen=True):
    """Each is None when it was not sent."""

    api_key: SecretStr | None = None
    """The caller's key at this gateway, from `x-api-key`."""
    access_token: SecretStr | None = None
    """From `authorization: Bearer ...` (RFC 6750, 2.1): the shopper's Emporix token where it is about their own
    session, else the caller's JWT."""
    saas_token: SecretStr | None = None
    """The shopper's Emporix customer token, from `saas-token`."""
    certificate_names: tuple[str, ...] = ()
    """Subject alternative names of the client's certificate, which the listener has verified."""

    @classmethod
    def read(cls, header: Callable[[str], str | None], certificate_names: tuple[str, ...] = ()) -> CallerCredentials:
        """Read them by looking up headers by their names in lower case."""
        return cls(
            api_key=_secret(header("x-api-key")),
            access_token=_bearer(header("authorization")),
            saas_token=_secret(header("saas-token")),
            certificate_names=certificate_names,
        )


def _secret(value: str | None) -> SecretStr | None:
    return SecretStr(value) if value else None


def _bearer(authorization: str | None) -> SecretStr | None:
    scheme, _, token = (authorization or "").partition(" ")
    return SecretStr(token.strip()) if scheme.lower() == "bearer" and token.strip() else None
