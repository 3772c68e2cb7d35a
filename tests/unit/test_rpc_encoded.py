"""Answers that are kept encoded: the same bytes as ever."""

from __future__ import annotations

import pytest

from gateway.errors import NotRepresentable
from gateway.gen.emporix.sessioncontext.v1 import session_context_pb2 as pb
from gateway.model import decode_session_context
from gateway.rpc.convert import session_context_message
from gateway.rpc.encoded import EncodedAnswers
from gateway.sandbox import seed

SOURCE = seed.SESSIONS["acme", seed.CUSTOMER_SESSION]


@pytest.mark.parametrize("kind", [pb.GetSessionContextResponse, pb.GetOwnSessionContextResponse])
def test_an_answer_is_that_of_its_method_however_often(
    kind: type[pb.GetSessionContextResponse | pb.GetOwnSessionContextResponse],
) -> None:
    answers, context = EncodedAnswers(kind), decode_session_context(SOURCE)
    expected = kind(session_context=session_context_message(context))

    assert [kind.FromString(answers.of(context)) for _ in range(3)] == [expected] * 3
    assert answers.of(context) is answers.of(context)
    assert len(answers) == 1


def test_what_upstream_sends_again_unchanged_is_not_encoded_again() -> None:
    answers = EncodedAnswers(pb.GetSessionContextResponse)

    first, second, third = (answers.of(decode_session_context(bytes(bytearray(SOURCE)))) for _ in range(3))

    assert first == second
    assert third is second  # one that comes for the first time may be the last


def test_what_has_changed_in_any_way_has_its_own_answer() -> None:
    answers = EncodedAnswers(pb.GetSessionContextResponse)
    for currency in ("EUR", "EUR", "EUR", "USD", "USD", "EUR"):
        context = decode_session_context(SOURCE.replace(b'"EUR"', b'"%s"' % currency.encode()))
        answer = pb.GetSessionContextResponse.FromString(answers.of(context))
        assert answer.session_context.currency == currency


def test_what_no_message_can_carry_is_refused_each_time() -> None:
    answers = EncodedAnswers(pb.GetSessionContextResponse)
    context = decode_session_context(
        b'{"sessionId": "s", "context": {"n": 1%s}, "metadata": {"version": 1}}' % (b"0" * 400)
    )

    for _ in range(2):
        with pytest.raises(NotRepresentable):
            answers.of(context)
