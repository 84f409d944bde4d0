"""How a side record is stored: key and value, and how damage in either is found.

Key: uid (8 bytes, big-endian), kind (1 byte), BLAKE2b of the record's own key (20 bytes): the keys
of LMDB are limited to 511 bytes, those of records are not. Clients choose them, hence a digest for
which nobody can make two keys that collide. Value, no padding:

    8 bytes  digest: XXH3-64, big-endian, of LMDB's key and of all that follows here
    u8       version, 1
    u32      length of the record's own key, little-endian
    key, value

As with records, every later version keeps the digest where it is.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from hashlib import blake2b

from xxhash import xxh3_64_digest

from pyrope.storage.codec import index_prefix
from pyrope.storage.store import PutSide, SideRecord, SideRecords, StorageError

_VERSION = 1
_DIGEST_LENGTH = 8
_FIELDS = struct.Struct("<BI")
_KEY_AT = _DIGEST_LENGTH + _FIELDS.size
_KIND_AT = 8
_KEY_DIGEST_LENGTH = 20


def side_key(change: PutSide) -> bytes:
    """LMDB's key of a side record. Raises StorageError where the uid is no u64."""
    digest = blake2b(change.key, digest_size=_KEY_DIGEST_LENGTH).digest()
    return b"%b%c%b" % (index_prefix(change.uid), change.kind, digest)


def encode_side(stored_key: bytes, key: bytes, value: bytes) -> bytes:
    """LMDB's value of a side record.

    Args:
        stored_key: what `side_key` answered.
        key, value: the record's own.
    """
    body = b"".join([_FIELDS.pack(_VERSION, len(key)), key, value])
    return xxh3_64_digest(stored_key + body) + body


def decode_sides(items: Iterable[tuple[bytes, bytes]]) -> SideRecords:
    """The side records of LMDB's keys and values.

    Raises:
        StorageError: a newer Pyrope wrote one of them.
    """
    records: list[SideRecord] = []
    damaged = 0
    for stored_key, stored in items:
        digest, body = stored[:_DIGEST_LENGTH], stored[_DIGEST_LENGTH:]
        if len(body) < _FIELDS.size or xxh3_64_digest(stored_key + body) != digest:
            damaged += 1
            continue
        version, key_length = _FIELDS.unpack_from(body)
        if version != _VERSION:
            raise StorageError(
                f"a side record has format {version} and this Pyrope knows format {_VERSION}: "
                "start the newer Pyrope that wrote it"
            )
        end = _KEY_AT + key_length
        records.append(SideRecord(stored_key[_KIND_AT], stored[_KEY_AT:end], stored[end:]))
    return SideRecords(records, damaged)
