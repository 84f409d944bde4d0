"""The caches of one index: looked into before a search, filled after it, true in between.

An answer is kept as a `Neighbourhood` and knows up to which write it is true. Before it is served
again it catches up with what has been written since, so that a hit is what a search would give now;
where it cannot catch up, there is a search. Searches for what is being searched for already wait
for that one, and catch up likewise.
"""

from __future__ import annotations

import asyncio
from collections.abc import Hashable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial

import numpy as np

from pyrope.cache.neighbourhood import Neighbourhood, Repair
from pyrope.cache.query_key import QueryKey
from pyrope.cache.stored import Gone
from pyrope.cache.value_cache import OwnerStatistics
from pyrope.cache.write_log import WriteLog
from pyrope.engine.filter import Filter
from pyrope.errors import BusyError
from pyrope.service.answered_texts import AnsweredTexts, ByAlias
from pyrope.service.answers import (
    EXACT,
    EXACT_REPAIRED,
    NO_HITS,
    PREFETCHED,
    Answer,
    CachedSearch,
    CacheMode,
    CacheWish,
    Key,
    Near,
    Source,
    asked_by,
    effort_of,
)
from pyrope.service.cacheable import Cacheable, CacheServices, CacheStatistics
from pyrope.service.flights import Flight, Flights, Wanted
from pyrope.service.kept import Kept
from pyrope.service.kept_replies import KeptReplies
from pyrope.service.near_audits import Shadow
from pyrope.service.near_levels import Guess, NearLevels
from pyrope.service.prefetching import Prefetcher
from pyrope.service.search import Hits, Search
from pyrope.service.signals import Signals
from pyrope.types import CacheLevel

# Numbers that are read for a repair, at 0.1 ns each: a small part of what a search costs.
_REPAIR_NUMBERS = 2**20
# Slots whose attributes are judged one by one, at some 10 us each.
_REPAIR_FILTERED = 128
# Answers looked through in one turn of the loop.
_SLICE = 1000


