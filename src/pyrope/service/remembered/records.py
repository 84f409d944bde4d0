"""Side records of remembered responses: what is written of one, deleted, and read again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from pyrope.cache.query_key import text_key
from pyrope.semantic.remembered.entry import (
    Entry,
    apply_state,
    decode_entry,
    encode_state,
    prompt_key,
)
from pyrope.storage.store import PutSide, SideRecord
from pyrope.types import Float32Matrix

ENTRY_KIND, STATE_KIND = 3, 4
"""Of the side records that hold responses: what does not change of one, and what does."""

_KINDS = (ENTRY_KIND, STATE_KIND)


def state_of(uid: int, entry: Entry) -> PutSide:
    """What changes of a response, as it is now."""
    return PutSide(uid, STATE_KIND, entry.record_key, encode_state(entry))


def deletions(uid: int, record_keys: Iterable[bytes]) -> list[PutSide]:
    """Changes after which nothing is left of these responses."""
    return [PutSide(uid, kind, key, None) for key in record_keys for kind in _KINDS]


@dataclass(slots=True)
class Decoded:
    """What the store held.

    Attributes:
        by_scope: entries with their vectors, shape (n, dim).
        useless: keys of records that serve nobody.
    """

    by_scope: dict[bytes, tuple[list[Entry], Float32Matrix]] = field(default_factory=dict)
    useless: list[bytes] = field(default_factory=list)


def decode(records: list[SideRecord], dim: int, now_ms: int) -> Decoded:
    """Read what the store holds; in any thread.

    Args:
        records: of `ENTRY_KIND` and `STATE_KIND`; emptied on the way.
        dim: of the index.

    Raises:
        EntryFormatError: a newer Pyrope wrote one of them.
    """
    states: dict[bytes, bytes] = {}
    by_scope: dict[bytes, tuple[list[Entry], list[bytes]]] = {}
    decoded = Decoded()
    known: set[bytes] = set()
    # In order of their kind: states come last, and so are popped first.
    records.sort(key=lambda record: record.kind)
    while records:
        record = records.pop()
        if record.kind == STATE_KIND:
            states[record.key] = record.value
            continue
        entry, vector = decode_entry(record.key, record.value)
        entry.key = prompt_key(text_key(entry.prompt).identity)
        state = states.get(record.key)
        if state is not None:
            apply_state(entry, state)
        known.add(record.key)
        if entry.is_over(now_ms) or len(vector) != 4 * dim:
            decoded.useless.append(record.key)
            continue
        entries, vectors = by_scope.setdefault(entry.scope, ([], []))
        entries.append(entry)
        vectors.append(vector)
    decoded.useless += states.keys() - known
    for scope, (entries, vectors) in by_scope.items():
        rows = np.frombuffer(b"".join(vectors), "<f4").reshape(len(entries), -1)
        decoded.by_scope[scope] = entries, rows
    return decoded
