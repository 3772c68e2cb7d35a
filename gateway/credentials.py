"""What callers show of themselves, in HTTP headers or gRPC metadata of the same names."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pydantic import SecretStr

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["CallerCredentials"]


@dataclass(frozen=True, slots=True)
class CallerCredentials:
    """Each is None when it was not sent."""

    access_token: SecretStr | None = None
    """The shopper's Emporix access token, from `authorization: Bearer ...` (RFC 6750, 2.1)."""
    saas_token: SecretStr | None = None
    """The shopper's Emporix customer token, from `saas-token`."""

    @classmethod
    def read(cls, header: Callable[[str], str | None]) -> CallerCredentials:
        """Read them by looking up headers by their names in lower case."""
        saas_token = header("saas-token")
        return cls(
            access_token=_bearer(header("authorization")),
            saas_token=SecretStr(saas_token) if saas_token else None,
        )


def _bearer(authorization: str | None) -> SecretStr | None:
    scheme, _, token = (authorization or "").partition(" ")
    return SecretStr(token.strip()) if scheme.lower() == "bearer" and token.strip() else None
