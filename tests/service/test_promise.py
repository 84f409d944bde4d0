"""Promises: futures whose listeners hear at once."""

from __future__ import annotations

import asyncio

import pytest

from pyrope.service.promise import Promise


def test_listeners_hear_at_once_in_order_and_once() -> None:
    promise: Promise[int] = Promise()
    heard: list[str] = []
    promise.add_done_callback(lambda p: heard.append(f"first {p.result()}"))
    promise.add_done_callback(lambda p: heard.append(f"second {p.result()}"))
    promise.set_result(7)
    assert heard == ["first 7", "second 7"]
    promise.add_done_callback(lambda p: heard.append(f"late {p.result()}"))
    assert heard[2:] == ["late 7"]


def test_there_is_only_one_outcome() -> None:
    promise: Promise[int] = Promise()
    promise.set_exception(ValueError("first"))
    with pytest.raises(asyncio.InvalidStateError):
        promise.set_result(1)
    assert not promise.cancel()
    assert not promise.cancelled()
    with pytest.raises(ValueError, match="first"):
        promise.result()


def test_cancelling_is_an_outcome_of_its_own() -> None:
    promise: Promise[int] = Promise()
    assert promise.cancel()
    assert promise.done()
    assert promise.cancelled()
    with pytest.raises(asyncio.CancelledError):
        promise.result()


async def test_it_can_be_awaited_before_and_after_the_outcome() -> None:
    promise: Promise[int] = Promise()
    asyncio.get_running_loop().call_soon(promise.set_result, 3)
    assert await promise == 3
    assert await promise == 3
    failing: Promise[int] = Promise()
    asyncio.get_running_loop().call_soon(failing.set_exception, KeyError("no"))
    with pytest.raises(KeyError):
        await failing


async def test_cancelling_whoever_waits_cancels_it() -> None:
    promise: Promise[int] = Promise()

    async def wait() -> int:
        return await promise

    waiting = asyncio.create_task(wait())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert promise.cancelled()


async def test_a_listener_that_fails_keeps_nothing_from_the_others() -> None:
    promise: Promise[int] = Promise()
    told: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: told.append(context))

    def fail(_: object) -> None:
        raise KeyError

    promise.add_done_callback(fail)
    promise.add_done_callback(lambda one: told.append(one.result()))
    promise.set_result(3)
    assert len(told) == 2
    assert told[1] == 3
