"""What happens between a command and its commit, which the test ends as it likes."""

from __future__ import annotations

import asyncio
from collections import deque
from random import Random
from typing import Any, cast

import numpy as np
import pytest

from pyrope.config import RememberSettings
from pyrope.errors import CommandError, MisconfError, NoIndexError
from pyrope.semantic.remembered.entry import Documents, Entry
from pyrope.service.remembered.budget import RememberBudget
from pyrope.service.remembered.dependencies import Dependencies, Tie
from pyrope.service.remembered.judging import FactsCache
from pyrope.service.remembered.keeping import Keeping, NewResponse
from pyrope.service.remembered.leases import Holders
from pyrope.service.remembered.records import ENTRY_KIND, STATE_KIND, decode
from pyrope.service.remembered.services import RememberServices
from pyrope.service.remembered.statistics import RememberStatistics
from pyrope.storage.store import PutSide, SideRecord
from pyrope.testing.clock import ManualClock
from pyrope.testing.timers import ManualTimers
from pyrope.types import IndexSpec, IndexType, Metric

_SPEC = IndexSpec(
    uid=7, tenant="t", name="i", dim=2, metric=Metric.COSINE, type=IndexType.FLAT, m=16,
    ef_construction=200, ef=64, created_at=0.0,
)  # fmt: skip


class Disk:
    """Takes commits in, and is through with them when the test says so."""

    def __init__(self) -> None:
        self.records: dict[tuple[int, bytes], bytes] = {}
        self._waiting: deque[tuple[tuple[PutSide, ...], asyncio.Future[None]]] = deque()

    def commit(self, *changes: PutSide) -> asyncio.Future[None]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((changes, done))
        return done

    async def end(self, *, refuse: bool = False) -> None:
        """The commit that was handed over first is through, or is refused."""
        await _turns()
        changes, done = self._waiting.popleft()
        if refuse:
            done.set_exception(MisconfError("full"))
        else:
            for change in changes:
                name = change.kind, change.key
                if change.value is None:
                    self.records.pop(name, None)
                else:
                    self.records[name] = change.value
            done.set_result(None)
        await _turns()

    @property
    def waiting(self) -> int:
        return len(self._waiting)


async def _turns() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


class Bench:
    def __init__(self) -> None:
        self.clock = ManualClock()
        self.disk = Disk()
        self.dependencies = Dependencies()
        self.live: list[bytes] = []
        self.along: list[PutSide] = []
        self.ended: list[tuple[bytes, str]] = []
        self.tasks: set[asyncio.Task[Any]] = set()
        self.statistics = RememberStatistics()
        self.keeping = self.new()

    def new(self) -> Keeping:
        settings = RememberSettings()
        services = RememberServices(
            settings=settings,
            committer=cast("Any", self.disk),
            clock=self.clock,
            run=self._run,
            spawn=self._spawn,
            schedule=ManualTimers(self.clock),
            near=cast("Any", None),
            dependencies=self.dependencies,
            budget=RememberBudget(settings),
            holders=Holders(),
            facts=FactsCache(),
            verifier=lambda: None,
            random=Random(1),
        )
        return Keeping(
            _SPEC,
            services,
            self.statistics,
            own_budget=lambda: 0,
            live=lambda entry: self.live.append(entry.body.response()),
            along=lambda _: self.along,
            ended=lambda entry, reason: self.ended.append((entry.body.response(), reason)),
        )

    async def _run(self, function: Any, *args: Any) -> Any:
        await asyncio.sleep(0)
        return function(*args)

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def remember(
        self, response: bytes, prompt: bytes = b"p", tied: asyncio.Future[Tie] | None = None
    ) -> asyncio.Future[Entry]:
        vector = np.array([1, 0], np.float32)
        return self.keeping.remember(
            NewResponse(prompt, prompt, response, vector, b"", 0, False, 0.0, 1, 1),  # noqa: FBT003
            tied,
        )

    def served(self, prompt: bytes = b"p") -> bytes | None:
        entry = self.keeping.find(b"", prompt)
        return None if entry is None else entry.body.response()

    def tie(self, document: bytes = b"d") -> Tie:
        return self.dependencies.tie(self.keeping, Documents(9, (document,)))

    def kept(self) -> int:
        """Responses on disk."""
        return sum(kind == ENTRY_KIND for kind, _ in self.disk.records)


@pytest.fixture
async def bench() -> Bench:
    return Bench()


