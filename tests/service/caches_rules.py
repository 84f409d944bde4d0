"""What the machines of `test_caches_state_machine` may do, and what always holds."""

from __future__ import annotations

from dataclasses import replace

import hiredis
import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from plain_index import FILTERS, Asked
from pyrope.cache.bounded_store import ENTRY_OVERHEAD
from service.caches_commands import (
    FIELDS,
    NAME,
    NEARS,
    QUERIES,
    TEXTS,
    TWINS,
    VECTORS,
    AliasKey,
    Beginning,
    Change,
    Describe,
    Overlap,
    Put,
    Remove,
    Wish,
    Write,
    as_given,
    asks,
    beginnings,
    changes,
    counts,
    epsilons,
    ids,
    keys,
    lifetimes,
    normal,
    normal_key,
    nudges,
    overlaps,
    plain_wishes,
    queries,
    vectors,
    wishes,
    writes,
)
from service.caches_overlaps import CachesAtOnce
from service.caches_world import Alias


class CachesAgainstDictionary(CachesAtOnce):
    @initialize(beginning=beginnings)
    def begin(self, beginning: Beginning) -> None:
        self.begin_with(beginning)

    # -- writing ----------------------------------------------------------------------------------

    @rule(write=writes)
    def write(self, write: Write) -> None:
        self.carry_out(write)

    @rule(id_=ids, vector=vectors, again=vectors)
    def delete_and_add_again(self, id_: bytes, vector: bytes, again: bytes) -> None:
        """Often into the slot that has just become free."""
        for write in (Put((id_,), (vector,), None), Remove((id_,)), Put((id_,), (again,), None)):
            self.carry_out(write)

    @rule(seconds=st.sampled_from([1, 6, 31, 90, 500, 9000]))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)

    # -- searching --------------------------------------------------------------------------------

    @rule(asked=asks(), wish=wishes)
    def search(self, asked: Asked, wish: Wish) -> None:
        self.search_and_judge(asked, wish)

    @rule(asked=asks(), counts=st.lists(counts, max_size=2), epsilon=epsilons, wish=plain_wishes)
    def search_for_more_or_less(
        self, asked: Asked, counts: list[int], epsilon: float | None, wish: Wish
    ) -> None:
        self.search_twice_and_judge(asked, wish)
        for count in counts:
            self.search_twice_and_judge(replace(asked, count=count), wish)
        self.search_and_judge(replace(asked, epsilon=epsilon), wish)

    @precondition(lambda self: self.recent)
    @rule(back=st.integers(0, 3), wish=wishes)
    def search_again(self, back: int, wish: Wish) -> None:
        self.search_and_judge(self.recent[-1 - back % len(self.recent)], wish)

    @rule(
        asked=asks(),
        steps=st.lists(st.tuples(nudges, st.none() | writes), min_size=1, max_size=3),
        wish=wishes,
        near=st.sampled_from(NEARS),
    )
    def search_nearby(
        self,
        asked: Asked,
        steps: list[tuple[bytes, Write | None]],
        wish: Wish,
        near: tuple[float, bytes],
    ) -> None:
        """What is kept around one query may serve others, whatever is written."""
        wish = replace(wish, near=near, mode=b"AUTO", info=True)
        self.search_and_judge(asked, wish)
        at = np.frombuffer(asked.query, "<f4")
        for nudge, write in steps:
            at = at + np.frombuffer(nudge, "<f4")
            self.search_and_judge(replace(asked, query=at.tobytes()), wish)
            if write is not None:
                self.carry_out(write)

    @precondition(lambda self: self.recent)
    @rule(back=st.integers(0, 3), write=writes, wish=plain_wishes)
    def search_write_search(self, back: int, write: Write, wish: Wish) -> None:
        asked = self.recent[-1 - back % len(self.recent)]
        self.search_twice_and_judge(asked, wish)
        self.carry_out(write)
        self.search_and_judge(asked, wish)

    @precondition(lambda self: self.model.stored)
    @rule(asked=asks(), wish=plain_wishes, changes=st.lists(changes(), min_size=1, max_size=3))
    def search_change_search(self, asked: Asked, wish: Wish, changes: list[Change]) -> None:
        """Something happens to those that are found, and more comes where they are."""
        self.search_twice_and_judge(asked, wish)
        for change in changes:
            self.expire()
            nearest = self.nearest(asked)
            if not nearest:
                return
            id_ = nearest[change.rank % len(nearest)]
            here = self.model.stored[id_].vector.astype("<f4").tobytes()
            if change.how == "expire":
                self.carry_out(Put((id_,), (here,), None, 5))
                self.search_and_judge(asked, wish)
                self.clock.advance(6)
            elif change.how == "outlive":
                self.clock.advance(9000)
            elif change.how == "remove":
                self.carry_out(Remove((id_,)))
            elif change.how == "move":
                self.carry_out(Put((id_,), (change.vector,), None))
            elif change.how == "describe":
                asked = replace(asked, filter=asked.filter or next(iter(FILTERS)))
                self.search_twice_and_judge(asked, wish)
                self.carry_out(Describe(id_, change.attributes))
            else:
                if change.how == "crowd":
                    self.carry_out(Put(TWINS, (here,) * len(TWINS), change.attributes))
                    self.search_and_judge(asked, wish)
                # To another slot, behind its equals.
                self.carry_out(Put(TWINS[:1], (here,), change.attributes))
            if not change.quiet:
                self.search_twice_and_judge(asked, wish)
        self.search_and_judge(asked, wish)

    @precondition(lambda self: self.model.stored)
    @rule(asked=asks(), id_=ids, wish=plain_wishes, vector=vectors)
    def search_by_id(self, asked: Asked, id_: bytes, wish: Wish, vector: bytes) -> None:
        """The vector under an id, and the one that it has after that."""
        self.carry_out(Put((id_,), (vector,), None))
        for _ in range(2):
            at = self.model.stored[id_].vector.astype("<f4").tobytes()
            self.search_twice_and_judge(replace(asked, query=at), wish, named=id_)
            self.carry_out(Put((id_,), (asked.query,), None))

    # -- several at once --------------------------------------------------------------------------

    @rule(
        some=st.lists(st.tuples(asks(), wishes), min_size=2, max_size=4),
        same=st.booleans(),
        write=st.none() | writes,
        overlap=overlaps,
    )
    def search_at_once(
        self,
        some: list[tuple[Asked, Wish]],
        same: bool,  # noqa: FBT001 - drawn
        write: Write | None,
        overlap: Overlap,
    ) -> None:
        """Searches, with a write among them: each is answered as of before or after it.

        Args:
            same: whether all ask for the same, in as many as they want.
        """
        self.expire()
        if same:
            some = [(replace(some[0][0], count=asked.count), wish) for asked, wish in some]
        if overlap.close is not None:
            write = self.write_close_to(some[0][0], overlap.close) or write
        self.run(self.searched_at_once(some, write, overlap))
        for asked, _ in some[:2]:
            self.search_and_judge(asked, Wish())

    @rule(
        asked=asks(),
        wishes=st.lists(plain_wishes, min_size=2, max_size=3),
        turns=st.sampled_from([0, 0, 1]),
        many=st.booleans(),
        close=st.sampled_from(["add", "remove"]),
    )
    def write_under_a_search(
        self,
        asked: Asked,
        wishes: list[Wish],
        turns: int,
        many: bool,  # noqa: FBT001 - drawn
        close: str,
    ) -> None:
        """What is found is out of date when it is told, and others have come to wait for it."""
        asked = replace(asked, filter=None)
        overlap = Overlap(0, False, True, turns, many, None, close)  # noqa: FBT003 - a tuple
        self.search_at_once([(asked, wish) for wish in wishes], False, None, overlap)  # noqa: FBT003

    @rule(
        some=st.lists(queries, min_size=1, max_size=3),
        asked=asks(),
        wish=wishes.map(lambda wish: replace(wish, text=None, session=None)),
    )
    def search_many(self, some: list[bytes], asked: Asked, wish: Wish) -> None:
        """MSEARCH: one answer for each query."""
        self.expire()
        words = (b"FP32", b"".join(some), *asked.words[2:], *wish.words)
        outcome = self.call(b"VECTOR.MSEARCH", NAME, *words, protocol=wish.protocol)
        self.searched = self.counted()
        asks_of = [replace(asked, query=query) for query in some]
        if isinstance(outcome, hiredis.ReplyError):
            assert wish.mode == b"ONLY", outcome
        else:
            for one, found in zip(asks_of, outcome, strict=True):
                self.judge_one_of_several(one, wish, found, (self.model,))
        for one in asks_of:
            self.has_asked(one, wish, level="miss")

    @rule(asked=asks(), second=queries, session=st.sampled_from([b"s", b"t"]))
    def converse(self, asked: Asked, second: bytes, session: bytes) -> None:
        """One query leads to another, until the other is foreseen."""
        wish, then = Wish(session=session, info=True), replace(asked, query=second)
        for _ in range(5):
            self.search_and_judge(asked, wish)
            self.search_and_judge(then, wish)
        self.flush()
        self.search_and_judge(asked, wish)
        self.search_and_judge(then, replace(wish, session=None))

    # -- aliases ----------------------------------------------------------------------------------

    @rule(
        key=keys,
        canonical=keys,
        confidence=st.sampled_from([0.5, 1.0, 1.0]),
        lifetime=lifetimes,
    )
    def set_alias(
        self,
        key: AliasKey,
        canonical: AliasKey,
        confidence: float,
        lifetime: int | None,
    ) -> None:
        self.expire()
        words = [*as_given(key), *as_given(canonical), b"CONFIDENCE", b"%g" % confidence]
        if lifetime is not None:
            words += [b"EX", b"%d" % lifetime]
        reply = self.call(b"VECTOR.ALIAS", b"SET", NAME, *words)
        key, canonical = normal_key(key), normal_key(canonical)
        named = {alias.canonical for alias in self.aliases.values()}
        if key == canonical or canonical in self.aliases or key in named:
            assert isinstance(reply, hiredis.ReplyError), reply
            return
        assert reply == b"OK", reply
        at_ms = float("inf") if lifetime is None else self.now_ms() + 1000 * lifetime
        self.aliases[key] = Alias(canonical, confidence, at_ms)

    @rule(key=keys)
    def remove_alias(self, key: AliasKey) -> None:
        self.expire()
        reply = self.call(b"VECTOR.ALIAS", b"DEL", NAME, *as_given(key))
        assert reply == int(self.aliases.pop(normal_key(key), None) is not None)

    def look_at_aliases(self) -> None:
        self.expire()
        for given in [*((True, text) for text in TEXTS), *((False, query) for query in QUERIES)]:
            alias = self.aliases.get(normal_key(given))
            found = self.call(b"VECTOR.ALIAS", b"GET", NAME, *as_given(given), protocol=3)
            if alias is None:
                assert found is None
                continue
            shown = found[b"canonical"]
            is_text = isinstance(shown, bytes)
            assert (is_text, normal(shown) if is_text else shown[1]) == alias.canonical
            assert float(found[b"confidence"]) == alias.confidence

    @rule(
        asked=asks(),
        other=asks(),
        key=keys,
        same=st.booleans(),
        confidence=st.sampled_from([0.5, 1.0, 1.0]),
        lifetime=st.sampled_from([None, 5]),
        wish=wishes,
    )
    def search_by_alias(
        self,
        asked: Asked,
        other: Asked,
        key: AliasKey,
        same: bool,  # noqa: FBT001 - drawn
        confidence: float,
        lifetime: int | None,
        wish: Wish,
    ) -> None:
        """By another name of a query that has been asked, while that stands for it and after."""
        text = TEXTS[-1]
        wish = replace(wish, mode=b"AUTO", text=None)
        other = replace(asked, query=other.query) if same else other
        is_text, content = key
        canonical = (True, text) if is_text else (False, asked.query)
        self.set_alias(key, canonical, confidence, lifetime)
        self.search_and_judge(asked, replace(wish, text=text))
        for _ in range(2):
            if is_text:
                self.search_and_judge(other, replace(wish, text=content))
            else:
                self.search_and_judge(replace(other, query=content), wish)
            self.clock.advance(6)

    # -- managing ---------------------------------------------------------------------------------

    @rule(
        what=st.sampled_from(["build", "sweep", "flush", "rebuild", "look", "drop"]),
        again=st.booleans(),
    )
    def manage(self, what: str, again: bool) -> None:  # noqa: FBT001 - drawn
        if what == "build":
            # The head is merged, and tombstones go.
            assert self.call(b"VECTOR.BUILD", NAME) == b"OK"
        elif what == "sweep":
            self.sweep()
        elif what == "flush":
            self.flush()
        elif what == "rebuild":
            assert self.call(b"VECTOR.CLUSTER", b"REBUILD", NAME) == b"OK"
        elif what == "look":
            self.look_at_policy()
            self.look_at_aliases()
        elif again:
            assert self.call(b"VECTOR.DROP", NAME) == 1
            self.create()

    @rule(id_=ids, centroids=st.lists(st.sampled_from(VECTORS[:7]), max_size=3, unique=True))
    def invalidate_or_set_clusters(self, id_: bytes, centroids: list[bytes]) -> None:
        if centroids:
            rows = b"".join(centroids)
            assert self.call(b"VECTOR.CLUSTER", b"SET", NAME, b"FP32", rows) == b"OK"
            return
        # What has expired may go at any time.
        self.sweep()
        before = len(self.index.cache)
        gone = self.call(b"VECTOR.CACHE", b"INVALIDATE", NAME, b"ID", id_)
        assert len(self.index.cache) == before - gone

    @rule(name=st.sampled_from(sorted(FIELDS)), choice=st.integers(0, 11))
    def set_policy(self, name: str, choice: int) -> None:
        self.set_field(name, FIELDS[name][choice % len(FIELDS[name])])
        self.look_at_policy()

    def look_at_policy(self) -> None:
        found = self.call(b"VECTOR.CACHE", b"POLICY", NAME, b"GET", protocol=3)
        # What is said of remembered responses is none of the caches'.
        plain = {key.decode(): value for key, value in found.items() if key.decode() in FIELDS}
        for name in ("levels", "basis"):
            plain[name] = plain[name].decode()
        assert plain == self.policy.shown

    def flush(self) -> None:
        assert self.call(b"VECTOR.CACHE", b"FLUSH", NAME) == b"OK"
        self.filled.clear()
        self.sweep()
        assert len(self.index.cache) == self.index.cache.nbytes == self.service.cache.nbytes == 0

    @precondition(lambda self: self.durable)
    @rule()
    def restart(self) -> None:
        """What is kept may go; vectors, aliases and policies may not."""
        self.run(self.service.stop())
        self.run(self.start())
        self.opened()
        self.expire()
        self.look_at_policy()
        self.look_at_aliases()
        assert len(self.index.cache) == 0

    # -- what always holds ------------------------------------------------------------------------

    @precondition(lambda self: self.has_begun)
    @invariant()
    def the_index_holds_what_the_dictionary_does(self) -> None:
        self.expire()
        assert self.call(b"VECTOR.CARD", NAME) == len(self.model.stored)

    @precondition(lambda self: self.has_begun)
    @invariant()
    def budgets_are_kept(self) -> None:
        cache, own = self.service.cache, self.index.cache
        assert 0 <= own.nbytes <= cache.nbytes <= self.settings.cache.max_bytes
        if self.policy.maxbytes:
            assert own.nbytes <= self.policy.maxbytes
        assert self.policy.levels or not len(own)
        # What the store counts is no less than what there is.
        kept = [stored.value for stored in own._owner.entries.values()]
        sizes = [own._size(one) + ENTRY_OVERHEAD for one in kept]
        assert own.nbytes >= sum(sizes), (own.nbytes, sizes)

    @precondition(lambda self: self.has_begun)
    @invariant()
    def every_search_is_counted_once(self) -> None:
        assert self.counted() == self.searched
