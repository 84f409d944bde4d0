"""What is done and in what order, as time passes: a desk whose steps the test carries out."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis.exceptions import ConnectionError as ConnectionFailure

from pyrope.client import Lease, Recalled, RecallInfo
from pyrope.errors import BusyError
from pyrope.integrations import RememberOptions
from pyrope.integrations.desk import Close, Desk, Execute, Steps, Turn, Wait
from pyrope.integrations.questions import Question, question
from pyrope.testing.clock import ManualClock


class Flag:
    """Something to wait for."""

    def __init__(self) -> None:
        self.is_set = False

    def set(self) -> None:
        self.is_set = True


class Caller:
    """Who has asked, in a thread of its own, and does what it is told step by step."""

    def __init__(self, steps: Steps[Any]) -> None:
        self._steps = steps
        self._thread = ThreadPoolExecutor(1)
        self.result: Any = None
        self.step: Any = None
        self._go(lambda: next(steps))

    def tell(self, told: Any = None) -> Caller:
        self._go(lambda: self._steps.send(told))
        return self

    def fail(self, error: BaseException) -> Caller:
        self._go(lambda: self._steps.throw(error))
        return self

    def _go(self, on: Any) -> None:
        try:
            self.step = self._thread.submit(on).result()
        except StopIteration as end:
            self.step, self.result = None, end.value


def missed(lease: str | None = "token") -> Recalled:
    return found(None, lease)


def found(response: str | None, lease: str | None = None) -> Recalled:
    info = RecallInfo(
        id=None, match=None, prompt=None, score=None, estimated_error=None, threshold=None,
        max_error=None, guard=None, nearest=None, age_s=None, shadow=False, tokens_saved=0,
        cost_saved=0.0, lease=None if lease is None else Lease(lease), waited_s=0.0,
        request_id="", latency_us=0, more={},
    )  # fmt: skip
    return Recalled(None if response is None else response.encode(), info)


def asked(prompt: str = "a question") -> Question:
    one = question(prompt, "tests", None, {})
    assert one is not None
    return one


@pytest.fixture
def desk(clock: ManualClock) -> Desk[str]:
    """With two connections for those who have leases, ``c1`` and ``c2``; ``main`` is for others."""
    names = iter(["c1", "c2"])
    options = RememberOptions(lease_s=10, leases=2, pause_s=5)
    return Desk("answers", options, "main", lambda: next(names), Flag, clock.monotonic)


def ask(desk: Desk[str], prompt: str = "a question") -> Caller:
    return Caller(desk.ask(asked(prompt)))


def has_lease_word(step: Any) -> bool:
    return "LEASE" in step.request.words


def test_a_lease_stays_with_its_connection(desk: Desk[str]) -> None:
    caller = ask(desk)
    assert isinstance(caller.step, Execute)
    assert (caller.step.client, has_lease_word(caller.step)) == ("c1", True)
    turn: Turn[str] = caller.tell(missed()).result
    remembering = Caller(desk.remember(turn, "an answer", None))
    assert remembering.step.client == "c1"
    assert "token" in remembering.step.request.words
    assert [turn.is_over, remembering.tell("id").step, turn.is_over] == [False, None, True]
    # It is free again.
    assert ask(desk, "another").step.client == "c1"


def test_a_hit_keeps_no_connection(desk: Desk[str]) -> None:
    turn = ask(desk).tell(found("an answer")).result
    assert (turn.response, turn.is_over, turn.client) == ("an answer", True, None)


def test_who_wants_the_same_waits_and_looks_again(desk: Desk[str]) -> None:
    first = ask(desk)
    second = ask(desk)
    waits: Any = second.step
    assert (type(waits), waits.seconds) == (Wait, 10)
    turn = first.tell(missed()).result
    Caller(desk.remember(turn, "an answer", None)).tell("id")
    assert waits.event.is_set
    second.tell()
    assert (second.step.client, has_lease_word(second.step)) == ("main", False)
    assert second.tell(found("an answer")).result.response == "an answer"


def test_of_those_who_wait_one_is_next_when_nothing_came(desk: Desk[str]) -> None:
    first, second, third = ask(desk), ask(desk), ask(desk)
    turn = first.tell(missed()).result
    giving_up = Caller(desk.give_up(turn))
    assert (giving_up.step, giving_up.tell().step) == (Close("c1"), None)
    second.tell().tell(missed(None))
    assert has_lease_word(second.step)
    third.tell().tell(missed(None))
    assert isinstance(third.step, Wait)
    assert third.step.event is not turn.flight


def test_a_turn_whose_caller_does_not_come_back_ends_with_its_lease(
    desk: Desk[str], clock: ManualClock
) -> None:
    turn = ask(desk).tell(missed()).result
    clock.advance(9.9)
    assert isinstance(ask(desk).step, Wait)
    clock.advance(0.2)
    late = ask(desk)
    assert late.step == Close("c1")
    late.tell()
    assert turn.is_over
    assert late.step.client == "c1"


def test_who_has_waited_long_enough_asks_the_model(desk: Desk[str], clock: ManualClock) -> None:
    ask(desk).tell(missed())
    clock.advance(4)
    second = ask(desk)
    assert second.step.seconds == 6
    clock.advance(6)
    # The first one's time is up: it is the second one's turn.
    second.tell().tell(missed(None))
    assert has_lease_word(second.step)
    third = ask(desk)
    while isinstance(third.step, Close):
        third.tell()
    assert third.step.seconds == 10
    clock.advance(10)
    third.tell()
    assert third.tell(missed(None)).result.is_over


def test_more_callers_than_connections_ask_without_a_lease(desk: Desk[str]) -> None:
    for number in range(2):
        ask(desk, f"question {number}").tell(missed())
    third = ask(desk, "question 2")
    assert (third.step.client, has_lease_word(third.step)) == ("main", False)
    turn = third.tell(missed(None)).result
    assert not turn.is_over
    # Those here who want the same wait for it all the same.
    assert isinstance(ask(desk, "question 2").step, Wait)
    assert Caller(desk.remember(turn, "an answer", None)).step.client == "main"


def test_a_miss_without_a_lease_keeps_no_connection(desk: Desk[str]) -> None:
    turn = ask(desk).tell(missed(None)).result
    assert (turn.client, turn.is_over) == (None, False)


def test_after_a_failed_connection_the_server_is_left_alone_for_a_while(
    desk: Desk[str], clock: ManualClock
) -> None:
    turn = ask(desk).fail(ConnectionFailure("no route")).result
    assert (turn.response, turn.is_over) == (None, True)
    assert ask(desk).result.is_over
    assert Caller(desk.remember(turn, "an answer", None)).step is None
    clock.advance(5)
    assert isinstance(ask(desk).step, Execute)


def test_a_refusal_is_one_calls_matter(desk: Desk[str]) -> None:
    assert ask(desk).fail(BusyError("too many wait")).result.is_over
    turn = ask(desk).tell(missed()).result
    remembering = Caller(desk.remember(turn, "an answer", None)).fail(BusyError("shed"))
    assert remembering.step == Close("c1")
    remembering.tell()
    assert turn.is_over


def test_who_is_interrupted_gives_its_turn_up(desk: Desk[str]) -> None:
    first, second = ask(desk), ask(desk)
    with pytest.raises(KeyboardInterrupt):
        first.fail(KeyboardInterrupt()).tell()
    assert second.step.event.is_set


def test_an_empty_answer_is_not_remembered(desk: Desk[str]) -> None:
    turn = ask(desk).tell(missed()).result
    assert Caller(desk.remember(turn, "", None)).step == Close("c1")
