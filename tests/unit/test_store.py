"""Values kept in memory, for a time and within bounds."""

from __future__ import annotations

from gateway.stores import MemoryStore


class Clock:
    """Time that passes when it is told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def store(max_entries: int = 10, clock: Clock | None = None) -> MemoryStore[str]:
    return MemoryStore(max_entries, clock or Clock())


async def test_a_value_is_kept_as_the_same_object() -> None:
    kept, value = MemoryStore[list[str]](10), ["a"]
    assert await kept.get("acme") is None
    await kept.set("acme", value, ttl=60)
    assert await kept.get("acme") is value
    assert await kept.get("globex") is None
    assert len(kept) == 1


async def test_a_value_is_gone_when_its_time_is_over() -> None:
    clock = Clock()
    kept = store(clock=clock)
    await kept.set("acme", "a", ttl=5)
    clock.now += 4.9
    assert await kept.get("acme") == "a"
    clock.now += 0.1
    assert await kept.get("acme") is None
    assert len(kept) == 0


async def test_a_value_takes_the_place_of_the_one_before_and_its_time_too() -> None:
    clock = Clock()
    kept = store(clock=clock)
    await kept.set("acme", "short", ttl=5)
    clock.now += 3
    await kept.set("acme", "long", ttl=5)
    clock.now += 3
    assert await kept.get("acme") == "long"
    assert len(kept) == 1


async def test_a_value_without_time_left_is_not_given_out() -> None:
    for ttl in (0.0, -1.0):
        kept = store()
        await kept.set("acme", "a", ttl=ttl)
        assert await kept.get("acme") is None


async def test_a_value_can_be_forgotten_whether_or_not_it_is_there() -> None:
    kept = store()
    await kept.set("acme", "a", ttl=60)
    await kept.delete("acme")
    await kept.delete("acme")
    assert await kept.get("acme") is None


async def test_what_was_used_least_recently_makes_room() -> None:
    kept = store(max_entries=2)
    await kept.set("one", "1", ttl=60)
    await kept.set("two", "2", ttl=60)
    assert await kept.get("one") == "1"
    await kept.set("three", "3", ttl=60)
    assert [await kept.get(each) for each in ("one", "two", "three")] == ["1", None, "3"]
    assert len(kept) == 2


async def test_stores_know_nothing_of_one_another() -> None:
    one, other = store(), store()
    await one.set("acme", "a", ttl=60)
    assert await other.get("acme") is None