class IndexCache:
    """All methods are for the event loop.

    Attributes:
        log: of the index's writes; whoever changes the index tells it.
        replies: that are sent again.
        texts: that its answers are to.
        signals: whom it tells what is worth advice; None: nobody gives any.

    Args:
        index: whose answers are kept.
        services: shared with other indexes.
        tenant, uid: of the index.
    """

    def __init__(self, index: Cacheable, services: CacheServices, tenant: str, uid: int) -> None:
        self.log = WriteLog(services.settings.log_writes)
        self.signals: Signals | None = None
        self._index = index
        self._settings = services.settings
        self._near = NearLevels(
            index,
            catch_up=self._catch_up,
            is_kept=lambda kept: self._owner.peek(kept.key) is kept and self._is_in_time(kept),
            position=lambda: self.log.position,
            clock=services.clock,
            seed=uid,
            audit_share=services.settings.audit_share,
            spawn=services.spawn,
            assign_many=services.assign_many,
        )
        self._owner = services.cache.owner(tenant, uid, self._forget)
        self._flights = Flights(index, self.log, self)
        self._owner.max_bytes = index.policy.max_bytes or None
        self._base_ttl_s = index.policy.ttl_s
        self._clock = services.clock
        self._prefetcher: Prefetcher | None = None
        self._statistics = CacheStatistics(hits={})
        self.replies = KeptReplies(
            index,
            self._owner,
            self.log,
            self._statistics,
            is_in_time=self._is_in_time,
            hit=self._exact,
            resize=self._resize,
        )
        self.texts = AnsweredTexts(index, self._resize)
        self._most_repaired = max(1, _REPAIR_NUMBERS // index.dim)

    # -- looking up -------------------------------------------------------------------------------

    def search(
        self,
        client: Hashable,
        queries: bytes,
        asked: Search,
        wish: CacheWish,
        timeout: float | None = None,
        form: Hashable = None,
    ) -> list[Answer] | CachedSearch:
        """The answers to n queries: at once where all are cached.

        Args:
            client, queries, asked: as in `OpenIndex.search`.
            wish: its text is of one query.
            timeout: seconds after which the outcome is BusyError instead.
            form: what reply is made of the hits, if a reply may be kept for the next time; it
                depends on nothing else but `asked`, then.

        Raises:
            BusyError: too many requests wait for this index; one is not cached, and ONLY that
                would do.
        """
        size = 4 * self._index.dim
        count = len(queries) // size
        answers: list[Answer | None] = [None] * count
        wanted: list[Wanted] = []
        levels = self._index.policy.levels
        uses = bool(levels) and wish.mode is not CacheMode.OFF
        effort = effort_of(asked)
        # A session asks for one at a time.
        foreseen: Key | None = None
        if uses and wish.session is not None and CacheLevel.PREFETCH in levels:
            foreseen = (queries, *effort)
            self._follow_session(wish.session, foreseen, asked, wish.text)
        for row in range(count):
            query = queries if count == 1 else queries[row * size : (row + 1) * size]
            if not uses:
                wanted.append(Wanted(row, query, None))
                continue
            key = (query, *effort)
            found = None
            if wish.mode is not CacheMode.REFRESH:
                found = self._look_up(key, asked, wish, form)
            if type(found) is Answer:
                answers[row] = found
            else:
                wanted.append(Wanted(row, query, key, (wish, found)))
        if not wanted:
            self._look_ahead(foreseen, asked.count)
            return answers  # type: ignore[return-value]  # none is missing
        if uses and wish.mode is CacheMode.ONLY:
            raise BusyError("not in the cache, and CACHE ONLY does not search")
        # Those that are there already may be old when the others are: no reply of theirs is kept.
        there = [answer and answer._replace(key=None) for answer in answers]
        promise = CachedSearch(client, asked, there, self._width(asked, wish))
        self._flights.board(promise, wanted, join=wish.mode is not CacheMode.REFRESH)
        if uses:
            self._count_misses(wanted, asked, wish.text)
        else:
            self._statistics.uncached += count
        if foreseen is not None:
            promise.add_done_callback(partial(self._look_ahead, foreseen, asked.count))
        if timeout is not None and not promise.done():
            timer = asyncio.get_running_loop().call_later(timeout, _time_out, promise)
            promise.add_done_callback(lambda _: timer.cancel())
        return promise

    def _count_misses(self, wanted: list[Wanted], asked: Search, text: QueryKey | None) -> None:
        self._statistics.misses += len(wanted)
        if self.signals is not None and text is not None:
            # A text is of one query.
            self.signals.missed(text, (wanted[0].query, *effort_of(asked)), asked)

    # -- prefetching ------------------------------------------------------------------------------

    def _follow_session(
        self, session: bytes, key: Key, asked: Search, text: QueryKey | None
    ) -> None:
        self._prefetches().asked(session, key)
        if self.signals is not None and text is not None:
            self.signals.in_session(session, text, key, asked)

    def _prefetches(self) -> Prefetcher:
        """Made when the first session is named."""
        if self._prefetcher is None:
            self._prefetcher = Prefetcher(
                self._clock,
                is_kept=lambda key: self._owner.peek(key) is not None,
                is_idle=lambda: not self._index.busy,
                fetch=self._prefetch,
                cost_of=lambda key, count: self._index.search_cost(asked_by(key, count)),
            )
        return self._prefetcher

    def _look_ahead(self, key: Key | None, count: int, promise: CachedSearch | None = None) -> None:
        """A query of a session has been answered: see to what may come next."""
        if key is not None and (promise is None or promise.exception() is None):
            self._prefetches().answered(key, count)

    def _prefetch(self, key: Key, count: int) -> None:
        """Search for what may be asked next."""
        asked = asked_by(key, count)
        promise = CachedSearch(_PREFETCHER, asked, [None], count)
        promise.add_done_callback(partial(self._prefetched, key))
        wanted = Wanted(0, key[0], key, (CacheWish(), None))  # type: ignore[arg-type]  # the query comes first
        try:
            self._flights.board(promise, [wanted], join=True)
        except BusyError as error:
            promise.set_exception(error)

    def _prefetched(self, key: Key, promise: CachedSearch) -> None:
        if promise.exception() is not None:
            self._prefetches().failed(key)

    def sweep(self, limit: int) -> None:
        """Let go of what is over; to be called now and then, bounded."""
        if self._prefetcher is not None:
            self._prefetcher.sweep(limit)

    def foresee(self, previous: Key, following: list[Key], count: int) -> None:
        """Somebody expects these queries after another one; see `Prefetcher.foresee`."""
        if CacheLevel.PREFETCH in self._index.policy.levels:
            self._prefetches().foresee(previous, following, count)

    @property
    def prefetcher(self) -> Prefetcher | None:
        """None until a session has been named."""
        return self._prefetcher

    # -- the levels -------------------------------------------------------------------------------

    def _width(self, asked: Search, wish: CacheWish) -> int:
        """Neighbours to search for: enough to serve near queries, where some are wanted."""
        if asked.exact:
            return asked.count
        if wish.near is not None:
            return max(asked.count, self._candidates)
        if self.texts.has_aliases(wish.text):
            return self._width_for_aliases(asked.count)
        return asked.count

    def _width_for_aliases(self, count: int) -> int:
        """Neighbours that are kept with an answer for the sake of other names of its query."""
        return max(count, min(self._candidates, _ALIAS_FACTOR * count))

    @property
    def _candidates(self) -> int:
        """Neighbours kept with an answer that serves near queries."""
        return self._index.policy.candidates or self._settings.candidates

    def _look_up(
        self, key: Key, asked: Search, wish: CacheWish, form: Hashable
    ) -> Answer | Shadow | None:
        """A hit of some level; or what was near and not good enough."""
        levels = self._index.policy.levels
        if CacheLevel.ALIAS in levels and not asked.exact:
            named = self.texts.by_alias(key, wish.text)
            answer = None if named is None else self._serve_alias(named, key, asked, wish.near)
            if answer is not None:
                return answer
        if CacheLevel.EXACT in levels:
            answer = self._look_up_exact(key, asked, form)
            if answer is not None:
                return answer
        if wish.near is None or asked.exact:
            return None
        found = self._near.find(key[0], key[1:], asked, wish.near, levels)  # type: ignore[arg-type]  # the query comes first
        if not isinstance(found, tuple) or isinstance(found, Shadow):
            return found
        level, guess = found
        self._hit(level, key)
        if self.signals is not None and wish.text is not None:
            self.signals.near_hit(wish.text, key, guess.kept, asked)
        return self._guessed(level, guess, asked)

    def _guessed(self, level: str, guess: Guess, asked: Search) -> Answer:
        counted = self._statistics
        counted.saved += guess.kept.saved
        counted.certified[level] = counted.certified.get(level, 0.0) + guess.certified
        counted.estimated[level] = counted.estimated.get(level, 0.0) + guess.estimated
        hits = self._index.name(guess.slots.tolist(), guess.scores.tolist(), asked, exact=False)
        source = Source(level, guess.repaired)
        rescored = self._candidates
        return Answer(hits, source, None, None, guess.certified, guess.estimated, rescored)

    def _serve_alias(
        self, named: ByAlias, key: Key, asked: Search, near: Near | None
    ) -> Answer | None:
        """A hit by way of another name of the query."""
        kept = self._owner.get(named.key)
        if kept is None or not self._is_in_time(kept):
            return None
        alias, canonical = named.alias, named.canonical.key
        guess = self._near.guess_by_alias(kept, key[0], asked, alias, canonical)  # type: ignore[arg-type]  # the query comes first
        if guess is None or not named.may_serve(guess, near):
            return None
        self._hit("alias", key)
        if self.signals is not None:
            self.signals.alias_hit(alias, canonical, key, asked)
        return self._guessed("alias", guess, asked)

    def _look_up_exact(self, key: Key, asked: Search, form: Hashable) -> Answer | None:
        """A hit of the exact level, up to date."""
        kept = self._owner.get(key)
        if kept is None or not self._is_in_time(kept):
            return None
        if form is not None and kept.neighbourhood.position == self.log.position:
            reply = kept.replies.get(form)
            if reply is not None:
                return Answer(NO_HITS, self._exact(kept, repaired=False), key, reply)
        current, repaired = self._catch_up(kept, asked)
        if not current:
            return None
        source = self._exact(kept, repaired=repaired)
        return Answer(self._name(kept.neighbourhood, asked), source, key)

    def _is_in_time(self, kept: Kept) -> bool:
        """Whether an answer has not outlived the TTL in force for its cluster.

        Which cluster it lies in is found out when it is first asked for: most never are, and it
        costs as much as all else that is done to keep one.
        """
        since = kept.undecided_since
        if since is None:
            return True
        kept.undecided_since = None
        clusters = self._index.clusters
        share = clusters.ttl_of(kept.neighbourhood.query) / clusters.longest_ttl_s
        return self._owner.shorten(kept.key, since, share)

    def _exact(self, kept: Kept, *, repaired: bool) -> Source:
        """Where a hit under its own key comes from."""
        key = kept.key
        self._statistics.saved += kept.saved
        if self._prefetcher is not None and self._prefetcher.used(key):
            self._hit("prefetch", key)
            return PREFETCHED._replace(repaired=repaired)
        self._hit("exact", key)
        return EXACT_REPAIRED if repaired else EXACT

    def _hit(self, level: str, key: Key) -> None:
        hits = self._statistics.hits
        hits[level] = hits.get(level, 0) + 1
        # Most are passed over there.
        self._index.clusters.queried(key[0])  # type: ignore[arg-type]  # the query comes first

    def _catch_up(self, kept: Kept, asked: Search) -> tuple[bool, bool]:
        """Whether it is up to date now and serves this search; whether it had to be repaired."""
        around = kept.neighbourhood
        if around.position == self.log.position:
            return around.serves(asked.count), False
        size = len(around.slots)
        repaired = self._repair(around, asked.filter)
        self.replies.outdate(kept)
        # What does not serve any more has most likely lost hits that it was kept for.
        if not repaired or not around.serves(asked.count):
            self._statistics.stale += 1
            if self._owner.peek(kept.key) is kept:
                self._owner.discard(kept.key, Gone.STALE)
            return False, False
        self._statistics.repairs += 1
        if len(around.slots) > size:
            self._resize(kept)
        return True, True

    def _repair(self, around: Neighbourhood, filter_: Filter | None) -> bool:
        most = self._most_repaired
        if filter_ is not None:
            most = min(most, _REPAIR_FILTERED)
        index = self._index
        outcome = around.catch_up(
            self.log,
            lambda slots: index.scores(around.query, slots, around.width, exact=around.exact),
            index.live,
            lambda slots: index.taking_part(slots, filter_),
            higher_is_nearer=index.metric.higher_is_nearer,
            most=most,
        )
        return outcome is not Repair.IMPOSSIBLE

    def _name(self, kept: Neighbourhood, asked: Search) -> Hits:
        slots, scores = kept.slots[: asked.count].tolist(), kept.scores[: asked.count].tolist()
        return self._index.name(slots, scores, asked, exact=kept.exact)

    # -- what becomes of a search -----------------------------------------------------------------

    def widened(self, asked: Search, width: int) -> Search:
        """The same without what is cut off, or looked up, when it is served."""
        if asked.epsilon is None and not asked.with_attributes and width <= asked.count:
            return asked
        return replace(asked, count=width, epsilon=None, with_attributes=False)

    def cut(self, hits: Hits, asked: Search) -> Hits:
        """What was found a moment ago, as it is asked for."""
        if asked.epsilon is None and not asked.with_attributes and len(hits.ids) <= asked.count:
            return hits
        named = self._index.name(hits.slots, hits.scores, asked, exact=hits.exact)
        return named._replace(queue_seconds=hits.queue_seconds, search_seconds=hits.search_seconds)

    def keep(self, flight: Flight, hits: Hits) -> Neighbourhood:
        """Keep what a search has found."""
        asked = flight.asked
        around = Neighbourhood(
            flight.query,
            np.array(hits.slots, np.int64),
            np.array(hits.scores, np.float32),
            asked.count,
            position=flight.position,
            exact=hits.exact,
            exhaustive=hits.whole,
            filtered=asked.filter is not None,
        )
        if flight.key is not None and flight.note is not None:
            wish, shadow = flight.note
            self._put(Kept(flight.key, around), asked, wish)
            # What has been written meanwhile is in the hits only.
            if isinstance(shadow, Shadow) and flight.position == self.log.position:
                if hits.exact:
                    self._near.compare(shadow, hits)
                else:
                    self._near.consider(flight.query, asked, shadow)
        return around

    def _put(self, kept: Kept, asked: Search, wish: CacheWish) -> None:
        index = self._index
        query = kept.neighbourhood.query
        clusters = index.clusters
        clusters.queried(query)
        if clusters.ttl_is_known:
            ttl = clusters.ttl_of(query)
        else:
            ttl = clusters.longest_ttl_s
            kept.undecided_since = self._clock.monotonic()
        saved = kept.saved = index.search_cost(asked)
        if self.signals is not None:
            saved *= clusters.value_factor(query)
        if not self._owner.put(kept.key, kept, self._size(kept), saved, ttl or None):
            return
        if wish.near is not None and not asked.exact:
            self._near.add(kept)
        if wish.text is not None:
            self.texts.add(wish.text, kept)
        if kept.number >= 0 or kept.names:
            self._resize(kept)

    def name_answer(self, identity: bytes, other: bytes, group: Key, *, widen: bool) -> None:
        """Let the answer that is kept for one text be one for another, if that has none.

        Args:
            identity, other: of the texts' keys.
            group: all else that changes the answer.
            widen: whether the answer has been kept for its own sake only, until now.
        """
        named = self.texts.name(identity, other, group)
        if named is not None and widen:
            self._widen(named, QueryKey(other, other[1:]))

    def _widen(self, kept: Kept, text: QueryKey) -> None:
        """Search for what is kept for a text again, with neighbours enough to serve other queries.

        An answer that has no more of them than were asked for says little about others.
        """
        around = kept.neighbourhood
        width = self._width_for_aliases(around.width)
        if around.exhaustive or around.width >= width:
            return
        asked = asked_by(kept.key, around.width)
        promise = CachedSearch(_PREFETCHER, asked, [None], width)
        wanted = Wanted(0, around.query, kept.key, (CacheWish(text=text), None))
        with suppress(BusyError):
            self._flights.board(promise, [wanted], join=False)

    def _forget(self, kept: Kept, reason: Gone) -> None:
        """An answer is kept no more."""
        if self.signals is not None and reason in _DRIVEN_OUT:
            self.signals.evicted(kept)
        self._near.forget(kept)
        # What is swept some time after a flush may have a successor already.
        if self._prefetcher is not None and self._owner.peek(kept.key) is None:
            self._prefetcher.gone(kept.key)
        self.replies.forget(kept)
        self.texts.forget(kept)

    def serve(self, flight: Flight, around: Neighbourhood, asked: Search) -> Hits | None:
        """Hits that are true now; None where there must be a search."""
        if around.position != self.log.position:
            if not self._repair(around, asked.filter):
                return None
            kept = None if flight.key is None else self._owner.peek(flight.key)
            if kept is not None and kept.neighbourhood is around:
                self._resize(kept)
        return self._name(around, asked) if around.serves(asked.count) else None

    def _size(self, kept: Kept) -> int:
        """Bytes of an answer, and of what leads to it."""
        return kept.nbytes + (self._near.bytes_of(kept) if kept.number >= 0 else 0)

    def _resize(self, kept: Kept) -> None:
        """More leads to an answer than did, or less; which may be its end."""
        self._owner.resize(kept.key, self._size(kept))

    # -- managing ---------------------------------------------------------------------------------

    @property
    def shared(self) -> int:
        """Searches that waited for one that was under way."""
        return self._flights.shared

    @property
    def statistics(self) -> CacheStatistics:
        return self._statistics

    @property
    def near(self) -> NearLevels:
        return self._near

    @property
    def nbytes(self) -> int:
        """Bytes of the answers, with those that were forgotten and not swept yet."""
        return self._owner.nbytes

    def __len__(self) -> int:
        return len(self._owner)

    @property
    def owner_statistics(self) -> OwnerStatistics:
        """What was kept, and what was not."""
        return self._owner.statistics

    @property
    def evicted(self) -> Mapping[Gone, int]:
        """Answers that have gone, by reason."""
        return self._owner.statistics.gone

    def follow_policy(self) -> None:
        """Go by the index's policy as it is now; called when it changes."""
        policy = self._index.policy
        self._owner.max_bytes = policy.max_bytes or None
        # The effort that a command stands for may be another one.
        self.replies.forget_words()
        if not policy.levels or policy.ttl_s != self._base_ttl_s:
            self.flush()
        self._base_ttl_s = policy.ttl_s

    def flush(self) -> int:
        """Forget every answer. Returns how many there were."""
        count = len(self._owner)
        self._owner.clear()
        self.replies.clear()
        self.texts.clear()
        self._near.clear()
        return count

    async def invalidate(self, slot: int) -> int:
        """Forget the answers that hold a slot. Returns how many there were."""
        keys = list(self._owner)
        gone = 0
        for start in range(0, len(keys), _SLICE):
            for key in keys[start : start + _SLICE]:
                kept = self._owner.peek(key)
                if kept is not None and slot in kept.neighbourhood.slots:
                    self._owner.discard(key, "invalidated")
                    gone += 1
            await asyncio.sleep(0)
        return gone

    def close(self) -> None:
        self.replies.epoch += 1
        self._owner.close()


# Neighbours kept for each that was asked for, where an answer serves other names of its query: of
# the 10 nearest to a paraphrase, 98.6 % are among the 100 nearest (benchmarks/caching.py, oracle).
_ALIAS_FACTOR = 10
# Why answers go that others were worth more than.
_DRIVEN_OUT = frozenset({Gone.SIZE, Gone.TENANT, Gone.INDEX})
# Whose turn prefetches take among those that search.
_PREFETCHER = "prefetch"


def _time_out(promise: CachedSearch) -> None:
    if not promise.done():
        promise.set_exception(BusyError("timeout"))
