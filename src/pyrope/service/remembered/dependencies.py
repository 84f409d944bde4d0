"""Which responses were made from which documents, so that a change to one ends the other with it.

The writer of an index asks, in the turn of the loop in which it hands a batch to the store, what
else must go with it (`Dependencies.consequences`), and commits that together with the batch: a
crash leaves both or neither. From that turn on nobody is served such a response; if the disk
refuses, it serves again, as its documents are what they were.

A response is tied to its documents before it is durable (`tie`): a change that comes in between
breaks the tie, and the response is refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

from pyrope.semantic.remembered.entry import Documents, Entry
from pyrope.storage.store import PutSide


class Keeper(Protocol):
    """Whoever keeps responses of one index."""

    def leaving(self, entries: Sequence[Entry]) -> list[PutSide]:
        """Serve them no more until `stays`; changes that end them for good."""
        ...

    def stays(self, entries: Sequence[Entry]) -> None:
        """Those changes were refused."""
        ...

    def gone(self, entries: Sequence[Entry], *, durable: bool) -> None:
        """They have ended; unless that is durable already, it is still to be made so."""
        ...


class Tie:
    """A response's bond to its documents.

    Attributes:
        entry: set once there is one; before that, nothing has been written.
        is_broken: a document has changed.
    """

    __slots__ = ("documents", "entry", "is_broken", "keeper")

    def __init__(self, keeper: Keeper, documents: Documents) -> None:
        self.keeper = keeper
        self.documents = documents
        self.entry: Entry | None = None
        self.is_broken = False


class Consequences:
    """What ends with a change of documents.

    Attributes:
        changes: to be committed with it.
    """

    def __init__(self, registry: Dependencies, ties: Sequence[Tie]) -> None:
        self._by_keeper: dict[Keeper, list[Entry]] = {}
        self._registry = registry
        self._ties = ties
        for tie in ties:
            if tie.entry is not None:
                self._by_keeper.setdefault(tie.keeper, []).append(tie.entry)
        self.changes: list[PutSide] = []
        for keeper, entries in self._by_keeper.items():
            self.changes += keeper.leaving(entries)

    def kept(self, *, durable: bool = True) -> None:
        """The change has taken place.

        Args:
            durable: whether `changes` have been committed.
        """
        for tie in self._ties:
            self._registry.untie(tie)
        for keeper, entries in self._by_keeper.items():
            keeper.gone(entries, durable=durable)

    def refused(self) -> None:
        """Neither has the change taken place, nor anything else."""
        for keeper, entries in self._by_keeper.items():
            keeper.stays(entries)


class Dependencies:
    """All of a server. For the event loop."""

    def __init__(self) -> None:
        self._ties: dict[int, dict[bytes, set[Tie]]] = {}

    def tie(self, keeper: Keeper, documents: Documents) -> Tie:
        """Tie a response that is to come; the documents are there now."""
        tie = Tie(keeper, documents)
        of_index = self._ties.setdefault(documents.uid, {})
        for id_ in documents.ids:
            of_index.setdefault(id_, set()).add(tie)
        return tie

    def untie(self, tie: Tie) -> None:
        """The response has ended. Idempotent."""
        uid = tie.documents.uid
        of_index = self._ties.get(uid)
        if of_index is None:
            return
        for id_ in tie.documents.ids:
            ties = of_index.get(id_)
            if ties is not None:
                ties.discard(tie)
                if not ties:
                    del of_index[id_]
        if not of_index:
            del self._ties[uid]

    def consequences(self, uid: int, ids: Iterable[bytes]) -> Consequences | None:
        """What a change of these vectors of an index ends; None: nothing.

        To be called in the turn of the loop in which the change is handed to the store.
        """
        of_index = self._ties.get(uid)
        if of_index is None:
            return None
        return self._broken({tie for id_ in ids for tie in of_index.get(id_, ())})

    def consequences_of_drop(self, uid: int) -> Consequences | None:
        """What ends with an index, and is not kept with it."""
        of_index = self._ties.get(uid, {})
        return self._broken({tie for ties in of_index.values() for tie in ties})

    def _broken(self, ties: set[Tie]) -> Consequences | None:
        for tie in ties:
            # One without an entry cannot be mended: who is about to write it is told.
            tie.is_broken = True
        return Consequences(self, list(ties)) if ties else None
