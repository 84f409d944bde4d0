"""The record codec: what was encoded comes back, and damage is found."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from xxhash import xxh3_64_digest

from pyrope.storage.codec import (
    damaged_rows,
    decode_columns,
    decode_record,
    encode_record,
    index_prefix,
    record_key,
    row_checksums,
)
from pyrope.storage.store import MAX_SLOT, Record, StorageError
from storage.store_samples import record, rows

_U64 = st.integers(0, 2**64 - 1)
_RECORDS = st.builds(
    Record, st.integers(0, MAX_SLOT), st.binary(max_size=80), _U64, _U64, st.binary(max_size=80)
)


@given(record=_RECORDS, uid=_U64, checksum=_U64)
def test_a_record_comes_back_as_it_was(record: Record, uid: int, checksum: int) -> None:
    key, value = encode_record(index_prefix(uid), record, checksum)
    assert decode_record(key, value) == (record, checksum)


@given(records=st.lists(_RECORDS, max_size=20, unique_by=lambda r: r.slot))
def test_columns_hold_what_the_records_do(records: list[Record]) -> None:
    records.sort()
    items = [encode_record(index_prefix(7), r, i) for i, r in enumerate(records)]
    columns = decode_columns(3, [key for key, _ in items], [value for _, value in items])
    assert columns.sequence == 3
    assert len(columns) == len(records)
    assert columns.slots.tolist() == [r.slot for r in records]
    assert columns.ids == [r.id for r in records]
    assert columns.sequences.tolist() == [r.sequence for r in records]
    assert columns.expires_at_ms.tolist() == [r.expires_at_ms for r in records]
    assert columns.attributes == [r.attributes for r in records]
    assert columns.row_checksums.tolist() == list(range(len(records)))
    assert not len(columns.damaged)


@settings(max_examples=300)
@given(bit=st.integers(0, 8 * (41 + 4 + 9) - 1), of_key=st.booleans())
def test_every_flipped_bit_is_found(bit: int, *, of_key: bool) -> None:
    key, value = encode_record(index_prefix(7), record(5, id_=b"name", attributes=b'{"a": 1}'), 9)
    damaged = bytearray(key if of_key else value)
    damaged[bit // 8 % len(damaged)] ^= 1 << bit % 8
    pair = (bytes(damaged), value) if of_key else (key, bytes(damaged))
    with pytest.raises(StorageError, match=r"record at slot \d+ of index \d+ is damaged"):
        decode_record(*pair)
    assert len(decode_columns(0, [pair[0]], [pair[1]]).damaged) == 1


@given(length=st.integers(0, 53))
def test_a_record_cut_short_is_found(length: int) -> None:
    key, value = encode_record(index_prefix(7), record(5, id_=b"name", attributes=b'{"a": 1}'), 9)
    with pytest.raises(StorageError, match="damaged"):
        decode_record(key, value[: min(length, len(value) - 1)])


def test_a_damaged_record_is_left_out_of_the_columns_and_named() -> None:
    items = [encode_record(index_prefix(7), record(slot), slot) for slot in range(4)]
    values = [value for _, value in items]
    values[2] = values[2][:-1] + b"?"
    columns = decode_columns(0, [key for key, _ in items], values)
    assert columns.damaged.tolist() == [2]
    assert columns.slots.tolist() == [0, 1, 3]
    assert columns.ids == [b"id-0", b"id-1", b"id-3"]


def test_a_record_of_a_newer_format_is_told_from_a_damaged_one() -> None:
    key, value = encode_record(index_prefix(7), record(5), 9)
    body = bytes([2]) + value[9:] + b"what format 2 added"
    newer = xxh3_64_digest(key + body) + body
    with pytest.raises(StorageError, match="start the newer Pyrope"):
        decode_record(key, newer)
    with pytest.raises(StorageError, match="start the newer Pyrope"):
        decode_columns(0, [key], [newer])


def test_a_key_that_is_no_records_key_is_refused() -> None:
    key, value = encode_record(index_prefix(7), record(5), 9)
    with pytest.raises(StorageError, match="no record's"):
        decode_columns(0, [key + b"x"], [value])


@pytest.mark.parametrize("slot", [-1, MAX_SLOT + 1])
def test_a_slot_that_does_not_fit_is_refused(slot: int) -> None:
    with pytest.raises(StorageError, match="outside"):
        record_key(index_prefix(1), slot)


@pytest.mark.parametrize("uid", [-1, 2**64])
def test_a_uid_that_does_not_fit_is_refused(uid: int) -> None:
    with pytest.raises(StorageError, match="64 bits"):
        index_prefix(uid)


def test_a_sequence_that_does_not_fit_is_refused() -> None:
    with pytest.raises(StorageError, match="cannot be stored"):
        encode_record(index_prefix(1), record(0, sequence=2**64), 0)


def test_rows_that_changed_or_are_beyond_the_file_are_named() -> None:
    view = rows(range(6))
    checksums = row_checksums(view)
    items = [encode_record(index_prefix(7), record(slot), checksums[slot]) for slot in range(6)]
    columns = decode_columns(0, [key for key, _ in items], [value for _, value in items])
    assert damaged_rows(columns, view).tolist() == []
    view[3, 2] = np.nextafter(view[3, 2], np.float32(np.inf))
    assert damaged_rows(columns, view).tolist() == [3]
    assert damaged_rows(columns, view[:5]).tolist() == [3, 5]
