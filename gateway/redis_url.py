"""The URL of a Redis or Valkey: what is wrong with one is found before anything dials it."""

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
"""Options that the query may have, each of which names a file. redis-py takes any name whatsoever, hands it to a
connection as an argument, and so has each connection fail by a name that is none."""

_host: Final = re.compile(r"[0-9A-Za-z._:-]+").fullmatch
_path: Final = re.compile(r"/?|/(?P<database>[0-9]{1,9})").fullmatch

_FORM: Final = (
    "must be none, memory, or redis://, rediss://, valkey:// or valkeys:// with [user:password@]host[:port][/number];"
    " percent-encode what is special in user and password: / is %2F, ? is %3F, # is %23, @ is %40, % is %25"
)


def check_redis_url(url: SecretStr) -> None:
    """Raise ValueError for a URL that cannot be used. It says how one has to look, and repeats nothing of this one.

    redis-py's own errors do repeat it: a password with a `/` ends what it takes for the host, and the rest for a port.
    """
    text = url.get_secret_value()
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise ValueError(_FORM) from None
    if (
        re.search(r"\s|#", text)  # `urlsplit` drops some kinds of white space without a word
        or parts.scheme not in _SCHEMES
        or not _host(parts.hostname or "")
        or port == 0  # which redis-py takes for none
        or not _path(parts.path)
    ):
        raise ValueError(_FORM)
    _check_query(parts)


def redis_database(url: SecretStr) -> int:
    """The number of the database that a URL names, which has been checked."""
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
