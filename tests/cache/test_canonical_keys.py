"""The map of aliases: what it resolves, what it refuses, and what has to go."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pyrope.cache.alias import Alias, AliasSource, Canonical
from pyrope.cache.canonical_keys import CanonicalKeyMap
from pyrope.cache.query_key import QueryKey, text_key, vector_key
from pyrope.config import AliasSettings
from pyrope.errors import CommandError
from pyrope.testing.clock import ManualClock

MANUAL, RULE, LLM = AliasSource.MANUAL, AliasSource.RULE, AliasSource.LLM


def key(text: str) -> QueryKey:
    return text_key(text.encode())


class Map(CanonicalKeyMap):
    """With words for what the tests do."""

    def __init__(self, clock: ManualClock, **bounds: Any) -> None:
        self.settings = AliasSettings(**bounds)
        self.clock = clock
        super().__init__(self.settings, clock)

    def set(
        self,
        alias: QueryKey | str,
        canonical: QueryKey | str,
        confidence: float = 1.0,
        source: AliasSource = LLM,
        seconds: float = 0,
    ) -> list[bytes]:
        alias = key(alias) if isinstance(alias, str) else alias
        canonical = key(canonical) if isinstance(canonical, str) else canonical
        now_ms = int(self.clock.wall() * 1000)
        expires = now_ms + int(1000 * seconds) if seconds else 0
        made = Alias(alias, Canonical(canonical, confidence, source), now_ms, expires)
        self.check(made)
        return self.put(made)

    def found(self, alias: QueryKey | str) -> bytes | None:
        alias = key(alias) if isinstance(alias, str) else alias
        canonical = self.resolve(alias)
        return None if canonical is None else canonical.key.content

    def listed(self) -> list[bytes]:
        cursor, listed = self.scan(0)
        while cursor:
            cursor, more = self.scan(cursor)
            listed += more
        return [alias.key.content for alias in listed]


def test_an_alias_leads_to_its_canonical_however_it_is_spelt(clock: ManualClock) -> None:
    names = Map(clock)
    names.set("How old is Berlin", "Age of Berlin", 0.95)
    assert names.found("HOW  OLD is berlin ") == b"Age of Berlin"
    assert names.found("how old is bern") is None
    found = names.resolve(key("how old is berlin"))
    assert found == Canonical(key("Age of Berlin"), 0.95, LLM)


def test_texts_and_vectors_stand_for_one_another_and_are_never_confused(clock: ManualClock) -> None:
    names = Map(clock)
    one, other = vector_key(b"aaaa"), vector_key(b"bbbb")
    names.set("aaaa", one)
    names.set(other, "cccc")
    assert names.found("aaaa") == b"aaaa"
    assert names.resolve(key("aaaa")) == Canonical(one, 1.0, LLM)
    assert names.found(other) == b"cccc"
    assert names.found(one) is None
    assert names.found("bbbb") is None


def test_an_alias_that_is_not_sure_enough_is_shown_and_not_followed(clock: ManualClock) -> None:
    names = Map(clock)
    names.set("a", "b", 0.89)
    assert names.found("a") is None
    alias = names.get(key("a"))
    assert alias is not None
    assert (alias.canonical.confidence, alias.hits) == (0.89, 0)
    names.settings.threshold = 0.89
    assert names.found("a") == b"b"


def test_a_hit_is_counted_and_a_look_is_not(clock: ManualClock) -> None:
    names = Map(clock)
    names.set("a", "b")
    for _ in range(3):
        names.found("A")
    alias = names.get(key("a"))
    assert alias is not None
    assert alias.hits == 3
    assert names.statistics().hits_total == 3


def test_an_alias_ends_when_its_time_is_over(clock: ManualClock) -> None:
    names = Map(clock)
    names.set("a", "b", seconds=10)
    clock.advance(9.999)
    assert names.found("a") == b"b"
    clock.advance(0.001)
    assert names.found("a") is None
    assert names.get(key("a")) is None
    assert names.listed() == []


# -- what is refused ------------------------------------------------------------------------------


def test_an_alias_of_itself_is_refused(clock: ManualClock) -> None:
    with pytest.raises(CommandError, match="cannot stand for itself: 'Berlin' and ' BERLIN'"):
        Map(clock).set("Berlin", " BERLIN")


def test_an_alias_of_an_alias_is_refused_and_the_error_says_what_to_name(
    clock: ManualClock,
) -> None:
    names = Map(clock)
    names.set("b", "C")
    with pytest.raises(CommandError, match="'B' is an alias itself, of 'C'"):
        names.set("a", "B")


def test_what_aliases_stand_for_cannot_become_one(clock: ManualClock) -> None:
    names = Map(clock)
    names.set("a", "b")
    names.set("c", "b")
    with pytest.raises(CommandError, match="'B' is a canonical itself, and has aliases: 2"):
        names.set("B", "d")
    with pytest.raises(CommandError, match="alias itself"):
        names.set("b", "a")  # a cycle


def test_keys_are_free_again_when_their_aliases_have_gone(clock: ManualClock) -> None:
    names = Map(clock)
    names.set("a", "b")
    names.set("a", "c")
    names.set("b", "d")  # nothing stands for b any more
    names.remove(key("b"))
    names.set("e", "b")
    assert names.found("e") == b"b"


def test_an_alias_that_has_expired_stands_in_nobodys_way(clock: ManualClock) -> None:
    names = Map(clock)
    names.set("a", "b", source=MANUAL, seconds=1)
    clock.advance(1)
    names.set("x", "a")
    names.sweep(10)
    names.set("b", "c")
    assert (names.found("x"), names.found("b")) == (b"a", b"c")


def test_what_was_set_by_hand_is_overwritten_by_hand_only(clock: ManualClock) -> None:
    names = Map(clock)
    names.set("a", "b", source=MANUAL)
    for source in (LLM, RULE):
        with pytest.raises(CommandError, match="'a' was set by hand"):
            names.set("a", "c", source=source)
    names.set("a", "d", source=MANUAL)
    assert names.found("a") == b"d"


@pytest.mark.parametrize("first", [LLM, RULE])
@pytest.mark.parametrize("second", [LLM, RULE, MANUAL])
def test_otherwise_the_last_write_wins(
    clock: ManualClock, first: AliasSource, second: AliasSource
) -> None:
    names = Map(clock)
    names.set("a", "b", source=first)
    names.set("A", "c", source=second)
    assert names.found("a") == b"c"
    assert len(names) == 1


def test_an_alias_that_is_larger_than_all_of_them_may_be_is_refused(clock: ManualClock) -> None:
    names = Map(clock, max_bytes=64 * 1024)
    with pytest.raises(CommandError, match=r"exceeds aliases\.max_bytes, which is 65536"):
        names.set("a", vector_key(bytes(65_536)))


# -- what has to go -------------------------------------------------------------------------------


def test_past_the_bound_the_least_lately_used_goes_whoever_set_it(clock: ManualClock) -> None:
    names = Map(clock, max_entries=3)
    names.set("a", "x", source=MANUAL)
    names.set("b", "x")
    names.set("c", "x")
    names.found("b")
    assert names.set("d", "x") == [key("a").identity]
    names.set("c", "y")
    assert names.set("e", "x") == [key("b").identity]
    assert sorted(names.listed()) == [b"c", b"d", b"e"]
    assert names.statistics().evicted_total == 2


def test_bytes_are_bounded_and_several_small_ones_go_for_a_large_one(clock: ManualClock) -> None:
    names = Map(clock, max_bytes=64 * 1024)
    for number in range(1000):
        names.set(f"alias {number}", "x")
        assert names.nbytes <= 64 * 1024
    held = len(names)
    gone = names.set("large", vector_key(bytes(32 * 1024)))
    assert len(gone) > 20
    assert len(names) == held + 1 - len(gone)
    assert names.nbytes <= 64 * 1024


def test_bounds_that_were_lowered_are_reached_by_sweeps(clock: ManualClock) -> None:
    names = Map(clock)
    for number in range(50):
        names.set(f"alias {number}", "x")
    names.settings.max_entries = 10
    assert names.sweep(15) == [key(f"alias {number}").identity for number in range(15)]
    assert len(names.sweep(100)) == 25
    assert names.sweep(100) == []
    assert sorted(names.listed()) == sorted(b"alias %d" % number for number in range(40, 50))


def test_a_sweep_takes_what_has_expired_in_bounded_steps(clock: ManualClock) -> None:
    names = Map(clock)
    for number in range(10):
        names.set(f"short {number}", "x", seconds=5)
        names.set(f"long {number}", "x", seconds=50)
        names.set(f"ever {number}", "x")
    clock.advance(5)
    assert [len(names.sweep(4)) for _ in range(4)] == [4, 4, 2, 0]
    assert len(names) == 20
    assert names.statistics().expired_total == 10
    clock.advance(45)
    assert len(names.sweep(100)) == 10
    assert all(content.startswith(b"ever") for content in names.listed())


def test_an_expiry_goes_with_the_alias_that_it_was_of(clock: ManualClock) -> None:
    names = Map(clock)
    for _ in range(3000):  # more than are kept track of beside the live ones
        names.set("a", "b", seconds=1)
    names.set("a", "b")
    names.set("c", "b", seconds=2)
    names.set("c", "b", seconds=1000)
    clock.advance(100)
    assert names.sweep(10_000) == []
    assert sorted(names.listed()) == [b"a", b"c"]


def test_everything_that_stays_is_listed_once_whatever_else_comes_and_goes(
    clock: ManualClock,
) -> None:
    names = Map(clock)
    for number in range(350):
        names.set(f"stays {number}", "x")
        names.set(f"goes {number}", "x")
    listed: list[bytes] = []
    cursor, step = 0, 0
    while step == 0 or cursor:
        cursor, page = names.scan(cursor)
        assert len(page) <= 100
        listed += [alias.key.content for alias in page]
        for number in range(step, 350, 7):
            names.remove(key(f"goes {number}"))
            names.set(f"new {number}", "x")
            names.set(f"stays {number}", "y")
            names.found(f"stays {(number * 31) % 350}")
        step += 1
    staying = [content for content in listed if content.startswith(b"stays")]
    assert sorted(staying) == sorted(b"stays %d" % number for number in range(350))


def test_a_page_of_large_aliases_is_short(clock: ManualClock) -> None:
    names = Map(clock)
    for number in range(20):
        names.set(f"alias {number}", vector_key(number.to_bytes(4, "little") * 50_000))
    cursor, page = names.scan(0)
    assert 1 <= len(page) <= 6
    assert cursor
    assert len(names.listed()) == 20


@pytest.mark.parametrize(
    ("make", "seconds"),
    [
        (lambda n: (key(f"what is the weather in city {n}"), key(f"weather city {n}")), 0),
        (lambda n: (key(f"what is the weather in city {n}"), key(f"weather city {n // 9}")), 9),
        (lambda n: (vector_key(n.to_bytes(4, "big") * 96), key(f"canonical {n}")), 9),
        (lambda n: (key(f"alias {n}"), vector_key(n.to_bytes(4, "big") * 384)), 0),
    ],
)
def test_the_bytes_counted_are_those_taken(
    clock: ManualClock, make: Callable[[int], tuple[QueryKey, QueryKey]], seconds: float
) -> None:
    names = Map(clock)
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(8000):
            alias, canonical = make(number)
            confidence = 0.5 + number / 20_000  # a number of its own, as real ones are
            names.set(alias, canonical, confidence, seconds=seconds and seconds + number)
        gc.collect()
        taken = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert 0.8 * taken <= names.nbytes <= 1.3 * taken
    for number in range(8000):
        names.remove(make(number)[0])
    assert names.nbytes == 0


# -- against a model ------------------------------------------------------------------------------

_NAMES = "abcdefg"
_KEYS = [key(name) for name in _NAMES[:4]] + [vector_key(name.encode()) for name in _NAMES[4:]]
# Another spelling: the same key, another content.
_SPELT = _KEYS + [key(f" {name.upper()}  ") for name in _NAMES[:4]]
_MAX = 4


class MapAgainstModel(RuleBasedStateMachine):
    """The model: a list of (alias, canonical, confidence, source, expiry), least used first."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock()
        self.names = Map(self.clock, max_entries=_MAX)
        self.model: list[tuple[QueryKey, QueryKey, float, AliasSource, float]] = []

    @initialize()
    def begin(self) -> None:
        self.names.set("a", "b")
        self.model = [(key("a"), key("b"), 1.0, LLM, float("inf"))]

    def live(self) -> dict[bytes, tuple[QueryKey, QueryKey, float, AliasSource, float]]:
        now = self.clock.wall()
        return {entry[0].identity: entry for entry in self.model if entry[4] > now}

    def may_set(self, alias: QueryKey, canonical: QueryKey, source: AliasSource) -> bool:
        live = self.live()
        named = {entry[1].identity for entry in live.values()}
        there = live.get(alias.identity)
        return (
            alias.identity != canonical.identity
            and canonical.identity not in live
            and alias.identity not in named
            and (source is MANUAL or there is None or there[3] is not MANUAL)
        )

    @rule(
        alias=st.sampled_from(_SPELT),
        canonical=st.sampled_from(_SPELT),
        confidence=st.sampled_from([0.5, 0.9, 1.0]),
        source=st.sampled_from(AliasSource),
        seconds=st.sampled_from([0, 0, 1, 3]),
    )
    def set(
        self,
        alias: QueryKey,
        canonical: QueryKey,
        confidence: float,
        source: AliasSource,
        seconds: int,
    ) -> None:
        self.sweep()
        try:
            gone = self.names.set(alias, canonical, confidence, source, seconds)
        except CommandError:
            assert not self.may_set(alias, canonical, source)
            return
        assert self.may_set(alias, canonical, source)
        self.model = [entry for entry in self.model if entry[0].identity != alias.identity]
        until = self.clock.wall() + seconds if seconds else float("inf")
        self.model.append((alias, canonical, confidence, source, until))
        assert gone == [entry[0].identity for entry in self.model[:-_MAX]]
        self.model = self.model[-_MAX:]

    @rule(alias=st.sampled_from(_SPELT))
    def resolve(self, alias: QueryKey) -> None:
        entry = self.live().get(alias.identity)
        if entry is None or entry[2] < 0.9:
            assert self.names.resolve(alias) is None
            return
        assert self.names.resolve(alias) == Canonical(entry[1], entry[2], entry[3])
        self.model.remove(entry)
        self.model.append(entry)

    @rule(alias=st.sampled_from(_SPELT))
    def remove(self, alias: QueryKey) -> None:
        self.names.remove(alias)
        self.model = [entry for entry in self.model if entry[0].identity != alias.identity]

    @rule(seconds=st.sampled_from([0.5, 1, 2]))
    def wait(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def sweep(self) -> None:
        live = self.live()
        gone = {entry[0].identity for entry in self.model} - set(live)
        assert set(self.names.sweep(100)) == gone
        self.model = [entry for entry in self.model if entry[0].identity in live]

    @invariant()
    def map_and_model_agree(self) -> None:
        live = self.live()
        for each in _KEYS:
            entry, alias = live.get(each.identity), self.names.get(each)
            if entry is None:
                assert alias is None
            else:
                assert alias is not None
                assert (alias.key, alias.canonical.key) == entry[:2]
        assert sorted(self.names.listed()) == sorted(entry[0].content for entry in live.values())
        assert len(self.names) == len(self.model)
        assert not set(live) & {entry[1].identity for entry in live.values()}

    @invariant()
    def bytes_are_those_of_what_is_there(self) -> None:
        fresh = Map(self.clock)
        for alias, canonical, confidence, source, until in self.model:
            expires = 0 if until == float("inf") else int(until * 1000)
            fresh.put(Alias(alias, Canonical(canonical, confidence, source), 0, expires))
        # Which spelling of a canonical is shared depends on who was first.
        assert abs(fresh.nbytes - self.names.nbytes) <= 150 * len(self.model)
        if not self.model:
            assert self.names.nbytes == 0


TestMapAgainstModel = MapAgainstModel.TestCase
TestMapAgainstModel.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


def audited(map_: Map, alias: str, canonical: str, *, alike: bool) -> bool:
    return map_.audited(key(alias), key(canonical), alike=alike)


def test_an_alias_that_leads_elsewhere_three_times_in_a_row_is_not_followed(
    clock: ManualClock,
) -> None:
    map_ = Map(clock)
    map_.set("a", "b", source=MANUAL)
    for alike in (False, False, True, False, False):
        assert map_.is_unaudited(key("a")) == (map_.get(key("a")).audits < 3)  # type: ignore[union-attr]
        assert not audited(map_, "a", "b", alike=alike)
        assert map_.found("a") == b"b"
    assert audited(map_, "a", "b", alike=False)
    assert map_.found("a") is None
    there = map_.get(key("a"))
    assert there is not None
    assert there.is_suspended
    assert there.canonical.source is MANUAL
    assert map_.listed() == [b"a"]


def test_a_suspended_alias_is_followed_again_when_it_is_set_again(clock: ManualClock) -> None:
    map_ = Map(clock)
    map_.set("a", "b")
    for _ in range(4):
        audited(map_, "a", "b", alike=False)
    assert map_.found("a") is None
    map_.set("a", "b")
    assert map_.found("a") == b"b"


def test_audits_of_what_an_alias_stood_for_before_do_not_count(clock: ManualClock) -> None:
    map_ = Map(clock)
    map_.set("a", "b")
    map_.set("a", "c")
    for _ in range(4):
        assert not audited(map_, "a", "b", alike=False)
        assert not audited(map_, "nobody", "b", alike=False)
    assert map_.found("a") == b"c"
    assert not map_.is_unaudited(key("nobody"))
