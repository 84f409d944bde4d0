"""Writes of one index: what is asked, and what a batch of them will do."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple

import numpy as np

from pyrope.engine.attributes import parse_attributes
from pyrope.service.ids import IdMap
from pyrope.storage.store import Record
from pyrope.types import Float32Matrix


class Attributes(NamedTuple):
    """A JSON object, as it came and as it was read. `raw` is empty for "none"."""

    raw: bytes
    parsed: Mapping[str, Any]


NO_ATTRIBUTES = Attributes(b"", {})


class Condition(Enum):
    """When a write of a vector takes place."""

    ALWAYS = "always"
    IF_NEW = "NX"
    IF_THERE = "XX"


@dataclass(slots=True, eq=False)
class PutVectors:
    """Add or replace vectors, all or none.

    Attributes:
        ids: distinct.
        vectors: float32, shape (len(ids), dim), finite, C-contiguous.
        attributes: one for each id, or None to leave those that are there.
        expires_at_ms: Unix time in milliseconds, for all of them; 0: never.
        future: resolves to the number of new ids; to None where the condition was not met.
    """

    ids: Sequence[bytes]
    vectors: Float32Matrix
    attributes: Sequence[Attributes] | None
    expires_at_ms: int
    condition: Condition
    future: asyncio.Future[int | None]


@dataclass(slots=True, eq=False)
class RemoveVectors:
    """Remove ids. `future` resolves to the number that were there."""

    ids: Sequence[bytes]
    future: asyncio.Future[int | None]


@dataclass(slots=True, eq=False)
class ReplaceAttributes:
    """Replace the attributes of one id. `future` resolves to 1, or 0 where there is no such id."""

    ids: Sequence[bytes]
    attributes: Attributes
    future: asyncio.Future[int | None]


@dataclass(slots=True, eq=False)
class LookAtVectors:
    """Look which ids are there: after the writes before this one, and before those after it.

    Attributes:
        look: called with the ids that are missing when it is this one's turn.
        future: resolves to the number that are there.
    """

    ids: Sequence[bytes]
    look: Callable[[list[bytes]], None]
    future: asyncio.Future[int | None]


# Puts planned in one turn of the loop: about 2 ms, or 10 where attributes are kept.
_PLANNED_AT_ONCE = 1024

Write = PutVectors | RemoveVectors | ReplaceAttributes | LookAtVectors


@dataclass(slots=True)
class Plan:
    """What a batch will do, decided but not done.

    Attributes:
        puts, rows: new records and the rows that belong to them.
        parsed: for each put, its attributes as they will be.
        removed: ids that go.
        amended: (id, slot, attributes) of those whose attributes change in place.
        left: slots that updated and removed ids leave.
        answers: each write, its answer, and how many puts must be applied before it is given.
    """

    puts: list[Record] = field(default_factory=list)
    rows: list[Float32Matrix] = field(default_factory=list)
    parsed: list[Attributes] = field(default_factory=list)
    removed: list[bytes] = field(default_factory=list)
    amends: list[Record] = field(default_factory=list)
    amended: list[tuple[int, Attributes]] = field(default_factory=list)
    left: list[int] = field(default_factory=list)
    answers: list[tuple[Write, int | None, int]] = field(default_factory=list)

    @property
    def changes_anything(self) -> bool:
        return bool(self.puts or self.amends or self.removed)

    def touched(self) -> Iterator[bytes]:
        """Ids that are new, or not what they were."""
        yield from (record.id for record in self.puts)
        yield from (record.id for record in self.amends)
        yield from self.removed

    @property
    def has_attributes(self) -> bool:
        """Whether puts have attributes, which take the loop ten times as long as those without."""
        return any(attributes.raw for attributes in self.parsed)

    def vectors(self) -> Float32Matrix | None:
        """The rows of all puts, shape (len(puts), dim); None without puts."""
        if not self.rows:
            return None
        return self.rows[0] if len(self.rows) == 1 else np.concatenate(self.rows)

    def allocated(self) -> list[int]:
        return [record.slot for record in self.puts]


class WriteQueue:
    """Writes of one index that have not been planned yet, in order of arrival."""

    def __init__(self) -> None:
        self._queue: deque[Write] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    def add(self, write: Write) -> None:
        self._queue.append(write)

    def fail(self, error: BaseException) -> None:
        """Refuse everything that waits."""
        while self._queue:
            write = self._queue.popleft()
            if not write.future.done():
                write.future.set_exception(error)

    def take(self, max_vectors: int, busy: AbstractSet[bytes]) -> list[Write]:
        """The writes of the next batch: distinct ids, about `max_vectors` vectors at the most.

        Writes whose client has gone are dropped. Nothing behind a write that names an id in `busy`
        is taken, so that writes stay in order.
        """
        taken: list[Write] = []
        touched = set(busy)
        count = 0
        while self._queue and count < max_vectors:
            write = self._queue[0]
            if write.future.done():
                self._queue.popleft()
                continue
            if not touched.isdisjoint(write.ids):
                break
            taken.append(self._queue.popleft())
            touched.update(write.ids)
            count += len(write.ids)
        return taken


class Stored(NamedTuple):
    """The state that writes are decided against.

    Attributes:
        ids: slots are taken from it.
        attributes: raw JSON by slot, of the slots that have any.
        expires_at_ms: Unix time in milliseconds by id, of the ids that expire.
        sequence: the index's write sequence; each record gets the next number.
    """

    ids: IdMap
    attributes: Mapping[int, bytes]
    expires_at_ms: Mapping[bytes, int]
    sequence: int


async def plan(writes: Iterable[Write], stored: Stored) -> Plan:
    """Decide what a batch does.

    Between parts of a large write the loop gets its turn; the ids of the batch must not change
    meanwhile.
    """
    ids = stored.ids
    made = Plan()
    for write in writes:
        if isinstance(write, PutVectors):
            answer = await _plan_put(made, write, stored)
        elif isinstance(write, RemoveVectors):
            answer = 0
            for id_ in dict.fromkeys(write.ids):
                slot = ids.slot(id_)
                if slot is not None:
                    made.removed.append(id_)
                    made.left.append(slot)
                    answer += 1
        elif isinstance(write, LookAtVectors):
            missing = [id_ for id_ in write.ids if id_ not in ids]
            write.look(missing)
            answer = len(write.ids) - len(missing)
        else:
            answer = 0
            (id_,) = write.ids
            slot = ids.slot(id_)
            if slot is not None:
                expiry = stored.expires_at_ms.get(id_, 0)
                number = stored.sequence + len(made.puts) + len(made.amends) + 1
                made.amends.append(Record(slot, id_, number, expiry, write.attributes.raw))
                made.amended.append((slot, write.attributes))
                answer = 1
        made.answers.append((write, answer, len(made.puts)))
    return made


async def _plan_put(made: Plan, write: PutVectors, stored: Stored) -> int | None:
    ids = stored.ids
    if write.condition is not Condition.ALWAYS:
        there = write.ids[0] in ids
        if there is (write.condition is Condition.IF_NEW):
            return None
    new = 0
    number = stored.sequence + len(made.puts) + len(made.amends)
    for position, id_ in enumerate(write.ids):
        if position % _PLANNED_AT_ONCE == _PLANNED_AT_ONCE - 1:
            await asyncio.sleep(0)
        old = ids.slot(id_)
        if old is None:
            new += 1
        else:
            made.left.append(old)
        if write.attributes is not None:
            attributes = write.attributes[position]
        elif old is not None and (raw := stored.attributes.get(old)):
            attributes = Attributes(raw, parse_attributes(raw))
        else:
            attributes = NO_ATTRIBUTES
        number += 1
        made.puts.append(Record(ids.allocate(), id_, number, write.expires_at_ms, attributes.raw))
        made.parsed.append(attributes)
    made.rows.append(write.vectors)
    return new
