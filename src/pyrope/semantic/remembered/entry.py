"""One remembered response, and how it is stored.

Two records stand for an entry. The first is written once, when the response is remembered, and
holds all that does not change, its vector included. The second is small, and written when what
happens to the entry has changed it: hits, the end of a sliding life, quarantine.

    u8   version, 1                     u8   flags: 1, the response is compressed (zlib)
    u64  created, Unix ms               u64  life in ms that a hit renews; 0: none does
    u64  expiry, Unix ms; 0: never      f64  cost units that a hit saves
    u32  tokens of the prompt           u32  tokens of the response
    u32  bytes of the response          u32  bytes that it is stored in
    u32  bytes of the scope             u32  bytes of the prompt
    u32  bytes of the vector            u64  index that its documents are of; 0: none
    u16  documents
    scope, prompt, response, vector (little-endian float32 of length 1), and for each document u32
    bytes of its id, id

    u8   version, 1    u8  flags: 1, quarantined    u64  hits    u64  last hit, Unix ms
    u64  expiry, Unix ms
    f64  offset, f64 information: what labels have taught of it, see `pyrope.semantic.evidence`
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from enum import Enum
from hashlib import blake2b

from pyrope.semantic.evidence import NOTHING, Evidence

_VERSION = 1
_FIELDS = struct.Struct("<BBQQQdIIIIIIIQH")
_LENGTH = struct.Struct("<I")
_STATE = struct.Struct("<BBQQQdd")
_COMPRESSED = 1
_QUARANTINED = 1

KEY_BYTES = 16
_NAME_DIGITS = 16

# A response is compressed where that saves so much: less is not worth the microseconds at each hit.
_LEAST_BYTES, _LEAST_SAVED = 512, 1 / 8
# Level 6 takes twice as long as 1 and saves a tenth more (2 KiB of English: 0.02 ms, to 52 %;
# 64 KiB: 1.8 ms, to 34 %).
_LEVEL = 6

# Of an entry beside its bytes (CPython 3.11): the object, its places in tables, its numbers.
_ENTRY_BYTES = 640
_BYTES_OBJECT = 33
_DOCUMENT_BYTES = 200


class EntryFormatError(Exception):
    """A record was written by a newer Pyrope."""


class Stage(Enum):
    """How far an entry is. PENDING: not durable yet. LIVE: it is. GONE: it is no more."""

    PENDING = "pending"
    LIVE = "live"
    GONE = "gone"


@dataclass(frozen=True, slots=True)
class Documents:
    """What a response was made from.

    Attributes:
        uid: number of the index.
        ids: of its vectors, distinct.
    """

    uid: int
    ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Body:
    """A response as it is kept.

    Attributes:
        stored: its bytes, compressed where that pays.
        nbytes: of the response itself.
    """

    stored: bytes
    nbytes: int
    is_compressed: bool

    @staticmethod
    def of(response: bytes) -> Body:
        """Keep a response; 0.1 ms for 8 KiB, 30 ms for 1 MiB, most of it without the GIL."""
        if len(response) >= _LEAST_BYTES:
            packed = zlib.compress(response, _LEVEL)
            if len(packed) <= (1 - _LEAST_SAVED) * len(response):
                return Body(packed, len(response), is_compressed=True)
        return Body(response, len(response), is_compressed=False)

    def response(self) -> bytes:
        """The response: 0.02 ms for 8 KiB, 3 ms for 1 MiB."""
        return zlib.decompress(self.stored) if self.is_compressed else self.stored


@dataclass(slots=True, eq=False)
class Entry:
    """A response that is remembered for a prompt.

    Attributes:
        id: 64 bits that name it within its index, drawn at random.
        key: digest of its prompt in normal form; see `prompt_key`.
        prompt: as it was given, UTF-8.
        scope: canonical form; see `pyrope.semantic.remembered.scope`.
        created_ms, expires_ms: Unix time in milliseconds; 0: it does not expire.
        sliding_ms: life that a hit renews; 0: none does.
        cost: units that a hit saves.
        tokens_in, tokens_out: of prompt and response, about.
        vector_bytes: of its vector, wherever that is.
        documents: whose change ends it; None: none does.
        place: of its vector; the owner's own.
        older: the entry of the same prompt that serves until this one is durable.
        leaving: commits under way that end it, and things that have ended it for sure; while there
            is one it is not served.
        hits: since it was remembered; `count` are the same with age, for its worth.
        used_ms: Unix time of the last hit.
        evidence: what labels have taught of its near hits.
        number: of its place in a table; the table's own.
    """

    id: int
    key: bytes
    prompt: bytes
    scope: bytes
    body: Body
    created_ms: int
    expires_ms: int
    sliding_ms: int
    cost: float
    tokens_in: int
    tokens_out: int
    vector_bytes: int
    documents: Documents | None = None
    stage: Stage = Stage.PENDING
    place: int = -1
    older: Entry | None = None
    leaving: int = 0
    is_quarantined: bool = False
    hits: int = 0
    count: float = 1.0
    epoch: int = 0
    used_ms: int = 0
    evidence: Evidence = NOTHING
    number: int = -1

    @property
    def name(self) -> bytes:
        """What clients call it."""
        return b"%016x" % self.id

    @property
    def record_key(self) -> bytes:
        """Of both of its records, within their kinds."""
        return self.id.to_bytes(8, "big")

    @property
    def nbytes(self) -> int:
        """Memory that it takes, in bytes, its vector included."""
        documents = self.documents
        nbytes = _ENTRY_BYTES + self.vector_bytes + len(self.prompt) + len(self.body.stored)
        if documents is not None:
            nbytes += sum([_DOCUMENT_BYTES + len(id_) for id_ in documents.ids])
        return nbytes + 2 * _BYTES_OBJECT

    def is_over(self, now_ms: int) -> bool:
        """Whether it has expired."""
        return 0 < self.expires_ms <= now_ms

    def may_serve(self, now_ms: int) -> bool:
        """Whether it may answer anybody."""
        return (
            self.stage is Stage.LIVE
            and not self.leaving
            and not self.is_quarantined
            and not self.is_over(now_ms)
        )

    def age_to(self, epoch: int) -> None:
        """Let its uses count for half with every epoch that has gone by."""
        self.count *= 0.5 ** min(epoch - self.epoch, 60)
        self.epoch = epoch


def prompt_key(identity: bytes) -> bytes:
    """What stands for a prompt in normal form: nobody can make two that collide."""
    return blake2b(identity, digest_size=KEY_BYTES).digest()


def parse_name(name: bytes) -> int | None:
    """The number of an entry that clients call by `name`; None: that is no entry's name."""
    if len(name) != _NAME_DIGITS or name.strip(b"0123456789abcdef"):
        return None
    return int(name, 16)


