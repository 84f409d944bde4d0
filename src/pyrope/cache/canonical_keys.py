"""Aliases of an index: which queries are other names of a query that is answered already.

An alias leads to its canonical key in one step. There are no chains and no cycles, because no key
is an alias and a canonical at once: an alias of an alias is refused, and so is an alias of which
others are made. (Following chains at look-up would make a wrong link worse with each step, and its
confidence a product that nobody has asked for.)

What is bounded is bounded by plain LRU, where a use is a resolution or the setting of the alias:
an alias that was set by hand goes like any other when nobody asks for it. It is not *overwritten*
by others, that is all its privilege.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from dataclasses import dataclass, replace

from pyrope.cache.alias import SUSPENDED_AFTER, Alias, AliasSource, Canonical
from pyrope.cache.query_key import QueryKey
from pyrope.clock import Clock
from pyrope.config import AliasSettings
from pyrope.errors import CommandError

# What CPython takes for one of them besides the bytes of its keys: objects, their places in the
# tables, and the headers and rounding of byte strings. Measured: tests/cache/test_canonical_keys.
_ALIAS_BYTES = 470
_CANONICAL_BYTES = 60
_KEY_BYTES = 120
# Aliases in one page of a walk, their bytes, and places looked at for them.
_PAGE, _PAGE_BYTES, _PAGE_PLACES = 100, 2**20, 1000
# Evicted for one that comes: more than one has to go where large ones come after small ones, or
# after the bounds have been lowered. The sweep does the rest.
_EVICTED_AT_ONCE = 256
# Entries of the heap that nothing stands behind any more, before it is made anew.
_STALE_EXPIRIES = 1024


@dataclass(frozen=True, slots=True)
class AliasStatistics:
    """What a `CanonicalKeyMap` holds and has done.

    Attributes:
        entries_current, bytes_current: aliases, and the memory they take.
        hits_total: keys that were resolved.
        evicted_total: aliases that had to go for others.
        expired_total: aliases whose time was over.
    """

    entries_current: int
    bytes_current: int
    hits_total: int
    evicted_total: int
    expired_total: int


@dataclass(slots=True, eq=False)
class _Named:
    """A key that aliases stand for, and how many of them there are."""

    key: QueryKey
    count: int = 0


class CanonicalKeyMap:
    """Aliases by the identity of their key. For the event loop; each call is O(log n) at most.

    Args:
        settings: read at every use.
        clock: its wall is what aliases expire by.
    """

    def __init__(self, settings: AliasSettings, clock: Clock) -> None:
        self._settings = settings
        self._clock = clock
        # Least lately used first.
        self._aliases: OrderedDict[bytes, Alias] = OrderedDict()
        self._named: dict[bytes, _Named] = {}
        # For walks: an alias keeps its place for its life.
        self._places: list[Alias | None] = []
        self._free_places: list[int] = []
        self._expiries: list[tuple[int, bytes]] = []
        self._expiring = 0
        self._bytes = 0
        self._hits_total = 0
        self._evicted_total = 0
        self._expired_total = 0

    def __len__(self) -> int:
        """Aliases, those included that have expired and not been swept yet."""
        return len(self._aliases)

    @property
    def nbytes(self) -> int:
        """Memory that the aliases take, in bytes."""
        return self._bytes

    def statistics(self) -> AliasStatistics:
        return AliasStatistics(
            entries_current=len(self._aliases),
            bytes_current=self._bytes,
            hits_total=self._hits_total,
            evicted_total=self._evicted_total,
            expired_total=self._expired_total,
        )

    # -- reading ----------------------------------------------------------------------------------

    def resolve(self, key: QueryKey) -> Canonical | None:
        """What a key stands for, if that is sure enough and has not turned out wrong.

        Counts a hit, and a use.
        """
        alias = self._aliases.get(key.identity)
        if (
            alias is None
            or alias.canonical.confidence < self._settings.threshold
            or alias.is_suspended
            or alias.is_expired(self._now_ms())
        ):
            return None
        alias.hits += 1
        self._hits_total += 1
        self._aliases.move_to_end(key.identity)
        return alias.canonical

    def get(self, key: QueryKey) -> Alias | None:
        """The alias with this key, however sure it is; no use of it."""
        alias = self._aliases.get(key.identity)
        return None if alias is None or alias.is_expired(self._now_ms()) else alias

    def is_canonical(self, key: QueryKey) -> bool:
        """Whether aliases stand for a key, expired ones included that nobody met yet."""
        return key.identity in self._named

    def scan(self, cursor: int) -> tuple[int, list[Alias]]:
        """Walk over the aliases, a page at a time.

        Returns the next cursor (0: done) and the aliases found, which may be none. An alias that is
        there from the first call to the last is returned exactly once, also if it is overwritten.
        """
        now_ms = self._now_ms()
        found: list[Alias] = []
        nbytes = 0
        position = cursor
        last = min(len(self._places), cursor + _PAGE_PLACES)
        while position < last and len(found) < _PAGE and nbytes < _PAGE_BYTES:
            alias = self._places[position]
            position += 1
            if alias is not None and not alias.is_expired(now_ms):
                found.append(alias)
                nbytes += len(alias.key.content) + len(alias.canonical.key.content)
        return (0 if position >= len(self._places) else position), found

    # -- auditing ---------------------------------------------------------------------------------

    def is_unaudited(self, key: QueryKey) -> bool:
        """Whether too few audits were made of an alias to know where it leads."""
        alias = self._aliases.get(key.identity)
        return alias is not None and alias.audits < SUSPENDED_AFTER

    def audited(self, key: QueryKey, canonical: QueryKey, *, alike: bool) -> bool:
        """An audit has seen whether an alias led to anything of the true answer.

        An alias that does not, several times in a row, is suspended: `resolve` does not follow it
        until it is set again. It is not removed. What was set to another canonical meanwhile is
        left alone.

        Returns whether it is suspended because of this.
        """
        alias = self._aliases.get(key.identity)
        if alias is None or alias.canonical.key.identity != canonical.identity:
            return False
        was = alias.is_suspended
        alias.audits += 1
        alias.unlike = 0 if alike else alias.unlike + 1
        return alias.is_suspended and not was

    # -- writing ----------------------------------------------------------------------------------

    def check(self, alias: Alias) -> None:
        """Raises CommandError, saying why, where an alias cannot be put as things are."""
        key, canonical = alias.key, alias.canonical.key
        if key.identity == canonical.identity:
            raise CommandError(
                f"an alias cannot stand for itself: {key} and {canonical} are the same"
            )
        beyond = self.get(canonical)
        if beyond is not None:
            raise CommandError(
                f"there are no aliases of aliases: {canonical} is an alias itself, of "
                f"{beyond.canonical.key}"
            )
        named = self._named.get(key.identity)
        if named is not None:
            raise CommandError(
                f"there are no aliases of aliases: {key} is a canonical itself, and has aliases: "
                f"{named.count}"
            )
        there = self.get(key)
        by_hand = there is not None and there.canonical.source is AliasSource.MANUAL
        if by_hand and alias.canonical.source is not AliasSource.MANUAL:
            raise CommandError(f"the alias {key} was set by hand, which only a hand overwrites")
        needed = _own_bytes(alias) + _CANONICAL_BYTES + _key_bytes(canonical)
        if needed > self._settings.max_bytes:
            raise CommandError(
                f"an alias of {needed} bytes exceeds aliases.max_bytes, which is "
                f"{self._settings.max_bytes}"
            )

    def put(self, alias: Alias) -> list[bytes]:
        """Put in an alias that `check` has let through, or overwrite one.

        Returns the identities of those that had to go for it.
        """
        identity = alias.key.identity
        old = self._aliases.get(identity)
        if old is not None:
            self._take_out(old)
        if self._free_places:
            alias.place = self._free_places.pop()  # that of the old one, where there was one
        else:
            alias.place = len(self._places)
            self._places.append(None)
        self._places[alias.place] = alias
        self._aliases[identity] = alias
        self._name(alias)
        self._bytes += _own_bytes(alias)
        if alias.expires_at_ms:
            self._expiring += 1
            heapq.heappush(self._expiries, (alias.expires_at_ms, identity))
            self._trim_expiries()
        return self._evict(_EVICTED_AT_ONCE)

    def remove(self, key: QueryKey) -> None:
        """Take an alias out, if it is there."""
        alias = self._aliases.get(key.identity)
        if alias is not None:
            self._take_out(alias)

    def sweep(self, limit: int) -> list[bytes]:
        """Take out what has expired, and what exceeds bounds that were lowered.

        Args:
            limit: aliases taken out at the most.

        Returns their identities.
        """
        now_ms = self._now_ms()
        gone: list[bytes] = []
        heap = self._expiries
        while heap and heap[0][0] <= now_ms and len(gone) < limit:
            at, identity = heapq.heappop(heap)
            alias = self._aliases.get(identity)
            if alias is not None and alias.expires_at_ms == at:
                self._take_out(alias)
                gone.append(identity)
        self._expired_total += len(gone)
        return gone + self._evict(limit - len(gone))

    # -- within -----------------------------------------------------------------------------------

    def _now_ms(self) -> int:
        return int(self._clock.wall() * 1000)

    def _evict(self, limit: int) -> list[bytes]:
        """Take out the least lately used, but for the last one used, until bounds are kept."""
        gone: list[bytes] = []
        settings = self._settings
        while (
            len(gone) < limit
            and len(self._aliases) > 1
            and (len(self._aliases) > settings.max_entries or self._bytes > settings.max_bytes)
        ):
            identity, alias = next(iter(self._aliases.items()))
            self._take_out(alias)
            gone.append(identity)
        self._evicted_total += len(gone)
        return gone

    def _take_out(self, alias: Alias) -> None:
        del self._aliases[alias.key.identity]
        self._places[alias.place] = None
        self._free_places.append(alias.place)
        self._bytes -= _own_bytes(alias)
        if alias.expires_at_ms:
            self._expiring -= 1
        key = alias.canonical.key
        named = self._named[key.identity]
        if key is not named.key:
            self._bytes -= _key_bytes(key)
        named.count -= 1
        if not named.count:
            del self._named[key.identity]
            self._bytes -= _CANONICAL_BYTES + _key_bytes(named.key)

    def _name(self, alias: Alias) -> None:
        """Count an alias to its canonical, and share the canonical's key where it is the same."""
        key = alias.canonical.key
        named = self._named.get(key.identity)
        if named is None:
            named = self._named[key.identity] = _Named(key)
            self._bytes += _CANONICAL_BYTES + _key_bytes(key)
        elif named.key == key:
            alias.canonical = replace(alias.canonical, key=named.key)
        else:  # another text with the same normal form
            self._bytes += _key_bytes(key)
        named.count += 1

    def _trim_expiries(self) -> None:
        """Make the heap anew where most of it is of aliases that were overwritten or removed."""
        if len(self._expiries) > 2 * self._expiring + _STALE_EXPIRIES:
            self._expiries = [
                (alias.expires_at_ms, identity)
                for identity, alias in self._aliases.items()
                if alias.expires_at_ms
            ]
            heapq.heapify(self._expiries)


def _own_bytes(alias: Alias) -> int:
    """What an alias takes without its canonical's key."""
    return _ALIAS_BYTES + _key_bytes(alias.key)


def _key_bytes(key: QueryKey) -> int:
    return _KEY_BYTES + len(key.identity) + len(key.content)
