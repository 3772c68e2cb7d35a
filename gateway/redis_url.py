"""The URL of a Redis or Valkey, checked before anything connects to it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl, urlsplit

if TYPE_CHECKING:
    from urllib.parse import SplitResult

    from pydantic import SecretStr

__all__ = ["check_redis_url", "redis_database"]

_SCHEMES: Final = {"redis", "rediss", "valkey", "valkeys"}
_WITH_TLS: Final = {"rediss", "valkeys"}
_FILES: Final = {"ssl_ca_certs", "ssl_certfile", "ssl_keyfile"}
"""Options that the query may have, each of which names a file. redis-py passes any option to its connections, which
then fail if they do not know it."""

_host: Final = re.compile(r"[0-9A-Za-z._:-]+").fullmatch
_path: Final = re.compile(r"/?|/(?P<database>[0-9]{1,9})").fullmatch

_FORM: Final = (
    "must be none, memory, or redis://, rediss://, valkey:// or valkeys:// with [user:password@]host[:port][/number];"
    " percent-encode what is special in user and password: / is %2F, ? is %3F, # is %23, @ is %40, % is %25"
)


def check_redis_url(url: SecretStr) -> None:
    """Raise ValueError for an invalid URL. The message says what a URL looks like, and repeats no part of this one.

    redis-py's own errors do: it takes what comes before a `/` in a password for host and port, and shows it.
    """
    text = url.get_secret_value()
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(_FORM) from None
    if (
        re.search(r"\s|#", text)  # `urlsplit` silently drops some kinds of white space
        or parts.scheme not in _SCHEMES
        or not _host(parts.hostname or "")
        or port == 0  # which redis-py takes for no port
        or not _path(parts.path)
    ):
        raise ValueError(_FORM)
    _check_query(parts)


def redis_database(url: SecretStr) -> int:
    """The number of the database in a URL that has been checked."""
    path = _path(urlsplit(url.get_secret_value()).path)
    return int(path["database"] or 0) if path else 0


def _check_query(parts: SplitResult) -> None:
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in _FILES:
            raise ValueError(
                f"its query may have {', '.join(sorted(_FILES))}, and nothing else; a ? in user or password is %3F"
            )
        if parts.scheme not in _WITH_TLS:
            raise ValueError(f"{name} needs rediss:// or valkeys://")
        if not Path(value).is_file():
            raise ValueError(f"{name} names no file")
