"""What writes leave behind: nothing that was read before a write's end is good after it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from cache.cache_stage import Clock
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from gateway.cache.marks import Marks

if TYPE_CHECKING:
    from gateway.cache.marks import Generation, WriterId

LIFETIME, OPEN_FOR = 100.0, 30.0


@pytest.fixture
def clock() -> Clock:
    return Clock(1_000.0)


@pytest.fixture
def marks(clock: Clock) -> Marks:
    return Marks(clock, lifetime=LIFETIME, open_for=OPEN_FOR)


class TestARead:
    def test_is_good_when_nobody_writes(self, marks: Marks) -> None:
        assert marks.allows("a", marks.generation())

    def test_that_began_before_a_write_is_not_good_any_more(self, marks: Marks) -> None:
        generation = marks.generation()
        writer = marks.open("a")
        assert not marks.allows("a", generation)
        marks.close("a", writer)
        assert not marks.allows("a", generation)

    def test_that_began_during_a_write_is_not_good_then_or_later(self, marks: Marks) -> None:
        writer = marks.open("a")
        generation = marks.generation()
        assert not marks.allows("a", generation)
        marks.close("a", writer)
        assert not marks.allows("a", generation)

    def test_that_began_after_a_write_is_good(self, marks: Marks) -> None:
        marks.close("a", marks.open("a"))
        assert marks.allows("a", marks.generation())

    def test_is_none_of_the_business_of_another_sessions_writes(self, marks: Marks) -> None:
        generation = marks.generation()
        marks.open("b")
        assert marks.allows("a", generation)

    def test_is_not_good_while_one_of_several_writes_is_under_way(self, marks: Marks) -> None:
        first, second = marks.open("a"), marks.open("a")
        marks.close("a", first)
        assert not marks.allows("a", marks.generation())
        marks.close("a", second)
        assert marks.allows("a", marks.generation())

    def test_is_good_again_when_a_write_that_never_ended_no_longer_counts(self, marks: Marks, clock: Clock) -> None:
        before = marks.generation()
        marks.open("a")
        clock.advance(OPEN_FOR - 0.1)
        assert not marks.allows("a", marks.generation())
        clock.advance(0.1)
        assert marks.allows("a", marks.generation())
        assert not marks.allows("a", before)

    def test_is_not_good_while_one_of_very_many_writes_is_under_way_and_they_take_no_more_room(
        self, marks: Marks, clock: Clock
    ) -> None:
        first = marks.open("k")
        writers = [marks.open("k") for _ in range(500)]
        assert len(marks._marks["k"].writers) < 200
        for writer in writers:
            marks.close("k", writer)
        assert not marks.allows("k", marks.generation())
        marks.close("k", first)
        clock.advance(OPEN_FOR)
        assert marks.allows("k", marks.generation())

    def test_that_began_before_another_processes_write_is_not_good(self, marks: Marks) -> None:
        generation = marks.generation()
        marks.close("a")
        assert not marks.allows("a", generation)
        assert marks.allows("a", marks.generation())

    def test_that_began_before_a_fold_is_not_good_whatever_it_read(self, marks: Marks) -> None:
        generation = marks.generation()
        marks.fold()
        assert not marks.allows("a", generation)
        assert marks.allows("a", marks.generation())

    def test_without_a_session_of_its_own_is_good_while_nobody_writes_any(self, marks: Marks) -> None:
        generation = marks.generation()
        assert marks.allows(None, generation)
        marks.open("anybody")
        assert not marks.allows(None, generation)
        assert marks.allows(None, marks.generation())


class TestAFloor:
    def test_keeps_lower_versions_away_and_lets_it_and_higher_ones_pass(self, marks: Marks) -> None:
        marks.saw("a", 7)
        generation = marks.generation()
        assert not marks.allows("a", generation)
        assert not marks.allows("a", generation, 6)
        assert marks.allows("a", generation, 7)
        assert marks.allows("a", generation, 8)

    def test_never_sinks(self, marks: Marks) -> None:
        marks.saw("a", 7)
        marks.saw("a", 6)
        marks.close("a", marks.open("a"))
        assert not marks.allows("a", marks.generation(), 6)

    def test_makes_no_read_outdated(self, marks: Marks) -> None:
        generation = marks.generation()
        marks.saw("a", 7)
        assert not marks.allows("a", generation, 6)
        assert not marks.allows("a", generation)
        assert marks.allows("a", generation, 7)
        assert marks.allows("b", generation, 6)
        assert marks.allows(None, generation)

    def test_lets_a_lower_version_be_passed_on_that_was_asked_for_after_it_was_seen(self, marks: Marks) -> None:
        before = marks.generation()
        marks.saw("a", 7)
        after = marks.generation()
        marks.saw("a", 7)
        for version in (6, None):
            assert not marks.lets_pass("a", before, version)
            assert marks.lets_pass("a", after, version)
            assert not marks.allows("a", after, version)
        marks.close("a")
        assert not marks.lets_pass("a", after, 6)
        again = marks.generation()
        marks.saw("a", 8)
        assert not marks.lets_pass("a", again, 7)

    def test_goes_some_time_after_it_was_seen_last(self, marks: Marks, clock: Clock) -> None:
        marks.saw("a", 7)
        clock.advance(LIFETIME - 0.1)
        assert not marks.allows("a", marks.generation(), 6)
        marks.saw("a", 6)
        marks.saw("a", 7)
        clock.advance(LIFETIME - 0.1)
        assert not marks.allows("a", marks.generation(), 6)
        clock.advance(0.1)
        assert marks.allows("a", marks.generation(), 6)
        marks.saw("a", 6)
        assert not marks.allows("a", marks.generation(), 5)

    def test_makes_room_for_those_seen_later_and_folds_nothing(self, clock: Clock) -> None:
        marks = Marks(clock, lifetime=LIFETIME, open_for=OPEN_FOR, max_marks=2)
        generation = marks.generation()
        marks.close("written")
        for key in ("a", "b", "a", "c"):
            marks.saw(key, 7)
        assert [marks.allows(key, generation, 6) for key in ("a", "b", "c")] == [False, True, False]
        assert not marks.allows("written", generation)
        clock.advance(LIFETIME)
        marks.saw("d", 1)
        assert list(marks._floors) == ["d"]


class TestMoreMarksThanThereIsRoomFor:
    @pytest.fixture
    def marks(self, clock: Clock) -> Marks:
        return Marks(clock, lifetime=LIFETIME, open_for=OPEN_FOR, max_marks=2)

    def test_fold_the_oldest_into_one_for_all(self, marks: Marks) -> None:
        generation = marks.generation()
        for key in ("a", "b", "c"):
            marks.close(key, marks.open(key))
        assert not marks.allows("a", generation)
        assert not marks.allows("never written", generation)
        assert marks.allows("a", marks.generation())
        assert list(marks._marks) == ["b", "c"]

    def test_leave_reads_alone_that_began_after_the_oldest(self, marks: Marks) -> None:
        marks.close("a")
        generation = marks.generation()
        marks.close("b")
        marks.close("c")
        assert marks.allows("a", generation)
        assert not marks.allows("b", generation)

    def test_do_not_forget_a_write_under_way(self, marks: Marks, clock: Clock) -> None:
        writer = marks.open("a")
        marks.close("b")
        marks.close("c")
        generation = marks.generation()
        assert not marks.allows("a", generation)
        marks.close("a", writer)
        assert not marks.allows("a", generation)
        clock.advance(OPEN_FOR)
        assert marks.allows("a", marks.generation())

    def test_make_room_by_what_has_expired(self, marks: Marks, clock: Clock) -> None:
        marks.close("a")
        marks.close("b")
        clock.advance(LIFETIME)
        generation = marks.generation()
        marks.close("c")
        assert list(marks._marks) == ["c"]
        assert marks.allows("a", generation)

    def test_make_no_room_by_what_has_not(self, marks: Marks, clock: Clock) -> None:
        marks.close("a")
        clock.advance(LIFETIME / 2)
        generation = marks.generation()
        marks.close("b")
        clock.advance(LIFETIME / 2)
        marks.close("c")
        assert list(marks._marks) == ["b", "c"]
        assert not marks.allows("b", generation)


@dataclass(frozen=True)
class Read:
    key: str
    generation: Generation
    began: int
    at: float


@dataclass(frozen=True)
class Write:
    key: str
    writer: WriterId
    opened: int
    until: float


keys = st.sampled_from(["a", "b", "c", "d", "e"])


class Histories(RuleBasedStateMachine):
    """Reads and writes in any order, against a list of what has happened."""

    max_marks = 100_000
    exact = True
    """Whether whatever is not forbidden must be allowed."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock(1_000.0)
        self.marks = Marks(self.clock, lifetime=LIFETIME, open_for=OPEN_FOR, max_marks=self.max_marks)
        self.now = 0
        self.reads: list[Read] = []
        self.raised: dict[str, int] = {}
        """When each session was last written, or began to be."""
        self.folded = 0
        self.under_way: list[Write] = []

    writes = Bundle("writes")

    def _happen(self) -> int:
        self.now += 1
        return self.now

    @rule(key=keys)
    def begin_read(self, key: str) -> None:
        self.reads.append(Read(key, self.marks.generation(), self._happen(), self.clock.now))

    @rule(target=writes, key=keys)
    def open_write(self, key: str) -> Write:
        write = Write(key, self.marks.open(key), self._happen(), self.clock.now + OPEN_FOR)
        self.raised[key] = self.now
        self.under_way.append(write)
        return write

    @rule(write=consumes(writes))
    def close_write(self, write: Write) -> None:
        self.marks.close(write.key, write.writer)
        self.raised[write.key] = self._happen()
        self.under_way.remove(write)

    @rule(target=writes, write=consumes(writes))
    def lose_sight_of_a_write(self, write: Write) -> object:
        return multiple()

    @rule(key=keys)
    def hear_of_another_processes_write(self, key: str) -> None:
        self.marks.close(key)
        self.raised[key] = self._happen()

    @rule()
    def fold(self) -> None:
        self.marks.fold()
        self.folded = self._happen()

    @rule(seconds=st.sampled_from([0.5, 10.0, 31.0]))
    def let_time_pass(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.reads = [each for each in self.reads if self.clock.now < each.at + LIFETIME]  # longer than any read takes

    @invariant()
    def no_read_is_good_that_a_write_stands_against(self) -> None:
        for read in self.reads:
            forbidden = (
                self.raised.get(read.key, 0) > read.began
                or self.folded > read.began
                or any(each.key == read.key and self.clock.now < each.until for each in self.under_way)
            )
            if forbidden:
                assert not self.marks.allows(read.key, read.generation)
            elif self.exact:
                assert self.marks.allows(read.key, read.generation)


class CrowdedHistories(Histories):
    max_marks = 2
    exact = False


TestHistories = Histories.TestCase
TestCrowdedHistories = CrowdedHistories.TestCase
for each in (TestHistories, TestCrowdedHistories):
    each.settings = settings(max_examples=60, stateful_step_count=40, deadline=None, derandomize=True)
