"""What a commit does inside its LMDB transaction, and the rule about slots that it enforces."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import lmdb

from pyrope.storage.codec import (
    decode_record,
    encode_record,
    index_prefix,
    record_key,
    row_checksums,
)
from pyrope.storage.commit_log import Entry, Operation
from pyrope.storage.meta_records import encode_meta, meta_key
from pyrope.storage.side_records import encode_side, side_key
from pyrope.storage.store import (
    Change,
    DropIndex,
    DropMeta,
    PutIndex,
    PutMeta,
    PutSide,
    StorageError,
    WriteBatch,
)


@dataclass(frozen=True, slots=True)
class Databases:
    """The named databases of the environment, keyed by uid (8 bytes, big-endian) unless noted.

    Attributes:
        meta: by name: the directory's format, the next uid to reserve.
        catalogue: the caller's blob of each index.
        sequences: each index's write sequence (8 bytes, big-endian).
        garbage: indexes dropped whose records or files are not all gone; no value.
        records: by record key; see `pyrope.storage.codec`.
        side: by the key of a side record; see `pyrope.storage.side_records`.
        meta_records: by the key of a meta record; see `pyrope.storage.meta_records`.
    """

    meta: lmdb._Database
    catalogue: lmdb._Database
    sequences: lmdb._Database
    garbage: lmdb._Database
    records: lmdb._Database
    side: lmdb._Database
    meta_records: lmdb._Database

    def logged(self, number: int) -> lmdb._Database:
        """The database that operations of the commit log call by this number."""
        return (self.sequences, self.records, self.side, self.meta_records)[number]


_SEQUENCES, _RECORDS, _SIDE, _META_RECORDS = 0, 1, 2, 3


def apply_operations(
    txn: lmdb.Transaction[bytes], databases: Databases, operations: Iterable[Operation]
) -> None:
    """Do what a `ChangeWriter` has noted, once more or for the first time."""
    for operation in operations:
        database = databases.logged(operation.database)
        if operation.value is None:
            txn.delete(operation.key, db=database)
        else:
            txn.put(operation.key, operation.value, db=database)


def sequences_of(entries: Iterable[Entry]) -> dict[int, int]:
    """Write sequences of the indexes that these entries change, after the last of them."""
    return {
        int.from_bytes(operation.key, "big"): int.from_bytes(operation.value, "big")
        for entry in entries
        for operation in entry.operations
        if operation.database == _SEQUENCES and operation.value is not None
    }


class ChangeWriter:
    """Puts the changes of one commit into one transaction.

    It refuses a put at a slot that committed state refers to, also where an earlier change of
    this very commit deletes that slot: the row would be overwritten before the commit, and a
    crash in between would leave the old record with the new row.

    Attributes:
        operations: what changes of anything but the catalogue came down to, for the commit log.
    """

    def __init__(self, txn: lmdb.Transaction[bytes], databases: Databases) -> None:
        self._txn = txn
        self._databases = databases
        self.operations: list[Operation] = []
        self._freed: dict[int, set[int]] = {}
        self._new: dict[int, set[int]] = {}

    def apply(self, changes: Sequence[Change]) -> None:
        """Put all changes in, in order.

        Raises:
            StorageError: a change breaks a rule; the transaction must be aborted.
            lmdb.Error: LMDB refused; the transaction must be aborted.
        """
        for change in changes:
            if isinstance(change, WriteBatch):
                self._write(change)
            elif isinstance(change, PutSide):
                self._put_side(change)
            elif isinstance(change, PutMeta):
                self._put_meta(change)
            elif isinstance(change, DropMeta):
                self._drop_meta(change)
            elif isinstance(change, PutIndex):
                self._put_index(change)
            else:
                self._drop_index(change)

    def _put_index(self, change: PutIndex) -> None:
        key = index_prefix(change.uid)
        if self._txn.get(key, db=self._databases.garbage) is not None:
            raise StorageError(f"index {change.uid} was dropped: its uid cannot be used again")
        self._txn.put(key, change.blob, db=self._databases.catalogue)

    def _drop_index(self, change: DropIndex) -> None:
        key = index_prefix(change.uid)
        if self._txn.delete(key, db=self._databases.catalogue):
            self._txn.delete(key, db=self._databases.sequences)
            self._txn.put(key, b"", db=self._databases.garbage)

    def _existing(self, uid: int) -> bytes:
        """The prefix of an index. Raises StorageError if the index does not exist."""
        prefix = index_prefix(uid)
        if self._txn.get(prefix, db=self._databases.catalogue) is None:
            raise StorageError(f"there is no index {uid} to write to")
        return prefix

    def _put_side(self, change: PutSide) -> None:
        self._existing(change.uid)
        key = side_key(change)
        if change.value is not None:
            value = encode_side(key, change.key, change.value)
            self._txn.put(key, value, db=self._databases.side)
            self.operations.append(Operation(_SIDE, key, value))
        elif self._txn.delete(key, db=self._databases.side):
            self.operations.append(Operation(_SIDE, key, None))

    def _put_meta(self, change: PutMeta) -> None:
        key = meta_key(change.space, change.key)
        value = encode_meta(key, change.value)
        self._txn.put(key, value, db=self._databases.meta_records)
        self.operations.append(Operation(_META_RECORDS, key, value))

    def _drop_meta(self, change: DropMeta) -> None:
        key = meta_key(change.space, change.key)
        if self._txn.delete(key, db=self._databases.meta_records):
            self.operations.append(Operation(_META_RECORDS, key, None))

    def _write(self, batch: WriteBatch) -> None:
        prefix = self._existing(batch.uid)
        freed = self._freed.setdefault(batch.uid, set())
        new = self._new.setdefault(batch.uid, set())
        for slot in batch.deletes:
            key = record_key(prefix, slot)
            if self._txn.delete(key, db=self._databases.records):
                self.operations.append(Operation(_RECORDS, key, None))
                if slot not in new:
                    freed.add(slot)
        for record in batch.amends:
            key = record_key(prefix, record.slot)
            stored = self._txn.get(key, db=self._databases.records)
            if stored is None:
                raise StorageError(f"index {batch.uid} has no record at slot {record.slot}")
            _, row_checksum = decode_record(key, stored)
            _, value = encode_record(prefix, record, row_checksum)
            self._txn.put(key, value, db=self._databases.records)
            self.operations.append(Operation(_RECORDS, key, value))
        if batch.vectors is not None:
            slots = {record.slot for record in batch.puts}
            items = [
                encode_record(prefix, record, row_checksum)
                for record, row_checksum in zip(
                    batch.puts, row_checksums(batch.vectors), strict=True
                )
            ]
            with self._txn.cursor(db=self._databases.records) as cursor:
                _, added = cursor.putmulti(items, overwrite=False)
            if added < len(items) or not freed.isdisjoint(slots):
                raise StorageError(f"a put to index {batch.uid} names a slot that is in use")
            self.operations += [Operation(_RECORDS, key, value) for key, value in items]
            new |= slots
        sequence = batch.sequence.to_bytes(8, "big")
        self._txn.put(prefix, sequence, db=self._databases.sequences)
        self.operations.append(Operation(_SEQUENCES, prefix, sequence))


def delete_records(
    txn: lmdb.Transaction[bytes], database: lmdb._Database, prefix: bytes, limit: int
) -> int:
    """Delete up to `limit` records of an index from a database; the number deleted."""
    deleted = 0
    with txn.cursor(db=database) as cursor:
        found = cursor.set_range(prefix)
        while found and deleted < limit and cursor.key().startswith(prefix):
            found = cursor.delete() and bool(cursor.key())
            deleted += 1
    return deleted
