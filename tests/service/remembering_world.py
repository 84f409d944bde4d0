"""A service that remembers responses, and a dictionary that says what it remembers."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import hiredis
import numpy as np
from hypothesis.stateful import RuleBasedStateMachine
from numpy.typing import NDArray

from in_process import Desk
from pyrope.config import Settings
from pyrope.service.service import Service
from pyrope.testing.clock import ManualClock

T = TypeVar("T")

DIM = 4
PROMPTS = (
    "how do plants make food",
    "how do plants make their food",
    "what is the tallest mountain",
    "which is the tallest mountain",
    "why is the sky blue",
    "Ünïcode, as it comes",
)
_ROWS = np.random.default_rng(8).standard_normal((len(PROMPTS), DIM))
# Two and two are near one another, as their texts are.
_ROWS[1] = _ROWS[0] + 0.2 * _ROWS[1]
_ROWS[3] = _ROWS[2] + 0.4 * _ROWS[3]
VECTORS = tuple(row.astype("<f4") for row in _ROWS)
SCOPES: tuple[tuple[tuple[bytes, bytes], ...], ...] = (
    (),
    ((b"user", b"a"),),
    ((b"user", b"b"),),
    ((b"model", b"x"), (b"user", b"a")),
)
DOCUMENTS = (b"d0", b"d1", b"d2")

Scope = frozenset[tuple[bytes, bytes]]


def cosine(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    a, b = one.astype(np.float64), other.astype(np.float64)
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def scope_words(pairs: tuple[tuple[bytes, bytes], ...], *, turned: bool = False) -> list[bytes]:
    """SCOPE as a command has it; `turned`: in another order, which means the same."""
    ordered = reversed(pairs) if turned else pairs
    return [b"SCOPE", b"%d" % len(pairs), *[word for pair in ordered for word in pair]]


@dataclass(slots=True)
class Known:
    """What is remembered for one prompt within a scope.

    Attributes:
        expires_at_ms: infinite for never.
        sliding_ms: 0: a hit renews nothing.
        is_renewed: whether a hit has renewed its life; the disk may not know.
    """

    id: bytes
    response: bytes
    expires_at_ms: float
    sliding_ms: int = 0
    documents: frozenset[bytes] = frozenset()
    is_quarantined: bool = False
    is_renewed: bool = False


@dataclass(slots=True)
class Document:
    expires_at_ms: float = float("inf")


@dataclass(slots=True)
class Model:
    """Prompts are known by their numbers.

    Attributes:
        driven_out: what others have taken the room of. A crash may bring it back.
    """

    known: dict[tuple[Scope, int], Known] = field(default_factory=dict)
    driven_out: dict[tuple[Scope, int], Known] = field(default_factory=dict)
    documents: dict[bytes, Document] = field(default_factory=dict)

    def pass_time(self, now_ms: float) -> None:
        """What has expired by now is no more, and what was made from it neither."""
        for id_ in [i for i, one in self.documents.items() if one.expires_at_ms <= now_ms]:
            self.change(id_)
            del self.documents[id_]
        for there in (self.known, self.driven_out):
            for key in [k for k, one in there.items() if one.expires_at_ms <= now_ms]:
                del there[key]

    def change(self, id_: bytes) -> None:
        """A document is not what it was."""
        for there in (self.known, self.driven_out):
            for key in [k for k, one in there.items() if id_ in one.documents]:
                del there[key]


class RememberingWorld(RuleBasedStateMachine):
    """What the machine's rules are made of: no rule."""

    def __init__(self) -> None:
        super().__init__()
        self._loop = asyncio.new_event_loop()
        self._directory = Path(tempfile.mkdtemp(prefix="remembering-"))
        self._crashes = 0
        self.clock = ManualClock()
        self.model = Model()
        self.sliding = False
        self._service: Service | None = None
        self.start()
        self.call(b"VECTOR.CREATE", b"i", b"DIM", b"%d" % DIM)
        self.call(b"VECTOR.CREATE", b"docs", b"DIM", b"2")
        # What is written in a prompt is none of the model's business.
        self.policy(b"GUARDS", b"OFF")

    def teardown(self) -> None:
        self.stop()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()
        shutil.rmtree(self._directory)

    # -- the service ------------------------------------------------------------------------------

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._loop.run_until_complete(work)

    def start(self) -> None:
        async def started() -> None:
            settings = Settings(data_dir=self._data(), http_port=0)
            self._service = Service(settings, self.clock, bytes)
            await self._service.start()
            await self._service.loaded()
            self._desk = Desk(self._service, self.clock)

        self.run(started())

    def stop(self) -> None:
        if self._service is not None:
            self.run(self._service.stop())
            self._service = None

    def crash(self) -> None:
        """Go on from what is on disk now, as after a power cut."""
        assert self._service is not None
        before = self._data()
        self._crashes += 1
        while self._service.commit_statistics().pending_current:
            self.run(asyncio.sleep(0))

        async def copied(service: Service) -> None:
            # In the thread that writes there, so that nobody does meanwhile.
            await service._storage.run(shutil.copytree, before, self._data())

        self.run(copied(self._service))
        self.stop()
        shutil.rmtree(before)
        self.start()

    def _data(self) -> Path:
        return self._directory / f"data-{self._crashes}"

    def call(self, *words: bytes, protocol: int = 2) -> Any:
        """The reply; an error as a `hiredis.ReplyError`."""
        try:
            return self.run(self._desk.call(*words, protocol=protocol))
        except hiredis.ReplyError as error:
            return error

    def policy(self, *pairs: bytes) -> None:
        assert self.call(b"VECTOR.CACHE", b"POLICY", b"i", b"SET", *pairs) == b"OK"

    def now_ms(self) -> int:
        return int(self.clock.wall() * 1000)

    # -- judging ----------------------------------------------------------------------------------

    def near(self, scope: Scope, number: int) -> dict[int, float]:
        """Cosines of what may serve in a scope, by prompt."""
        return {
            other: cosine(VECTORS[number], VECTORS[other])
            for (its_scope, other), known in self.model.known.items()
            if its_scope == scope and not known.is_quarantined
        }

    def served(self, scope: Scope, number: int) -> None:
        """A hit has renewed a life."""
        known = self.model.known[scope, number]
        if known.sliding_ms:
            known.expires_at_ms = self.now_ms() + known.sliding_ms
            known.is_renewed = True
