"""API keys: `<name>-<secret>`, of which the configuration holds a salted hash.

A secret of 192 random bits needs no slow hash: there is nothing to guess. The name is no secret; it finds the entry.
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
    """All keys there are: by name, a hash and whose it is."""

    def __init__(self, keys: Mapping[str, tuple[str, Principal]]) -> None:
        self._keys = {name: (*_parts(hashed), principal) for name, (hashed, principal) in keys.items()}
        self._nobodys = (*_parts(hash_of(SecretStr(secrets.token_hex(_SECRET_BYTES)))), None)

    def principal(self, key: SecretStr) -> Principal:
        """Whose key this is. Raises CallerUnauthenticated; a name that there is takes as long as one that is not."""
        secret = key.get_secret_value()
        salted, known, principal = self._keys.get(secret.rpartition("-")[0], self._nobodys)
        short = len(secret) <= _LONGEST_KEY
        if not short or not hmac.compare_digest(_digest(salted, secret), known) or principal is None:
            raise CallerUnauthenticated("the API key is not known: check `x-api-key`")
        return principal


def _digest(salted: hashlib._Hash, secret: str) -> bytes:
    """`salted` has been given the salt already: to begin anew each time costs a quarter more."""
    hashed = salted.copy()
    hashed.update(secret.encode("utf-8", "surrogatepass"))
    return hashed.digest()


def _parts(hashed: str) -> tuple[hashlib._Hash, bytes]:
    """What has been given the salt, and the digest."""
    _, salt, digest = hashed.split(":")
    return hashlib.sha256(bytes.fromhex(salt)), bytes.fromhex(digest)
