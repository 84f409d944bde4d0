"""What the disk is behind with: hits, and responses that went by themselves.

Neither has a commit of its own; they are written down together, now and then.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from pyrope.semantic.remembered.entry import Entry, Stage
from pyrope.service.remembered.commits import Commits
from pyrope.service.remembered.records import deletions, state_of
from pyrope.service.remembered.stale import StaleRecords

# Written down in one commit: 1 ms in the thread of the store.
_AT_ONCE = 200
# How far hits may be behind.
_INTERVAL_S = 5.0


class Behind:
    """Of one index. For the event loop.

    Args:
        deleted: told of records that are off the disk.

    Attributes:
        stale: of responses that have ended.
    """

    def __init__(
        self,
        uid: int,
        commits: Commits,
        monotonic: Callable[[], float],
        deleted: Callable[[Sequence[bytes]], None],
    ) -> None:
        self._uid = uid
        self._commits = commits
        self._monotonic = monotonic
        self._deleted = deleted
        self.stale = StaleRecords()
        self._changed: OrderedDict[int, Entry] = OrderedDict()
        self._written_at = float("-inf")
        self._writing = False

    def __len__(self) -> int:
        return len(self.stale) + len(self._changed)

    def changed(self, entry: Entry) -> None:
        """Something of an entry is to be written down some time."""
        self._changed[entry.id] = entry

    def ended(self, entry: Entry) -> None:
        """Nothing of an entry is to be written down any more."""
        self._changed.pop(entry.id, None)

    def clear(self) -> None:
        self._changed.clear()
        self.stale.clear()

    def catch_up(self) -> None:
        """Write some of it down, if it is time to."""
        if not len(self) or self._writing:
            return
        late = self._monotonic() - self._written_at >= _INTERVAL_S
        if late or len(self.stale) >= _AT_ONCE:
            self.write()

    def write(self) -> None:
        """Write some of it down."""
        stale = self.stale.first(_AT_ONCE)
        entries: list[Entry] = []
        while self._changed and len(entries) + len(stale) < _AT_ONCE:
            _, entry = self._changed.popitem(last=False)
            # What is not durable itself has nothing to be written down; it comes later.
            if entry.stage is Stage.LIVE:
                entries.append(entry)
        if not self._changed and len(stale) == len(self.stale):
            self._written_at = self._monotonic()
        changes = deletions(self._uid, stale)
        changes += [state_of(self._uid, entry) for entry in entries]
        if not changes:
            return
        self._writing = True

        def written() -> None:
            self._writing = False
            self._deleted(stale)

        def refused(_error: BaseException) -> None:
            self._writing = False
            self._written_at = self._monotonic()
            for entry in entries:
                if entry.stage is Stage.LIVE:
                    self.changed(entry)

        self._commits.commit(changes, written, refused)
