"""Which entries go, seen through the store that they go from."""

from __future__ import annotations

from random import Random

from pyrope.cache.bounded_store import ENTRY_OVERHEAD
from pyrope.cache.eviction import MOST_VICTIMS, SAMPLE
from pyrope.cache.stored import Gone, Refused
from pyrope.cache.value_cache import Owner, ValueCache
from pyrope.testing.clock import ManualClock

SIZE = 1000
"""What an entry of these tests counts as."""
PAYLOAD = SIZE - ENTRY_OVERHEAD


def cache_of(entries: int, guaranteed: float = 0.5) -> ValueCache[str]:
    """A store with room for so many entries of the usual size."""
    return ValueCache(entries * SIZE, clock=ManualClock(), random=Random(1), guaranteed=guaranteed)


def put(owner: Owner[str], key: object, *, saved: float = 10, size: int = SIZE) -> bool:
    return owner.put(key, str(key), size - ENTRY_OVERHEAD, saved, None)


def fill(
    owner: Owner[str], count: int, *, uses: int = 0, prefix: str = "", saved: float = 10
) -> None:
    for number in range(count):
        assert put(owner, f"{prefix}{number}", saved=saved)
        for _ in range(uses):
            owner.get(f"{prefix}{number}")


def held(owner: Owner[str]) -> set[object]:
    return set(owner)


def test_what_fits_is_kept_whatever_it_is_worth() -> None:
    owner = cache_of(3).owner("t", 1)
    assert all(put(owner, key, saved=0) for key in "abc")
    assert held(owner) == set("abc")


def test_the_entry_that_goes_is_the_one_used_least() -> None:
    owner = cache_of(SAMPLE).owner("t", 1)
    fill(owner, SAMPLE, uses=4)
    owner.discard("7", "invalidated")
    put(owner, "idle")
    for _ in range(3):
        owner.get("new")
    assert put(owner, "new")
    assert "idle" not in held(owner)
    assert owner.statistics.gone[Gone.SIZE] == 1


def test_the_entry_that_goes_is_the_one_that_saves_least_by_the_byte() -> None:
    owner = cache_of(4).owner("t", 1)
    put(owner, "cheap", saved=5)
    put(owner, "large", saved=15, size=2 * SIZE)
    put(owner, "dear", saved=50)
    assert put(owner, "next", saved=30)
    assert held(owner) == {"large", "dear", "next"}
    assert put(owner, "last", saved=30)
    assert held(owner) == {"next", "dear", "last"}


def test_a_newcomer_that_is_worth_less_than_what_would_go_is_refused() -> None:
    owner = cache_of(4).owner("t", 1)
    fill(owner, 4, uses=9)
    before = held(owner)
    owner.get("new")
    assert not put(owner, "new")
    assert held(owner) == before
    assert owner.statistics.refused[Refused.VALUE] == 1


def test_a_newcomer_that_is_asked_for_again_and_again_is_admitted_in_the_end() -> None:
    owner = cache_of(4).owner("t", 1)
    fill(owner, 4, uses=9)
    for _ in range(8):
        assert owner.get("new") is None
        if put(owner, "new"):
            break
    assert owner.get("new") == "new"
    assert owner.misses == 6, "at twice its value, a sixth miss outweighs a put and nine uses"


def test_what_is_asked_for_once_does_not_drive_out_what_is_used() -> None:
    owner = cache_of(100).owner("t", 1)
    fill(owner, 100, uses=5)
    before = held(owner)
    for number in range(5000):
        owner.get(("once", number))
        put(owner, ("once", number))
    assert held(owner) == before


def test_uses_are_remembered_after_an_entry_has_gone() -> None:
    owner = cache_of(2).owner("t", 1)
    fill(owner, 2, uses=20)
    owner.discard("0", "stale")
    put(owner, "other")
    for _ in range(5):
        owner.get("other")
    assert put(owner, "0")
    assert held(owner) == {"0", "1"}


