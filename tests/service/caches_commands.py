"""What the machines of `test_caches_state_machine` draw: searches, writes, policies, overlaps.

Ids, vectors and queries are few, so that they are used again, collide, and tie.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from plain_index import FILTERS, Asked, PlainIndex
from pyrope.types import CacheLevel, Metric

DIM = 3
NAME = b"i"
MOST = 8
"""Hits that a search asks for at most."""


def blob(*values: float) -> bytes:
    return np.array(values, "<f4").tobytes()


IDS = [b"v%d" % number for number in range(20)]
TWINS = tuple(IDS[-MOST:])
# Equal directions of unequal lengths, opposites, an arc of close ones, a zero vector, a tiny one.
VECTORS = [
    blob(1, 0, 0), blob(2, 0, 0), blob(0, 1, 0), blob(0, 0, 1), blob(1, 1, 0), blob(1, 1, 1),
    blob(-1, 0, 0), blob(1, 0.02, 0), blob(1, -0.02, 0), blob(1, 0.05, 0), blob(1, -0.1, 0),
    blob(1, 0.1, 0), blob(1, 0.2, 0), blob(1, 0.15, 0.1), blob(0, 1, 0.05), blob(0.9, 0.1, 0.1),
    blob(2, 2, 1), blob(0, 0, 0), blob(1e-30, 0, 0), blob(3, -1, 2),
]  # fmt: skip
QUERIES = [
    blob(1, 0, 0), blob(1, 0.01, 0), blob(1, 0.03, 0.01), blob(0, 1, 0.02), blob(0.02, 1, 0),
    blob(1, 1, 0.5), blob(0, 0, 0),
]  # fmt: skip
NUDGES = [blob(0, 0, 0.001), blob(0, -0.02, 0), blob(0, 0.06, 0), blob(0.1, 0, 0.1)]
TEXTS = [b"age of Berlin", b"Age  of BERLIN", b"how old is Berlin", b"Berlin's age"]
ATTRIBUTES = [b"", b'{"c":"red","n":1}', b'{"c":"blue","n":3}', b'{"n":5}', b'{"c":"red","n":4}']

ids = st.sampled_from(IDS)
vectors = st.sampled_from(VECTORS)
queries = st.sampled_from(QUERIES)
nudges = st.sampled_from(NUDGES)
texts = st.sampled_from(TEXTS)
attributes = st.sampled_from(ATTRIBUTES)
lifetimes = st.sampled_from([None, None, None, 5, 30])
counts = st.sampled_from([1, 2, 3, 5, MOST])
epsilons = st.sampled_from([None, None, None, 0.0, 0.4, 1.0])
efforts: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{}, {}, {}, {}, {"ef": 1}, {"truth": True}, {"max_scans": 6}]
)


@st.composite
def asks(draw: st.DrawFn) -> Asked:
    return Asked(
        draw(queries),
        draw(counts),
        draw(st.sampled_from([None, None, None, *FILTERS])),
        draw(epsilons),
        **draw(efforts),
    )


@dataclass(frozen=True, slots=True)
class Wish:
    """What a search asks of the caches, and how it wants its reply.

    Attributes:
        near: MINRECALL and CERTIFIED or ESTIMATED.
    """

    mode: bytes = b"AUTO"
    near: tuple[float, bytes] | None = None
    text: bytes | None = None
    session: bytes | None = None
    scores: bool = True
    attributes: bool = False
    info: bool = False
    protocol: int = 2

    @property
    def form(self) -> tuple[bytes, ...]:
        words = [b"WITHSCORES"] if self.scores else []
        return (*words, b"WITHATTRIBS") if self.attributes else tuple(words)

    @property
    def words(self) -> tuple[bytes, ...]:
        words = [*self.form]
        if self.mode != b"AUTO":
            words += [b"CACHE", self.mode]
        if self.near is not None:
            words += [b"MINRECALL", b"%g" % self.near[0], self.near[1]]
        if self.text is not None:
            words += [b"QUERY", self.text]
        if self.session is not None:
            words += [b"SESSION", self.session]
        return (*words, b"WITHINFO") if self.info else tuple(words)


NEARS = [(1.0, b"CERTIFIED"), (0.5, b"CERTIFIED"), (0.9, b"ESTIMATED"), (0.3, b"ESTIMATED")]
wishes = st.builds(
    Wish,
    mode=st.sampled_from([*[b"AUTO"] * 7, b"ONLY", b"REFRESH", b"OFF"]),
    near=st.sampled_from([None, None, *NEARS]),
    text=st.none() | texts,
    session=st.sampled_from([None, None, b"s"]),
    scores=st.sampled_from([True, True, True, False]),
    attributes=st.sampled_from([False, False, True]),
    info=st.booleans(),
    protocol=st.sampled_from([2, 3]),
)
plain_wishes = st.builds(
    Wish, protocol=st.sampled_from([2, 3]), attributes=st.sampled_from([False, False, True])
)


@dataclass(frozen=True, slots=True)
class Put:
    """ADD of one, MADD of several; `condition` and `lifetime_s` are for one."""

    ids: tuple[bytes, ...]
    vectors: tuple[bytes, ...]
    attributes: bytes | None
    lifetime_s: int | None = None
    condition: bytes | None = None

    @property
    def words(self) -> tuple[bytes, ...]:
        if len(self.ids) == 1:
            words = [b"VECTOR.ADD", NAME, self.ids[0], b"FP32", self.vectors[0]]
            if self.attributes is not None:
                words += [b"SETATTR", self.attributes]
            if self.lifetime_s is not None:
                words += [b"EX", b"%d" % self.lifetime_s]
            return (*words, self.condition) if self.condition else tuple(words)
        count = b"%d" % len(self.ids)
        words = [b"VECTOR.MADD", NAME, b"FP32", b"".join(self.vectors), b"IDS", count, *self.ids]
        if self.attributes is not None:
            words += [b"ATTRS", count, *[self.attributes] * len(self.ids)]
        return tuple(words)

    def change(self, model: PlainIndex, now: float) -> Any:
        there = [id_ in model.stored for id_ in self.ids]
        if self.condition and there[0] is (self.condition == b"NX"):
            return None
        at_ms = float("inf") if self.lifetime_s is None else int((now + self.lifetime_s) * 1000)
        for id_, vector in zip(self.ids, self.vectors, strict=True):
            model.put(id_, vector, self.attributes, at_ms)
        return there.count(False)


@dataclass(frozen=True, slots=True)
class Remove:
    ids: tuple[bytes, ...]

    @property
    def words(self) -> tuple[bytes, ...]:
        return (b"VECTOR.DEL", NAME, *self.ids)

    def change(self, model: PlainIndex, now: float) -> Any:
        return sum([model.remove(id_) for id_ in self.ids])


@dataclass(frozen=True, slots=True)
class Describe:
    id: bytes
    attributes: bytes

    @property
    def words(self) -> tuple[bytes, ...]:
        return (b"VECTOR.SETATTR", NAME, self.id, self.attributes)

    def change(self, model: PlainIndex, now: float) -> Any:
        return int(model.describe(self.id, self.attributes))


Write = Put | Remove | Describe


@st.composite
def puts(draw: st.DrawFn) -> Put:
    count = draw(st.sampled_from([1, 1, 1, 2, 5]))
    some = draw(st.lists(ids, min_size=count, max_size=count, unique=True))
    rows = draw(st.lists(vectors, min_size=count, max_size=count))
    condition = draw(st.sampled_from([None, None, None, b"NX", b"XX"])) if count == 1 else None
    lifetime = draw(lifetimes) if count == 1 else None
    return Put(tuple(some), tuple(rows), draw(st.none() | attributes), lifetime, condition)


class Change(NamedTuple):
    """Of what is found: which of them, by rank, and what happens to it or beside it.

    Attributes:
        quiet: nobody searches between this and the next.
    """

    rank: int
    how: str
    vector: bytes
    attributes: bytes
    quiet: bool


HAPPENINGS = ["remove", "move", "describe", "expire", "twin", "crowd", "outlive"]


@st.composite
def changes(draw: st.DrawFn) -> Change:
    how = draw(
        st.sampled_from(["remove", "move", "describe", "expire", "twin", "crowd", "outlive"])
    )
    quiet = draw(st.sampled_from([False, False, True]))
    return Change(draw(st.integers(0, 4)), how, draw(vectors), draw(attributes), quiet)


removes = st.builds(Remove, st.lists(ids, min_size=1, max_size=2, unique=True).map(tuple))
describes = st.builds(Describe, ids, attributes)
writes: st.SearchStrategy[Write] = st.one_of(puts(), puts(), removes, describes)

AliasKey = tuple[bool, bytes]
"""Whether it is a text, and its content."""

keys: st.SearchStrategy[AliasKey] = st.sampled_from(
    [*((True, text) for text in TEXTS), *((False, query) for query in QUERIES)]
)


class Overlap(NamedTuple):
    """How commands that are sent at once meet.

    Attributes:
        position: of the searches, the one that the write comes before.
        gate: no search begins before all have been sent.
        computed: one search has been computed when the rest is sent, and is told later.
        turns: of the loop, between the write's commit and that search.
        many: each is sent as an MSEARCH of this query and two more.
        given_up: whose client goes away.
        close: the write is of another kind: a new id where the search looks, or what it finds goes.
    """

    position: int
    gate: bool
    computed: bool
    turns: int
    many: bool
    given_up: int | None
    close: str | None = None


overlaps = st.builds(
    Overlap,
    position=st.integers(0, 3),
    gate=st.sampled_from([False, False, True]),
    computed=st.booleans(),
    turns=st.integers(0, 3),
    many=st.sampled_from([False, False, True]),
    given_up=st.sampled_from([None, None, None, 0, 1]),
    close=st.sampled_from(["add", "add", "remove", None]),
)

LEVELS = [
    frozenset(CacheLevel), frozenset(CacheLevel), frozenset({CacheLevel.EXACT}), frozenset(),
    frozenset({CacheLevel.ALIAS, CacheLevel.CLUSTER}),
    frozenset({CacheLevel.EXACT, CacheLevel.QUANTIZED}),
    frozenset({CacheLevel.EXACT, CacheLevel.CLUSTER}),
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Policy:
    """As VECTOR.CACHE POLICY has it."""

    levels: frozenset[CacheLevel] = frozenset(CacheLevel)
    ttl: int = 3600
    maxbytes: int = 0
    candidates: int = 0
    minrecall: float = 0.0
    basis: str = "ESTIMATED"
    hotwrites: int = 0

    @property
    def shown(self) -> dict[str, Any]:
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        ordered = [level.value for level in CacheLevel if level in self.levels]
        return plain | {"levels": ",".join(ordered) or "OFF"}


FIELDS: dict[str, list[Any]] = {
    "levels": LEVELS,
    "ttl": [0, 60, 3600],
    "maxbytes": [0, 2500, 20_000],
    "candidates": [0, 3, MOST],
    "minrecall": [0.0, 0.5, 1.0],
    "basis": ["CERTIFIED", "ESTIMATED"],
    "hotwrites": [0, 1],
}


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Mostly what it is where nobody says."""
    fields = draw(st.lists(st.sampled_from(sorted(FIELDS)), max_size=2, unique=True))
    return Policy(**{name: draw(st.sampled_from(FIELDS[name])) for name in fields})


