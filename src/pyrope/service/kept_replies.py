"""Replies that are sent again: kept with an answer, found by the words of a command."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Protocol

from pyrope.cache.value_cache import Owner
from pyrope.cache.write_log import WriteLog
from pyrope.service.answers import Key, Source
from pyrope.service.cacheable import Cacheable, CacheStatistics
from pyrope.service.kept import Kept
from pyrope.service.repeated import Learn, Repeated

# Replies, and commands, kept with one entry: clients may ask for the same in different ways.
_FORMS = 4


class Hit(Protocol):
    """Counts a hit under an answer's own key, and says where it comes from."""

    def __call__(self, kept: Kept, *, repaired: bool) -> Source: ...


class KeptReplies:
    """Of one index. All methods are for the event loop.

    Attributes:
        log: of the index's writes.
        epoch: another number whenever replies may not be sent again, although nothing was written.

    Args:
        owner: of the answers.
        statistics: of the index's caches; hits are counted there.
        is_in_time: whether an answer has not outlived its time to live.
        hit: called for what `reply_to` finds.
        resize: called when more leads to an answer than did; which may be its end.
    """

    __slots__ = (
        "_hit",
        "_index",
        "_is_in_time",
        "_owner",
        "_repeated_saved",
        "_resize",
        "_shortcuts",
        "_statistics",
        "epoch",
        "log",
    )

    def __init__(
        self,
        index: Cacheable,
        owner: Owner[Kept],
        log: WriteLog,
        statistics: CacheStatistics,
        *,
        is_in_time: Callable[[Kept], bool],
        hit: Hit,
        resize: Callable[[Kept], None],
    ) -> None:
        self.log = log
        self.epoch = 0
        self._index = index
        self._owner = owner
        self._statistics = statistics
        self._is_in_time = is_in_time
        self._hit = hit
        self._resize = resize
        self._shortcuts: dict[tuple[Hashable, ...], tuple[Key, Kept, Hashable]] = {}
        # What each of the replies spares that are sent again for the very same bytes.
        self._repeated_saved = 0.0

    def keep(
        self, key: Key, form: Hashable, reply: bytes, words: tuple[Hashable, ...] | None
    ) -> None:
        """Keep a reply to be sent again as long as the entry stays as it is.

        Args:
            key: of the entry that it was made of.
            form: as in `IndexCache.search`.
            words: everything that the reply depends on, if that is known before anything is looked
                at: `reply_to` finds it by them.
        """
        kept = self._owner.peek(key)
        if kept is None or kept.neighbourhood.position != self.log.position:
            return
        new = form not in kept.replies
        if new:
            if len(kept.replies) >= _FORMS:
                return
            kept.replies[form] = reply
        if words is not None and words not in self._shortcuts and len(kept.words) < _FORMS:
            # The vector among them is held once.
            query = kept.neighbourhood.query
            words = tuple([query if word == query else word for word in words])
            kept.words.append(words)
            self._shortcuts[words] = key, kept, form
            new = True
        if new:
            # Which may be its end, and that of the shortcut.
            self._resize(kept)

    def reply_to(self, words: tuple[Hashable, ...]) -> tuple[bytes, Source] | None:
        """The reply to a command that was sent before, if nothing has changed since.

        The caller has seen to it that what has expired is gone.
        """
        found = self._shortcuts.get(words)
        if found is None:
            return None
        key, kept, form = found
        if kept.neighbourhood.position != self.log.position:
            return None
        if self._owner.get(key) is not kept:
            return None
        if kept.undecided_since is not None and not self._is_in_time(kept):
            return None
        reply = kept.replies.get(form)
        return None if reply is None else (reply, self._hit(kept, repaired=False))

    def repeat(self, words: tuple[Hashable, ...], learn: Learn) -> None:
        """Tell somebody about the reply that was just given to these words, for the next time."""
        key, kept, form = self._shortcuts[words]
        stored = self._owner.entries.get(key)
        if stored is None or len(kept.forget_repeated) >= _FORMS:
            return
        self._repeated_saved = kept.saved
        forget = learn(Repeated(self, stored, kept.replies[form]))
        if forget is not None:
            kept.forget_repeated.append(forget)
            self._resize(kept)

    def repeated(self, times: int, query: bytes) -> None:
        """Count hits that were given as `repeat` has told; one of them was for this query."""
        hits = self._statistics.hits
        hits["exact"] = hits.get("exact", 0) + times
        self._statistics.saved += times * self._repeated_saved
        self._owner.used(times)
        self._index.clusters.queried(query, times)

    def remove_expired(self) -> None:
        """Take out the index's vectors that have expired by now."""
        self._index.remove_expired()

    # -- forgetting -------------------------------------------------------------------------------

    def outdate(self, kept: Kept) -> None:
        """An answer is not what it was, and its replies are none any more."""
        kept.replies.clear()
        _forget_repeated(kept)

    def forget(self, kept: Kept) -> None:
        """An answer is kept no more."""
        _forget_repeated(kept)
        for words in kept.words:
            found = self._shortcuts.get(words)
            if found is not None and found[1] is kept:
                del self._shortcuts[words]

    def forget_words(self) -> None:
        """The effort that a command stands for may be another one now."""
        self.epoch += 1
        self._shortcuts.clear()
        for key in self._owner:
            kept = self._owner.peek(key)
            if kept is not None:
                kept.words.clear()
                _forget_repeated(kept)

    def clear(self) -> None:
        """No answer is kept any more."""
        self.epoch += 1
        self._shortcuts.clear()


def _forget_repeated(kept: Kept) -> None:
    """Its replies are not to be sent again unread."""
    for forget in kept.forget_repeated:
        forget()
    kept.forget_repeated.clear()
