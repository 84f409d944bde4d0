"""When requests are sent again, with a clock that moves when it is told to."""

from __future__ import annotations

import contextlib
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.exceptions import ConnectionError as ConnectionFailure
from redis.exceptions import ResponseError

from pyrope.client.request import Request
from pyrope.client.retrying import Patience, RetryPolicy, Send, exchange
from pyrope.errors import BusyError, CommandError, LoadingError, QuotaError
from pyrope.testing.clock import ManualClock

BUSY = ResponseError("BUSY too much")
ERR = ResponseError("DIM wrong")


def read(name: str = "a", **options: Any) -> Request[str]:
    return Request((name,), str, **options)


class Script:
    """A server that answers as written, a line a time it is sent something."""

    def __init__(self, *answers: Any, each_s: float = 0.0) -> None:
        self.clock = ManualClock()
        self.answers = list(answers)
        self.each_s = each_s
        self.sent: list[list[Any]] = []
        self.waits: list[float] = []

    def run(self, requests: list[Request[str]], policy: RetryPolicy) -> list[str]:
        patience = Patience(policy, self.clock.monotonic, Random(7))
        steps = exchange(requests, patience)
        told: Any = None
        while True:
            try:
                step = steps.send(told)
            except StopIteration as end:
                results: list[str] = end.value
                return results
            if isinstance(step, Send):
                self.sent.append([request.words[0] for request in step.requests])
                self.clock.advance(self.each_s)
                told = self.answers.pop(0)
            else:
                self.waits.append(step.seconds)
                self.clock.advance(step.seconds)


def test_what_is_answered_is_sent_once_and_parsed() -> None:
    script = Script([3])
    assert script.run([read()], RetryPolicy()) == ["3"]
    assert script.waits == []


def test_only_what_was_refused_is_sent_again_and_results_keep_their_order() -> None:
    script = Script(["A", BUSY, "C", BUSY], [BUSY, "D"], ["B"])
    assert script.run([read(name) for name in "abcd"], RetryPolicy()) == list("ABCD")
    assert script.sent == [list("abcd"), list("bd"), ["b"]]


def test_the_hint_of_the_server_is_honoured_and_jitter_comes_on_top() -> None:
    script = Script([ResponseError("QUOTA retry in 400 ms")], ["A"])
    assert script.run([read()], RetryPolicy(first_s=0.05)) == ["A"]
    assert 0.4 <= script.waits[0] <= 0.45


def test_the_longest_hint_of_several_is_waited_for() -> None:
    script = Script(
        [ResponseError("QUOTA retry in 400 ms"), ResponseError("QUOTA retry in 900 ms")],
        ["A", "B"],
    )
    script.run([read("a"), read("b")], RetryPolicy(first_s=0.05))
    assert script.waits[0] >= 0.9


def test_attempts_are_bounded() -> None:
    script = Script([BUSY], [BUSY], [BUSY], ["never"])
    with pytest.raises(BusyError, match="too much"):
        script.run([read()], RetryPolicy(attempts=3))
    assert len(script.sent) == 3


def test_attempts_count_from_the_last_progress() -> None:
    script = Script(["A", BUSY, BUSY, BUSY], ["B", BUSY, BUSY], [BUSY, "D"], ["C"])
    assert script.run([read(name) for name in "abcd"], RetryPolicy(attempts=2)) == list("ABCD")
    script = Script(["A", BUSY], [BUSY], ["never"])
    with pytest.raises(BusyError):
        script.run([read("a"), read("b")], RetryPolicy(attempts=2))


def test_a_hint_beyond_the_total_time_is_not_waited_for() -> None:
    script = Script([ResponseError("QUOTA retry in 16 s")], ["never"])
    with pytest.raises(QuotaError) as refused:
        script.run([read()], RetryPolicy(total_s=15))
    assert refused.value.retry_after_s == 16.0
    assert script.waits == []


def test_time_spent_on_answers_counts() -> None:
    script = Script([BUSY], [BUSY], ["never"], each_s=4.0)
    with pytest.raises(BusyError):
        script.run([read()], RetryPolicy(total_s=7, first_s=0.01))
    assert len(script.sent) == 2


def test_a_request_with_a_deadline_is_given_up_earlier() -> None:
    script = Script([BUSY], ["never"], each_s=0.05)
    with pytest.raises(BusyError):
        script.run([read(deadline_s=0.04)], RetryPolicy())


def test_a_lasting_refusal_is_raised_at_once() -> None:
    script = Script(["A", ERR, BUSY], ["never"])
    with pytest.raises(Exception, match="wrong"):
        script.run([read(name) for name in "abc"], RetryPolicy())
    assert len(script.sent) == 1


def test_a_failed_connection_is_tried_again_for_what_is_repeatable_alone() -> None:
    gone = ConnectionFailure("gone")
    assert Script([gone], ["A"]).run([read()], RetryPolicy()) == ["A"]
    with pytest.raises(ConnectionFailure):
        Script([gone], ["never"]).run([read(repeatable=False)], RetryPolicy())


@given(
    st.integers(1, 8),
    st.floats(0, 1),
    st.floats(1, 5),
    st.floats(0, 20),
    st.lists(st.sampled_from(["QUOTA retry in 300 ms", "BUSY no", "LOADING wait", "ok"])),
)
def test_whatever_happens_attempts_and_time_are_bounded(
    attempts: int, first_s: float, longest_s: float, total_s: float, lines: list[str]
) -> None:
    policy = RetryPolicy(attempts, first_s, longest_s, total_s)
    answers = [[line if line == "ok" else ResponseError(line)] for line in lines] + [["ok"]]
    script = Script(*answers)
    with contextlib.suppress(QuotaError, BusyError, LoadingError):
        assert script.run([read()], policy) == ["ok"]
    assert len(script.sent) <= attempts
    assert sum(script.waits) <= total_s
    for number, wait in enumerate(script.waits):
        hint = 0.3 if lines[number].startswith("QUOTA") else 0.0
        assert hint <= wait <= hint + min(longest_s, first_s * 2**number)


def test_a_policy_that_makes_no_sense_is_refused() -> None:
    wrongs: tuple[dict[str, Any], ...] = (
        {"attempts": 0},
        {"first_s": 3, "longest_s": 2},
        {"first_s": -1},
        {"total_s": -1},
        {"total_s": float("nan")},
        {"longest_s": float("inf")},
    )
    for wrong in wrongs:
        with pytest.raises(ValueError, match=r"expected|attempt"):
            RetryPolicy(**wrong)


def test_backoff_does_not_overflow() -> None:
    assert 0 <= RetryPolicy().backoff_s(10**6, Random(1)) <= RetryPolicy().longest_s


def test_a_reply_that_is_an_error_of_syntax_is_a_command_error() -> None:
    script = Script([ResponseError("ERR bad", status_code=None)])
    with pytest.raises(CommandError, match="bad"):
        script.run([read()], RetryPolicy())