@dataclass(frozen=True, slots=True)
class Beginning:
    """What an index is created with.

    Attributes:
        graph: it is an HNSW, where the machine knows both.
        taught: audits of near hits have all been good so far.
        many: vectors that are there from the start, and then writes.
    """

    metric: Metric
    graph: bool
    log_writes: int
    max_bytes: int
    candidates: int
    batch_max: int
    taught: bool
    policy: Policy
    many: list[bytes]
    first: list[Put]


beginnings = st.builds(
    Beginning,
    metric=st.sampled_from(list(Metric)),
    graph=st.booleans(),
    log_writes=st.sampled_from([6, 65_536]),
    max_bytes=st.sampled_from([6_000, 2**28]),
    candidates=st.sampled_from([4, MOST, 200]),
    batch_max=st.sampled_from([1, 64]),
    taught=st.sampled_from([True, True, False]),
    policy=policies(),
    many=st.lists(vectors, max_size=len(IDS)),
    first=st.lists(puts(), max_size=3),
)


def normal(text: bytes) -> bytes:
    """A text as aliases compare it, as far as `TEXTS` goes."""
    return b" ".join(text.lower().split())


def normal_key(key: AliasKey) -> AliasKey:
    is_text, content = key
    return is_text, normal(content) if is_text else content


def as_given(key: AliasKey) -> tuple[bytes, ...]:
    """As a command has it."""
    is_text, content = key
    return (content,) if is_text else (b"FP32", content)
