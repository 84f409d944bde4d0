from __future__ import annotations

from collections.abc import Sequence

from pyrope.semantic.remembered.entry import Body, Documents, Entry
from pyrope.service.remembered.dependencies import Dependencies
from pyrope.storage.store import PutSide


class Keeper:
    def __init__(self) -> None:
        self.told: list[tuple[str, list[int]]] = []

    def leaving(self, entries: Sequence[Entry]) -> list[PutSide]:
        self.told.append(("leaving", [entry.id for entry in entries]))
        return [PutSide(1, 3, entry.record_key, None) for entry in entries]

    def stays(self, entries: Sequence[Entry]) -> None:
        self.told.append(("stays", [entry.id for entry in entries]))

    def gone(self, entries: Sequence[Entry], *, durable: bool) -> None:
        name = "gone" if durable else "gone, not durably"
        self.told.append((name, [entry.id for entry in entries]))


def entry(number: int) -> Entry:
    return Entry(number, b"", b"p", b"", Body.of(b"r"), 1, 0, 0, 0.0, 0, 0, 0)


def test_a_change_ends_what_was_made_from_it_and_nothing_else() -> None:
    dependencies, keeper = Dependencies(), Keeper()
    for number, ids in enumerate([(b"a",), (b"a", b"b"), (b"c",)]):
        dependencies.tie(keeper, Documents(9, ids)).entry = entry(number)
    assert dependencies.consequences(9, [b"x"]) is None
    assert dependencies.consequences(8, [b"a"]) is None
    found = dependencies.consequences(9, [b"b", b"c"])
    assert found is not None
    assert {change.key[-1] for change in found.changes} == {1, 2}
    found.kept()
    assert [(name, set(ids)) for name, ids in keeper.told] == [
        ("leaving", {1, 2}),
        ("gone", {1, 2}),
    ]
    last = dependencies.consequences(9, [b"a", b"b"])
    assert last is not None
    assert [change.key[-1] for change in last.changes] == [0]


def test_a_change_that_is_refused_ends_nothing() -> None:
    dependencies, keeper = Dependencies(), Keeper()
    dependencies.tie(keeper, Documents(9, (b"a",))).entry = entry(1)
    found = dependencies.consequences(9, [b"a"])
    assert found is not None
    found.refused()
    assert [name for name, _ in keeper.told] == ["leaving", "stays"]
    assert dependencies.consequences(9, [b"a"]) is not None


def test_a_response_that_is_still_to_come_is_told() -> None:
    dependencies, keeper = Dependencies(), Keeper()
    tie = dependencies.tie(keeper, Documents(9, (b"a",)))
    found = dependencies.consequences(9, [b"a"])
    assert found is not None
    assert found.changes == []
    found.kept()
    assert tie.is_broken
    assert keeper.told == []


def test_with_an_index_goes_all_that_was_made_from_it() -> None:
    dependencies, keeper = Dependencies(), Keeper()
    for number, ids in enumerate([(b"a", b"b"), (b"c",)]):
        dependencies.tie(keeper, Documents(9, ids)).entry = entry(number)
    other = dependencies.tie(keeper, Documents(8, (b"a",)))
    other.entry = entry(7)
    found = dependencies.consequences_of_drop(9)
    assert found is not None
    assert len(found.changes) == 2
    found.kept(durable=False)
    assert keeper.told[-1][0] == "gone, not durably"
    assert dependencies.consequences_of_drop(9) is None
    dependencies.untie(other)
    dependencies.untie(other)
    assert dependencies.consequences_of_drop(8) is None
