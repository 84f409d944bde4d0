"""The gate: shared and exclusive access to one index."""

from __future__ import annotations

import asyncio

import pytest

from pyrope.engine.gate import Gate


class Readers:
    """Enters one reader each time the gate says that it is worth trying."""

    def __init__(self) -> None:
        self.gate = Gate(self.enter)
        self.waiting = 0
        self.inside = 0

    def enter(self) -> None:
        while self.waiting and self.gate.is_open:
            self.waiting -= 1
            self.inside += 1
            self.gate.enter_shared()

    def leave(self) -> None:
        self.inside -= 1
        self.gate.leave_shared()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_readers_enter_together() -> None:
    gate = Gate(lambda: None)
    gate.enter_shared()
    gate.enter_shared()
    assert gate.is_open


async def test_a_writer_waits_for_the_readers_inside_and_keeps_new_ones_out() -> None:
    gate = Gate(lambda: None)
    gate.enter_shared()
    writer = asyncio.create_task(gate.enter_exclusive())
    await settle()
    assert not writer.done()
    assert not gate.is_open
    with pytest.raises(RuntimeError, match="writer"):
        gate.enter_shared()
    gate.leave_shared()
    await writer
    assert not gate.is_open
    gate.leave_exclusive()
    assert gate.is_open


async def test_readers_get_a_turn_between_two_writers() -> None:
    readers = Readers()
    gate = readers.gate
    await gate.enter_exclusive()
    second = asyncio.create_task(gate.enter_exclusive())
    await settle()
    readers.waiting = 3
    gate.leave_exclusive()
    assert readers.inside == 3
    await settle()
    assert not second.done()
    for _ in range(3):
        readers.leave()
    await second
    gate.leave_exclusive()


async def test_writers_enter_in_the_order_in_which_they_came() -> None:
    gate = Gate(lambda: None)
    order: list[int] = []

    async def write(number: int) -> None:
        await gate.enter_exclusive()
        order.append(number)
        await settle()
        gate.leave_exclusive()

    await asyncio.gather(*(write(number) for number in range(4)))
    assert order == [0, 1, 2, 3]


async def test_a_cancelled_writer_passes_its_turn_on() -> None:
    gate = Gate(lambda: None)
    await gate.enter_exclusive()
    first = asyncio.create_task(gate.enter_exclusive())
    second = asyncio.create_task(gate.enter_exclusive())
    await settle()
    gate.leave_exclusive()  # the turn is first's, which has not run yet
    first.cancel()
    await settle()
    assert first.cancelled()
    await second
    gate.leave_exclusive()


async def test_cancelling_the_only_waiting_writer_lets_readers_in_again() -> None:
    readers = Readers()
    gate = readers.gate
    gate.enter_shared()
    writer = asyncio.create_task(gate.enter_exclusive())
    await settle()
    readers.waiting = 1
    readers.enter()
    assert readers.inside == 0
    writer.cancel()
    await settle()
    assert readers.inside == 1
