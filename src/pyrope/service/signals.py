"""What the caches of an index tell whoever advises them, if somebody does."""

from __future__ import annotations

from typing import Protocol

from pyrope.cache.query_key import QueryKey
from pyrope.semantic.labels import Labels
from pyrope.service.answers import Key
from pyrope.service.kept import Kept
from pyrope.service.search import Search


class Signals(Protocol):
    """Called within the path of a request: every call is short, and makes nothing wait.

    Attributes:
        labels: what is known of pairs of queries of the index.
    """

    labels: Labels

    def missed(self, text: QueryKey, key: Key, asked: Search) -> None:
        """A query with a text was not found, and is searched for."""
        ...

    def near_hit(self, text: QueryKey, key: Key, kept: Kept, asked: Search) -> None:
        """A query with a text was answered by what is kept for another one near by."""
        ...

    def alias_hit(self, alias: QueryKey, canonical: QueryKey, key: Key, asked: Search) -> None:
        """A query was answered as another name of one."""
        ...

    def in_session(self, session: bytes, text: QueryKey, key: Key, asked: Search) -> None:
        """A query with a text was asked in a session."""
        ...

    def evicted(self, kept: Kept) -> None:
        """An answer had to go for others."""
        ...
