"""How a record is stored: key and value, and how damage in either is found.

Key: uid (8 bytes, big-endian), slot (4 bytes, big-endian), so that the records of an index lie
together in the order of their slots. Value, little-endian unless said otherwise, no padding:

    8 bytes  digest: XXH3-64, big-endian, of the key and of all that follows here
    u8       version, 1
    u64      sequence
    u64      expires_at_ms
    u64      row_checksum: XXH3-64 of the vector's row in the vector file
    u32      length of the id
    u32      length of the attributes
    id, attributes

LMDB has no checksums of its own, hence the digest; that it covers the key too finds a value under
the wrong key. Every later version keeps the digest where it is, so that a record of a newer
Pyrope is told from a damaged one. 10,000 rows of 384 floats take XXH3-64 0.8 ms, XXH32 2.4 ms,
crc32 4.3 ms (benchmarks/micro_storage.py).
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np
from xxhash import xxh3_64_digest, xxh3_64_intdigest

from pyrope.storage.store import MAX_SLOT, Record, RecordColumns, StorageError
from pyrope.types import Float32Matrix, Slots

_VERSION = 1
_DIGEST_LENGTH = 8
_FIELDS = struct.Struct("<BQQQII")
_ID_AT = _DIGEST_LENGTH + _FIELDS.size
_HEAD = np.dtype(
    [
        ("digest", "V8"),
        ("version", "u1"),
        ("sequence", "<u8"),
        ("expires_at_ms", "<u8"),
        ("row_checksum", "<u8"),
        ("id_length", "<u4"),
        ("attributes_length", "<u4"),
    ]
)
_UID_LENGTH = 8
_KEY_LENGTH = 12


def index_prefix(uid: int) -> bytes:
    """What the keys of all records of an index begin with. Raises StorageError for no u64."""
    if not 0 <= uid < 2**64:
        raise StorageError(f"uid {uid} is no unsigned number of 64 bits")
    return uid.to_bytes(_UID_LENGTH, "big")


def record_key(prefix: bytes, slot: int) -> bytes:
    """The key of a slot's record. Raises StorageError for a slot outside 0 to `MAX_SLOT`."""
    if not 0 <= slot <= MAX_SLOT:
        raise StorageError(f"slot {slot} is outside 0 to {MAX_SLOT}")
    return prefix + slot.to_bytes(4, "big")


def row_checksums(vectors: Float32Matrix) -> list[int]:
    """XXH3-64 of each row, shape (n, dim), C-contiguous."""
    return [xxh3_64_intdigest(row) for row in vectors]


def encode_record(prefix: bytes, record: Record, row_checksum: int) -> tuple[bytes, bytes]:
    """Key and value of a record. Raises StorageError where a field does not fit its width."""
    slot, identifier, sequence, expires_at_ms, attributes = record
    key = record_key(prefix, slot)
    try:
        fields = _FIELDS.pack(
            _VERSION, sequence, expires_at_ms, row_checksum, len(identifier), len(attributes)
        )
    except struct.error as error:
        raise StorageError(f"the record at slot {slot} cannot be stored: {error}") from error
    body = fields + identifier + attributes
    return key, xxh3_64_digest(key + body) + body


def decode_record(key: bytes, value: bytes) -> tuple[Record, int]:
    """The record and its row's checksum.

    Raises:
        StorageError: the record is damaged, or a newer Pyrope wrote it.
    """
    slot = int.from_bytes(key[_UID_LENGTH:], "big")
    if not _is_whole(key, value):
        uid = int.from_bytes(key[:_UID_LENGTH], "big")
        raise StorageError(f"the record at slot {slot} of index {uid} is damaged")
    version, sequence, expires_at_ms, row_checksum, id_length, _ = _FIELDS.unpack_from(
        value, _DIGEST_LENGTH
    )
    _check_version(version)
    end = _ID_AT + id_length
    return Record(slot, value[_ID_AT:end], sequence, expires_at_ms, value[end:]), row_checksum


def decode_columns(sequence: int, keys: Sequence[bytes], values: Sequence[bytes]) -> RecordColumns:
    """All records of an index at once, without an object for each.

    Raises:
        StorageError: a key is no record's key, or a newer Pyrope wrote one of the records.
    """
    if set(map(len, keys)) - {_KEY_LENGTH}:
        raise StorageError("the store holds a key that is no record's: the store is damaged")
    slots = np.frombuffer(b"".join([key[_UID_LENGTH:] for key in keys]), ">u4").astype(np.int64)
    whole = np.array(list(map(_is_whole, keys, values)), np.bool_)
    damaged = slots[~whole]
    if len(damaged):
        slots = slots[whole]
        values = [value for value, good in zip(values, whole.tolist(), strict=True) if good]
    heads = np.frombuffer(b"".join([value[:_ID_AT] for value in values]), _HEAD)
    _check_version(int(heads["version"].max(initial=0)))
    ends = (heads["id_length"].astype(np.int64) + _ID_AT).tolist()
    return RecordColumns(
        sequence=sequence,
        slots=slots,
        ids=[value[_ID_AT:end] for value, end in zip(values, ends, strict=True)],
        sequences=np.ascontiguousarray(heads["sequence"], np.uint64),
        expires_at_ms=np.ascontiguousarray(heads["expires_at_ms"], np.uint64),
        attributes=[value[end:] for value, end in zip(values, ends, strict=True)],
        row_checksums=np.ascontiguousarray(heads["row_checksum"], np.uint64),
        damaged=damaged,
    )


def damaged_rows(columns: RecordColumns, view: Float32Matrix) -> Slots:
    """Slots whose row is not the one that its record was written with.

    Args:
        columns: what `Store.load` answered.
        view: the index's `VectorFile.view()`, shape (capacity, dim).

    Returns:
        int64, shape (m,), ascending. Slots beyond the end of the file are among them.
    """
    inside = int(np.searchsorted(columns.slots, len(view)))
    found = [xxh3_64_intdigest(view[slot]) for slot in columns.slots[:inside].tolist()]
    wrong = np.array(found, np.uint64) != columns.row_checksums[:inside]
    return np.concatenate([columns.slots[:inside][wrong], columns.slots[inside:]])


def _is_whole(key: bytes, value: bytes) -> bool:
    # A record whose digest is right was written as it is, by this version or by a newer one
    # whose lengths mean something else; so the lengths need no check of their own.
    return (
        len(value) >= _ID_AT
        and xxh3_64_digest(key + value[_DIGEST_LENGTH:]) == value[:_DIGEST_LENGTH]
    )


def _check_version(version: int) -> None:
    if version > _VERSION:
        raise StorageError(
            f"a record has format {version} and this Pyrope knows formats up to {_VERSION}: "
            "start the newer Pyrope that wrote it"
        )
