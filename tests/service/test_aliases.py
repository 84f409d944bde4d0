"""Aliases between map and store: what is answered is durable, what has gone goes everywhere."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyrope.cache.alias import AliasSource
from pyrope.cache.query_key import QueryKey, text_key, vector_key
from pyrope.config import AliasSettings
from pyrope.errors import CommandError, MisconfError, NoIndexError
from pyrope.service.aliases import SIDE_KIND, Aliases
from pyrope.storage.group_commit import GroupCommitter
from pyrope.storage.lmdb_store import LmdbStore
from pyrope.storage.memory_store import MemoryStore
from pyrope.storage.store import PutIndex, PutSide, SideRecord, StorageError
from pyrope.testing.clock import ManualClock

MANUAL, LLM = AliasSource.MANUAL, AliasSource.LLM


def key(text: str) -> QueryKey:
    return text_key(text.encode())


class Bench:
    """The aliases of one index on a real store, whose commits the test can hold or refuse.

    Attributes:
        commits: that have begun.
        may_commit: commits wait for it.
        refusing: the disk refuses.
    """

    def __init__(self, data: Path, clock: ManualClock, **settings: Any) -> None:
        self.data = data
        self.clock = clock
        self.settings = AliasSettings(**settings)
        self.tasks: set[asyncio.Task[None]] = set()
        self.commits = 0
        self.may_commit = asyncio.Event()
        self.may_commit.set()
        self.refusing = False

    async def start(self) -> None:
        self.store = LmdbStore.open(self.data)
        if self.store.indexes():
            self.uid = self.store.indexes()[0][0]
        else:
            self.uid = self.store.next_uid()
            self.store.commit([PutIndex(self.uid, b"")])
        self.committer = GroupCommitter(self.store, self._run, self.clock, max_group_bytes=2**20)
        await self.committer.start()
        self.aliases = Aliases(
            self.uid,
            "i",
            settings=self.settings,
            clock=self.clock,
            committer=self.committer,
            spawn=self._spawn,
        )
        self.aliases.restore(self.store.load_side(self.uid).records)

    async def stop(self) -> None:
        self.may_commit.set()
        await self.aliases.drain()
        await self.committer.stop()
        self.store.close()

    async def restart(self) -> None:
        await self.stop()
        await self.start()

    async def crash(self) -> None:
        """Stop as a killed process would: what only memory holds is lost."""
        await self.committer.stop()
        self.store._abort()
        self.store._pending.clear()
        self.store.close()
        await self.start()

    async def _run(self, function: Callable[[], None]) -> None:
        self.commits += 1
        await self.may_commit.wait()
        if self.refusing:
            raise MisconfError("the disk is full")
        function()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def set(
        self,
        alias: str | QueryKey,
        canonical: str | QueryKey,
        source: AliasSource = LLM,
        confidence: float = 1.0,
        lifetime_s: int = 0,
    ) -> asyncio.Future[int]:
        alias = key(alias) if isinstance(alias, str) else alias
        canonical = key(canonical) if isinstance(canonical, str) else canonical
        return self.aliases.set(
            alias, canonical, confidence=confidence, source=source, lifetime_s=lifetime_s
        )

    def found(self, alias: str) -> bytes | None:
        canonical = self.aliases.resolve(key(alias))
        return None if canonical is None else canonical.key.content

    def listed(self) -> list[bytes]:
        cursor, found = self.aliases.scan(0)
        while cursor:
            cursor, more = self.aliases.scan(cursor)
            found += more
        return sorted(alias.key.content for alias in found)

    def stored(self) -> list[bytes]:
        """Identities in the store, without the mark of their kind."""
        return sorted(record.key[1:] for record in self.store.load_side(self.uid).records)


async def turns() -> None:
    """Let everything happen that waits for nothing but its turn."""
    for _ in range(20):
        await asyncio.sleep(0)


@pytest.fixture
async def bench(tmp_path: Path, clock: ManualClock) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path / "data", clock, max_entries=5)
    await bench.start()
    yield bench
    await bench.stop()


async def test_what_was_answered_survives_a_crash(bench: Bench) -> None:
    vector = np.ones(8, "<f4").tobytes()
    await bench.set("How old is Berlin", "Age of Berlin", LLM, 0.93, 100)
    await bench.set(vector_key(vector), "a text", MANUAL)
    await bench.set("a text of a vector", vector_key(vector[::-1]))
    await bench.set("gone", "x")
    assert await bench.aliases.remove(key("GONE")) == 1
    await bench.crash()
    assert bench.found("how old is  BERLIN") == b"Age of Berlin"
    alias = bench.aliases.get(key("how old is berlin"))
    assert alias is not None
    assert (alias.canonical.confidence, alias.canonical.source) == (0.93, LLM)
    assert alias.key.content == b"How old is Berlin"
    assert bench.found("a text of a vector") == vector[::-1]
    assert bench.aliases.resolve(vector_key(vector)) is not None
    assert bench.found("gone") is None
    bench.clock.advance(100)
    assert bench.found("how old is berlin") is None


async def test_nobody_sees_an_alias_before_it_is_durable(bench: Bench) -> None:
    bench.may_commit.clear()
    done = bench.set("a", "b")
    await turns()
    assert bench.commits == 1
    assert bench.found("a") is None
    assert not done.done()
    bench.may_commit.set()
    assert await done == 1
    assert bench.found("a") == b"b"
    bench.may_commit.clear()
    removed = bench.aliases.remove(key("a"))
    await turns()
    assert bench.found("a") == b"b"
    bench.may_commit.set()
    assert await removed == 1
    assert bench.found("a") is None


async def test_a_write_that_the_disk_refuses_changes_nothing(bench: Bench) -> None:
    await bench.set("a", "b")
    bench.refusing = True
    writes = [bench.set("a", "c"), bench.set("d", "e"), bench.aliases.remove(key("a"))]
    for write in writes:
        with pytest.raises(MisconfError, match="the disk is full"):
            await write
    bench.refusing = False
    assert bench.listed() == [b"a"]
    assert bench.found("a") == b"b"
    await bench.set("d", "e")
    await bench.crash()
    assert bench.listed() == [b"a", b"d"]
    assert bench.found("a") == b"b"


async def test_writes_that_come_together_share_a_commit(bench: Bench) -> None:
    bench.settings.max_entries = 1000
    await asyncio.gather(*(bench.set(f"alias {n}", "canonical") for n in range(200)))
    assert bench.commits == 1
    assert len(bench.listed()) == 200


async def test_a_batch_is_small_enough_for_the_log(bench: Bench) -> None:
    bench.settings.max_entries = 1000
    vectors = [vector_key(n.to_bytes(4, "little") * 4000) for n in range(100)]
    await asyncio.gather(*(bench.set(f"alias {n}", vector) for n, vector in enumerate(vectors)))
    assert bench.commits > 10
    await bench.crash()
    assert len(bench.listed()) == 100


async def test_writes_that_depend_on_one_another_are_decided_in_order(bench: Bench) -> None:
    outcomes = await asyncio.gather(
        bench.set("a", "b"),
        bench.set("b", "c"),  # b is what a stands for
        bench.set("x", "a"),  # a is an alias
        bench.aliases.remove(key("a")),
        bench.set("b", "c"),
        bench.set("x", "a"),
        bench.aliases.remove(key("a")),
        bench.set("m", "c", MANUAL),
        bench.set("m", "d", LLM),
        return_exceptions=True,
    )
    refused = [str(outcome) for outcome in outcomes if isinstance(outcome, CommandError)]
    assert [outcome for outcome in outcomes if isinstance(outcome, int)] == [1, 1, 1, 1, 0, 1]
    assert refused == [
        "there are no aliases of aliases: 'b' is a canonical itself, and has aliases: 1",
        "there are no aliases of aliases: 'a' is an alias itself, of 'b'",
        "the alias 'm' was set by hand, which only a hand overwrites",
    ]
    await bench.crash()
    assert bench.listed() == [b"b", b"m", b"x"]


async def test_the_last_of_several_writes_of_one_alias_wins(bench: Bench) -> None:
    await asyncio.gather(*(bench.set("a", f"canonical {n}") for n in range(5)))
    await bench.crash()
    assert bench.found("a") == b"canonical 4"


async def test_a_write_nobody_waits_for_any_more_is_dropped(bench: Bench) -> None:
    one, other = bench.set("a", "b"), bench.set("c", "d")
    one.cancel()
    await other
    assert bench.listed() == [b"c"]


async def test_thousands_of_refusals_leave_others_their_turn(bench: Bench) -> None:
    await bench.set("a", "b")
    writes = [bench.set("x", "a") for _ in range(2000)]
    count = 0
    while not all(write.done() for write in writes):
        count += 1
        await asyncio.sleep(0)
    assert count >= 7
    assert {type(write.exception()) for write in writes} == {CommandError}
    assert bench.commits == 1


async def test_what_is_evicted_goes_from_the_store_with_the_next_write(bench: Bench) -> None:
    for number in range(8):
        await bench.set(f"a{number}", "x")
    assert bench.commits == 8
    assert bench.listed() == [b"a3", b"a4", b"a5", b"a6", b"a7"]
    assert bench.stored() == [b"a2", b"a3", b"a4", b"a5", b"a6", b"a7"]
    bench.aliases.sweep()
    await bench.aliases.drain()
    assert bench.stored() == bench.listed()
    await bench.crash()
    assert bench.stored() == bench.listed() == [b"a3", b"a4", b"a5", b"a6", b"a7"]


async def test_what_has_expired_goes_from_the_store_with_the_sweep(bench: Bench) -> None:
    await bench.set("short", "x", lifetime_s=5)
    await bench.set("long", "x", lifetime_s=50)
    bench.clock.advance(5)
    bench.aliases.sweep()
    await bench.aliases.drain()
    assert bench.stored() == [b"long"]
    commits = bench.commits
    bench.aliases.sweep()
    await bench.aliases.drain()
    assert bench.commits == commits


async def test_an_alias_that_has_expired_can_be_set_anew_whatever_is_deleted_meanwhile(
    bench: Bench,
) -> None:
    await bench.set("a", "b", MANUAL, lifetime_s=5)
    bench.clock.advance(5)
    bench.may_commit.clear()
    bench.aliases.sweep()
    write = bench.set("a", "c")
    await turns()
    bench.aliases.sweep()
    bench.may_commit.set()
    await write
    bench.aliases.sweep()
    await bench.aliases.drain()
    await bench.crash()
    assert bench.found("a") == b"c"


async def test_an_alias_that_expires_while_it_is_set_anew_stays(bench: Bench) -> None:
    await bench.set("a", "b", lifetime_s=5)
    bench.may_commit.clear()
    write = bench.set("a", "c")
    await turns()
    bench.clock.advance(5)
    bench.aliases.sweep()
    bench.may_commit.set()
    await write
    bench.aliases.sweep()
    await bench.aliases.drain()
    assert bench.found("a") == b"c"
    await bench.crash()
    assert bench.found("a") == b"c"


async def test_what_a_refusing_disk_keeps_is_taken_along_by_the_next_write(bench: Bench) -> None:
    await bench.set("short", "x", lifetime_s=5)
    bench.clock.advance(5)
    bench.refusing = True
    for _ in range(3):
        bench.aliases.sweep()
        await bench.aliases.drain()
    assert bench.commits == 2  # it is not asked again and again
    assert bench.stored() == [b"short"]
    bench.refusing = False
    await bench.set("a", "b")
    assert bench.stored() == [b"a"]


async def test_expired_aliases_are_not_brought_back_and_leave_the_store(
    bench: Bench,
) -> None:
    await bench.set("short", "x", lifetime_s=5)
    await bench.set("a", "b")
    bench.clock.advance(5)
    await bench.restart()
    assert bench.listed() == [b"a"]
    assert bench.stored() == [b"a", b"short"]
    bench.aliases.sweep()
    await bench.aliases.drain()
    assert bench.stored() == [b"a"]


async def test_bounds_that_were_lowered_hold_after_a_restart_for_the_newest(bench: Bench) -> None:
    for number in range(5):
        await bench.set(f"a{number}", "x")
        bench.clock.advance(1)
    bench.settings.max_entries = 2
    await bench.restart()
    assert bench.listed() == [b"a3", b"a4"]
    bench.aliases.sweep()
    await bench.aliases.drain()
    assert bench.stored() == [b"a3", b"a4"]


async def test_writes_that_wait_are_refused_when_the_index_is_dropped(bench: Bench) -> None:
    bench.may_commit.clear()
    begun = bench.set("a", "b")
    await turns()
    waiting = bench.set("c", "d")
    assert bench.aliases.queued == 1
    bench.aliases.fail_queued(NoIndexError("dropped"))
    bench.may_commit.set()
    with pytest.raises(NoIndexError):
        await waiting
    assert await begun == 1
    assert bench.listed() == [b"a"]


async def test_memory_is_counted_and_given_back(bench: Bench) -> None:
    assert bench.aliases.memory_bytes == 0
    await bench.set("a", "b")
    assert 500 < bench.aliases.memory_bytes < 2000
    assert bench.aliases.statistics().entries_current == len(bench.aliases) == 1
    bench.aliases.close()
    assert bench.aliases.memory_bytes == 0


async def test_an_alias_of_a_newer_format_is_refused_with_the_name_of_its_index(
    bench: Bench,
) -> None:
    record = SideRecord(SIDE_KIND, b"tkey", b"\x09" + bytes(40))
    with pytest.raises(StorageError, match="index 'i': an alias has format 9"):
        bench.aliases.restore([record])


async def test_a_store_that_does_not_know_the_index_refuses_and_others_go_on(
    bench: Bench,
) -> None:
    # The index was dropped behind the back of its aliases.
    elsewhere = Aliases(
        bench.uid + 1,
        "gone",
        settings=bench.settings,
        clock=bench.clock,
        committer=bench.committer,
        spawn=bench._spawn,
    )
    write = elsewhere.set(key("a"), key("b"), confidence=1.0, source=LLM)
    with pytest.raises(Exception, match=r"was interrupted .StorageError"):
        await write
    assert len(elsewhere) == 0
    await bench.set("a", "b")
    assert bench.stored() == [b"a"]


async def test_side_records_of_other_kinds_are_left_alone(bench: Bench) -> None:
    await bench.committer.commit(PutSide(bench.uid, SIDE_KIND + 1, b"ta", b"not an alias"))
    await bench.set("a", "b", lifetime_s=1)
    bench.clock.advance(1)
    bench.aliases.sweep()
    await bench.aliases.drain()
    records = bench.store.load_side(bench.uid).records
    assert records == [SideRecord(SIDE_KIND + 1, b"ta", b"not an alias")]
    await bench.committer.commit(PutSide(bench.uid, SIDE_KIND + 1, b"ta", None))


KEYS = st.sampled_from([*map(key, "abcd"), vector_key(b"aaaa")])
SETS = st.tuples(KEYS, KEYS, st.sampled_from([MANUAL, LLM]), st.sampled_from([0, 0, 1]))
REMOVES = st.tuples(KEYS)


@settings(max_examples=80)
@given(st.lists(SETS | REMOVES, max_size=25))
def test_writes_that_come_together_end_as_they_do_one_after_another(
    writes: list[tuple[Any, ...]],
) -> None:
    async def outcomes(*, together: bool) -> tuple[list[str], list[tuple[bytes, bytes]]]:
        clock, store = ManualClock(), MemoryStore()
        store.commit([PutIndex(1, b"")])

        async def run(function: Callable[[], None]) -> None:
            await asyncio.sleep(0)
            function()

        committer = GroupCommitter(store, run, clock, max_group_bytes=2**20)
        await committer.start()
        aliases = Aliases(
            1,
            "i",
            settings=AliasSettings(),
            clock=clock,
            committer=committer,
            spawn=asyncio.get_running_loop().create_task,
        )

        async def write(alias: QueryKey, *more: Any) -> int:
            if not more:
                return await aliases.remove(alias)
            canonical, source, lifetime_s = more
            return await aliases.set(
                alias, canonical, confidence=1.0, source=source, lifetime_s=lifetime_s
            )

        if together:
            told = await asyncio.gather(*(write(*each) for each in writes), return_exceptions=True)
        else:
            told = []
            for each in writes:
                told += await asyncio.gather(write(*each), return_exceptions=True)
        found = [(a.key.identity, a.canonical.key.identity) for a in aliases.scan(0)[1]]
        await committer.stop()
        return [str(one) for one in told], sorted(found)

    assert asyncio.run(outcomes(together=True)) == asyncio.run(outcomes(together=False))
