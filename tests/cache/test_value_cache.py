from __future__ import annotations

import gc
import tracemalloc
from random import Random

import pytest

from pyrope.cache.bounded_store import ENTRY_OVERHEAD
from pyrope.cache.stored import Gone, Refused
from pyrope.cache.value_cache import TTL_JITTER, Owner, ValueCache
from pyrope.testing.clock import ManualClock

MIB = 2**20


class Store:
    """A store with plenty of room, its clock, and what it said of entries that left."""

    def __init__(self, max_bytes: int = MIB, cheapest_saved: float = 0.0) -> None:
        self.clock = ManualClock()
        self.cache: ValueCache[str] = ValueCache(
            max_bytes, clock=self.clock, random=Random(5), cheapest_saved=cheapest_saved
        )
        self.gone: list[tuple[str, Gone]] = []

    def owner(self, tenant: str = "t", key: int = 1) -> Owner[str]:
        return self.cache.owner(
            tenant, key, lambda value, reason: self.gone.append((value, reason))
        )


def test_a_value_is_found_under_its_key_in_its_owner_only() -> None:
    store = Store()
    one, other = store.owner(key=1), store.owner(key=2)
    assert one.put("k", "value", 100, 1.0, None)
    assert one.get("k") == "value"
    assert other.get("k") is None
    assert (one.hits, one.misses, other.hits, other.misses) == (1, 0, 0, 1)


def test_peeking_is_not_counted() -> None:
    owner = Store().owner()
    owner.put("k", "value", 100, 1.0, None)
    assert (owner.peek("k"), owner.peek("other")) == ("value", None)
    assert (owner.hits, owner.misses) == (0, 0)


def test_bytes_are_what_the_caller_says_and_the_overhead_of_each_entry() -> None:
    store = Store()
    owner = store.owner()
    owner.put("a", "a", 100, 1.0, None)
    owner.put("b", "b", 0, 1.0, None)
    assert owner.nbytes == store.cache.nbytes == 100 + 2 * ENTRY_OVERHEAD
    assert store.cache.tenant_bytes("t") == owner.nbytes
    owner.discard("a", "invalidated")
    assert owner.nbytes == ENTRY_OVERHEAD


def test_the_overhead_is_what_an_entry_takes() -> None:
    count = 20_000
    cache: ValueCache[None] = ValueCache(2**40, clock=ManualClock(), random=Random(1))
    owner = cache.owner("t", 1)
    keys = [str(number) for number in range(count)]
    sizes = [10_000 + number for number in range(count)]
    gc.collect()
    tracemalloc.start()
    try:
        for key, nbytes in zip(keys, sizes, strict=True):
            owner.put(key, None, nbytes, float(nbytes), 3600.0)
        taken, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert 0.75 * ENTRY_OVERHEAD < taken / count < 1.25 * ENTRY_OVERHEAD


def test_a_value_put_again_takes_the_place_of_the_one_before() -> None:
    store = Store()
    owner = store.owner()
    owner.put("k", "old", 100, 1.0, None)
    owner.put("k", "new", 200, 1.0, None)
    assert owner.get("k") == "new"
    assert store.gone == [("old", Gone.REPLACED)]
    assert owner.nbytes == 200 + ENTRY_OVERHEAD


def test_a_value_that_is_refused_does_not_leave_the_one_before_in_its_place() -> None:
    store = Store()
    owner = store.owner()
    owner.put("k", "old", 100, 1.0, None)
    assert not owner.put("k", "new", 2 * MIB, 1.0, None)
    assert owner.get("k") is None
    assert store.gone == [("old", Gone.REPLACED)]


def test_what_a_hit_would_save_too_little_of_is_not_kept() -> None:
    owner = Store(cheapest_saved=50.0).owner()
    assert not owner.put("cheap", "value", 100, 49.9, None)
    assert owner.put("dear", "value", 100, 50.0, None)
    assert owner.statistics.refused == {Refused.CHEAP: 1, Refused.VALUE: 0, Refused.ROOM: 0}
    assert owner.statistics.admitted == 1


