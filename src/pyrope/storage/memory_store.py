"""The store of a server without a data directory: vectors in shared memory, records nowhere."""

from __future__ import annotations

from collections.abc import Sequence
from heapq import nsmallest
from itertools import count

import numpy as np

from pyrope.errors import MisconfError
from pyrope.storage.store import (
    Change,
    DropIndex,
    DropMeta,
    PutIndex,
    PutMeta,
    RecordColumns,
    SideRecords,
    StorageError,
    WriteBatch,
)
from pyrope.storage.vector_file import VectorFile


class MemoryStore:
    """A `pyrope.storage.store.Store` that ends with its process.

    Vectors are on a memfd each, so that engines read them as they read a file on disk. Records and
    side records are not kept: whoever commits has them in memory already, and nothing here survives
    to load. Meta records are, as they are read while the server runs too.
    """

    def __init__(self) -> None:
        self._catalogue: dict[int, bytes] = {}
        self._files: dict[int, VectorFile] = {}
        self._metas: dict[str, dict[bytes, bytes]] = {}
        self._uids = count(1)

    def indexes(self) -> list[tuple[int, bytes]]:
        return sorted(self._catalogue.items())

    def next_uid(self) -> int:
        return next(self._uids)

    def load(self, uid: int) -> RecordColumns:
        """No records: none are kept."""
        nothing = np.empty(0, np.uint64)
        slots = np.empty(0, np.int64)
        return RecordColumns(0, slots, [], nothing, nothing, [], nothing, slots)

    def load_side(self, uid: int) -> SideRecords:
        """No records: none are kept."""
        return SideRecords([], 0)

    def load_meta(self, space: str) -> list[tuple[bytes, bytes]]:
        return sorted(self._metas.get(space, {}).items())

    def page_meta(self, space: str, after: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        records = self._metas.get(space, {})
        return [(key, records[key]) for key in nsmallest(limit, (k for k in records if k > after))]

    def get_meta(self, space: str, key: bytes) -> bytes | None:
        return self._metas.get(space, {}).get(key)

    def vectors(self, uid: int, dim: int) -> VectorFile:
        file = self._files.get(uid)
        if file is None:
            try:
                file = VectorFile.in_memory(dim, f"pyrope-vectors-{uid}")
            except OSError as error:
                raise MisconfError(f"no memory for another index: {error}") from error
            self._files[uid] = file
        if file.dim != dim:
            raise StorageError(f"index {uid} has {file.dim} dimensions, not {dim}")
        return file

    def discard(self, uid: int) -> None:
        file = self._files.pop(uid, None)
        if file is not None:
            file.close()

    def graph_path(self, uid: int) -> None:
        return None

    def commit(self, changes: Sequence[Change]) -> None:
        """Write the rows; there is nothing to make durable.

        Raises:
            MisconfError: the system has no memory for the rows.
            StorageError: a batch or a side record is for an index that does not exist.
        """
        catalogue = self._catalogue_after(changes)
        for change in changes:
            if isinstance(change, WriteBatch) and change.vectors is not None:
                slots = np.array([record.slot for record in change.puts], np.int64)
                try:
                    self.vectors(change.uid, change.vectors.shape[1]).write(slots, change.vectors)
                except OSError as error:
                    raise MisconfError(f"the vectors cannot be kept: {error}") from error
        self._catalogue = catalogue
        for change in changes:
            if isinstance(change, DropIndex):
                self.discard(change.uid)
            elif isinstance(change, PutMeta):
                self._metas.setdefault(change.space, {})[change.key] = change.value
            elif isinstance(change, DropMeta):
                self._drop_meta(change)

    def _catalogue_after(self, changes: Sequence[Change]) -> dict[int, bytes]:
        catalogue = self._catalogue
        if any(isinstance(change, PutIndex | DropIndex) for change in changes):
            catalogue = dict(catalogue)
        for change in changes:
            if isinstance(change, PutIndex):
                catalogue[change.uid] = change.blob
            elif isinstance(change, DropIndex):
                catalogue.pop(change.uid, None)
            elif not isinstance(change, PutMeta | DropMeta) and change.uid not in catalogue:
                raise StorageError(f"there is no index {change.uid} to write to")
        return catalogue

    def _drop_meta(self, change: DropMeta) -> None:
        records = self._metas.get(change.space, {})
        records.pop(change.key, None)
        if not records:
            self._metas.pop(change.space, None)

    @property
    def garbage_left(self) -> bool:
        """Never: a dropped index leaves nothing behind."""
        return False

    def collect_garbage(self, limit: int = 5_000) -> None:
        """Nothing to do; see `garbage_left`."""

    def disk_bytes(self) -> int:
        return sum(file.disk_bytes for file in self._files.values())

    def close(self) -> None:
        for file in self._files.values():
            file.close()
        self._files.clear()
