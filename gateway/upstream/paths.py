"""Paths of the eight operations, built so that no value can lead to another path."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import quote

from gateway import validation

__all__ = ["attribute", "attributes", "own_attribute", "own_attributes", "own_session", "session"]

_ROOT: Final = "/session-context"
_unreserved: Final = re.compile(r"[A-Za-z0-9._~-]*").fullmatch


def session(tenant: str, session_id: str) -> str:
    """Path of any session context of a tenant."""
    validation.check(validation.tenant(tenant), validation.segment("session_id", session_id))
    return f"{_ROOT}/{tenant}/context/{_encode(session_id)}"


def attributes(tenant: str, session_id: str) -> str:
    """Path of the attributes of any session context."""
    return f"{session(tenant, session_id)}/attributes"


def attribute(tenant: str, session_id: str, name: str) -> str:
    """Path of one attribute of any session context."""
    validation.check(validation.segment("attribute_name", name))
    return f"{attributes(tenant, session_id)}/{_encode(name)}"


def own_session(tenant: str) -> str:
    """Path of the session context that belongs to the caller's token."""
    validation.check(validation.tenant(tenant))
    return f"{_ROOT}/{tenant}/me/context"


def own_attributes(tenant: str) -> str:
    """Path of the attributes of the caller's own session context."""
    return f"{own_session(tenant)}/attributes"


def own_attribute(tenant: str, name: str) -> str:
    """Path of one attribute of the caller's own session context."""
    validation.check(validation.segment("attribute_name", name))
    return f"{own_attributes(tenant)}/{_encode(name)}"


def _encode(value: str) -> str:
    """Percent-encode all but the unreserved characters (RFC 3986, 2.3), the slash included."""
    return value if _unreserved(value) else quote(value, safe="")
