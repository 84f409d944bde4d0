"""An alias, and how it is stored."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import StrEnum

from pyrope.cache.query_key import KeyKind, QueryKey, make_key

SUSPENDED_AFTER = 3
"""Audits in a row that share nothing with what an alias led to, until it is not followed."""

_VERSION = 1
# Version, source, kind of the canonical, confidence, created, expires, length of the alias.
_FIELDS = struct.Struct("<3B d 2Q I")


class AliasSource(StrEnum):
    """Who says so: a language model, a rule, a person."""

    LLM = "llm"
    RULE = "rule"
    MANUAL = "manual"


_SOURCES = (AliasSource.LLM, AliasSource.RULE, AliasSource.MANUAL)
"""By their number on disk."""


@dataclass(frozen=True, slots=True)
class Canonical:
    """What an alias stands for.

    Attributes:
        key: the query that is answered instead.
        confidence: that this is right, 0 to 1.
    """

    key: QueryKey
    confidence: float
    source: AliasSource


@dataclass(slots=True, eq=False)
class Alias:
    """A key that stands for another one.

    Attributes:
        created_at_ms, expires_at_ms: Unix time in milliseconds; 0: never.
        hits: how often it has been resolved since it was set, or the server started.
        audits: full searches that hits by it were compared with since then.
        unlike: of these, the last in a row that shared nothing with what was served.
        place: where the map lists it; the map's own.
    """

    key: QueryKey
    canonical: Canonical
    created_at_ms: int
    expires_at_ms: int
    hits: int = 0
    audits: int = 0
    unlike: int = 0
    place: int = -1

    @property
    def is_suspended(self) -> bool:
        """Whether it is not followed, because it leads elsewhere; until it is set again."""
        return self.unlike >= SUSPENDED_AFTER

    def is_expired(self, now_ms: int) -> bool:
        return 0 < self.expires_at_ms <= now_ms


def encode_alias(alias: Alias) -> bytes:
    """The alias without its key's identity, which it is stored under, and without its hits.

    Little-endian, no padding: u8 version, u8 source, u8 kind of the canonical, f64 confidence, u64
    created, u64 expires, u32 length of the alias' content; this content; the canonical's.
    """
    canonical = alias.canonical
    fields = _FIELDS.pack(
        _VERSION,
        _SOURCES.index(canonical.source),
        canonical.key.kind,
        canonical.confidence,
        alias.created_at_ms,
        alias.expires_at_ms,
        len(alias.key.content),
    )
    return fields + alias.key.content + canonical.key.content


def decode_alias(identity: bytes, stored: bytes) -> Alias:
    """The alias that `encode_alias` has encoded.

    Raises:
        ValueError: a newer Pyrope wrote it.
    """
    if stored[0] != _VERSION:
        raise ValueError(f"an alias has format {stored[0]} and this Pyrope knows {_VERSION}")
    _, source, kind, confidence, created, expires, length = _FIELDS.unpack_from(stored)
    end = _FIELDS.size + length
    return Alias(
        key=QueryKey(identity, stored[_FIELDS.size : end]),
        canonical=Canonical(make_key(KeyKind(kind), stored[end:]), confidence, _SOURCES[source]),
        created_at_ms=created,
        expires_at_ms=expires,
    )