def test_a_store_without_bytes_keeps_nothing() -> None:
    owner = Store(max_bytes=0).owner()
    assert not owner.put("k", "value", 0, 1.0, None)
    assert owner.statistics.refused[Refused.ROOM] == 1


def test_an_entry_is_not_found_after_its_time_to_live() -> None:
    store = Store()
    owner = store.owner()
    owner.put("short", "short", 100, 1.0, 10.0)
    owner.put("ever", "ever", 100, 1.0, None)
    store.clock.advance(10 * (1 + TTL_JITTER))
    assert owner.peek("short") is None
    assert store.gone == [], "a peek changes nothing"
    assert owner.get("short") is None
    assert store.gone == [("short", Gone.TTL)]
    store.clock.advance(1e9)
    assert owner.get("ever") == "ever"


def test_times_to_live_are_spread_over_a_tenth_to_both_sides() -> None:
    store = Store()
    owner = store.owner()
    for key in range(500):
        owner.put(key, "value", 0, 1.0, 100.0)
    left = []
    for _ in range(22):
        left.append(sum(owner.peek(key) is not None for key in range(500)))
        store.clock.advance(89.0 if len(left) == 1 else 1.0)
    assert left[:2] == [500, 500]
    assert left[-1] > 0, "at 109 s some are left"
    store.clock.advance(1.0)
    assert sum(owner.peek(key) is not None for key in range(500)) == 0
    assert 200 < left[12] < 300, "at 100 s about half"


def test_an_entry_that_grows_is_counted_with_its_new_size() -> None:
    store = Store()
    owner = store.owner()
    owner.put("k", "value", 100, 1.0, None)
    assert owner.resize("k", 5000)
    assert store.cache.nbytes == owner.nbytes == 5000 + ENTRY_OVERHEAD
    assert owner.resize("k", 10)
    assert store.cache.nbytes == 10 + ENTRY_OVERHEAD
    assert not owner.resize("other", 10)


def test_an_entry_that_grows_drives_out_others_that_are_worth_less() -> None:
    store = Store(max_bytes=3 * (1000 + ENTRY_OVERHEAD))
    owner = store.owner()
    for key, saved in ("a", 1.0), ("b", 5.0), ("c", 50.0):
        owner.put(key, key, 1000, saved, None)
    assert owner.resize("c", 1500)
    assert store.gone == [("a", Gone.SIZE)]


def test_an_entry_that_grows_beyond_the_budget_goes() -> None:
    store = Store(max_bytes=3 * (1000 + ENTRY_OVERHEAD))
    owner = store.owner()
    owner.put("k", "value", 1000, 1.0, None)
    assert not owner.resize("k", 10_000)
    assert (len(owner), store.cache.nbytes) == (0, 0)
    assert store.gone == [("value", Gone.SIZE)]


def test_an_entry_that_grows_past_many_others_goes_rather_than_all_of_them() -> None:
    store = Store(max_bytes=2000 * (10 + ENTRY_OVERHEAD))
    owner = store.owner()
    owner.put("k", "value", 10, 1e9, None)
    for key in range(1999):
        owner.put(key, str(key), 10, 1.0, None)
    assert not owner.resize("k", 1000 * (10 + ENTRY_OVERHEAD))
    assert len(owner) > 1900
    assert store.cache.nbytes <= store.cache.max_bytes


@pytest.mark.parametrize("reason", [Gone.STALE, "invalidated"])
def test_an_entry_can_be_discarded_for_a_reason(reason: str) -> None:
    store = Store()
    owner = store.owner()
    owner.put("k", "value", 100, 1.0, None)
    assert owner.discard("k", reason)
    assert not owner.discard("k", reason)
    assert store.gone == [("value", Gone(reason))]
    assert owner.statistics.gone[Gone(reason)] == 1


