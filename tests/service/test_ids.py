"""Which id sits in which slot."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pyrope.service.ids import IdMap


def encode(id_: bytes) -> bytes:
    return b"<" + id_ + b">"


def add(ids: IdMap, id_: bytes) -> int:
    slot = ids.allocate()
    left = ids.bind(id_, slot)
    if left is not None:
        ids.give_back([left])
    return slot


def test_an_update_moves_an_id_to_another_slot_and_frees_the_old_one() -> None:
    ids = IdMap(encode)
    first = add(ids, b"a")
    second = add(ids, b"a")
    assert first != second
    assert ids.slot(b"a") == second
    assert ids.encoded([first, second]) == [None, b"<a>"]
    assert ids.allocate() == first


def test_a_slot_that_is_given_back_is_given_out_again() -> None:
    ids = IdMap(encode)
    slot = ids.allocate()
    ids.give_back([slot])
    assert ids.allocate() == slot


def test_slots_in_reserve_are_not_given_out_until_there_are_enough_of_them() -> None:
    ids = IdMap(encode, reuse_above=0.5)
    for name in (b"a", b"b", b"c", b"d"):
        add(ids, name)
    freed = [ids.release(name) for name in (b"a", b"b")]
    ids.give_back(freed[:1])
    assert ids.allocate() == 4
    ids.give_back([*freed[1:]])
    assert ids.allocate() == freed[0]


def test_a_scan_finds_an_id_that_is_updated_behind_its_back() -> None:
    ids = IdMap(encode)
    for number in range(20):
        add(ids, b"%d" % number)
    ids.give_back([ids.release(b"0")])
    cursor, found = ids.scan(0, 10)
    for number in range(1, 20):
        add(ids, b"%d" % number)  # each moves, some to slots that were passed already
    while cursor:
        cursor, more = ids.scan(cursor, 3)
        found += more
    assert sorted(found, key=int) == [b"%d" % number for number in range(1, 20)]


def test_restoring_leaves_reserved_slots_alone_and_frees_the_gaps() -> None:
    ids = IdMap(encode)
    ids.restore([b"a", b"b"], [0, 5], reserved=[2])
    assert (ids.slot(b"a"), ids.slot(b"b")) == (0, 5)
    assert sorted(ids.allocate() for _ in range(4)) == [1, 3, 4, 6]


class IdMapMachine(RuleBasedStateMachine):
    """Against a dict from id to slot, and the set of slots in use."""

    def __init__(self) -> None:
        super().__init__()
        self.ids = IdMap(encode, reuse_above=0.25)
        self.model: dict[bytes, int] = {}

    names = st.sampled_from([b"%d" % number for number in range(8)])

    @rule(name=names)
    def put(self, name: bytes) -> None:
        slot = self.ids.allocate()
        assert slot not in self.model.values()
        left = self.ids.bind(name, slot)
        assert left == self.model.get(name)
        if left is not None:
            self.ids.give_back([left])
        self.model[name] = slot

    @rule(name=names)
    def remove(self, name: bytes) -> None:
        if name in self.model:
            slot = self.ids.release(name)
            assert slot == self.model.pop(name)
            self.ids.give_back([slot])

    @rule(count=st.integers(1, 5))
    def scan(self, count: int) -> None:
        found: list[bytes] = []
        cursor = 0
        while True:
            cursor, some = self.ids.scan(cursor, count)
            found += some
            if not cursor:
                break
        assert sorted(found) == sorted(self.model)

    @invariant()
    def agrees_with_the_model(self) -> None:
        assert len(self.ids) == len(self.model)
        for name, slot in self.model.items():
            assert self.ids.slot(name) == slot
            assert self.ids.encoded([slot]) == [encode(name)]
        bound = self.ids.bound_slots()
        assert set(bound.nonzero()[0].tolist()) == set(self.model.values())


TestIdMapMachine = IdMapMachine.TestCase


def test_memory_grows_with_ids_and_falls_when_they_go() -> None:
    ids = IdMap(lambda id_: b"$%d\r\n%b\r\n" % (len(id_), id_))
    empty = ids.memory_bytes
    names = [b"%0*d" % (length, length) for length in range(1, 700)]
    for name in names:
        ids.bind(name, ids.allocate())
    full = ids.memory_bytes
    # Each twice, with what an object of bytes has beside its content.
    assert full - empty > sum(2 * (len(name) + 32) for name in names)
    for name in names:
        ids.release(name)
    assert ids.memory_bytes < full - sum(2 * (len(name) + 32) for name in names)