async def test_a_response_serves_when_it_is_durable_and_the_one_before_until_then(
    bench: Bench,
) -> None:
    first = bench.remember(b"one")
    assert bench.served() is None
    await bench.disk.end()
    assert (await first).body.response() == b"one"
    bench.remember(b"two")
    third = bench.remember(b"three")
    assert bench.served() == b"one"
    await bench.disk.end()
    assert bench.served() == b"two"
    await bench.disk.end()
    assert (await third, bench.served()) == (third.result(), b"three")
    assert bench.ended == [(b"one", "replaced"), (b"two", "replaced")]
    assert (bench.kept(), len(bench.keeping), bench.live) == (1, 1, [b"one", b"two", b"three"])


async def test_what_the_disk_refuses_was_not_remembered(bench: Bench) -> None:
    bench.remember(b"one")
    await bench.disk.end()
    second = bench.remember(b"two")
    third = bench.remember(b"three")
    await bench.disk.end(refuse=True)
    with pytest.raises(MisconfError):
        await second
    assert bench.served() == b"one"
    await bench.disk.end()
    assert (await third).body.response() == bench.served() == b"three"
    assert (bench.kept(), len(bench.keeping)) == (1, 1)


async def test_who_gives_up_waiting_has_remembered_all_the_same(bench: Bench) -> None:
    future = bench.remember(b"one")
    future.cancel()
    await bench.disk.end()
    assert (bench.served(), bench.live) == (b"one", [b"one"])


async def test_forgetting_ends_what_is_on_its_way_to_the_disk(bench: Bench) -> None:
    remembered = bench.remember(b"one")
    forgotten = bench.keeping.forget_prompt(b"p")
    await bench.disk.end()
    assert (await remembered).body.response() == b"one"
    assert bench.served() is None
    await bench.disk.end()
    assert await forgotten == 1
    assert (bench.kept(), len(bench.keeping)) == (0, 0)


async def test_what_could_not_be_forgotten_serves_again(bench: Bench) -> None:
    bench.remember(b"one")
    await bench.disk.end()
    forgotten = bench.keeping.forget_scope(())
    await _turns()
    assert bench.served() is None
    await bench.disk.end(refuse=True)
    with pytest.raises(MisconfError):
        await forgotten
    assert bench.served() == b"one"
    assert await bench.keeping.forget(12345) == 0


async def test_what_is_remembered_after_a_forgetting_stays(bench: Bench) -> None:
    bench.remember(b"one")
    await bench.disk.end()
    bench.keeping.forget_prompt(b"p")
    remembered = bench.remember(b"two")
    await bench.disk.end()
    await bench.disk.end()
    assert (await remembered).body.response() == bench.served() == b"two"


async def test_a_large_response_keeps_its_place(bench: Bench) -> None:
    large = bytes(range(256)) * 200
    first, second = bench.remember(large), bench.remember(b"small")
    assert bench.disk.waiting == 0
    await bench.disk.end()
    await bench.disk.end()
    assert [(await one).body.response() for one in (first, second)] == [large, b"small"]
    assert bench.served() == b"small"


async def test_a_change_of_a_document_ends_it_with_the_same_commit(bench: Bench) -> None:
    tied: asyncio.Future[Tie] = asyncio.get_running_loop().create_future()
    tied.set_result(bench.tie())
    bench.remember(b"one", tied=tied)
    await bench.disk.end()
    found = bench.dependencies.consequences(9, [b"d"])
    assert found is not None
    assert {change.kind for change in found.changes} == {ENTRY_KIND, STATE_KIND}
    assert bench.served() is None
    found.refused()
    assert bench.served() == b"one"
    found = bench.dependencies.consequences(9, [b"d"])
    assert found is not None
    found.kept()
    assert bench.ended == [(b"one", "changed")]


async def test_a_document_that_changes_before_the_response_is_there_keeps_it_out(
    bench: Bench,
) -> None:
    loop = asyncio.get_running_loop()
    waiting: asyncio.Future[Tie] = loop.create_future()
    tie = bench.tie()
    future = bench.remember(b"one", tied=waiting)
    change = bench.dependencies.consequences(9, [b"d"])
    assert change is not None
    change.kept()
    waiting.set_result(tie)
    with pytest.raises(CommandError, match="has just changed"):
        await future
    assert (bench.disk.waiting, len(bench.keeping)) == (0, 0)
    # And one that expires while the commit is under way.
    tied: asyncio.Future[Tie] = loop.create_future()
    tied.set_result(bench.tie())
    future = bench.remember(b"two", tied=tied)
    await _turns()
    expiry = bench.dependencies.consequences(9, [b"d"])
    assert expiry is not None
    expiry.kept(durable=False)
    await bench.disk.end()
    with pytest.raises(CommandError, match="has just changed"):
        await future
    assert bench.kept() == 1
    bench.keeping.sweep()
    await bench.disk.end()
    assert (bench.kept(), len(bench.keeping)) == (0, 0)


