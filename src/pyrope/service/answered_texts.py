"""Which kept answer is one to which text, and where a query leads that has other names."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

from pyrope.cache.alias import AliasSource, Canonical
from pyrope.cache.query_key import KeyKind, QueryKey, vector_key
from pyrope.service.aliases import Aliases
from pyrope.service.answers import Key, Near
from pyrope.service.kept import Kept
from pyrope.service.near_levels import Guess


class Aliased(Protocol):
    """The index whose queries have other names."""

    @property
    def aliases(self) -> Aliases: ...


class ByAlias(NamedTuple):
    """Where an alias leads to.

    Attributes:
        alias: what is asked for.
        canonical: what it is another name of.
        key: of the entry that may answer it.
    """

    alias: QueryKey
    canonical: Canonical
    key: Key

    def may_serve(self, guess: Guess, near: Near | None) -> bool:
        """Whether a hit by it may be served; one that a hand has set is its business.

        What a program has found out never serves less than the recall that a search, or the
        index's policy, asks for.
        """
        by_hand = self.canonical.source is AliasSource.MANUAL
        if near is None or by_hand or guess.certified >= near.min_recall:
            return True
        return not near.certified and guess.estimated >= near.min_recall


class AnsweredTexts:
    """Of one index. All methods are for the event loop.

    Args:
        resize: called when more leads to an answer than did; which may be its end.
    """

    __slots__ = ("_index", "_kept", "_resize")

    def __init__(self, index: Aliased, resize: Callable[[Kept], None]) -> None:
        self._index = index
        self._resize = resize
        # By the identity of a text and the effort.
        self._kept: dict[tuple[bytes, Key], Kept] = {}

    # -- looking up -------------------------------------------------------------------------------

    def answers(self, identity: bytes, group: Key) -> bool:
        """Whether an answer to a text is kept, and has not been found to be over.

        Args:
            identity: of the text's key.
            group: all else that changes the answer.
        """
        return (identity, group) in self._kept

    def has_aliases(self, text: QueryKey | None) -> bool:
        """Whether a text is another name of one, or has other names: its answer serves these."""
        aliases = self._index.aliases
        if text is None or not len(aliases):
            return False
        return aliases.is_canonical(text) or aliases.get(text) is not None

    def by_alias(self, key: Key, text: QueryKey | None) -> ByAlias | None:
        """Where a query leads to that is another name of one; None where it leads nowhere else.

        Args:
            text: behind the query, if it is known.
        """
        if not len(self._index.aliases):
            return None
        found = self._canonical(key, text)
        if found is None:
            return None
        alias, leads_to = found
        canonical, effort = leads_to.key, key[1:]
        other: Key | None
        if canonical.kind is KeyKind.VECTOR:
            other = (canonical.content, *effort)
        else:
            named = self._kept.get((canonical.identity, effort))
            other = None if named is None else named.key
        return None if other is None or other == key else ByAlias(alias, leads_to, other)

    def _canonical(self, key: Key, alias: QueryKey | None) -> tuple[QueryKey, Canonical] | None:
        """The alias that is asked for, and what it stands for."""
        aliases = self._index.aliases
        found = None if alias is None else aliases.resolve(alias)
        if alias is not None and found is None:
            turned = self._turned(alias, key)
            if turned is not None:
                return turned
        if alias is None or found is None:
            alias = vector_key(key[0])  # type: ignore[arg-type]  # the query comes first
            found = aliases.resolve(alias)
        return None if found is None else (alias, found)

    def _turned(self, text: QueryKey, key: Key) -> tuple[QueryKey, Canonical] | None:
        """The alias of a text whose answer is kept in the text's own place, if there is one."""
        named = self._kept.get((text.identity, key[1:]))
        if named is None or named.key == key:
            return None
        identity, _ = named.names[0]
        if identity == text.identity:
            return None
        alias = QueryKey(identity, identity[1:])
        found = self._index.aliases.resolve(alias)
        return (alias, found) if found is not None and found.key.identity == text.identity else None

    # -- what is kept -----------------------------------------------------------------------------

    def add(self, text: QueryKey, kept: Kept) -> None:
        """An answer to a text is one to what the text is another name of, too.

        Its size is the caller's business.
        """
        canonical = self._index.aliases.resolve(text)
        name = text.identity, kept.key[1:]
        self._kept[name] = kept
        kept.names.append(name)
        if canonical is not None and canonical.key.kind is KeyKind.TEXT:
            name = canonical.key.identity, kept.key[1:]
            if self._kept.setdefault(name, kept) is kept:
                kept.names.append(name)

    def name(self, identity: bytes, other: bytes, group: Key) -> Kept | None:
        """Let the answer that is kept for one text be one for another, if that has none.

        Args:
            identity, other: of the texts' keys.
            group: all else that changes the answer.

        Returns:
            The other's answer now, if it has one.
        """
        kept = self._kept.get((identity, group))
        if kept is not None and (other, group) not in self._kept:
            self._kept[other, group] = kept
            kept.names.append((other, group))
            self._resize(kept)
        return self._kept.get((other, group))

    def forget(self, kept: Kept) -> None:
        """An answer is kept no more."""
        for name in kept.names:
            if self._kept.get(name) is kept:
                del self._kept[name]

    def clear(self) -> None:
        """No answer is kept any more."""
        self._kept.clear()
