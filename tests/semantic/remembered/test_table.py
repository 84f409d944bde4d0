from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from pyrope.semantic.remembered.entry import Body, Entry, Stage, prompt_key
from pyrope.semantic.remembered.table import EntryTable


def entry(
    number: int, prompt: bytes = b"p", scope: bytes = b"", *, expires_ms: int = 0, cost: float = 1.0
) -> Entry:
    made = Entry(
        number, prompt_key(prompt), prompt, scope, Body.of(b"r"), 0, expires_ms, 0, cost, 0, 0, 0
    )
    made.stage = Stage.LIVE
    return made


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from([b"", b"a"]), st.sampled_from([0, 10, 20])),
        max_size=30,
    ),
    st.randoms(),
)
def test_it_holds_what_was_added_and_not_removed(
    made: list[tuple[int, bytes, int]], random: Random
) -> None:
    table = EntryTable(Random(1))
    there: list[Entry] = []
    for number, (prompt, scope, expires_ms) in enumerate(made):
        one = entry(number, b"%d" % prompt, scope, expires_ms=expires_ms)
        table.add(one)
        there.append(one)
        if random.random() < 0.4:
            gone = there.pop(random.randrange(len(there)))
            assert table.remove(gone)
            assert not table.remove(gone)
            assert gone.stage is Stage.GONE
    assert set(table) == set(there)
    assert len(table) == len(there)
    assert table.nbytes == sum(one.nbytes for one in there)
    assert {one.scope for one in table.partitions()} == {one.scope for one in there}
    for one in there:
        assert table.get(one.id) is one
        partition = table.partition(one.scope)
        assert partition is not None
        newest = max((o for o in there if (o.scope, o.key) == (one.scope, one.key)), key=_id)
        assert partition.newest[one.key] is newest
    expired = table.expired(15, 100)
    assert set(expired) == {one for one in there if one.expires_ms == 10}
    assert not table.expired(15, 100)


def _id(one: Entry) -> int:
    return one.id


def test_until_an_entry_is_durable_the_one_before_it_serves() -> None:
    table = EntryTable(Random(1))
    first, second = entry(1), entry(2)
    second.stage = Stage.PENDING
    table.add(first)
    table.add(second)
    partition = table.partition(b"")
    assert partition is not None
    assert partition.find(first.key, 0) is first
    second.stage = Stage.LIVE
    assert partition.find(first.key, 0) is second
    table.remove(first)
    assert partition.find(first.key, 0) is second


def test_an_expiry_that_was_put_off_is_not_told_before() -> None:
    table = EntryTable(Random(1))
    one = entry(1, expires_ms=10)
    table.add(one)
    one.expires_ms = 30
    assert not table.expired(20, 10)
    assert table.expired(30, 10) == [one]


def test_what_is_worth_least_goes_first() -> None:
    table = EntryTable(Random(1))
    entries = [entry(number, b"%d" % number, cost=10.0 + number) for number in range(8)]
    for one in entries:
        table.add(one)
    for one in entries[:4]:
        for _ in range(10):
            table.used(one)
    assert table.least() is entries[4]
    assert table.least(spared=entries[4]) is entries[5]
    entries[7].is_quarantined = True
    assert table.least() is entries[7]
    for one in entries:
        one.stage = Stage.PENDING
    assert table.least() is None


def test_uses_count_for_less_with_time() -> None:
    table = EntryTable(Random(1))
    old, new = entry(1, b"old"), entry(2, b"new")
    for one in (old, new):
        table.add(one)
    for _ in range(20):
        table.used(old)
    for _ in range(10_000):
        table.looked_up()
    for _ in range(5):
        table.used(new)
    assert table.worth(new) > table.worth(old)
    assert (old.hits, new.hits) == (20, 5)
