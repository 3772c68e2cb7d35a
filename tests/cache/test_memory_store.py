"""Values in this process: bounded by number, by use, and by time."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from aiocache.base import BaseCache
from cache.cache_stage import Clock
from hypothesis import given
from hypothesis import strategies as st

from gateway.stores import MemoryStore

if TYPE_CHECKING:
    from collections.abc import Coroutine


@pytest.fixture
def clock() -> Clock:
    return Clock(1_000.0)


async def test_a_value_is_kept_until_its_time_is_over(clock: Clock) -> None:
    store = MemoryStore[str](10, clock)
    await store.set("a", "value", ttl=5)
    clock.advance(4.9)
    assert await store.get("a") == "value"
    clock.advance(0.1)
    assert await store.get("a") is None
    assert len(store) == 0


async def test_a_value_that_is_set_again_has_its_time_anew(clock: Clock) -> None:
    store = MemoryStore[str](10, clock)
    await store.set("a", "first", ttl=5)
    clock.advance(4)
    await store.set("a", "second", ttl=5)
    clock.advance(4)
    assert await store.get("a") == "second"


@pytest.mark.parametrize("ttl", [0.0, -1.0])
async def test_a_value_without_time_left_is_not_given_out(clock: Clock, ttl: float) -> None:
    store = MemoryStore[str](10, clock)
    await store.set("a", "value", ttl=ttl)
    assert await store.get("a") is None


async def test_what_was_used_least_recently_makes_room(clock: Clock) -> None:
    store = MemoryStore[int](3, clock)
    for number, key in enumerate("abc"):
        await store.set(key, number, ttl=5)
    assert await store.get("a") == 0
    await store.set("b", 7, ttl=5)
    await store.set("d", 3, ttl=5)
    assert [await store.get(key) for key in "abcd"] == [0, 7, None, 3]


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.booleans(), st.floats(0.5, 20)), max_size=60))
async def test_it_never_holds_more_than_it_may_nor_anything_too_old(steps: list[tuple[str, bool, float]]) -> None:
    clock = Clock(0.0)
    store = MemoryStore[float](4, clock)
    for key, is_set, seconds in steps:
        if is_set:
            await store.set(key, clock.now + seconds, ttl=seconds)
        else:
            clock.advance(seconds / 4)
        until = await store.get(key)
        assert until is None or until > clock.now
        assert len(store) <= 4


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("sdg"), st.integers(0, 12)), max_size=60))
async def test_it_holds_no_more_than_there_is_room_for(steps: list[tuple[str, str, int]]) -> None:
    clock = Clock(0.0)
    store = MemoryStore[int](6, clock, max_size=20, size_of=lambda value: value)
    for key, step, number in steps:
        match step:
            case "s":
                await store.set(key, number, ttl=5)
                assert await store.get(key) == number  # it is others that make room
            case "d":
                await store.delete(key)
            case _:
                clock.advance(number / 4)
                await store.get(key)
        assert store.size == sum(each.value for each in store._cache.entries.values()) <= 20


async def test_what_is_larger_than_all_the_room_is_not_kept(clock: Clock) -> None:
    store = MemoryStore[int](10, clock, max_size=20, size_of=lambda value: value)
    await store.set("a", 7, ttl=5)
    await store.set("b", 8, ttl=5)
    await store.set("a", 21, ttl=5)
    assert await store.get("a") is None
    assert await store.get("b") == 8
    assert (len(store), store.size) == (1, 8)


async def test_values_are_forgotten_one_by_one(clock: Clock) -> None:
    store = MemoryStore[int](10, clock)
    for key in "abc":
        await store.set(key, 1, ttl=5)
    await store.delete("a")
    await store.delete("never there")
    assert [await store.get(key) for key in "abc"] == [None, 1, 1]


async def test_a_value_is_the_object_itself(clock: Clock) -> None:
    store = MemoryStore[object](10, clock)
    value = object()
    await store.set("a", value, ttl=5)
    assert await store.get("a") is value


async def test_stores_know_nothing_of_one_another(clock: Clock) -> None:
    one, other = MemoryStore[str](10, clock), MemoryStore[str](10, clock)
    await one.set("a", "value", ttl=5)
    assert await other.get("a") is None


def test_it_is_an_aiocache_cache() -> None:
    assert isinstance(MemoryStore[int](1)._cache, BaseCache)


async def test_it_goes_by_way_of_aiocache(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    """Which does nothing at all when told so; the settings refuse that."""
    store = MemoryStore[int](10, clock)
    await store.set("a", 1, ttl=5)
    monkeypatch.setenv("AIOCACHE_DISABLE", "1")
    assert await store.get("a") is None


def test_nothing_comes_between_the_steps_of_an_operation() -> None:
    """`TieredCache` looks and then sets; it relies on no other task running meanwhile."""

    def runs_through(operation: Coroutine[object, object, object]) -> bool:
        try:
            operation.send(None)
        except StopIteration:
            return True
        operation.close()
        return False

    store = MemoryStore[int](10)
    assert runs_through(store.set("a", 1, ttl=5))
    assert runs_through(store.get("a"))
    assert runs_through(store.delete("a"))
