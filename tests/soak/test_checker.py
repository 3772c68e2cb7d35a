"""The checker of histories catches what it is there to catch: every kind of violation, planted."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from soak.history import History, Outcome, Read, Version, Write, removal, setting, violations


def version(number: int, **attributes: object) -> Version:
    return Version(number, attributes)


def write(value: str, outcome: Outcome = Outcome.APPLIED, client: str = "a", **more: Any) -> Write:
    return Write(client, "s", setting(client, value), outcome, **more)


def found(chain: list[Version], *events: Write | Read) -> str:
    return "\n".join(violations(History(list(events), {"s": chain})))


GOOD = [
    version(1),
    version(2, a="a1"),
    version(3, a="a1", b="b1"),
    version(4, a="a1", b="b1", c="c1", counter=1),
    version(5, a="a1", b="b1", c="c2", counter=2),
    version(6, a="a1", c="c2", counter=2),
]
FIRST = write("a1", expected=1, told=2)
EVENTS: list[Write | Read] = [
    FIRST,
    Read("b", "s", 2, {"a": "a1"}),
    write("b1", client="b", told=3),
    write("b2", Outcome.REFUSED, client="b"),
    write("c1", client="c", counts=True, expected=3, told=4),
    write("c2", Outcome.UNKNOWN, client="c", counts=True, expected=4),
    write("c3", Outcome.UNKNOWN, client="c"),
    Write("b", "s", removal("b", "b1"), Outcome.APPLIED, told=6),
    Read("a", "s", 6, {"a": "a1", "c": "c2", "counter": 2}),
]


def test_nothing_is_found_where_nothing_is_wrong() -> None:
    assert not found(GOOD, *EVENTS)


def test_an_acknowledged_write_that_was_not_applied() -> None:
    assert "acknowledged and not applied" in found(GOOD, *EVENTS, write("a2"))


def test_a_refused_write_that_was_applied() -> None:
    events = [replace(FIRST, outcome=Outcome.REFUSED), *EVENTS[1:]]
    assert "refused and applied, by version 2" in found(GOOD, *events)


def test_an_unknown_one_that_is_neither_in_nor_out() -> None:
    """In, out, and in again."""
    chain = [version(1), version(2, a="a1"), version(3, a="a2"), version(4, a="a1")]
    said = found(chain, write("a1", Outcome.UNKNOWN), write("a2"))
    assert "applied 2 times, by versions [2, 4]" in said


def test_a_write_that_was_applied_twice_in_a_row() -> None:
    chain = [version(1), version(2, a="a1"), version(3, a="a1")]
    assert "version 3 of s changes nothing" in found(chain, write("a1"))


def test_a_write_that_was_applied_again_over_a_later_one() -> None:
    chain = [version(1), version(2, a="a1"), version(3, a="a2"), version(4, a="a1")]
    assert "applied 2 times" in found(chain, write("a1"), write("a2"))


@pytest.mark.parametrize("after", [{"b": "b1"}, {"a": "a0", "b": "b1"}])
def test_a_write_that_undoes_another(after: dict[str, object]) -> None:
    chain = [version(1, a="a0"), version(2, a="a1"), Version(3, after)]
    said = found(chain, write("a1"), write("b1", client="b"))
    assert "version 3 of s changes more than one write does" in said


def test_a_version_that_nobody_made() -> None:
    assert "an effect that is no write's" in found([version(1), version(2, x=1)])


def test_two_writes_that_cannot_be_told_apart() -> None:
    said = found([version(1), version(2, a="a1")], write("a1"), write("a1"))
    assert "the effect of 2 writes" in said


def test_a_removal_that_was_not_applied() -> None:
    gone = Write("b", "s", removal("b", "b1"), Outcome.APPLIED)
    assert "acknowledged and not applied" in found(GOOD[:5], *EVENTS[:7], gone)


def test_an_increment_that_is_lost() -> None:
    chain = [version(1, counter=7), version(2, counter=8, a="a1"), version(3, counter=8, a="a1", b="b1")]
    said = found(chain, write("a1", counts=True), write("b1", client="b", counts=True))
    assert said == "version 3 of s counts 0 where 1 is due"


@pytest.mark.parametrize("counter", [6, 9])
def test_an_increment_by_other_than_one(counter: int) -> None:
    chain = [version(1, counter=7), version(2, counter=counter, a="a1")]
    assert "where 1 is due" in found(chain, write("a1", counts=True))


def test_a_counter_that_a_write_takes_along_which_does_not_count() -> None:
    chain = [version(1, counter=7), version(2, counter=6, a="a1")]
    assert "counts -1 where 0 is due" in found(chain, write("a1"))


def test_a_write_in_the_place_of_another_version_than_the_expected_one() -> None:
    chain = [version(1), version(2, b="b1"), version(3, a="a1", b="b1")]
    said = found(chain, write("b1", client="b"), write("a1", expected=1))
    assert "applied to another version than the expected one, by version 3" in said


def test_a_write_that_is_told_of_an_earlier_version_than_its_own() -> None:
    assert "told of a version before its own" in found([version(1), version(2, a="a1")], write("a1", told=1))


def test_writes_of_one_client_that_change_places() -> None:
    chain = [version(1), version(2, a="a2"), version(3, a="a1")]
    assert "applied before an earlier write of the same client" in found(chain, write("a1"), write("a2"))


@pytest.mark.parametrize("read", [Read("a", "s", 2, {"a": "a0"}), Read("a", "s", 9, {}), Read("a", "s", 2, {})])
def test_a_read_of_what_never_was(read: Read) -> None:
    assert "never was" in found([version(1), version(2, a="a1")], write("a1"), read)


def test_a_read_that_goes_back() -> None:
    reads = Read("a", "s", 2, {"a": "a1"}), Read("a", "s", 1, {})
    assert "after version 2" in found([version(1), version(2, a="a1")], write("a1"), *reads)


def test_a_read_that_does_not_show_what_its_client_has_written() -> None:
    said = found([version(1), version(2, a="a1")], write("a1", told=2), Read("a", "s", 1, {}))
    assert "after version 2" in said


def test_a_read_of_another_client_may_be_behind() -> None:
    assert not found([version(1), version(2, a="a1")], write("a1", told=2), Read("b", "s", 1, {}))


@pytest.mark.parametrize("anew", [True, False])
def test_a_read_may_be_behind_what_its_client_saw_and_did_not_say(anew: bool) -> None:
    before = Read("b", "s", 2, {"a": "a1"}, anew=anew)
    chain = [version(1), version(2, a="a1")]
    assert bool(found(chain, write("a1", told=2), before, Read("b", "s", 1, {}))) is not anew


def told_by(gateway: str, version: int, began: float, **more: Any) -> Read:
    return Read("b", "s", version, {"a": "a1"} if version == 2 else {}, gateway, began, anew=True, **more)


@pytest.mark.parametrize(
    "before", [told_by("one", 2, 1.0, ended=2.0), write("a1", told=2, gateway="one", ended=2.0)], ids=["read", "write"]
)
@pytest.mark.parametrize(
    ("read", "wrong"),
    [
        (told_by("one", 1, 2.1), True),
        (told_by("one", 1, 1.9), False),
        (told_by("one", 2, 2.1), False),
        (told_by("another", 1, 2.1), False),
    ],
    ids=["after", "meanwhile", "as new", "by another"],
)
def test_a_read_that_shows_less_than_its_gateway_has_shown(before: Read | Write, read: Read, wrong: bool) -> None:
    made = [] if isinstance(before, Write) else [write("a1")]
    chain = [version(1), version(2, a="a1")]
    one_process_each = History([*made, before, read], {"s": chain}, one_process_each=True)
    assert ("older than version 2, which its gateway had shown" in "\n".join(violations(one_process_each))) == wrong
    several = replace(one_process_each, one_process_each=False)
    assert "which its gateway had shown" not in "\n".join(violations(several))
