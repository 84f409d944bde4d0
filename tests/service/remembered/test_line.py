from __future__ import annotations

import asyncio

from pyrope.service.remembered.line import Line


async def test_what_is_ready_waits_for_what_came_before() -> None:
    line, done = Line(), []
    first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    line.enter(first, lambda: done.append(1), lambda _: done.append(-1))
    line.enter(None, lambda: done.append(2), lambda _: done.append(-2))
    assert (done, len(line)) == ([], 2)
    first.set_result(None)
    await line.drain()
    assert (done, len(line)) == ([1, 2], 0)
    line.enter(None, lambda: done.append(3), lambda _: done.append(-3))
    assert done[-1] == 3


async def test_what_fails_or_is_given_up_lets_the_others_pass() -> None:
    line: Line = Line()
    done: list[object] = []
    failing: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    cancelled: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    line.enter(failing, lambda: done.append(1), done.append)
    line.enter(cancelled, lambda: done.append(2), done.append)
    line.enter(None, lambda: done.append(3), done.append)
    error = ValueError()
    cancelled.cancel()
    failing.set_exception(error)
    await line.drain()
    assert done[0] is error
    assert isinstance(done[1], asyncio.CancelledError)
    assert done[2] == 3


async def test_what_takes_longer_than_a_turn_is_waited_for() -> None:
    line: Line = Line()
    done: list[int] = []
    acting: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def act() -> asyncio.Future[None]:
        done.append(1)
        return acting

    line.enter(None, act, print)
    line.enter(None, lambda: done.append(2), print)
    assert (done, len(line)) == ([1], 2)
    drained = asyncio.ensure_future(line.drain())
    acting.set_result(None)
    await drained
    assert done == [1, 2]
