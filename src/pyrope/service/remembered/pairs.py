"""What was said of pairs of prompts: that one response serves both, or that it does not.

By people (feedback) and by language models that were asked. A pair is one prompt that was asked and
one that is remembered, within a scope: what holds in one scope may not in another. Verdicts outlast
the response, as they are of prompts. They are few and small, and kept durably; past a bound those
go that were of no use for longest.
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Iterable
from hashlib import blake2b

from pyrope.semantic.remembered.entry import KEY_BYTES, EntryFormatError
from pyrope.semantic.sources import UNSAID, Source, Verdicts
from pyrope.storage.store import PutSide, SideRecord

PAIR_KIND = 5
"""Of the side records that hold verdicts."""

_VERSION = 1
# Version; of each source what is net of its verdicts, and their number; then asked, remembered.
_RECORD = struct.Struct(f"<B6h{KEY_BYTES}s{KEY_BYTES}s")
_MOST_COUNTED = 1000
MAX_PAIRS = 50_000
# Of a pair (CPython 3.11): keys, verdicts, places in two tables.
_PAIR_BYTES = 900

_Asked = tuple[bytes, bytes]


class Pairs:
    """Of one index. For the event loop; each call takes microseconds.

    Args:
        uid: of the index.
        most: pairs that are kept.
    """

    def __init__(self, uid: int, most: int = MAX_PAIRS) -> None:
        self._uid = uid
        self._most = most
        self._by_asked: OrderedDict[_Asked, dict[bytes, Verdicts]] = OrderedDict()
        self._by_remembered: dict[_Asked, set[bytes]] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def nbytes(self) -> int:
        return _PAIR_BYTES * self._count

    def get(self, scope: bytes, asked: bytes, remembered: bytes) -> Verdicts:
        """What was said of a pair."""
        return self._by_asked.get((scope, asked), {}).get(remembered, UNSAID)

    def of_asked(self, scope: bytes, asked: bytes) -> dict[bytes, Verdicts]:
        """What was said of a prompt that is asked, by what is remembered."""
        found = self._by_asked.get((scope, asked))
        if found is None:
            return {}
        self._by_asked.move_to_end((scope, asked))
        return found

    def said(
        self, scope: bytes, asked: bytes, remembered: bytes, source: Source, *, right: bool
    ) -> list[PutSide]:
        """Take a verdict in. Returns what makes it durable."""
        before = self.get(scope, asked, remembered)
        _, number = getattr(before, source.value)
        if number >= _MOST_COUNTED:
            return []
        verdicts = before.and_one(source, right=right)
        self._put(scope, asked, remembered, verdicts)
        changes = [
            PutSide(
                self._uid,
                PAIR_KIND,
                _name(scope, asked, remembered),
                _encode(scope, asked, remembered, verdicts),
            )
        ]
        while self._count > self._most:
            (its_scope, its_asked), gone = next(iter(self._by_asked.items()))
            changes += [self._remove(its_scope, its_asked, other) for other in list(gone)]
        return changes

    def put_back(self, scope: bytes, asked: bytes, remembered: bytes, before: Verdicts) -> None:
        """What was said last is not durable, and counts for nothing."""
        if before:
            self._put(scope, asked, remembered, before)
        elif remembered in self._by_asked.get((scope, asked), {}):
            self._remove(scope, asked, remembered)

    def deletions(self, scope: bytes, remembered: bytes) -> list[PutSide]:
        """What deletes all that was said about a prompt that was remembered; it is there yet."""
        return [
            PutSide(self._uid, PAIR_KIND, _name(scope, asked, remembered), None)
            for asked in self._by_remembered.get((scope, remembered), ())
        ]

    def forget(self, scope: bytes, remembered: bytes) -> list[PutSide]:
        """Forget what was said about a prompt that was remembered. Returns what deletes it."""
        asked = list(self._by_remembered.get((scope, remembered), ()))
        return [self._remove(scope, one, remembered) for one in asked]

    def restore(self, records: Iterable[SideRecord]) -> None:
        """Take up what the store holds; in any thread. Raises EntryFormatError."""
        for record in records:
            if record.value[0] != _VERSION:
                raise EntryFormatError(
                    f"verdicts on prompts have format {record.value[0]} and this Pyrope knows "
                    f"format {_VERSION}"
                )
            _, *numbers, asked, remembered = _RECORD.unpack_from(record.value)
            scope = record.value[_RECORD.size :]
            self._put(scope, asked, remembered, _of_numbers(numbers))

    def clear(self) -> None:
        self._by_asked.clear()
        self._by_remembered.clear()
        self._count = 0

    def _put(self, scope: bytes, asked: bytes, remembered: bytes, verdicts: Verdicts) -> None:
        of_asked = self._by_asked.setdefault((scope, asked), {})
        if remembered not in of_asked:
            self._count += 1
            self._by_remembered.setdefault((scope, remembered), set()).add(asked)
        of_asked[remembered] = verdicts
        self._by_asked.move_to_end((scope, asked))

    def _remove(self, scope: bytes, asked: bytes, remembered: bytes) -> PutSide:
        of_asked = self._by_asked[scope, asked]
        del of_asked[remembered]
        if not of_asked:
            del self._by_asked[scope, asked]
        others = self._by_remembered[scope, remembered]
        others.discard(asked)
        if not others:
            del self._by_remembered[scope, remembered]
        self._count -= 1
        return PutSide(self._uid, PAIR_KIND, _name(scope, asked, remembered), None)


def said_wrong(verdicts: Verdicts) -> bool:
    """Whether those who judged a pair, or most of them, say that one response is not for both."""
    return verdicts.feedback[0] + verdicts.verifier[0] + verdicts.audit[0] < 0


def _name(scope: bytes, asked: bytes, remembered: bytes) -> bytes:
    return blake2b(asked + remembered + scope, digest_size=KEY_BYTES).digest()


def _encode(scope: bytes, asked: bytes, remembered: bytes, verdicts: Verdicts) -> bytes:
    numbers = (*verdicts.feedback, *verdicts.verifier, *verdicts.audit)
    return _RECORD.pack(_VERSION, *numbers, asked, remembered) + scope


def _of_numbers(numbers: list[int]) -> Verdicts:
    feedback_net, feedback, verifier_net, verifier, audit_net, audit = numbers
    return Verdicts((feedback_net, feedback), (verifier_net, verifier), (audit_net, audit))
