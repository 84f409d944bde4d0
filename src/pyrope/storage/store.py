"""What a store promises: the `Store` protocol and the records and changes it speaks in."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from pyrope.storage.vector_file import VectorFile
from pyrope.types import Float32Matrix, Slots

MAX_SLOT = 2**32 - 1
"""Slots are stored in 4 bytes: 4 billion vectors an index."""

MAX_SIDE_BYTES = 64 * 2**20
"""Of a side record, key and value together: it is written in one piece, and read at every start."""

MAX_META_KEY_BYTES = 448
"""Of a meta record: with its space it has to fit a key of LMDB, 511 bytes."""

MAX_META_BYTES = 2**20
"""Of a meta record's value. They are small, and all of them are read at every start."""

_SPACE_NAME = re.compile(r"[a-z][a-z0-9_.-]{0,31}")


class StorageError(Exception):
    """The data directory cannot be used, or the store was used against its rules.

    Never the answer to a client's command: a disk that cannot be written is a
    `pyrope.errors.MisconfError`.
    """


class Record(NamedTuple):
    """What is stored about one vector, besides its row.

    A named tuple rather than a frozen dataclass: a command with 10,000 ids makes 10,000 of them
    on the event loop, at 0.24 us instead of 0.58 us each.

    Attributes:
        slot: row in the vector file, 0 to `MAX_SLOT`.
        id: the client's id.
        sequence: write sequence of the index when the record was written (u64).
        expires_at_ms: Unix time in milliseconds; 0 means never.
        attributes: raw JSON, or empty.
    """

    slot: int
    id: bytes
    sequence: int
    expires_at_ms: int
    attributes: bytes


@dataclass(frozen=True, slots=True)
class RecordColumns:
    """Every record of an index, as columns in the order of their slots.

    Attributes:
        sequence: the index's write sequence after its last committed write, deletes included.
        slots: int64, shape (n,), ascending.
        ids: n ids.
        sequences: uint64, shape (n,).
        expires_at_ms: uint64, shape (n,); 0 means never.
        attributes: n raw JSON texts, empty where there are none.
        row_checksums: uint64, shape (n,): XXH3-64 of each vector's row; see `damaged_rows`.
        damaged: int64, shape (m,): slots whose record is damaged; they are in no other column.
            The store still refers to them: delete them before they are used again.
    """

    sequence: int
    slots: Slots
    ids: list[bytes]
    sequences: NDArray[np.uint64]
    expires_at_ms: NDArray[np.uint64]
    attributes: list[bytes]
    row_checksums: NDArray[np.uint64]
    damaged: Slots

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class WriteBatch:
    """Changes of one index that become visible together: deletes, then amends, then puts.

    Attributes:
        uid: the index.
        sequence: the index's write sequence once these changes are in.
        puts: new records; `puts[i]` belongs to row `vectors[i]`. Their slots must not be in use,
            neither by the committed state nor by what an earlier batch of the same commit put.
            An update of an id is a put at a new slot and a delete of the old one.
        vectors: float32, shape (len(puts), dim), C-contiguous; None without puts.
        amends: records whose slot is in use and whose row stays as it is (other attributes,
            another expiry).
        deletes: slots; those that hold no record are passed over.

    Raises:
        ValueError: rows and puts do not match, or vectors is not a float32 C-contiguous matrix.
    """

    uid: int
    sequence: int
    puts: Sequence[Record] = ()
    vectors: Float32Matrix | None = None
    amends: Sequence[Record] = ()
    deletes: Sequence[int] = ()

    def __post_init__(self) -> None:
        rows = 0 if self.vectors is None else len(self.vectors)
        if rows != len(self.puts):
            raise ValueError(f"{len(self.puts)} puts need as many rows, not {rows}")
        if self.vectors is not None and (
            self.vectors.ndim != 2
            or self.vectors.dtype != np.float32
            or not self.vectors.flags.c_contiguous
        ):
            raise ValueError("vectors must be a C-contiguous float32 matrix")

    @property
    def nbytes(self) -> int:
        """Bytes that a commit of it writes, about."""
        total = 0 if self.vectors is None else self.vectors.nbytes
        for records in (self.puts, self.amends):
            total += sum([len(record.id) + len(record.attributes) + 64 for record in records])
        return total + 16 * len(self.deletes)


@dataclass(frozen=True, slots=True)
class PutIndex:
    """Create the catalogue's entry of an index, or replace it. `blob` is the caller's encoding."""

    uid: int
    blob: bytes

    @property
    def nbytes(self) -> int:
        return len(self.blob)


@dataclass(frozen=True, slots=True)
class DropIndex:
    """Remove an index; its records, side records and files follow in `Store.collect_garbage`."""

    uid: int

    @property
    def nbytes(self) -> int:
        return 16


@dataclass(frozen=True, slots=True)
class PutSide:
    """Put a side record of an index, or remove it.

    Side records are what is kept with an index besides its vectors. The store knows nothing of
    what is in them.

    Attributes:
        uid: the index.
        kind: what the record is for, 0 to 255; keys of different kinds are different keys.
        key: the record's key within its kind.
        value: replaces the one that is there; None removes it, if it is there.

    Raises:
        ValueError: the kind is out of range, or key and value exceed `MAX_SIDE_BYTES`.
    """

    uid: int
    kind: int
    key: bytes
    value: bytes | None

    def __post_init__(self) -> None:
        if not 0 <= self.kind <= 255:
            raise ValueError(f"the kind of a side record is from 0 to 255, not {self.kind}")
        if len(self.key) + len(self.value or b"") > MAX_SIDE_BYTES:
            raise ValueError(f"a side record has at most {MAX_SIDE_BYTES} bytes")

    @property
    def nbytes(self) -> int:
        """Bytes that a commit of it writes, about."""
        return 64 if self.value is None else len(self.key) + len(self.value) + 64


