"""The last texts of sessions, within bounds."""

from __future__ import annotations

from pyrope.cache.asked_texts import ByteBudget
from pyrope.cache.query_key import QueryKey, text_key
from pyrope.cache.session_texts import SessionTexts


def made(budget: ByteBudget, sessions: int = 3, texts: int = 2) -> SessionTexts:
    return SessionTexts(max_sessions=sessions, max_texts=texts, budget=budget)


def contents(texts: tuple[QueryKey, ...]) -> list[bytes]:
    return [one.content for one in texts]


def test_the_last_texts_of_each_session_come_back_in_order() -> None:
    table = made(ByteBudget(10_000))
    table.follow(b"s", text_key(b"a"))
    table.follow(b"t", text_key(b"x"))
    assert contents(table.follow(b"s", text_key(b"b"))) == [b"a", b"b"]
    assert contents(table.follow(b"s", text_key(b"B"))) == [b"a", b"b"]
    assert contents(table.follow(b"s", text_key(b"c"))) == [b"b", b"c"]
    assert contents(table.follow(b"t", text_key(b"y"))) == [b"x", b"y"]


def test_the_session_goes_that_was_used_the_longest_time_ago() -> None:
    table = made(ByteBudget(10_000))
    for name in (b"r", b"s", b"t", b"r", b"u"):
        table.follow(name, text_key(b"a " + name))
    assert len(table) == 3
    assert contents(table.follow(b"s", text_key(b"b"))) == [b"b"]
    assert contents(table.follow(b"r", text_key(b"b"))) == [b"a r", b"b"]


def test_bytes_are_shared_bounded_and_given_back() -> None:
    budget = ByteBudget(2000)
    table = made(budget, sessions=100)
    for number in range(50):
        table.follow(b"s%d" % number, text_key(b"text %d" % number))
        assert 0 < budget.taken <= 2000
    assert 1 <= len(table) < 10
    # One that does not fit at all is answered, and not kept.
    assert contents(table.follow(b"large", text_key(b"x" * 4000))) == [b"x" * 4000]
    table.clear()
    assert (budget.taken, len(table)) == (0, 0)
