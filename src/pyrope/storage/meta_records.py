"""How a meta record is stored: key and value, and how damage in either is found.

Key: space, a NUL byte, and the record's own key, which is short enough to be there as it is: what
is damaged can be named. Value, no padding:

    8 bytes  digest: XXH3-64, big-endian, of LMDB's key and of all that follows here
    u8       version, 1
    value

As with records, every later version keeps the digest where it is.

Damage is an error here, not a number of records that are passed over as among side records: what
is missing would count as never having been, a tenant as unknown and a budget as unspent.
"""

from __future__ import annotations

from collections.abc import Iterable

from xxhash import xxh3_64_digest

from pyrope.storage.store import StorageError

_VERSION = 1
_DIGEST_LENGTH = 8
_VALUE_AT = _DIGEST_LENGTH + 1
_HEAD = bytes([_VERSION])


def space_prefix(space: str) -> bytes:
    """What the keys of all records of a space begin with."""
    return space.encode() + b"\0"


def meta_key(space: str, key: bytes) -> bytes:
    """LMDB's key of a meta record."""
    return space_prefix(space) + key


def encode_meta(stored_key: bytes, value: bytes) -> bytes:
    """LMDB's value of a meta record.

    Args:
        stored_key: what `meta_key` answered.
        value: the record's own.
    """
    body = _HEAD + value
    return xxh3_64_digest(stored_key + body) + body


def check_metas(items: Iterable[tuple[bytes, bytes]], expected: int) -> None:
    """Look at every meta record that there is.

    Args:
        items: LMDB's keys and values.
        expected: how many there are, as LMDB counts them.

    Raises:
        StorageError: as `decode_metas`; or there are more or fewer than there should be.
    """
    found = 0
    for stored_key, stored in items:
        _check(stored_key, stored)
        found += 1
    if found != expected:
        raise StorageError(
            f"the store has {expected} meta records and {found} of them can be found: bring the "
            "data directory back from a backup"
        )


def decode_metas(
    prefix: bytes, stored_keys: list[bytes], stored_values: list[bytes]
) -> list[tuple[bytes, bytes]]:
    """Own keys and values of the meta records of one space.

    Args:
        prefix: what `space_prefix` answered.
        stored_keys: of LMDB, each with that prefix.
        stored_values: of LMDB; `stored_values[i]` belongs to `stored_keys[i]`.

    Raises:
        StorageError: one of them is damaged, or a newer Pyrope wrote it.
    """
    start = len(prefix)
    records = []
    for stored_key, stored in zip(stored_keys, stored_values, strict=True):
        records.append((stored_key[start:], decode_meta(stored_key, stored)))
    return records


def decode_meta(stored_key: bytes, stored: bytes) -> bytes:
    """The own value of one meta record. Raises StorageError as `decode_metas`."""
    _check(stored_key, stored)
    return stored[_VALUE_AT:]


def _check(stored_key: bytes, stored: bytes) -> None:
    if (
        len(stored) < _VALUE_AT
        or xxh3_64_digest(stored_key + stored[_DIGEST_LENGTH:]) != stored[:_DIGEST_LENGTH]
    ):
        raise StorageError(
            f"{_name(stored_key)} is damaged: bring the data directory back from a backup"
        )
    if stored[_DIGEST_LENGTH] != _VERSION:
        raise StorageError(
            f"{_name(stored_key)} has format {stored[_DIGEST_LENGTH]} and this Pyrope knows "
            f"format {_VERSION}: start the newer Pyrope that wrote it"
        )


def _name(stored_key: bytes) -> str:
    space, _, key = stored_key.partition(b"\0")
    return f"the meta record {str(key)[1:]} of the space {str(space)[1:]}"