async def test_what_is_behind_is_written_down_some_time_and_again_if_refused(
    bench: Bench,
) -> None:
    bench.remember(b"one")
    await bench.disk.end()
    entry = bench.keeping.find(b"", b"p")
    assert entry is not None
    bench.keeping.sweep()
    assert bench.disk.waiting == 0
    bench.keeping.served(entry)
    for refuse in (True, False):
        bench.keeping.sweep()
        assert bench.disk.waiting == 1
        await bench.disk.end(refuse=refuse)
        bench.keeping.sweep()
        assert bench.disk.waiting == 0
        bench.clock.advance(10)
    assert (STATE_KIND, entry.record_key) in bench.disk.records
    again = bench.new()
    records = [SideRecord(*name, value) for name, value in bench.disk.records.items()]
    await again.restore(decode(records, _SPEC.dim, again.now_ms()))
    (restored,) = again.table
    assert (restored.hits, restored.id, records) == (1, entry.id, [])


async def test_what_is_bad_serves_nobody_unless_the_disk_refuses(bench: Bench) -> None:
    bench.remember(b"one")
    await bench.disk.end()
    entry = bench.keeping.find(b"", b"p")
    assert entry is not None
    bad = bench.keeping.quarantine(entry)
    assert bench.served() is None
    await bench.disk.end(refuse=True)
    with pytest.raises(MisconfError):
        await bad
    assert bench.served() == b"one"
    bench.keeping.quarantine(entry)
    await bench.disk.end()
    assert bench.served() is None
    assert bench.statistics.quarantined == 1


@pytest.mark.parametrize("refused", [(True, True), (True, False), (False, True)])
async def test_of_two_who_say_that_it_is_bad_one_suffices(
    bench: Bench, refused: tuple[bool, bool]
) -> None:
    bench.remember(b"one")
    await bench.disk.end()
    entry = bench.keeping.find(b"", b"p")
    assert entry is not None
    said = [bench.keeping.quarantine(entry) for _ in refused]
    assert bench.served() is None
    for refuse in refused:
        await bench.disk.end(refuse=refuse)
    assert [isinstance(one.exception(), MisconfError) for one in said] == list(refused)
    assert (bench.served() == b"one") == all(refused)


async def test_what_was_said_of_a_prompt_goes_in_the_commit_that_forgets_it(bench: Bench) -> None:
    bench.along = [PutSide(7, 5, b"said", None)]
    bench.disk.records[5, b"said"] = b"wrong"
    bench.remember(b"one")
    await bench.disk.end()
    forgotten = bench.keeping.forget_prompt(b"p")
    await bench.disk.end()
    assert await forgotten == 1
    assert bench.disk.records == {}


async def test_a_document_of_many_responses_does_not_hold_the_loop_up(bench: Bench) -> None:
    count = 1000
    for number in range(count):
        tied: asyncio.Future[Tie] = asyncio.get_running_loop().create_future()
        tied.set_result(bench.tie())
        bench.remember(b"one", b"p%d" % number, tied=tied)
    await _turns()
    while bench.disk.waiting:
        await bench.disk.end()
    found = bench.dependencies.consequences(9, [b"d"])
    assert found is not None
    found.kept()
    most = before = len(bench.ended)
    while len(bench.keeping):
        assert bench.served(b"p%d" % (count - 1)) is None
        await asyncio.sleep(0)
        most, before = max(most, len(bench.ended) - before), len(bench.ended)
    await _turns()
    assert (len(bench.ended), bench.tasks) == (count, set())
    assert most <= 300


async def test_nothing_is_written_to_an_index_that_is_being_dropped(bench: Bench) -> None:
    tied: asyncio.Future[Tie] = asyncio.get_running_loop().create_future()
    tied.set_result(bench.tie())
    bench.remember(b"one", tied=tied)
    await bench.disk.end()
    bench.keeping.detach()
    with pytest.raises(NoIndexError):
        await bench.remember(b"two")
    assert bench.dependencies.consequences(9, [b"d"]) is None
    bench.keeping.attach()
    bench.keeping.attach()
    assert bench.dependencies.consequences(9, [b"d"]) is not None