def test_a_reason_nobody_knows_is_refused_and_nothing_goes() -> None:
    owner = Store().owner()
    owner.put("k", "value", 100, 1.0, None)
    with pytest.raises(ValueError, match="mood"):
        owner.discard("k", "mood")
    assert owner.get("k") == "value"


def test_keys_can_be_gone_through() -> None:
    owner = Store().owner()
    for key in "abc":
        owner.put(key, key, 100, 1.0, None)
    assert (sorted(owner), len(owner)) == (["a", "b", "c"], 3)  # type: ignore[type-var]  # strings


def test_what_was_cleared_is_not_found_and_counts_until_it_is_swept() -> None:
    store = Store()
    owner, other = store.owner(key=1), store.owner(key=2)
    for key in "abc":
        owner.put(key, key, 100, 1.0, None)
        other.put(key, key, 100, 1.0, None)
    owner.clear()
    assert (owner.get("a"), len(owner)) == (None, 0)
    assert owner.put("a", "after", 100, 1.0, None)
    assert owner.nbytes == 4 * (100 + ENTRY_OVERHEAD)
    assert store.cache.sweep(100) == 3
    assert sorted(store.gone) == [(key, Gone.CLEARED) for key in "abc"]
    assert owner.get("a") == "after"
    assert len(other) == 3
    assert owner.statistics.gone[Gone.CLEARED] == 3


def test_what_was_cleared_is_the_first_to_go_when_room_is_needed() -> None:
    store = Store(max_bytes=4 * (100 + ENTRY_OVERHEAD))
    owner = store.owner()
    for key in "abcd":
        owner.put(key, key, 100, 1000.0, None)
    owner.clear()
    for key in "efgh":
        assert owner.put(key, key, 100, 0.001, None)
    assert {reason for _, reason in store.gone} == {Gone.CLEARED}
    assert owner.statistics.gone[Gone.CLEARED] == 4
    assert store.cache.sweep(100) == 0


def test_a_closed_owner_finds_and_keeps_nothing() -> None:
    store = Store()
    owner = store.owner()
    owner.put("k", "value", 100, 1.0, None)
    owner.close()
    owner.close()
    assert owner.get("k") is None
    assert not owner.put("k", "value", 100, 1.0, None)
    assert store.cache.sweep(100) == 1
    assert (store.cache.nbytes, store.gone) == (0, [("value", Gone.CLEARED)])
    assert store.cache.statistics.tenants == 0


def test_tenants_that_come_and_go_leave_nothing_behind() -> None:
    store = Store()
    for number in range(10):
        owner = store.owner(f"tenant{number}")
        owner.put("k", "value", 100, 1.0, None)
        owner.close()
    for number in range(10):
        store.owner(f"empty{number}").close()
    store.cache.sweep(100)
    assert store.cache._store.whole.tenants == {}


def test_a_sweep_takes_what_expired_and_looks_at_so_many_entries_only() -> None:
    store = Store()
    owner = store.owner()
    for key in range(1000):
        owner.put(key, "value", 0, 1.0, 10.0 if key % 4 else None)
    assert store.cache.sweep(5000) == 0
    store.clock.advance(20)
    swept = [store.cache.sweep(100) for _ in range(12)]
    assert max(swept) <= 100
    assert sum(swept[:10]) == 750, "once round is enough"
    assert sum(swept[10:]) == 0
    assert len(owner) == 250
    assert owner.statistics.gone[Gone.TTL] == 750


def test_sweeps_find_what_expired_while_entries_come_and_go() -> None:
    store = Store()
    owner, random = store.owner(), Random(3)
    for key in range(600):
        owner.put(key, "mortal", 0, 1.0, 10.0)
    for key in range(600):
        owner.put(("ever", key), "ever", 0, 1.0, None)
    store.clock.advance(20)
    for turn in range(60):
        owner.discard(("ever", random.randrange(600)), "invalidated")
        owner.put(("ever", 1000 + turn), "ever", 0, 1.0, None)
        store.cache.sweep(22)
    assert not [key for key in owner if isinstance(key, int)]


