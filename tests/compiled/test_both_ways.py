"""Generated operations, valid and failing: a plan answers as Strawberry's own execution does."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest
import structlog.testing
from compiled.operations import operations, told_otherwise
from compiled.outcomes import CALLERS
from compiled.ways import Ways
from hypothesis import HealthCheck, given, settings

from gateway.graphql.documents import NotExecutable

if TYPE_CHECKING:
    from collections.abc import Callable

OPERATIONS = 250
TELLINGS = 8
"""Of each operation; so 2,000 in all."""


@pytest.mark.timeout(300)  # 20 seconds of CPU, on a machine that may be busy
def test_generated_operations_come_to_the_same_both_ways(record_property: Callable[[str, object], None]) -> None:
    ways = (Ways(introspection=True), Ways(introspection=False))
    counts: Counter[str] = Counter()

    @settings(
        max_examples=OPERATIONS,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(operations(ways[0].schema.core))
    def check(text: str) -> None:
        for number in range(TELLINGS):
            chance = random.Random(f"{number} {text}")
            request = told_otherwise(text, ways[0].schema.core, chance)
            way = ways[number % 2]
            counts["operations"] += 1
            try:
                plan = way.plan(request.text)
            except NotExecutable:
                counts["refused"] += 1
                continue
            if plan is None:
                counts["left to Strawberry"] += 1
                continue
            caller = chance.choice(["writer", "writer", "writer", *CALLERS])
            told = loop.run(
                way.alike(
                    request.text, request.variables, seed=number, failures=chance.choice([0, 0.3, 0.8]), caller=caller
                )
            )
            counts["failed"] += bool(told.errors)
            counts["answered"] += told.data != b"null"
            counts["mutations"] += text.startswith("mutation")

    with structlog.testing.capture_logs(), asyncio.Runner() as loop:
        check()

    record_property("figures", dict(counts))
    compiled = counts["operations"] - counts["refused"] - counts["left to Strawberry"]
    assert counts["operations"] >= OPERATIONS * TELLINGS
    assert compiled >= 0.8 * counts["operations"], counts
    for each in ("failed", "answered", "mutations"):
        assert counts[each] >= 0.15 * compiled, counts