def test_stars_of_yesterday_go() -> None:
    cache = cache_of(50)
    owner = cache.owner("t", 1)
    fill(owner, 50, uses=200, prefix="old")
    for turn in range(60_000):
        key = turn % 50
        if owner.get(key) is None:
            put(owner, key)
        if turn % 100 == 0:
            owner.get(("never there", turn))
    assert cache.statistics.epoch == 6
    assert held(owner) == set(range(50))


def pass_epochs(cache: ValueCache[str], owner: Owner[str], count: int) -> None:
    """Ask for something else until all uses so far have been halved so often."""
    end = cache.statistics.epoch + count
    while cache.statistics.epoch < end:
        owner.get("never there")


def test_uses_of_long_ago_count_less_than_those_of_now() -> None:
    cache = cache_of(2)
    owner = cache.owner("t", 1)
    fill(owner, 1, uses=100, prefix="old")
    pass_epochs(cache, owner, 5)
    fill(owner, 1, uses=10, prefix="fresh")
    assert put(owner, "next", saved=100)
    assert held(owner) == {"fresh0", "next"}


def test_uses_of_now_count_in_full_for_an_entry_of_long_ago() -> None:
    cache = cache_of(2)
    owner = cache.owner("t", 1)
    fill(owner, 1, prefix="old")
    pass_epochs(cache, owner, 5)
    for _ in range(20):
        owner.get("old0")
    fill(owner, 1, uses=10, prefix="fresh")
    assert put(owner, "next", saved=200)
    assert held(owner) == {"old0", "next"}


def test_the_more_entries_are_held_the_longer_uses_are_remembered() -> None:
    cache = cache_of(4000)
    owner = cache.owner("t", 1)
    fill(owner, 3000)
    for turn in range(30_000):
        owner.get(("never there", turn))
    assert cache.statistics.epoch == 0


def test_expired_entries_go_first_and_count_as_expired() -> None:
    clock = ManualClock()
    cache: ValueCache[str] = ValueCache(3 * SIZE, clock=clock, random=Random(1))
    owner = cache.owner("t", 1)
    owner.put("short", "short", PAYLOAD, 1e6, ttl_s=1)
    put(owner, "a")
    put(owner, "b")
    clock.advance(2)
    assert put(owner, "c", saved=0.001)
    assert held(owner) == {"a", "b", "c"}
    assert owner.statistics.gone[Gone.TTL] == 1
    assert owner.statistics.gone[Gone.SIZE] == 0


def test_an_index_over_its_bytes_loses_its_own_entries() -> None:
    cache = cache_of(100)
    small, other = cache.owner("t", 1), cache.owner("t", 2)
    small.max_bytes = 3 * SIZE
    fill(other, 20, saved=0.001)
    fill(small, 3)
    assert put(small, "more", saved=100)
    assert (len(small), len(other)) == (3, 20)
    assert small.statistics.gone[Gone.INDEX] == 1


def test_a_tenant_over_its_bytes_loses_the_least_valuable_of_its_indexes() -> None:
    cache = cache_of(100)
    poor, rich, other = cache.owner("t", 1), cache.owner("t", 2), cache.owner("u", 1)
    cache.set_tenant_max_bytes("t", 6 * SIZE)
    fill(other, 20, saved=0.001)
    fill(poor, 3, saved=1)
    fill(rich, 3, saved=50)
    assert put(rich, "more", saved=50)
    assert (len(poor), len(rich), len(other)) == (2, 4, 20)
    assert poor.statistics.gone[Gone.TENANT] == 1


def test_entries_that_go_for_the_index_make_room_in_the_store_too() -> None:
    cache = cache_of(10)
    small, other = cache.owner("t", 1), cache.owner("t", 2)
    small.max_bytes = 5 * SIZE
    fill(small, 5, saved=1)
    fill(other, 5, saved=0.5)
    assert put(small, "large", saved=100, size=4 * SIZE)
    assert (len(small), len(other)) == (2, 5)