def encode_entry(entry: Entry, vector: bytes) -> bytes:
    """The first record of an entry.

    Args:
        vector: little-endian float32, of length 1.
    """
    body, documents = entry.body, entry.documents
    ids = () if documents is None else documents.ids
    parts = [
        _FIELDS.pack(
            _VERSION,
            _COMPRESSED if body.is_compressed else 0,
            entry.created_ms,
            entry.sliding_ms,
            entry.expires_ms,
            entry.cost,
            entry.tokens_in,
            entry.tokens_out,
            body.nbytes,
            len(body.stored),
            len(entry.scope),
            len(entry.prompt),
            len(vector),
            0 if documents is None else documents.uid,
            len(ids),
        ),
        entry.scope,
        entry.prompt,
        body.stored,
        vector,
    ]
    for id_ in ids:
        parts += (_LENGTH.pack(len(id_)), id_)
    return b"".join(parts)


def decode_entry(key: bytes, record: bytes) -> tuple[Entry, bytes]:
    """An entry out of its first record, LIVE and without its `key`; and its vector.

    Args:
        key: of the record.

    Raises:
        EntryFormatError: a newer Pyrope wrote it.
    """
    if record[0] != _VERSION:
        raise EntryFormatError(
            f"a remembered response has format {record[0]} and this Pyrope knows format {_VERSION}"
        )
    (
        _,
        flags,
        created_ms,
        sliding_ms,
        expires_ms,
        cost,
        tokens_in,
        tokens_out,
        body_bytes,
        *lengths,
        uid,
        count,
    ) = _FIELDS.unpack_from(record)
    stored_bytes, scope_bytes, prompt_bytes, vector_bytes = lengths
    position = _FIELDS.size
    parts = []
    for length in (scope_bytes, prompt_bytes, stored_bytes, vector_bytes):
        parts.append(record[position : position + length])
        position += length
    scope, prompt, stored, vector = parts
    ids = []
    for _ in range(count):
        (length,) = _LENGTH.unpack_from(record, position)
        position += _LENGTH.size
        ids.append(record[position : position + length])
        position += length
    entry = Entry(
        id=int.from_bytes(key, "big"),
        key=b"",
        prompt=prompt,
        scope=scope,
        body=Body(stored, body_bytes, is_compressed=bool(flags & _COMPRESSED)),
        created_ms=created_ms,
        expires_ms=expires_ms,
        sliding_ms=sliding_ms,
        cost=cost,
        tokens_in=tokens_in,
        tokens_out=tokens_out,
        vector_bytes=vector_bytes,
        documents=Documents(uid, tuple(ids)) if count else None,
        stage=Stage.LIVE,
    )
    return entry, vector


def encode_state(entry: Entry) -> bytes:
    """The second record of an entry."""
    flags = _QUARANTINED if entry.is_quarantined else 0
    evidence = entry.evidence
    return _STATE.pack(
        _VERSION,
        flags,
        entry.hits,
        entry.used_ms,
        entry.expires_ms,
        evidence.offset,
        evidence.information,
    )


def apply_state(entry: Entry, record: bytes) -> None:
    """Bring an entry to what its second record says. Raises EntryFormatError."""
    if record[0] != _VERSION:
        raise EntryFormatError(
            f"the state of a remembered response has format {record[0]} and this Pyrope knows "
            f"format {_VERSION}"
        )
    _, flags, entry.hits, entry.used_ms, entry.expires_ms, offset, information = _STATE.unpack(
        record
    )
    if information:
        entry.evidence = Evidence(offset, information)
    entry.is_quarantined = bool(flags & _QUARANTINED)
    entry.count = 1.0 + entry.hits
