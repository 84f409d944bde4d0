"""When memory is given back to the system."""

from __future__ import annotations

from pyrope.engine.free_memory import SettledWork


def asked(work: SettledWork, done: int, times: list[float]) -> list[float]:
    """The times at which the answer was yes."""
    return [now for now in times if work.ended(done, now)]


def test_nothing_is_given_back_before_there_was_any_work() -> None:
    assert not asked(SettledWork(), 0, [0.0, 100.0, 1000.0])


def test_once_work_has_ended_memory_is_given_back_once() -> None:
    work = SettledWork()
    assert asked(work, 7, [1.0, 1.25, 1.5, 1.75, 100.0]) == [1.5]


def test_work_that_undoes_all_is_work_too() -> None:
    work = SettledWork()
    assert not work.ended(7, 1.0)
    assert asked(work, 0, [1.25, 1.5, 1.75, 2.0]) == [1.75]


def test_while_work_goes_on_memory_is_given_back_once_a_minute() -> None:
    work = SettledWork()
    given = [now / 4 for now in range(4 * 150) if work.ended(now + 1, now / 4)]
    assert len(given) == 2
    assert 60 <= given[0] < 61
    assert 60 <= given[1] - given[0] < 61