def test_a_newcomer_larger_than_a_budget_is_refused_and_nothing_goes() -> None:
    cache = cache_of(5)
    owner = cache.owner("t", 1)
    fill(owner, 5)
    assert not put(owner, "large", saved=0.001, size=6 * SIZE)
    owner.max_bytes = 2 * SIZE
    assert not put(owner, "large", saved=0.001, size=3 * SIZE)
    assert (len(owner), owner.statistics.refused[Refused.ROOM]) == (5, 2)


def test_no_more_entries_go_for_one_newcomer_than_a_few() -> None:
    cache = cache_of(1000)
    owner = cache.owner("t", 1)
    fill(owner, 1000, saved=0.001)
    assert put(owner, "fits", saved=1e9, size=MOST_VICTIMS * SIZE // 2)
    assert not put(owner, "large", saved=1e9, size=(MOST_VICTIMS + 1) * SIZE)
    assert len(owner) == 1000 - MOST_VICTIMS // 2 + 1


def test_a_tenant_within_its_part_loses_nothing_to_one_above() -> None:
    cache = cache_of(100)
    quiet, busy = cache.owner("quiet", 1), cache.owner("busy", 1)
    fill(quiet, 20, saved=0.001)
    for number in range(2000):
        busy.get(number % 300)
        put(busy, number % 300, saved=1000)
    assert (len(quiet), len(busy)) == (20, 80)


def test_a_tenant_above_its_part_loses_what_is_worth_less() -> None:
    cache = cache_of(100)
    idle, busy = cache.owner("idle", 1), cache.owner("busy", 1)
    fill(idle, 100, saved=0.001)
    fill(busy, 75, saved=1000)
    fill(busy, 200, prefix="more", saved=1000)
    assert (len(idle), len(busy)) == (25, 75), "half of the store, divided by two, is left"


def test_a_tenant_gets_its_part_from_others_whose_entries_are_worth_more() -> None:
    cache = cache_of(100)
    first, late = cache.owner("first", 1), cache.owner("late", 1)
    fill(first, 100, uses=50, saved=1000)
    for number in range(25):
        assert put(late, number, saved=0.001)
    assert (len(first), len(late)) == (75, 25)
    for number in range(200):
        put(late, ("more", number), saved=0.001)
    assert (len(first), len(late)) == (75, 25)


def test_a_newcomers_tenant_is_among_those_that_share_what_is_guaranteed() -> None:
    cache = cache_of(100)
    first, late = cache.owner("first", 1), cache.owner("late", 1)
    fill(first, 50, uses=50, saved=1000)
    fill(first, 50, uses=50, saved=1000, prefix="more")
    assert not put(late, "above", saved=0.001, size=26 * SIZE)
    assert put(late, "within", saved=0.001, size=25 * SIZE)
    assert len(first) == 75


def test_no_tenant_falls_below_its_part_for_one_large_newcomer() -> None:
    cache = cache_of(100)
    poor, rich, late = (cache.owner(name, 1) for name in ("poor", "rich", "late"))
    fill(poor, 18, saved=0.001)
    fill(rich, 82, saved=1000)
    assert put(late, "large", saved=1.0, size=16 * SIZE)
    assert (len(poor), len(rich)) == (16, 68)


def test_many_tenants_within_their_parts_are_spared_and_the_one_above_pays() -> None:
    cache = cache_of(1000, guaranteed=1.0)
    small = [cache.owner(f"t{number}", 1) for number in range(990)]
    for owner in small:
        assert put(owner, "only", saved=0.001)
    large = cache.owner("large", 1)
    fill(large, 10, saved=1000)
    for number in range(20):
        put(large, ("more", number), saved=2000)
    assert all(len(owner) == 1 for owner in small)
    assert len(large) == 10
    assert sum(isinstance(key, tuple) for key in large) == 10


def test_without_a_guarantee_everything_goes_to_what_is_worth_most() -> None:
    cache = cache_of(20, guaranteed=0.0)
    poor, rich = cache.owner("poor", 1), cache.owner("rich", 1)
    fill(poor, 20, saved=0.001)
    fill(rich, 200, saved=1000)
    assert len(poor) == 0
