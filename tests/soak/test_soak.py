"""A short soak finds nothing wrong, and what is wrong does not escape it."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import httpx
import pytest
from cache.conftest import redis_program

from doors import Refused
from gateway.development import DEV_DEFAULTS
from gateway.sandbox import Sandbox
from soak.shoppers import OPERATIONS, Setting, play
from soak.soak import soak
from soak.tally import Tally
from soak.upstream import Upstream
from soak.watch import growth
from soak.weather import SPELLS
from stage import entered, opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

    from doors import Door, Seen
    from soak.report import Report

__all__ = ["redis_program"]


@pytest.mark.timeout(240)
@pytest.mark.parametrize("cache", ["memory", "redis"])
async def test_a_short_soak_finds_nothing_wrong(
    cache: str, tmp_path: Path, request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> None:
    if cache == "redis":
        request.getfixturevalue("redis_program")

    operations = {(door, each) for door in ("grpc", "graphql") for each in OPERATIONS}
    spells = {each.name for each in SPELLS if cache == "redis" or not each.name.startswith("redis")}

    def all_was_there(report: Report) -> bool:
        return operations <= report.tally.rows.keys() and spells == {name for name, _, _ in report.spells}

    report = await soak(15, 7, 16, cache, 1, tmp_path, enough=all_was_there)

    found = report.as_dict()
    record_property("figures", f"{found['requests']:,} requests, errors {found['errors']}")
    assert report.wrong == []
    assert dict(report.tally.unexplained) == {}
    assert not report.died
    assert all_was_there(report)
    assert sum(report.struck.values()) > 20
    assert report.samples
    assert (tmp_path / "gateway.log").exists()


class Liar:
    """A door that says what is not so, now and then."""

    def __init__(self, door: Door, lie: str) -> None:
        self.name = door.name
        self.gateway = door.gateway
        self._door = door
        self._lie = lie
        self._first: dict[str, Seen] = {}
        self._last: Seen | None = None

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._door, name)

        async def call(*arguments: Any, **options: Any) -> Any:
            if self._lie == "error" and name == "get":
                raise Refused("INTERNAL", "a defect", "INTERNAL")
            if self._lie == "swallowed write" and name in {"add_attribute", "patch"}:
                return None
            if self._lie == "unversioned write" and "expected_version" in options:
                options.pop("expected_version")
            answer = await method(*arguments, **options)
            if self._lie == "repeated write" and name == "add_attribute":
                await method(*arguments, **options)
            return self._told(answer) if name in {"get", "get_own"} else answer

        return call

    def _told(self, seen: Seen | None) -> Seen | None:
        if seen is None:
            return None
        first, last = self._first.setdefault(seen.session_id, seen), self._last
        self._last = seen
        match self._lie:
            case "stale":
                return first
            case "foreign":
                return last or seen
            case "not found":
                return None
            case "field lost":
                return replace(seen, additional={})
            case "attribute lost":
                return replace(seen, context=dict(list(seen.context.items())[1:]))
            case _:
                return seen


LIES = {
    "stale": "older than version|after version",
    "foreign": "answers with soak-0-. for soak-0-.",
    "not found": "does not find",
    "field lost": "other fields",
    "attribute lost": "never was",
    "swallowed write": "acknowledged and not applied",
    "repeated write": "changes nothing: a write was applied twice",
    "unversioned write": "counts .* where .* is due|more than one write|another version than the expected",
}


@pytest.fixture
async def upstream_alone() -> AsyncIterator[tuple[Upstream, list[Door]]]:
    """A gateway with nothing wrong upstream."""
    dev_key = DEV_DEFAULTS["access"]["keys"]["dev"]  # type: ignore[index]  # a table of settings, as in TOML
    async with (
        opened(upstream={"timeout": 5.0}, access={"keys": {"dev": {**dev_key, "tenants": ("acme",)}}}) as dev,
        entered("grpc", dev) as by_grpc,
        entered("graphql", dev) as by_graphql,
        httpx.AsyncClient() as client,
    ):
        yield Upstream(client, dev.sandbox_url), [by_grpc, by_graphql]


async def played(upstream: Upstream, doors: list[Any], tally: Tally, operations: int = 150) -> str:
    """A round of so many operations, give or take; returns what was wrong."""
    setting = Setting(upstream, doors, tally, lambda _reason, _began: False, 0.0, Sandbox().saas_token)
    ends = lambda: tally.requests >= operations  # noqa: E731
    return "\n".join((await play(setting, random.Random(3), "soak-0", ends, clients=8)).wrong)


async def test_nothing_is_wrong_where_nobody_lies(upstream_alone: tuple[Upstream, list[Door]]) -> None:
    upstream, doors = upstream_alone
    tally = Tally()
    assert await played(upstream, doors, tally) == ""
    assert dict(tally.unexplained) == {}


@pytest.mark.parametrize("lie", LIES)
async def test_a_lie_is_caught(lie: str, upstream_alone: tuple[Upstream, list[Door]]) -> None:
    upstream, doors = upstream_alone
    assert re.search(LIES[lie], await played(upstream, [Liar(each, lie) for each in doors], Tally()))


async def test_an_error_that_no_fault_explains_is_told(upstream_alone: tuple[Upstream, list[Door]]) -> None:
    upstream, doors = upstream_alone
    tally = Tally()
    await played(upstream, [Liar(each, "error") for each in doors], tally)
    assert any("grpc get: INTERNAL" in each for each in tally.unexplained)


def test_growth_is_told_from_noise() -> None:
    chance = random.Random(1)
    steady = [(float(at), 100 + chance.uniform(-2, 2)) for at in range(300)]
    growing = [(at, value + at / 20) for at, value in steady]
    assert growth(steady, tolerated=0.03).verdict == "steady"
    assert growth(growing, tolerated=0.03).verdict == "GROWS"
    assert 150 < growth(growing, tolerated=0.03).per_hour < 210
    assert "too short" in growth(steady[:30], tolerated=0.03).verdict
