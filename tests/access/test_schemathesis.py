"""Operations that schemathesis makes from the schema it finds at the running gateway: valid, and strange."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import schemathesis
from access.test_fuzz import KEY, LEAKS, Gateway, answers_normally, gateway
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis.graphql import nodes

if TYPE_CHECKING:
    from schemathesis import Case

__all__ = ["gateway"]

EXAMPLES = 250

schemathesis.graphql.scalar("JSON", st.text(max_size=20).map(nodes.String))
schemathesis.graphql.scalar("Version", st.integers(0, 20).map(nodes.Int))
schemathesis.graphql.scalar("DateTime", st.just(nodes.String("2026-02-04T16:36:44.047Z")))


def test_operations_of_the_schema_end_with_an_answer_and_no_word_of_the_inside(gateway: Gateway) -> None:
    schema = schemathesis.graphql.from_url(gateway.graphql, headers=KEY)
    statuses: list[int] = []

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=schema.as_strategy())
    def check(case: Case[Any]) -> None:
        response = case.call(headers={**KEY, "saas-token": "not-a-token"})
        statuses.append(response.status_code)
        assert response.status_code < 500, response.text
        assert not LEAKS.search(response.content), response.text
        for error in response.json().get("errors", ()):
            assert error["extensions"]["code"] != "INTERNAL", response.text

    check()

    answers_normally(gateway)
    assert len(statuses) >= EXAMPLES * 0.9
    assert statuses.count(200) > EXAMPLES / 2, "most of them are valid"
    assert not re.findall(rb".*(?:Traceback|defect|exc_info).*", gateway.log.read_bytes())