def test_sweeps_free_what_was_cleared_a_few_at_a_time() -> None:
    store = Store()
    owner = store.owner()
    for key in range(500):
        owner.put(key, "value", 0, 1.0, None)
    owner.clear()
    assert [store.cache.sweep(200) for _ in range(4)] == [200, 200, 100, 0]


def test_sweeps_bring_a_lowered_budget_about_a_few_at_a_time() -> None:
    store = Store()
    owner = store.owner()
    for key in range(500):
        owner.put(key, "value", 0, 1.0, None)
    owner.max_bytes = 100 * ENTRY_OVERHEAD
    assert owner.max_bytes == 100 * ENTRY_OVERHEAD
    assert len(owner) == 500
    assert not owner.put("new", "value", 0, 1e9, None), "too many would have to go at once"
    assert 0 < store.cache.sweep(160) <= 10
    while store.cache.sweep(1000):
        pass
    assert len(owner) == 100
    assert owner.statistics.gone[Gone.INDEX] == 400


def test_every_budget_can_be_lowered() -> None:
    store = Store()
    owner = store.owner()
    for key in range(30):
        owner.put(key, "value", 0, 1.0, None)
    store.cache.set_tenant_max_bytes("t", 20 * ENTRY_OVERHEAD)
    assert store.cache.tenant_max_bytes("t") == 20 * ENTRY_OVERHEAD
    store.cache.sweep(1000)
    assert len(owner) == 20
    store.cache.max_bytes = 10 * ENTRY_OVERHEAD
    store.cache.sweep(1000)
    assert len(owner) == 10
    gone = owner.statistics.gone
    assert (gone[Gone.TENANT], gone[Gone.SIZE]) == (10, 10)


def test_a_budget_that_is_lifted_again_costs_nothing() -> None:
    store = Store()
    owner = store.owner()
    for key in range(30):
        owner.put(key, "value", 0, 1.0, None)
    owner.max_bytes = 0
    owner.max_bytes = None
    assert owner.max_bytes is None
    assert store.cache.sweep(1000) == 0


def test_a_tenants_budget_outlives_its_indexes() -> None:
    store = Store()
    store.cache.set_tenant_max_bytes("t", 1000)
    owner = store.owner("t")
    owner.close()
    assert store.cache.tenant_max_bytes("t") == 1000
    store.cache.set_tenant_max_bytes("t", None)
    assert store.cache.tenant_max_bytes("t") is None


@pytest.mark.parametrize(
    ("nbytes", "saved", "ttl_s"),
    [
        (-1, 1.0, None),
        (1, -0.1, None),
        (1, float("inf"), None),
        (1, float("nan"), None),
        (1, 1.0, 0.0),
        (1, 1.0, -5.0),
        (1, 1.0, float("nan")),
    ],
)
def test_an_entry_that_makes_no_sense_is_refused_aloud(
    nbytes: int, saved: float, ttl_s: float | None
) -> None:
    owner = Store().owner()
    with pytest.raises(ValueError, match="no entry has"):
        owner.put("k", "value", nbytes, saved, ttl_s)


def test_settings_that_make_no_sense_are_refused_aloud() -> None:
    store = Store()
    owner = store.owner()
    with pytest.raises(ValueError, match="bytes"):
        owner.max_bytes = -1
    with pytest.raises(ValueError, match="bytes"):
        owner.resize("k", -1)
    with pytest.raises(ValueError, match="bytes"):
        ValueCache(-1, clock=store.clock, random=Random(1))
    with pytest.raises(ValueError, match="share"):
        ValueCache(1, clock=store.clock, random=Random(1), guaranteed=1.5)
    with pytest.raises(ValueError, match="sweep"):
        store.cache.sweep(0)
