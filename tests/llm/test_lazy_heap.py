from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from pyrope.llm.lazy_heap import Entry, LazyHeap

steps = st.lists(st.tuples(st.sampled_from(["push", "kill", "pop"]), st.integers(0, 50)))


class Heap:
    """One whose living entries are known, and which dies by the hand of the test."""

    def __init__(self) -> None:
        self.living: set[int] = set()
        self.heap = LazyHeap(lambda entry: entry[1] in self.living)

    def push(self, entry: Entry) -> None:
        self.living.add(entry[1])
        self.heap.push(entry)

    def kill(self, number: int) -> None:
        self.living.discard(number)
        self.heap.bury()


@given(steps)
def test_the_first_is_the_lowest_of_those_that_are_alive(steps: list[tuple[str, int]]) -> None:
    tested = Heap()
    entries: dict[int, Entry] = {}
    for number, (what, value) in enumerate(steps):
        if what == "push":
            entries[number] = (float(value), number, None)
            tested.push(entries[number])
        elif entries:
            lowest = min(entries.values())[1]
            victim = lowest if what == "pop" else sorted(entries)[value % len(entries)]
            del entries[victim]
            tested.kill(victim)
        assert len(tested.heap) == len(entries)
        assert tested.heap.peek() == min(entries.values(), default=None)


def test_what_is_dead_takes_no_more_room_than_what_is_alive() -> None:
    tested = Heap()
    # The first one never dies, so that none of the others ever comes to the top.
    tested.push((0.0, 0, None))
    for number in range(1, 5000):
        tested.push((1.0, number, None))
        tested.kill(number)
    assert len(tested.heap) == 1
    assert len(tested.heap._entries) < 30
