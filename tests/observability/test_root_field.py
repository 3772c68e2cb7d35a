"""What an operation goes by in metrics."""

from __future__ import annotations

import pytest
from graphql import OperationDefinitionNode, parse

from gateway.graphql.roots import root_field


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("{ sessionContext { currency } }", "sessionContext"),
        ("query Mine { a: sessionContext { currency } }", "sessionContext"),
        ("{ ... on Query { sessionContext { currency } } }", "sessionContext"),
        ("{ ...F } fragment F on Query { ...G } fragment G on Query { sessionContext { currency } }", "sessionContext"),
        ("{ sessionContext { currency } sessionContext { language } }", "sessionContext"),
        ("{ a: sessionContext { currency } b: sessionContext { currency } }", "several"),
        ("{ sessionContext { currency } mySessionContext { currency } }", "several"),
        ("{ sessionContext { currency } ...F } fragment F on Query { mySessionContext { currency } }", "several"),
        ("mutation { patchSessionContext { __typename } }", "patchSessionContext"),
        ("{ __schema { types { name } } }", "__schema"),
        ("{ ...Missing }", "several"),
    ],
)
def test_it_goes_by_its_root_field_if_there_is_one_alone(text: str, name: str) -> None:
    document = parse(text)
    (operation,) = (each for each in document.definitions if isinstance(each, OperationDefinitionNode))

    assert root_field(operation, document) == name


def test_fragments_that_spread_each_other_many_times_are_looked_into_once() -> None:
    fragments = " ".join(f"fragment F{n} on Query {{ ...F{n + 1} ...F{n + 1} }}" for n in range(60))
    document = parse(f"{{ ...F0 }} {fragments} fragment F60 on Query {{ sessionContext {{ currency }} }}")
    (operation,) = (each for each in document.definitions if isinstance(each, OperationDefinitionNode))

    assert root_field(operation, document) == "sessionContext"
