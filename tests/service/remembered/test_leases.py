from __future__ import annotations

import asyncio

import numpy as np
import pytest

from pyrope.errors import BusyError, CommandError
from pyrope.service.remembered.leases import Holders, Lease, Leases, Outcome, Wanted
from pyrope.testing.clock import ManualClock
from pyrope.testing.timers import ManualTimers


class Bench:
    def __init__(self, most: int = 10) -> None:
        self.timers = ManualTimers(ManualClock())
        self.holders = Holders()
        self.leases = Leases(self.holders, self.timers, lambda: most)

    def take(self, prompt: bytes = b"p", client: int = 1, seconds: float = 10.0) -> Lease:
        return self.leases.take(wanted(prompt, client, seconds))

    def wait(
        self, lease: Lease, prompt: bytes = b"p", client: int = 2, seconds: float = 10.0
    ) -> asyncio.Future[Outcome]:
        return self.leases.wait(lease, wanted(prompt, client, seconds), seconds)


def wanted(prompt: bytes, client: int, seconds: float, scope: bytes = b"") -> Wanted:
    vector = np.zeros(4, np.float32)
    vector[prompt[0] % 4] = 1.0
    return Wanted(scope, prompt, prompt, vector, client, seconds)


async def test_who_waits_looks_again_when_the_response_is_there() -> None:
    bench = Bench()
    lease = bench.take()
    first, second = bench.wait(lease), bench.wait(lease, b"q", 3)
    bench.leases.remembered(b"", b"p")
    assert [await first, await second] == [Outcome.ANSWERED] * 2
    await bench.timers.settle()
    assert (len(bench.leases), bench.leases.waiting, bench.timers.pending) == (0, 0, 0)
    assert bench.leases.of_prompt(b"", b"p") is None


async def test_a_lease_whose_time_is_up_goes_to_who_has_waited_longest() -> None:
    bench = Bench()
    lease = bench.take(seconds=5)
    first, second = bench.wait(lease), bench.wait(lease, b"q", 3)
    await bench.timers.advance(5)
    assert first.result() is Outcome.HOLDER
    assert not second.done()
    following = bench.leases.of_prompt(b"", b"p")
    assert following is not None
    assert following.token != lease.token
    bench.leases.remembered(b"", b"p")
    assert second.result() is Outcome.ANSWERED
    assert (bench.leases.statistics.expired, bench.leases.statistics.granted) == (1, 2)


async def test_the_holders_death_frees_its_leases() -> None:
    bench = Bench()
    one, other = bench.take(b"p", client=7), bench.take(b"q", client=7)
    waiting = bench.wait(one)
    bench.holders.gone(7)
    assert await waiting is Outcome.HOLDER
    assert bench.leases.of_prompt(b"", b"q") is None
    assert bench.leases.of_prompt(b"", b"p") is not None
    bench.holders.gone(7)
    bench.holders.gone(2)
    await bench.timers.settle()
    assert (len(bench.leases), bench.timers.pending) == (0, 0)
    assert other.token != one.token


async def test_who_follows_with_another_prompt_has_a_lease_for_that() -> None:
    bench = Bench()
    lease = bench.take(b"p", client=1)
    near, third = bench.wait(lease, b"q", 2), bench.wait(lease, b"p", 3)
    bench.holders.gone(1)
    assert await near is Outcome.HOLDER
    assert bench.leases.of_prompt(b"", b"p") is None
    bench.leases.remembered(b"", b"q")
    assert await third is Outcome.ANSWERED


async def test_who_is_late_is_told_and_waits_no_more() -> None:
    bench = Bench()
    lease = bench.take()
    waiting = bench.wait(lease, seconds=1)
    await bench.timers.advance(1)
    assert waiting.result() is Outcome.LATE
    assert (bench.leases.waiting, len(bench.leases)) == (0, 1)


async def test_who_gives_up_is_no_holder() -> None:
    bench = Bench()
    lease = bench.take(client=1)
    first, second = bench.wait(lease, client=2), bench.wait(lease, client=3)
    first.cancel()
    await bench.timers.settle()
    assert bench.leases.waiting == 1
    bench.holders.gone(1)
    assert await second is Outcome.HOLDER


async def test_leases_and_those_who_wait_are_bounded() -> None:
    bench = Bench(most=2)
    lease = bench.take(b"a")
    bench.take(b"b")
    with pytest.raises(BusyError, match="2 leases are held"):
        bench.take(b"c")
    for _ in range(2):
        bench.wait(lease)
    with pytest.raises(BusyError, match="2 callers wait"):
        bench.wait(lease)
    assert bench.leases.statistics.shed == 2
    bench.leases.clear()


async def test_the_nearest_leases_of_a_scope_are_found() -> None:
    bench = Bench()
    here, there = bench.take(b"a"), bench.take(b"b")
    bench.leases.take(wanted(b"c", 1, 1.0, scope=b"other"))
    found = bench.leases.nearest(b"", there.wanted.vector, 2)
    assert [(lease, score) for lease, score in found] == [(there, 1.0), (here, 0.0)]
    assert bench.leases.nearest(b"none", there.wanted.vector, 2) == []
    bench.leases.clear()


async def test_a_token_is_of_its_prompt_and_scope() -> None:
    bench = Bench()
    token = bench.take(b"p").token
    bench.leases.check(token, b"", b"p")
    for scope, key in ((b"", b"q"), (b"s", b"p")):
        with pytest.raises(CommandError, match="another prompt"):
            bench.leases.check(token, scope, key)
    for wrong in (b"", b"x" * 32, token[:-1], token.upper() + b"A"):
        with pytest.raises(CommandError, match="token"):
            bench.leases.check(wrong, b"", b"p")
    bench.leases.remembered(b"", b"p")
    # It is over, and what comes by it as welcome as any.
    bench.leases.check(token, b"", b"q")
