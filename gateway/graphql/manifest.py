"""The manifest of trusted documents: one JSON file, in either of two forms.

An object of SHA-256 hashes to documents, as GraphQL's clients persist them, or Apollo's persisted query manifest.
"""

from __future__ import annotations

import re
from typing import Final, Literal

import msgspec

from gateway.graphql.documents import digest_of

__all__ = ["BadManifest", "parse_manifest"]

_HASH: Final = re.compile(r"(?:sha256:)?([0-9a-fA-F]{64})")


class BadManifest(Exception):
    """The manifest cannot be used. `problems` has one line for each problem."""

    def __init__(self, *problems: str) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class _Entry(msgspec.Struct):
    id: str
    body: str


class _ApolloManifest(msgspec.Struct):
    """https://www.npmjs.com/package/@apollo/generate-persisted-query-manifest."""

    format: Literal["apollo-persisted-query-manifest"]
    version: Literal[1]
    operations: list[_Entry]


def parse_manifest(source: bytes) -> dict[str, str]:
    """Documents by their ids. Raises BadManifest."""
    entries = _entries(source)
    problems = []
    documents: dict[str, str] = {}
    for name, body in entries:
        digest = digest_of(body)
        said = _HASH.fullmatch(name)
        if said is not None and said[1] != digest:
            problems.append(f"{name}: is not the SHA-256 of its document, which is {digest}")
        if documents.setdefault(name.removeprefix("sha256:"), body) != body:
            problems.append(f"{name}: stands for two documents")
    if problems:
        raise BadManifest(*problems)
    return documents


def _entries(source: bytes) -> list[tuple[str, str]]:
    try:
        document = msgspec.json.decode(source)
        if isinstance(document, dict) and "format" in document:
            manifest = msgspec.convert(document, _ApolloManifest)
            return [(each.id, each.body) for each in manifest.operations]
        entries = msgspec.convert(document, dict[str, str])
    except (ValueError, RecursionError) as error:
        raise BadManifest(f"is no manifest: {error}") from None
    if wrong := [name for name in entries if not _HASH.fullmatch(name)]:
        raise BadManifest(*(f"{name}: is no SHA-256 in hex" for name in wrong))
    return list(entries.items())
