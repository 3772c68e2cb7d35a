"""Addresses, as URLs and messages write them."""

from __future__ import annotations

__all__ = ["authority"]


def authority(host: str, port: int) -> str:
    """Host and port as RFC 3986, 3.2 writes them: an IPv6 address stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
