"""Bytes that are kept of session contexts: within bounds, and no longer than these are there."""

from __future__ import annotations

from gateway.encoded import LARGEST, Encoded
from gateway.model import SessionContext, decode_session_context


def context(version: int = 1) -> SessionContext:
    return decode_session_context(b'{"sessionId": "s", "metadata": {"version": %d}}' % version)


def test_each_form_has_its_own() -> None:
    encoded, one, other = Encoded(), context(), context()
    encoded.put(one, 0, b"a")
    encoded.put(one, 1, b"b")

    assert [encoded.get(one, form) for form in (0, 1, 2)] == [b"a", b"b", None]
    assert encoded.get(other, 0) is None  # though it is equal


def test_the_newest_are_kept() -> None:
    encoded, contexts = Encoded(most=3), [context(n) for n in range(5)]
    for each in contexts:
        encoded.put(each, 0, b"x")

    assert len(encoded) == 3
    assert [encoded.get(each, 0) for each in contexts] == [None, None, b"x", b"x", b"x"]
    for form in range(20):
        encoded.put(contexts[4], form, b"%d" % form)
    assert [encoded.get(contexts[4], form) for form in (0, 11, 12, 19)] == [None, None, b"12", b"19"]
    contexts.clear()
    del each
    assert len(encoded) == 0


def test_all_forms_together_have_so_much_room() -> None:
    encoded, contexts = Encoded(room=100), [context(n) for n in range(4)]
    for each in contexts:
        encoded.put(each, 0, b"x" * 20)
        encoded.put(each, 0, b"x" * 30)  # which takes the place of the last
    assert [len(encoded.get(each, 0) or b"") for each in contexts] == [0, 30, 30, 30]

    for form in range(1, 40):  # of which eight are kept
        encoded.put(contexts[3], form, b"x")
    assert [len(encoded.get(each, 0) or b"") for each in contexts] == [0, 30, 30, 0]

    del contexts[1], each
    encoded.put(contexts[0], 0, b"x" * 62)  # 100 with the others
    assert [len(encoded.get(each, 0) or b"") for each in contexts[:2]] == [62, 30]
    encoded.put(contexts[0], 1, b"x")
    assert [len(encoded.get(each, 0) or b"") for each in contexts[:2]] == [62, 0]


def test_what_is_large_is_not_kept() -> None:
    encoded, one = Encoded(), context()
    encoded.put(one, 0, b"x" * LARGEST)
    encoded.put(one, 1, b"x" * (LARGEST + 1))

    assert encoded.get(one, 0) is not None
    assert encoded.get(one, 1) is None


def test_what_is_gone_leaves_nothing_to_its_successor() -> None:
    encoded, identities = Encoded(), set()
    for version in range(100):
        one = context(version)
        identities.add(id(one))
        assert encoded.get(one, 0) is None
        encoded.put(one, 0, b"%d" % version)
        del one

    assert len(identities) < 100, "no identity came twice: this shows nothing"
