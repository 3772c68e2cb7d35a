"""Network addresses in URLs and messages."""

from __future__ import annotations

from urllib.parse import urlsplit

__all__ = ["authority", "is_safe"]


def authority(host: str, port: int) -> str:
    """Host and port as in RFC 3986, 3.2, with IPv6 addresses in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_safe(url: str) -> bool:
    """Whether nobody on the network can change what comes from this URL: it is HTTPS, or on this machine.

    Raises ValueError if it is not a URL.
    """
    parts = urlsplit(url)
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in {"localhost", "127.0.0.1", "::1"})
