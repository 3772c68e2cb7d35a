"""The documents that GraphQL executes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gateway.graphql.compiled import Compiler
from gateway.graphql.documents import Documents
from gateway.graphql.limits import Limits
from gateway.graphql.manifest import BadManifest, parse_manifest
from gateway.settings import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from gateway.graphql.schema import GatewaySchema
    from gateway.settings import GraphQL, Settings

__all__ = ["limits_of", "prepare_documents"]


def prepare_documents(settings: Settings, schema: GatewaySchema) -> Documents:
    """The documents that GraphQL executes, those of the manifest among them. Raises ConfigurationError."""
    graphql = settings.graphql
    documents = Documents(
        schema.core,
        limits_of(graphql),
        compiler=Compiler(schema),
        introspection=graphql.introspection,
        measure_only=graphql.limits == "measure",
        memory=graphql.documents_memory,
        trusted=None if graphql.documents_file is None else _manifest(graphql.documents_file),
        only_trusted=graphql.documents_mode == "trusted",
    )
    if problems := [f"{name}: {problem}" for name, problem in documents.bad()]:
        raise ConfigurationError(*(f"graphql.documents_file: {each}" for each in problems))
    return documents


def limits_of(graphql: GraphQL) -> Limits:
    """The limits on documents."""
    return Limits(
        length=graphql.max_length,
        tokens=graphql.max_tokens,
        depth=graphql.max_depth,
        root_fields=graphql.max_root_fields,
        aliases=graphql.max_aliases,
        directives=graphql.max_directives,
        selections=graphql.max_selections,
        values=graphql.max_values,
        repeats=graphql.max_repeats,
        cost=graphql.max_cost,
    )


def _manifest(file: Path) -> Mapping[str, str]:
    try:
        return parse_manifest(file.read_bytes())
    except OSError as error:
        raise ConfigurationError(f"graphql.documents_file: cannot be read: {error.strerror}") from None
    except BadManifest as error:
        raise ConfigurationError(*(f"graphql.documents_file: {each}" for each in error.problems)) from None
