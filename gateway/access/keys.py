"""API keys: `<name>-<secret>`, of which the configuration holds a salted hash.

A secret of 192 random bits needs no slow hash, since it cannot be guessed. The name is not secret; it identifies the
entry.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import TYPE_CHECKING, Final

from pydantic import SecretStr

from gateway.errors import CallerUnauthenticated

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gateway.access.principal import Principal

__all__ = ["KeyRing", "hash_of", "new_key"]

_LONGEST_KEY: Final = 512
"""Characters: what is longer is not even hashed."""
_SECRET_BYTES: Final = 24
_SALT_BYTES: Final = 16


def new_key(name: str) -> tuple[SecretStr, str]:
    """A new key, and the hash of it for the configuration."""
    key = SecretStr(f"{name}-{secrets.token_hex(_SECRET_BYTES)}")
    return key, hash_of(key)


def hash_of(key: SecretStr) -> str:
    """`sha256:<salt>:<digest>`, both in hexadecimal."""
    salt = secrets.token_bytes(_SALT_BYTES)
    return f"sha256:{salt.hex()}:{_digest(hashlib.sha256(salt), key.get_secret_value()).hex()}"


class KeyRing:
    """All keys: by name, the hash and the caller."""

    def __init__(self, keys: Mapping[str, tuple[str, Principal]]) -> None:
        self._keys = {name: (*_parts(hashed), principal) for name, (hashed, principal) in keys.items()}
        self._nobodys = (*_parts(hash_of(SecretStr(secrets.token_hex(_SECRET_BYTES)))), None)

    def principal(self, key: SecretStr) -> Principal:
        """The caller with this key. Raises CallerUnauthenticated; an unknown name takes as long as a known one."""
        secret = key.get_secret_value()
        salted, known, principal = self._keys.get(secret.rpartition("-")[0], self._nobodys)
        short = len(secret) <= _LONGEST_KEY
        if not short or not hmac.compare_digest(_digest(salted, secret), known) or principal is None:
            raise CallerUnauthenticated("the API key is not known: check `x-api-key`")
        return principal


def _digest(salted: hashlib._Hash, secret: str) -> bytes:
    """`salted` has hashed the salt already: to do so each time costs a quarter more."""
    hashed = salted.copy()
    hashed.update(secret.encode("utf-8", "surrogatepass"))
    return hashed.digest()


def _parts(hashed: str) -> tuple[hashlib._Hash, bytes]:
    """The state of the hash after the salt, and the digest."""
    _, salt, digest = hashed.split(":")
    return hashlib.sha256(bytes.fromhex(salt)), bytes.fromhex(digest)
