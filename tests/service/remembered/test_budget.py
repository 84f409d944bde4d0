from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, cast

import pytest

from pyrope.config import RememberSettings
from pyrope.semantic.remembered.entry import Entry
from pyrope.service.remembered.budget import RememberBudget

_MIB = 2**20


@dataclass(eq=False)
class Held:
    """Entries of a mebibyte each."""

    tenant: str
    budget: RememberBudget
    own_budget: int = 0
    entries: int = 0
    spared: list[Entry | None] = field(default_factory=list)

    @property
    def spec(self) -> Any:
        return self

    @property
    def entry_bytes(self) -> int:
        return self.entries * _MIB

    def add(self, count: int) -> None:
        for _ in range(count):
            self.entries += 1
            self.budget.changed(self, _MIB)
            self.budget.make_room(self)

    def evict(self, spared: Entry | None) -> bool:
        self.spared.append(spared)
        if not self.entries:
            return False
        self.entries -= 1
        self.budget.changed(self, -_MIB)
        return True


def budget(**settings: int) -> RememberBudget:
    return RememberBudget(RememberSettings(**cast("Any", settings)))


def test_an_index_keeps_to_its_own_budget() -> None:
    held = Held("a", budget(), own_budget=3 * _MIB)
    held.add(10)
    assert held.entries == 3
    assert held.budget.nbytes == held.budget.of_tenant("a") == 3 * _MIB
    assert held.budget.most(held) == 3 * _MIB


def test_of_a_tenant_the_index_loses_that_has_most() -> None:
    all_of = budget(tenant_bytes=10 * _MIB)
    large, small, others = Held("a", all_of), Held("a", all_of), Held("b", all_of)
    others.add(8)
    large.add(8)
    small.add(5)
    assert large.entries + small.entries == 10
    assert small.entries == 5
    assert others.entries == 8


def test_of_the_server_the_tenant_loses_that_has_most() -> None:
    all_of = budget(max_bytes=20 * _MIB)
    rich, poor = Held("a", all_of), Held("b", all_of)
    rich.add(20)
    poor.add(6)
    assert (rich.entries, poor.entries) == (14, 6)
    poor.add(30)
    assert rich.entries + poor.entries == 20
    assert abs(rich.entries - poor.entries) <= 1


def test_a_budget_that_was_lowered_is_kept_again_bit_by_bit() -> None:
    settings = RememberSettings(max_bytes=1000 * _MIB)
    held = Held("a", RememberBudget(settings))
    held.add(900)
    settings.max_bytes = 100 * _MIB
    rounds = 0
    while held.entries > 100:
        before = held.entries
        held.budget.make_room(held)
        assert before - held.entries <= 256
        rounds += 1
    assert rounds == 4


def test_who_has_nothing_is_not_looked_at() -> None:
    all_of = budget(max_bytes=2 * _MIB)
    held = Held("a", all_of)
    held.add(1)
    assert held.evict(None)
    assert all_of.nbytes == all_of.of_tenant("a") == 0
    all_of.make_room(held)
    assert held.spared == [None]


@pytest.mark.parametrize("own", [0, _MIB])
def test_the_smallest_budget_is_what_one_response_may_have(own: int) -> None:
    held = Held("a", budget(max_bytes=3 * _MIB, tenant_bytes=2 * _MIB), own_budget=own)
    assert held.budget.most(held) == (own or 2 * _MIB)
