"""What happens in one index, and what is worth asking a language model about it.

Signals only count, and put what has become worth a question on a short list: that is within the
path of a request. Questions are made later (`IndexAdvisor.questions`), a few at a time.

Texts of an index are compared with texts of that index only, and only with those whose answers
depend on the same effort and filter: candidates never cross indexes, nor tenants. Texts that are
longer than a prompt may hold are not asked about, as a part of a text is another text.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from math import nan
from typing import Protocol

import numpy as np
from xxhash import xxh3_128_digest

from pyrope.cache.asked_texts import AskedText, AskedTexts, ByteBudget
from pyrope.cache.heavy_hitters import HeavyHitters
from pyrope.cache.query_key import KeyKind, QueryKey
from pyrope.cache.session_texts import SessionTexts
from pyrope.clock import Clock
from pyrope.config import LlmSettings
from pyrope.llm.job import Job, JobKind
from pyrope.llm.questions import (
    MAX_CANDIDATES,
    MAX_HISTORY,
    MAX_SAMPLES,
    AdviceQuestion,
    CanonicalQuestion,
    NextQuestion,
    VerifyQuestion,
    bytes_of,
)
from pyrope.semantic.labels import Labels
from pyrope.service.advice_work import (
    AdviceWork,
    CanonicalWork,
    NextWork,
    VerifyWork,
    Work,
    question_of,
)
from pyrope.service.aliases import Aliases
from pyrope.service.answers import Key
from pyrope.service.caching import IndexCache
from pyrope.service.clusters import IndexClusters
from pyrope.service.kept import Kept
from pyrope.service.search import Search
from pyrope.types import IndexSpec

# Of one index: texts and their bytes, half a millisecond to compare with; texts that are counted.
_MAX_TEXTS, _MAX_TEXT_BYTES = 4096, 12 * 2**20
_COUNTED = 2048
_MAX_SESSIONS = 1024
_MAX_LABELS, _MAX_LABEL_BYTES = 10_000, 8 * 2**20
_MAX_COINED = 512
# What waits to be made a question of; misses that nobody has taken note of yet.
_MAX_PENDING = 256
_MAX_MISSED = 128
# A query is asked about again when it has come so many times as often as at the last time.
_AGAIN = 4
# Cosine below which two texts are about something else: nobody is asked.
_LEAST_COSINE = 0.5
# Answers that made room for others from which on clusters are looked at for it; a quarter of them
# in one cluster are worth a question.
_EVICTED = 64
# Texts that are assigned to clusters to find some of one.
_ASSIGNED = 64
# Clusters of an index are looked at once in so many seconds.
_ADVICE_INTERVAL_S = 10.0
# Hits by an alias at which a model is asked whether it is right: this one, and 8 times as many.
_DOUBTED_HITS = 8


class Advised(Protocol):
    """The index."""

    spec: IndexSpec
    cache: IndexCache
    aliases: Aliases
    clusters: IndexClusters

    @property
    def busy(self) -> bool: ...

    def search_cost(self, asked: Search) -> float: ...


class IndexAdvisor:
    """The signals of one index (`pyrope.service.signals`). All methods are for the event loop.

    Attributes:
        labels: what is known of pairs of its queries.
        coined: wordings that the model has proposed, by their identity, with the text that each
            is a wording of, and the model's confidence.

    Args:
        settings: read at every use.
        budget: of texts and vectors, shared with other indexes.
        wake: called when there is something to make a question of.
    """

    def __init__(
        self,
        index: Advised,
        settings: LlmSettings,
        clock: Clock,
        budget: ByteBudget,
        wake: Callable[[IndexAdvisor], None],
    ) -> None:
        self.index = index
        self._settings = settings
        self._clock = clock
        self._wake = wake
        self.labels = Labels(max_entries=_MAX_LABELS, max_bytes=_MAX_LABEL_BYTES)
        self.coined: OrderedDict[bytes, tuple[QueryKey, float]] = OrderedDict()
        self._texts = AskedTexts(
            index.spec.dim,
            max_texts=_MAX_TEXTS,
            max_bytes=_MAX_TEXT_BYTES,
            budget=budget,
            is_kept=lambda one: index.cache.texts.answers(one.text.identity, one.group),
        )
        self._counts: HeavyHitters[bytes] = HeavyHitters(_COUNTED)
        self._in_sessions: HeavyHitters[bytes] = HeavyHitters(_COUNTED)
        # How often a text had come when it was asked about.
        self._asked_at: OrderedDict[tuple[JobKind, bytes], int] = OrderedDict()
        self._sessions = SessionTexts(
            max_sessions=_MAX_SESSIONS, max_texts=MAX_HISTORY, budget=budget
        )
        self._pending: deque[Callable[[], Job | None]] = deque()
        self._missed: deque[tuple[QueryKey, Key, Search]] = deque(maxlen=_MAX_MISSED)
        self._evicted: deque[bytes] = deque(maxlen=_EVICTED)
        self._looked_at = float("-inf")

    @property
    def uid(self) -> int:
        return self.index.spec.uid

    @property
    def nbytes(self) -> int:
        """Memory of texts, vectors and labels, in bytes."""
        return self._texts.nbytes + self.labels.nbytes

    def close(self) -> None:
        """The index is going away."""
        self._pending.clear()
        self._missed.clear()
        self._texts.clear()
        self._sessions.clear()

    # -- signals, within the path of a request ----------------------------------------------------

    def missed(self, text: QueryKey, key: Key, asked: Search) -> None:
        if not self.pending:
            self._wake(self)
        # Where there are more than can be taken note of, the latest are a fair sample.
        self._missed.append((text, key, asked))

    def _notice(self, text: QueryKey, key: Key, asked: Search) -> None:
        """Take note of a miss: 10 us, which is why it is done later."""
        if not self._fits(text):
            return
        one = AskedText(text, key[1:], key[0])  # type: ignore[arg-type]  # the query comes first
        self._texts.add(one)
        count = self._counts.add(_digest(text))
        cost = self.index.search_cost(asked)
        if cost >= self._settings.min_cost and self._is_due(JobKind.CANONICAL, text, count):
            self._put(lambda: self._canonical(one, count * cost))

    def near_hit(self, text: QueryKey, key: Key, kept: Kept, asked: Search) -> None:
        other = next((name for name, group in kept.names if group == key[1:]), None)
        if other is None or other == text.identity or not self._fits(text):
            return
        count = self._counts.add(_digest(text))
        cost = self.index.search_cost(asked)
        if cost >= self._settings.min_cost and self._is_due(JobKind.VERIFY, text, count):
            canonical = QueryKey(other, other[1:])
            score = _cosine(key[0], kept.neighbourhood.query)  # type: ignore[arg-type]  # likewise
            group, value = key[1:], count * cost
            self._put(lambda: self._verify(text, canonical, group, score, value, doubted=False))

    def alias_hit(self, alias: QueryKey, canonical: QueryKey, key: Key, asked: Search) -> None:
        if alias.kind is not KeyKind.TEXT or canonical.kind is not KeyKind.TEXT:
            return
        found = self.index.aliases.get(alias)
        if found is None or not _is_doubted_at(found.hits) or not self._fits(alias):
            return
        value = found.hits * self.index.search_cost(asked)
        group = key[1:]
        self._put(lambda: self._verify(alias, canonical, group, nan, value, doubted=True))

    def in_session(self, session: bytes, text: QueryKey, key: Key, asked: Search) -> None:
        if not self._fits(text):
            return
        history = self._sessions.follow(session, text)
        if len(history) < 2:
            return
        one = AskedText(text, key[1:], key[0])  # type: ignore[arg-type]  # likewise
        count = self._in_sessions.add(_digest(text))
        cost = self.index.search_cost(asked)
        if cost >= self._settings.min_cost and self._is_due(JobKind.NEXT, text, count):
            self._put(lambda: self._next(history, one, asked.count, count * cost))

    def evicted(self, kept: Kept) -> None:
        self._evicted.append(kept.neighbourhood.query)

    def _fits(self, text: QueryKey) -> bool:
        # Its normal form may be the longer one.
        most = self._settings.text_bytes
        return len(text.content) <= most and len(text.identity) <= 2 * most

    def _is_due(self, kind: JobKind, text: QueryKey, count: int) -> bool:
        """Whether a text has come often enough to be asked about, the first time or again."""
        if count < self._settings.min_count:
            return False
        name = kind, _digest(text)
        before = self._asked_at.get(name)
        if before is not None and count < _AGAIN * before:
            return False
        self._asked_at[name] = count
        self._asked_at.move_to_end(name)
        if len(self._asked_at) > _COUNTED:
            self._asked_at.popitem(last=False)
        return True

    def _put(self, make: Callable[[], Job | None]) -> None:
        if len(self._pending) >= _MAX_PENDING:
            self._pending.popleft()
        self._pending.append(make)
        self._wake(self)

    # -- questions, off the path ------------------------------------------------------------------

    @property
    def pending(self) -> int:
        """What waits to be taken note of, or made a question of."""
        return len(self._missed) + len(self._pending)

    def notice(self, limit: int) -> int:
        """Take note of misses; so many at the most. Returns how many there were."""
        count = min(limit, len(self._missed))
        for _ in range(count):
            self._notice(*self._missed.popleft())
        return count

    def questions(self, limit: int) -> Iterator[Job]:
        """Make questions of what waits; half a millisecond each.

        Args:
            limit: of what waits, looked at.
        """
        for _ in range(min(limit, len(self._pending))):
            job = self._pending.popleft()()
            if job is not None:
                yield job

    def _job(self, kind: JobKind, key: tuple[object, ...], value: float, work: Work) -> Job:
        deadline = self._clock.monotonic() + self._settings.job_ttl_s
        nbytes = bytes_of(question_of(work))
        tenant = self.index.spec.tenant
        return Job(kind, tenant, (self.uid, *key), value, deadline, work, nbytes)

    def _canonical(self, one: AskedText, value: float) -> Job | None:
        """Which of the nearest texts of its group a text is another name of.

        Only what came before it is a candidate, so that of two texts one is asked about the other.
        """
        aliases = self.index.aliases
        there = self._texts.get(one.text.identity, one.group)
        linked = aliases.get(one.text) is not None or aliases.is_canonical(one.text)
        if there is None or linked:
            return None
        one = there
        found: dict[bytes, tuple[AskedText, float]] = {}
        for candidate, cosine in self._texts.nearest(one.query, one.group, 4 * MAX_CANDIDATES):
            if cosine < _LEAST_COSINE or len(found) == MAX_CANDIDATES:
                break
            if candidate.number >= one.number:
                continue
            named = self._named_by(candidate)
            if self._may_be(one.text, named.text):
                found.setdefault(named.text.identity, (named, cosine))
        if not found:
            return None
        candidates = tuple(found.values())
        question = CanonicalQuestion(
            _shown(one.text), tuple([_shown(candidate.text) for candidate, _ in candidates])
        )
        work = CanonicalWork(self.uid, question, one, candidates)
        return self._job(JobKind.CANONICAL, (one.text.identity, one.group), value, work)

    def _named_by(self, one: AskedText) -> AskedText:
        """What an alias is another name of; else the text itself."""
        alias = self.index.aliases.get(one.text)
        if alias is None or alias.canonical.key.kind is not KeyKind.TEXT:
            return one
        return one._replace(text=alias.canonical.key)

    def _may_be(self, text: QueryKey, candidate: QueryKey) -> bool:
        """Whether it is open if a text is another name of a candidate."""
        if text.identity == candidate.identity:
            return False
        coined = self.coined.get(candidate.identity)
        if coined is not None and coined[0].identity == text.identity:
            return False
        label = self.labels.get(text.identity, candidate.identity)
        return label is None or label.same

    def worded(self, wording: QueryKey, one: AskedText) -> tuple[AskedText, float] | None:
        """What a text may be another name of by its wording, as near as candidates are; its cosine.

        None: nobody has asked for that, and the model has not proposed it, near by.
        """
        there = self._texts.get(wording.identity, one.group)
        if there is None:
            return None
        named, cosine = self._named_by(there), _cosine(one.query, there.query)
        if cosine >= _LEAST_COSINE and self._may_be(one.text, named.text):
            return named, cosine
        return None

    def coin(self, wording: QueryKey, one: AskedText, confidence: float) -> bool:
        """Let a wording be a candidate for others than the query that it is a wording of.

        Returns whether it is one now: not if it is a query, or a wording, of another one.
        """
        identity = wording.identity
        if identity == one.text.identity or identity in self.coined or not self._fits(wording):
            return False
        # As old as the query: what is asked about later may be it.
        candidate = one._replace(text=wording)
        if self._texts.get(identity, one.group) is not None or not self._texts.add(candidate):
            return False
        self.coined[identity] = one.text, confidence
        if len(self.coined) > _MAX_COINED:
            self.coined.popitem(last=False)
        return True

    def verify(
        self, text: QueryKey, other: QueryKey, group: Key, score: float, value: float
    ) -> Job | None:
        """A question whether a text may become an alias of another one."""
        return self._verify(text, other, group, score, value, doubted=False)

    def _verify(
        self,
        text: QueryKey,
        other: QueryKey,
        group: Key,
        score: float,
        value: float,
        *,
        doubted: bool,
    ) -> Job | None:
        if not doubted and self.labels.get(text.identity, other.identity) is not None:
            return None
        question = VerifyQuestion(_shown(text), _shown(other))
        work = VerifyWork(self.uid, question, text, other, group, score, doubted)
        return self._job(JobKind.VERIFY, (text.identity, other.identity), value, work)

    def _next(
        self, history: tuple[QueryKey, ...], last: AskedText, count: int, value: float
    ) -> Job | None:
        """What comes after the last query of a session, of what is known and not kept."""
        asked = {one.identity for one in history}
        found: list[AskedText] = []
        for one, _ in self._texts.nearest(last.query, last.group, 4 * MAX_CANDIDATES):
            identity = one.text.identity
            if identity in asked or identity in self.coined or len(found) == MAX_CANDIDATES:
                continue
            if not self.index.cache.texts.answers(identity, last.group):
                found.append(one)
        if not found:
            return None
        question = NextQuestion(
            tuple([_shown(one) for one in history]), tuple([_shown(one.text) for one in found])
        )
        candidates = tuple([one.key for one in found])
        work = NextWork(self.uid, question, last.key, candidates, count)
        return self._job(JobKind.NEXT, (last.text.identity, last.group), value, work)

    # -- clusters ---------------------------------------------------------------------------------

    def advice(self) -> Job | None:
        """A question about the cluster that needs advice most, if it is time for one."""
        now = self._clock.monotonic()
        if now - self._looked_at < _ADVICE_INTERVAL_S or not len(self._texts):
            return None
        self._looked_at = now
        registry = self.index.clusters.registry
        evicted = np.zeros(len(registry), np.int64)
        if len(self._evicted) == _EVICTED:
            evicted += np.bincount(self._clusters_of(list(self._evicted)), minlength=len(registry))
            self._evicted.clear()
        writes = np.array([registry.writes(cluster) for cluster in range(len(registry))])
        threshold = registry.threshold
        # Both as shares of what makes a cluster worth a question.
        need = np.maximum(writes / threshold, evicted / (_EVICTED / 4))
        for cluster, _ in registry.advice:
            need[cluster] = 0.0
        cluster = int(np.argmax(need))
        if need[cluster] < 1.0:
            return None
        latest = self._texts.latest(4 * _ASSIGNED)
        some_texts = [one for one in latest if one.text.identity not in self.coined][:_ASSIGNED]
        clusters = self._clusters_of([one.query for one in some_texts])
        samples = [
            one for one, its in zip(some_texts, clusters.tolist(), strict=True) if its == cluster
        ][:MAX_SAMPLES]
        if not samples:
            return None
        question = AdviceQuestion(
            tuple([_shown(one.text) for one in samples]),
            round(writes[cluster]),
            round(threshold),
            round(self.index.clusters.window_s),
            int(evicted[cluster]),
        )
        work = AdviceWork(self.uid, question, cluster, registry.epoch)
        value = float(need[cluster]) * self.index.search_cost(Search(_USUAL_COUNT))
        return self._job(JobKind.ADVICE, (cluster, registry.epoch), value, work)

    def _clusters_of(self, queries: list[bytes]) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        centroids = self.index.clusters.registry.centroids
        if centroids is None or not queries:
            return np.zeros(len(queries), np.int64)
        rows = np.frombuffer(b"".join(queries), "<f4").reshape(len(queries), -1)
        return centroids.assign_many(rows).astype(np.int64)


# Hits that a search asks for, where nobody says.
_USUAL_COUNT = 10


def _digest(text: QueryKey) -> bytes:
    """What stands for a text where it is only counted."""
    return xxh3_128_digest(text.identity)


def _shown(text: QueryKey) -> str:
    return text.content.decode()


def _is_doubted_at(hits: int) -> bool:
    """Whether so many hits are 8, 64, 512, ..."""
    while hits >= _DOUBTED_HITS and not hits % _DOUBTED_HITS:
        hits //= _DOUBTED_HITS
        if hits == 1:
            return True
    return False


def _cosine(one: bytes, other: bytes) -> float:
    a, b = (np.frombuffer(blob, "<f4").astype(np.float64) for blob in (one, other))
    norms = float(np.sqrt(np.dot(a, a) * np.dot(b, b)))
    return float(np.dot(a, b)) / norms if norms else nan
