"""Answers that are encoded once: the same bytes as ever, and no longer than the session context is kept."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import pytest

from gateway.cache.freshness import CacheStatus
from gateway.cache.readthrough import Found
from gateway.errors import NotRepresentable
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2 as pb
from gateway.model import decode_session_context
from gateway.rpc.convert import session_context_message
from gateway.rpc.encoded import EncodedAnswers
from gateway.sandbox import seed

if TYPE_CHECKING:
    from gateway.model import SessionContext

SOURCE = seed.SESSIONS["acme", seed.CUSTOMER_SESSION]
HIT = CacheStatus(hit=True, ttl=1.0)
MISS = CacheStatus(fwd="miss", stored=True)


def context(source: bytes = SOURCE) -> SessionContext:
    """One of its own each time, as each decoding makes one."""
    return decode_session_context(source)


@pytest.mark.parametrize("kind", [pb.GetSessionContextResponse, pb.GetOwnSessionContextResponse])
def test_an_answer_is_that_of_its_method_however_often(
    kind: type[pb.GetSessionContextResponse | pb.GetOwnSessionContextResponse],
) -> None:
    answers, found = EncodedAnswers(kind), Found(context(), HIT)
    expected = kind(session_context=session_context_message(found.context))

    assert [kind.FromString(answers.of(found)) for _ in range(3)] == [expected] * 3
    assert answers.of(found) is answers.of(found)


def test_only_what_the_cache_answers_is_kept() -> None:
    answers = EncodedAnswers(pb.GetSessionContextResponse)
    one, other = context(), context()

    first = answers.of(Found(one, MISS))

    assert len(answers) == 0
    assert answers.of(Found(one, HIT)) == answers.of(Found(other, HIT)) == first
    assert len(answers) == 2


def test_an_answer_goes_with_its_session_context() -> None:
    answers = EncodedAnswers(pb.GetSessionContextResponse)
    kept, gone = context(), context()
    for each in (kept, gone):
        answers.of(Found(each, HIT))

    del gone, each

    assert len(answers) == 1
    assert answers.of(Found(kept, HIT)) == answers.of(Found(copy.copy(kept), MISS))


def test_a_new_session_context_in_the_place_of_one_that_is_gone_has_its_own_answer() -> None:
    answers = EncodedAnswers(pb.GetSessionContextResponse)
    identities = set()
    for version in range(100):
        found = Found(context(b'{"sessionId": "s", "metadata": {"version": %d}}' % version), HIT)
        identities.add(id(found.context))
        answer = pb.GetSessionContextResponse.FromString(answers.of(found))
        assert answer.session_context.metadata.version == version
        del found

    assert len(identities) < 100, "no identity came twice: this shows nothing"
    assert len(answers) == 0


def test_what_no_message_can_carry_is_refused_each_time() -> None:
    answers = EncodedAnswers(pb.GetSessionContextResponse)
    found = Found(context(b'{"sessionId": "s", "context": {"n": 1%s}, "metadata": {"version": 1}}' % (b"0" * 400)), HIT)

    for _ in range(2):
        with pytest.raises(NotRepresentable):
            answers.of(found)
    assert len(answers) == 0
