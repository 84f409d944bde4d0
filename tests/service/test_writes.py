"""What a batch of writes will do, and the order in which it does."""

from __future__ import annotations

import asyncio

import numpy as np

from pyrope.service.ids import IdMap
from pyrope.service.writes import (
    Attributes,
    Condition,
    PutVectors,
    RemoveVectors,
    ReplaceAttributes,
    Stored,
    Write,
    WriteQueue,
    plan,
)


def future() -> asyncio.Future[int | None]:
    return asyncio.get_running_loop().create_future()


def put(*ids: bytes, condition: Condition = Condition.ALWAYS) -> PutVectors:
    vectors = np.zeros((len(ids), 2), np.float32)
    return PutVectors(ids, vectors, None, 0, condition, future())


def stored(**slots: int) -> Stored:
    ids = IdMap(lambda id_: id_)
    for name in slots:
        ids.bind(name.encode(), ids.allocate())
    return Stored(ids, {0: b'{"k": 1}'}, {}, 100)


async def test_a_batch_ends_before_a_write_that_names_an_id_again() -> None:
    queue = WriteQueue()
    for write in (put(b"a"), put(b"b", b"c"), RemoveVectors([b"b"], future()), put(b"d")):
        queue.add(write)
    assert [w.ids for w in queue.take(100, set())] == [(b"a",), (b"b", b"c")]
    assert [list(w.ids) for w in queue.take(100, set())] == [[b"b"], [b"d"]]
    assert queue.take(100, set()) == []


async def test_nothing_overtakes_a_write_that_waits_for_a_busy_id() -> None:
    queue = WriteQueue()
    queue.add(put(b"a"))
    queue.add(put(b"b"))
    assert queue.take(100, {b"a"}) == []
    assert len(queue.take(100, {b"z"})) == 2


async def test_a_batch_is_bounded_but_never_empty() -> None:
    queue = WriteQueue()
    for number in range(5):
        queue.add(put(b"%d-a" % number, b"%d-b" % number))
    assert len(queue.take(3, set())) == 2
    assert len(queue.take(1, set())) == 1


async def test_a_write_whose_client_has_gone_is_dropped() -> None:
    queue = WriteQueue()
    gone, stays = put(b"a"), put(b"a")
    queue.add(gone)
    queue.add(stays)
    gone.future.cancel()
    assert queue.take(100, set()) == [stays]


async def test_an_update_takes_a_new_slot_and_leaves_the_old_one() -> None:
    made = await plan([put(b"a", b"b")], stored(a=0))
    assert [(record.id, record.slot) for record in made.puts] == [(b"a", 1), (b"b", 2)]
    assert [record.sequence for record in made.puts] == [101, 102]
    assert made.left == [0]
    assert made.answers[0][1] == 1
    assert made.puts[0].attributes == b'{"k": 1}'


async def test_conditions_are_decided_against_the_settled_state() -> None:
    writes: list[Write] = [
        put(b"a", condition=Condition.IF_NEW),
        put(b"b", condition=Condition.IF_THERE),
        put(b"c", condition=Condition.IF_NEW),
    ]
    made = await plan(writes, stored(a=0))
    assert [answer for _, answer, _ in made.answers] == [None, None, 1]
    assert [record.id for record in made.puts] == [b"c"]


async def test_removals_and_attributes_of_ids_that_are_not_there_change_nothing() -> None:
    attributes = Attributes(b"{}", {})
    made = await plan(
        [RemoveVectors([b"x", b"x"], future()), ReplaceAttributes((b"y",), attributes, future())],
        stored(a=0),
    )
    assert not made.changes_anything
    assert [answer for _, answer, _ in made.answers] == [0, 0]


async def test_a_removed_id_is_counted_once() -> None:
    made = await plan([RemoveVectors([b"a", b"a"], future())], stored(a=0))
    assert made.removed == [b"a"]
    assert made.left == [0]
    assert made.answers[0][1] == 1
