"""Answers that may be sent again, word for word, for as long as nothing has changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from pyrope.cache.stored import Stored
from pyrope.cache.write_log import WriteLog
from pyrope.service.kept import Kept


class Repeating(Protocol):
    """What keeps the replies of an index, for whoever sends them again.

    Attributes:
        log: of the index's writes.
        epoch: another number whenever what is kept may not be sent again, although nothing was
            written.
    """

    log: WriteLog
    epoch: int

    def remove_expired(self) -> None:
        """Take out the vectors that have expired by now."""
        ...

    def repeated(self, times: int, query: bytes) -> None:
        """Count hits; one of them was for this query."""
        ...


class Repeated:
    """An answer that a command was given without being read, and its like may be given again.

    It is not to be given once the position of the cache's log, or the cache's epoch, is another
    one, or the time of `stored` has come. Whoever gives it adds to the count of `stored`, and tells
    the cache.

    Attributes:
        cache: that the reply is kept in.
        stored: the entry that holds it.
        reply: as it goes over the wire.
        position, epoch: of the cache, when it was given.
        query: the vector that was searched for, little-endian float32.
    """

    __slots__ = ("cache", "epoch", "position", "query", "reply", "stored")

    def __init__(self, cache: Repeating, stored: Stored[Kept], reply: bytes) -> None:
        self.cache = cache
        self.stored = stored
        self.reply = reply
        self.position = cache.log.position
        self.epoch = cache.epoch
        self.query = stored.value.neighbourhood.query


Learn: TypeAlias = Callable[[Repeated], Callable[[], None] | None]
"""Takes note of an answer; returns what is to be called when it goes, or None: it is of no use."""
