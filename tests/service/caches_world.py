"""A service, a dictionary that says what its index holds, and what may be answered from where."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Coroutine
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import hiredis
from hypothesis.stateful import RuleBasedStateMachine

from in_process import Desk, parsed
from plain_index import Asked, Hit, PlainIndex
from pyrope.config import Settings
from pyrope.resp.writer import encode_bulk
from pyrope.service.index import OpenIndex
from pyrope.service.service import Service
from pyrope.testing.clock import ManualClock
from pyrope.types import CacheLevel, IndexType, Metric
from service.caches_commands import (
    ATTRIBUTES,
    DIM,
    FIELDS,
    IDS,
    MOST,
    NAME,
    AliasKey,
    Beginning,
    Policy,
    Put,
    Wish,
    Write,
    normal,
)

T = TypeVar("T")


class Alias(NamedTuple):
    canonical: AliasKey
    confidence: float
    expires_at_ms: float


class Filled(NamedTuple):
    """The last time that an answer may have been kept.

    Attributes:
        at: monotonic time.
        writes: number of the last write then.
    """

    at: float
    writes: int


Key = tuple[bytes, tuple[bytes, ...]]
"""A query, and all that tells its kept answer from others."""

SCANNED = ("off", "miss", "exact", "prefetch")
"""Where answers come from that are no guesses from those of other queries."""


class CachesWorld(RuleBasedStateMachine):
    """What the machines share: no rule, but all that a rule does and judges.

    The model: what the index holds, its aliases and policy, and what may have been kept when.

    Attributes:
        kinds: of index, by whether `Beginning` wants a graph.
        durable: on a disk, so that the service can be started again.
    """

    kinds = (IndexType.FLAT, IndexType.FLAT)
    durable = False

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.clock = ManualClock()
        self.folder = Path(tempfile.mkdtemp(prefix="caches-")) if self.durable else None
        self._service: Service | None = None

    def teardown(self) -> None:
        if self._service is not None:
            self.run(self._service.stop())
        self.runner.close()
        if self.folder is not None:
            shutil.rmtree(self.folder)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        async def limited() -> T:
            async with asyncio.timeout(30):
                return await work

        return self.runner.run(limited())

    def begin_with(self, beginning: Beginning) -> None:
        self.metric = beginning.metric
        self.kind = self.kinds[beginning.graph]
        self.taught = beginning.taught
        self.candidates = beginning.candidates
        values: dict[str, Any] = {"in_memory": self.folder is None}
        if self.folder is not None:
            values["data_dir"] = self.folder
        groups: dict[str, Any] = {
            "engine": {"head_vectors": 3, "batch_max": beginning.batch_max},
            "cache": {
                "log_writes": beginning.log_writes,
                "max_bytes": beginning.max_bytes,
                "candidates": beginning.candidates,
            },
            "clusters": {"min_vectors": 6, "drift_interval_s": 10},
        }
        # One thread, so that `compute` knows when it is through.
        self.settings = Settings(threads=1, **groups, **values)
        self.run(self.start())
        self.create()
        for name in FIELDS:
            self.set_field(name, getattr(beginning.policy, name))
        if many := beginning.many:
            self.carry_out(Put(tuple(IDS[: len(many)]), tuple(many), ATTRIBUTES[1]))
        for put in beginning.first:
            self.carry_out(put)

    async def start(self) -> None:
        self._service = Service(self.settings, self.clock, encode_bulk)
        await self.service.start()
        await self.service.loaded()
        self.desk = Desk(self.service, self.clock)

    def create(self) -> None:
        words = [b"DIM", b"%d" % DIM, b"METRIC", self.metric.encode(), b"TYPE", self.kind.encode()]
        if self.kind is IndexType.HNSW:
            words += [b"M", b"2", b"EFCONSTRUCTION", b"4", b"EF", b"4"]
        assert self.call(b"VECTOR.CREATE", NAME, *words) == b"OK"
        self.model = PlainIndex(self.metric)
        self.policy = Policy()
        self.aliases: dict[AliasKey, Alias] = {}
        self.texts: dict[bytes, set[bytes]] = {}
        self.recent: list[Asked] = []
        self.opened()

    def opened(self) -> None:
        """The index has just been opened: nothing is kept yet."""
        self.filled: dict[Key, Filled] = {}
        self.in_sessions: set[Key] = set()
        self.searched = 0
        if self.taught:
            audited = self.index.cache.near.audits.recall
            for level in ("quantized", "cluster"):
                for name in (level, f"{level} of approximate"):
                    for count in (1, 2, 4, 8):
                        for _ in range(150):
                            audited.record(name, float("inf"), count, count)

    @property
    def has_begun(self) -> bool:
        return self._service is not None

    @property
    def service(self) -> Service:
        assert self._service is not None
        return self._service

    @property
    def index(self) -> OpenIndex:
        return self.service.index("default", NAME)

    def call(self, *words: bytes, protocol: int = 2) -> Any:
        return self.run(self.called(*words, protocol=protocol))

    async def called(self, *words: bytes, protocol: int = 2) -> Any:
        reply = await self.desk.call(*words, protocol=protocol)
        await self.settled()
        return reply

    async def settled(self) -> None:
        """Return when audits and prefetches are through."""
        while self.index_is_busy():
            await asyncio.sleep(0)

    def index_is_busy(self) -> bool:
        found = self.service.find_index("default", NAME)
        return found is not None and found.busy

    def now_ms(self) -> int:
        return int(self.clock.wall() * 1000)

    def expire(self) -> None:
        self.model.expire(self.now_ms())
        gone = [key for key, one in self.aliases.items() if one.expires_at_ms <= self.now_ms()]
        for key in gone:
            del self.aliases[key]

    # -- changing ---------------------------------------------------------------------------------

    def carry_out(self, write: Write) -> None:
        self.expire()
        reply = self.call(*write.words)
        assert reply == write.change(self.model, self.clock.wall()), write

    def set_field(self, name: str, value: Any) -> None:
        policy = replace(self.policy, **{name: value})
        shown = str(policy.shown[name]).encode()
        reply = self.call(b"VECTOR.CACHE", b"POLICY", NAME, b"SET", name.upper().encode(), shown)
        if policy.minrecall and self.metric is Metric.IP and isinstance(reply, hiredis.ReplyError):
            # One vector is much longer than the others.
            assert "norms" in str(reply)
            return
        assert reply == b"OK", reply
        if not policy.levels or policy.ttl != self.policy.ttl:
            self.filled.clear()
        self.policy = policy
        self.sweep()

    def sweep(self) -> None:
        """What the server does now and then, until nothing is left to do."""
        for _ in range(20):
            self.index.remove_expired()
            self.service.cache.sweep(1000)
        self.index.cache.sweep(1000)

        async def sweep_aliases() -> None:
            self.index.aliases.sweep()
            await self.index.aliases.drain()
            self.index.clusters.nudge()
            self.index.merger.nudge()

        self.run(sweep_aliases())

    def nearest(self, asked: Asked) -> list[bytes]:
        """All ids, nearest first, whether or not they match."""
        return sorted(
            self.model.stored,
            key=lambda id_: self.model.score(asked.query, id_),
            reverse=self.metric.higher_is_nearer,
        )

    # -- searching --------------------------------------------------------------------------------

    def search_twice_and_judge(self, asked: Asked, wish: Wish, named: bytes | None = None) -> None:
        """A reply is kept when it is sent for the second time."""
        self.search_and_judge(asked, wish, named)
        self.search_and_judge(asked, wish, named)

    def search_and_judge(self, asked: Asked, wish: Wish, named: bytes | None = None) -> None:
        """Search, and see whether the reply is one that may be given.

        Args:
            named: the id that stands for the query's vector; None: the vector is given.
        """
        self.expire()
        self.run(self.searched_and_judged(asked, wish, named))

    async def searched_and_judged(self, asked: Asked, wish: Wish, named: bytes | None) -> None:
        statistics = self.index.cache.statistics
        before = dict(statistics.hits), statistics.misses, statistics.uncached
        vector = (b"FP32", asked.query) if named is None else (b"ELE", named)
        words = (b"VECTOR.SEARCH", NAME, *vector, *asked.words[2:], *wish.words)
        reply = await self.desk.begin(*words, protocol=wish.protocol).data
        await self.settled()
        outcome = parsed(reply)
        if isinstance(outcome, hiredis.ReplyError):
            assert wish.mode == b"ONLY", outcome
            assert str(outcome).startswith("BUSY"), outcome
            assert self.policy.levels, "there is nothing that ONLY could mean"
            assert (dict(statistics.hits), statistics.misses, statistics.uncached) == before
            self.has_asked(asked, wish, level=None)
            return
        self.searched += 1
        hits_before, misses, uncached = before
        changed = [name for name, n in statistics.hits.items() if n != hits_before.get(name, 0)]
        changed += ["miss"] * (statistics.misses - misses) + ["off"] * (
            statistics.uncached - uncached
        )
        (level,) = changed
        hits, info = self.read(outcome, wish)
        told = f"{level} {asked} {wish} {hits} {info}"
        assert info is None or info["cache"] == level, told
        assert self.is_allowed(asked, wish, level), told
        self.judge(asked, wish, hits, level, info, told)
        if level in SCANNED and self.scans(asked):
            await self.compare_with_fresh(asked, wish, reply, told)
        self.has_asked(asked, wish, level)

    async def compare_with_fresh(self, asked: Asked, wish: Wish, reply: bytes, told: str) -> None:
        """The same without the caches, byte by byte."""
        words = (b"VECTOR.SEARCH", NAME, *asked.words, *wish.form, b"CACHE", b"OFF")
        fresh = await self.desk.begin(*words, protocol=wish.protocol).data
        self.searched += 1
        start = len(b"*2\r\n") if wish.info else 0
        assert reply[start : start + len(fresh)] == fresh, (told, fresh)

    def is_allowed(self, asked: Asked, wish: Wish, level: str) -> bool:
        """Whether a search may have been answered from there."""
        if wish.mode == b"OFF" or not self.policy.levels:
            return level == "off"
        if level == "miss":
            return wish.mode != b"ONLY"
        return level != "off" and wish.mode != b"REFRESH" and self.is_kept(asked, wish, level)

    def is_kept(self, asked: Asked, wish: Wish, level: str) -> bool:
        """Whether there may be an answer that a level gives."""
        levels = self.policy.levels
        # Cold clusters have twice the TTL, and what expires together is spread by a tenth.
        ttl = self.policy.ttl * 2 * 1.11 or float("inf")
        fresh = [key for key, one in self.filled.items() if self.clock.monotonic() - one.at < ttl]
        if level in ("exact", "prefetch"):
            return CacheLevel.EXACT in levels and self.key(asked) in fresh
        if asked.truth or CacheLevel(level.upper()) not in levels:
            return False
        # From another query's answer to the same, of the same effort and filter.
        alike = [query for query, effort in fresh if effort == self.key(asked)[1]]
        if level == "alias":
            known: set[bytes] = set()
            for is_text, content in self.stand_for(asked, wish):
                known |= self.texts.get(content, set()) if is_text else {content}
            return any(query in known for query in alike)
        return bool(alike) and self.near_of(wish) is not None

    def near_of(self, wish: Wish) -> tuple[float, bytes] | None:
        if wish.near is not None:
            return wish.near
        if self.policy.minrecall:
            return self.policy.minrecall, self.policy.basis.encode()
        return None

    def scans(self, asked: Asked) -> bool:
        """Whether a search looks at everything."""
        return asked.truth or (self.kind is IndexType.FLAT and asked.max_scans is None)

    def judge(
        self,
        asked: Asked,
        wish: Wish,
        hits: list[Hit],
        level: str,
        info: dict[str, Any] | None,
        told: str,
    ) -> None:
        model = self.model
        problem = model.complaint(asked, hits, with_attributes=wish.attributes)
        assert problem is None, (problem, told)
        if level in SCANNED and self.scans(asked):
            problem = model.how_inexact(asked, hits)
            assert problem is None, (problem, told)
        elif asked.epsilon is None and asked.max_scans is None:
            matching = len(model.taking_part(asked.filter))
            assert len(hits) == min(asked.count, matching), told
        if level in ("exact", "prefetch"):
            since = self.filled[self.key(asked)].writes
            assert not model.overlooked(asked, hits, since), told
        if level not in SCANNED and self.kind is IndexType.FLAT and asked.max_scans is None:
            width = max(MOST, self.candidates)
            others = [query for query, effort in self.filled if effort == self.key(asked)[1]]
            assert any(model.could_be_around(one, asked, hits, width) for one in others), told
        if info is not None:
            recall = model.recall(asked, hits)
            assert info["certified_recall"] <= recall + 1e-9, (recall, told)
            near = self.near_of(wish)
            if level in ("quantized", "cluster"):
                assert near is not None, told
                least, basis = near
                claimed = info["certified_recall"]
                if basis == b"ESTIMATED":
                    claimed = max(claimed, info["estimated_recall"])
                assert claimed >= least, told
                if near == (1.0, b"CERTIFIED"):
                    assert model.how_inexact(asked, hits) is None, told

    def key(self, asked: Asked) -> Key:
        """What tells a kept answer from others."""
        ignored: dict[str, Any] = {"epsilon": None, "count": 1}
        if asked.truth or self.kind is IndexType.FLAT:
            ignored["ef"] = None
        return asked.query, replace(asked, **ignored).options

    def has_asked(self, asked: Asked, wish: Wish, level: str | None) -> None:
        """Note what may have been kept.

        Args:
            level: that has answered; None: not known.
        """
        self.recent = [*self.recent[-3:], asked]
        if wish.mode == b"OFF" or not self.policy.levels:
            return
        if wish.text is not None:
            self.texts.setdefault(normal(wish.text), set()).add(asked.query)
            alias = self.aliases.get((True, normal(wish.text)))
            if alias is not None and alias.canonical[0]:
                self.texts.setdefault(alias.canonical[1], set()).add(asked.query)
        now = Filled(self.clock.monotonic(), self.model.writes)
        if level == "miss":
            self.filled[self.key(asked)] = now
        if wish.session is not None and CacheLevel.PREFETCH in self.policy.levels:
            # Whatever a session has asked for may have been searched for again.
            self.in_sessions.add(self.key(asked))
            self.filled |= dict.fromkeys(self.in_sessions, now)

    def read(self, outcome: Any, wish: Wish) -> tuple[list[Hit], dict[str, Any] | None]:
        """Hits and info of a reply."""
        info = None
        if wish.info:
            outcome, raw = outcome
            pairs = raw.items() if isinstance(raw, dict) else zip(raw[::2], raw[1::2], strict=True)
            info = {name.decode(): value for name, value in pairs}
            info["cache"] = info["cache"].decode()
            for name in ("certified_recall", "estimated_recall"):
                info[name] = None if info[name] is None else float(info[name])
        parts = [part for part, asked in ((1, wish.scores), (2, wish.attributes)) if asked]
        rows: list[list[Any]]
        if not parts:
            rows = [[id_] for id_ in outcome]
        elif isinstance(outcome, dict):
            several = len(parts) == 2
            rows = [[id_, *(value if several else [value])] for id_, value in outcome.items()]
        else:
            step = 1 + len(parts)
            rows = [outcome[start : start + step] for start in range(0, len(outcome), step)]
        hits = []
        for id_, *values in rows:
            named = dict(zip(parts, values, strict=True))
            score = named.get(1)
            hits.append(Hit(id_, None if score is None else float(score), named.get(2)))
        return hits, info

    def judge_one_of_several(
        self, asked: Asked, wish: Wish, outcome: Any, models: tuple[PlainIndex, ...]
    ) -> None:
        if isinstance(outcome, hiredis.ReplyError):
            assert wish.mode == b"ONLY", outcome
            return
        hits, info = self.read(outcome, wish)
        is_scan = self.scans(asked) and (
            info["cache"] in SCANNED if info is not None else not self.may_be_guessed(asked, wish)
        )
        problems = []
        for model in models:
            problem = model.complaint(asked, hits, with_attributes=wish.attributes)
            if problem is None and is_scan:
                problem = model.how_inexact(asked, hits)
            if problem is None:
                return
            problems.append(problem)
        raise AssertionError(f"{problems} {asked} {wish} {hits} {info}")

    def may_be_guessed(self, asked: Asked, wish: Wish) -> bool:
        """Whether an answer may come from that of another query."""
        return not asked.truth and (bool(self.aliases) or self.near_of(wish) is not None)

    def counted(self) -> int:
        """Searches that the index has counted."""
        statistics = self.index.cache.statistics
        return sum(statistics.hits.values()) + statistics.misses + statistics.uncached

    def stand_for(self, asked: Asked, wish: Wish) -> list[AliasKey]:
        """Queries whose answers may be given by alias; a canonical has those of its aliases."""
        found = [self.canonical(asked, wish)]
        if wish.text is not None:
            text = (True, normal(wish.text))
            found += [text for one in self.aliases.values() if one.canonical == text]
        return [one for one in found if one is not None]

    def canonical(self, asked: Asked, wish: Wish) -> AliasKey | None:
        """What a search is another name of, and which alias is asked first."""
        named = [(False, asked.query)]
        if wish.text is not None:
            named.insert(0, (True, normal(wish.text)))
        for key in named:
            alias = self.aliases.get(key)
            if alias is not None and alias.confidence >= 0.9:
                return alias.canonical
        return None