async def test_what_has_expired_goes_from_the_disk_some_time(bench: Bench) -> None:
    vector = np.array([1, 0], np.float32)
    bench.keeping.remember(
        NewResponse(b"p", b"p", b"r", vector, b"", 1000, False, 0.0, 1, 1),  # noqa: FBT003
        None,
    )
    await bench.disk.end()
    bench.clock.advance(1)
    assert bench.served() is None
    bench.keeping.sweep()
    await bench.disk.end()
    assert (bench.kept(), len(bench.keeping), bench.ended) == (0, 0, [(b"r", "expired")])


async def test_what_was_driven_out_goes_from_the_disk_with_what_takes_its_place(
    bench: Bench,
) -> None:
    for prompt in (b"p", b"q"):
        bench.remember(b"one", prompt)
        await bench.disk.end()
        assert bench.keeping.evict(None)
    bench.remember(b"two")
    await bench.disk.end()
    # Of the other prompt nobody has said anything.
    assert (bench.served(), bench.kept()) == (b"two", 2)
    bench.keeping.sweep()
    await bench.disk.end()
    assert (bench.served(), bench.kept()) == (b"two", 1)


@pytest.mark.parametrize("what", ["prompt", "scope", "id"])
async def test_what_was_driven_out_is_forgotten_on_the_disk_too(bench: Bench, what: str) -> None:
    remembered = bench.remember(b"one")
    await bench.disk.end()
    assert bench.keeping.evict(None)
    keeping, number = bench.keeping, remembered.result().id
    forgotten = {
        "prompt": lambda: keeping.forget_prompt(b"p"),
        "scope": lambda: keeping.forget_scope(()),
        "id": lambda: keeping.forget(number),
    }[what]()
    await bench.disk.end()
    assert (await forgotten, bench.kept(), bench.disk.waiting) == (0, 0, 0)
    keeping.sweep()
    assert bench.disk.waiting == 0


async def test_what_goes_by_itself_is_ended_on_the_disk_by_the_next_change_of_its_documents(
    bench: Bench,
) -> None:
    for prompt in (b"p", b"q"):
        tied: asyncio.Future[Tie] = asyncio.get_running_loop().create_future()
        documents = Documents(9, (b"d", b"e"))
        tied.set_result(bench.dependencies.tie(bench.keeping, documents))
        bench.remember(prompt, prompt, tied)
        await bench.disk.end()
    assert bench.keeping.evict(None)
    # Both documents expire, and one of them is written again before the disk has followed.
    for document in (b"d", b"e"):
        expired = bench.dependencies.consequences(9, [document])
        assert expired is not None
        expired.kept(durable=False)
    again = bench.dependencies.consequences(9, [b"d"])
    assert again is not None
    deleted = {change.key for change in again.changes if change.kind == ENTRY_KIND}
    assert deleted == {key for kind, key in bench.disk.records if kind == ENTRY_KIND}
    again.kept()
    assert bench.dependencies.consequences(9, [b"d", b"e"]) is None
    assert sorted(bench.ended) == sorted([(b"p", bench.ended[0][1]), (b"q", bench.ended[1][1])])
    assert {reason for _, reason in bench.ended} == {"evicted", "changed"}


async def test_what_is_off_the_disk_is_tied_to_nothing(bench: Bench) -> None:
    tied: asyncio.Future[Tie] = asyncio.get_running_loop().create_future()
    tied.set_result(bench.tie())
    bench.remember(b"one", tied=tied)
    await bench.disk.end()
    assert bench.keeping.evict(None)
    for refuse in (True, False):
        assert bench.dependencies.consequences(9, [b"d"]) is not None
        bench.clock.advance(10)
        bench.keeping.sweep()
        await bench.disk.end(refuse=refuse)
    assert (bench.kept(), bench.dependencies.consequences(9, [b"d"])) == (0, None)


async def test_what_lost_its_documents_while_nobody_looked_stays_away_when_they_come_again(
    bench: Bench,
) -> None:
    tied: asyncio.Future[Tie] = asyncio.get_running_loop().create_future()
    tied.set_result(bench.tie())
    bench.remember(b"one", tied=tied)
    await bench.disk.end()
    again, entry = bench.new(), next(iter(bench.keeping.table))
    await bench.keeping.close()
    records = [SideRecord(*name, value) for name, value in bench.disk.records.items()]
    await again.restore(decode(records, _SPEC.dim, again.now_ms()))
    await again.link(lambda _: False)
    written = bench.dependencies.consequences(9, [b"d"])
    assert written is not None
    assert (ENTRY_KIND, entry.record_key) in {(one.kind, one.key) for one in written.changes}
