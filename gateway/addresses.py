"""Addresses, as URLs and messages write them."""

from __future__ import annotations

from urllib.parse import urlsplit

__all__ = ["authority", "is_safe"]


def authority(host: str, port: int) -> str:
    """Host and port as RFC 3986, 3.2 writes them: an IPv6 address stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_safe(url: str) -> bool:
    """Whether nobody on the way to this URL can change what comes from it: HTTPS, or this very machine.

    Raises ValueError for what is no URL.
    """
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in {"localhost", "127.0.0.1", "::1"})