class SideRecord(NamedTuple):
    """What a `PutSide` put."""

    kind: int
    key: bytes
    value: bytes


@dataclass(frozen=True, slots=True)
class SideRecords:
    """Every side record of an index.

    Attributes:
        records: by ascending kind, in no particular order within it.
        damaged: how many more there are that cannot be read. One goes when a record is put under
            its key again, or with the index.
    """

    records: list[SideRecord]
    damaged: int


@dataclass(frozen=True, slots=True)
class PutMeta:
    """Put a meta record, in place of the one that is there.

    Meta records are what is kept of the server as a whole, beside its indexes. The store knows
    nothing of what is in them.

    Attributes:
        space: what the record is for: a lower-case letter and up to 31 more of a-z, 0-9, "_", "."
            and "-". Keys of different spaces are different keys.
        key: the record's key within its space, at most `MAX_META_KEY_BYTES`.
        value: at most `MAX_META_BYTES`.

    Raises:
        ValueError: one of them is not as it should be.
    """

    space: str
    key: bytes
    value: bytes

    def __post_init__(self) -> None:
        _check_meta_key(self.space, self.key)
        if len(self.value) > MAX_META_BYTES:
            raise ValueError(f"the value of a meta record has at most {MAX_META_BYTES} bytes")

    @property
    def nbytes(self) -> int:
        """Bytes that a commit of it writes, about."""
        return len(self.space) + len(self.key) + len(self.value) + 16


@dataclass(frozen=True, slots=True)
class DropMeta:
    """Remove a meta record, if it is there.

    Attributes:
        space, key: as of `PutMeta`.

    Raises:
        ValueError: one of them is not as it should be.
    """

    space: str
    key: bytes

    def __post_init__(self) -> None:
        _check_meta_key(self.space, self.key)

    @property
    def nbytes(self) -> int:
        """Bytes that a commit of it writes, about."""
        return len(self.space) + len(self.key) + 16


def _check_meta_key(space: str, key: bytes) -> None:
    if not _SPACE_NAME.fullmatch(space):
        raise ValueError(f"{space!r} is no name of a space of meta records")
    if len(key) > MAX_META_KEY_BYTES:
        raise ValueError(f"the key of a meta record has at most {MAX_META_KEY_BYTES} bytes")


Change = WriteBatch | PutIndex | DropIndex | PutSide | PutMeta | DropMeta


class Store(Protocol):
    """Where indexes live. Synchronous: every call comes from one thread at a time.

    Everything that writes raises `MisconfError` when the disk cannot be written; nothing of that
    call is visible then, and the next call tries again.
    """

    def indexes(self) -> list[tuple[int, bytes]]:
        """The catalogue: uid and blob of every index, by ascending uid."""
        ...

    def next_uid(self) -> int:
        """A uid that was never used and never will be again, whatever happens next."""
        ...

    def load(self, uid: int) -> RecordColumns:
        """Every record of an index. Empty for an index that has none."""
        ...

    def load_side(self, uid: int) -> SideRecords:
        """Every side record of an index."""
        ...

    def load_meta(self, space: str) -> list[tuple[bytes, bytes]]:
        """Key and value of every meta record of a space, by ascending key.

        The first call looks at the records of all other spaces too.

        Raises:
            StorageError: a record is damaged, or not there any more; or a newer Pyrope wrote it.
        """
        ...

    def page_meta(self, space: str, after: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        """Up to `limit` meta records of a space whose keys are above `after`, by ascending key.

        Raises:
            StorageError: one of them is damaged, or a newer Pyrope wrote it.
        """
        ...

    def get_meta(self, space: str, key: bytes) -> bytes | None:
        """The value of one meta record; None: it is not there.

        Raises:
            StorageError: the record is damaged, or a newer Pyrope wrote it.
        """
        ...

    def vectors(self, uid: int, dim: int) -> VectorFile:
        """The index's vector file, opened (or created) on the first call; the store closes it."""
        ...

    def discard(self, uid: int) -> None:
        """Close and remove the files of a uid that the catalogue does not name.

        What cannot be removed goes at the next opening of the store.
        """
        ...

    def graph_path(self, uid: int) -> Path | None:
        """Where `graph_file.save_graph` keeps the index's graph; None where nothing is kept."""
        ...

    def commit(self, changes: Sequence[Change]) -> None:
        """Make all changes durable, in order and all together, or none of them.

        Raises:
            MisconfError: the disk refused.
            StorageError: a change breaks a rule of `WriteBatch`, or the index of a batch or of a
                side record does not exist.
        """
        ...

    @property
    def garbage_left(self) -> bool:
        """Whether dropped indexes still hold space."""
        ...

    def collect_garbage(self, limit: int = 5_000) -> None:
        """Free a bounded part (`limit` records) of what dropped indexes still hold."""
        ...

    def disk_bytes(self) -> int:
        """Bytes allocated on disk (in memory for a store that is nowhere else)."""
        ...

    def close(self) -> None:
        """Close every file. Views of vector files stay valid for those who hold them."""
        ...
