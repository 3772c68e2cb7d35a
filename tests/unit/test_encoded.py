"""Bytes that are kept of session contexts, by their documents: within bounds, and the newest."""

from __future__ import annotations

from gateway.encoded import LARGEST, Encoded
from gateway.model import SessionContext, decode_session_context

DOCUMENT = b'{"sessionId": "s", "metadata": {"version": %d}}'


def context(version: int = 1, padding: int = 0) -> SessionContext:
    """One of its own each time, as each decoding makes one."""
    return decode_session_context(DOCUMENT % version + b" " * padding)


SIZE = len(context().source)


def keep(encoded: Encoded, context: SessionContext, form: int, data: bytes) -> None:
    """Keep this, as of a document that has been there before."""
    encoded.recurs(context)
    encoded.put(context, form, data)


def test_what_has_not_been_there_before_is_not_kept() -> None:
    encoded = Encoded()
    encoded.put(context(), 0, b"a")

    assert encoded.get(context(), 0) is None
    assert [encoded.recurs(context()) for _ in range(3)] == [False, True, True]
    encoded.put(context(), 0, b"a")
    assert encoded.get(context(), 0) == b"a"
    assert not encoded.recurs(context(2))


def test_each_document_and_form_has_its_own() -> None:
    encoded = Encoded()
    keep(encoded, context(1), 0, b"a")
    keep(encoded, context(1), 1, b"b")
    keep(encoded, context(2), 0, b"c")

    assert [encoded.get(context(1), form) for form in (0, 1, 2)] == [b"a", b"b", None]
    assert [encoded.get(context(2), form) for form in (0, 1, 2)] == [b"c", None, None]
    assert encoded.get(context(1, padding=1), 0) is None
    assert len(encoded) == 2


def test_the_newest_are_kept() -> None:
    encoded, contexts = Encoded(most=3), [context(n) for n in range(5)]
    for each in contexts:
        keep(encoded, each, 0, b"x")

    assert len(encoded) == 3
    assert [encoded.get(each, 0) for each in contexts] == [None, None, b"x", b"x", b"x"]
    for form in range(20):
        keep(encoded, contexts[4], form, b"%d" % form)
    assert [encoded.get(contexts[4], form) for form in (0, 11, 12, 19)] == [None, None, b"12", b"19"]
    assert len(encoded) == 3


def test_all_documents_and_forms_together_have_so_much_room() -> None:
    encoded, contexts = Encoded(room=3 * SIZE + 100), [context(n) for n in range(4)]

    def kept() -> list[int]:
        return [len(encoded.get(each, 0) or b"") for each in contexts]

    for each in contexts[:3]:
        keep(encoded, each, 0, b"x" * 20)
        keep(encoded, each, 0, b"x" * 30)  # which takes the place of the last
    assert kept() == [30, 30, 30, 0]

    for form in range(1, 8):
        keep(encoded, contexts[2], form, b"x")
    for form in range(8, 11):  # for which 0, and then 1 and 2, are dropped
        keep(encoded, contexts[2], form, b"xx")
    assert kept() == [30, 30, 0, 0]

    keep(encoded, contexts[2], 11, b"x" * 30)  # 100 with the others
    assert kept() == [30, 30, 0, 0]
    keep(encoded, contexts[2], 12, b"xx")
    assert kept() == [0, 30, 0, 0]

    keep(encoded, contexts[3], 0, b"x" * 29)  # whose document takes the place of the first
    assert kept() == [0, 30, 0, 29]
    keep(encoded, contexts[3], 1, b"x" * 2)
    assert kept() == [0, 0, 0, 29]


def test_what_is_large_is_not_kept() -> None:
    encoded, one = Encoded(), context()
    large = [context(padding=LARGEST - SIZE + each) for each in (0, 1)]
    keep(encoded, one, 0, b"x" * LARGEST)
    keep(encoded, one, 1, b"x" * (LARGEST + 1))
    for each in large:
        keep(encoded, each, 0, b"x")

    assert [encoded.get(one, form) is None for form in (0, 1)] == [False, True]
    assert [encoded.get(each, 0) is None for each in large] == [False, True]
