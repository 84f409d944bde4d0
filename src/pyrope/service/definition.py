"""What an index may be defined as, and which options go with which type."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, fields
from math import inf
from typing import Any

from pyrope.engine.ivf_training import check_pqm
from pyrope.errors import CommandError
from pyrope.types import DEFAULT_POLICY, CachePolicy, IndexSpec, IndexType, Metric

ALTERABLE = frozenset({"ef", "nprobe", "cache"})
"""Fields of a definition that a later command may change."""

_WITH_LISTS = frozenset(kind for kind in IndexType if kind.has_lists)
# To a graph's options FLAT listens too, so that a client may try its definition as either.
_TYPES_OF: dict[str, frozenset[IndexType]] = {
    "m": frozenset(IndexType) - _WITH_LISTS,
    "ef_construction": frozenset(IndexType) - _WITH_LISTS,
    "ef": frozenset(IndexType) - _WITH_LISTS,
    "nlist": _WITH_LISTS,
    "nprobe": _WITH_LISTS,
    "pqm": frozenset({IndexType.IVF_PQ}),
}
_WORDS = {"ef_construction": "EFCONSTRUCTION"}


@dataclass(frozen=True, slots=True)
class IndexDefinition:
    """What `VECTOR.CREATE` asks for. Attributes as in `IndexSpec`."""

    name: str
    dim: int
    metric: Metric = Metric.COSINE
    type: IndexType = IndexType.HNSW
    m: int = 16
    ef_construction: int = 200
    ef: int = 64
    nlist: int = 0
    nprobe: int = 0
    pqm: int = 0
    cache: CachePolicy = DEFAULT_POLICY
    embedder: str = ""

    @staticmethod
    def of(name: str, dim: int, **options: Any) -> IndexDefinition:
        """The definition with these options, and defaults for the others.

        Raises:
            CommandError: an option does not go with the type, or with another one.
        """
        definition = IndexDefinition(name, dim, **options)
        check_options(definition.type, options)
        check_nprobe(definition.nprobe, definition.nlist)
        try:
            check_pqm(dim, definition.pqm)
        except ValueError as error:
            raise CommandError(str(error)) from error
        return definition

    def describes(self, spec: IndexSpec) -> bool:
        """Whether an index is what is asked for, aside from what may have been altered since."""
        return all(
            getattr(spec, field.name) == getattr(self, field.name)
            for field in fields(self)
            if field.name not in ALTERABLE
        )


def check_options(kind: IndexType, options: Collection[str]) -> None:
    """Raises CommandError where one of these fields means nothing to an index of this type."""
    for field in options:
        kinds = _TYPES_OF.get(field)
        if kinds is not None and kind not in kinds:
            word = _WORDS.get(field, field.upper())
            raise CommandError(
                f"{word} does not go with TYPE {kind.value}: it is an option of {_listed(kinds)}"
            )


def check_nprobe(nprobe: int, nlist: int) -> None:
    """Raises CommandError where more lists are to be visited than there will be; 0: AUTO."""
    if nlist and nprobe > nlist:
        raise CommandError(f"invalid NPROBE: at most NLIST is expected, which is {nlist}")


def check_norms(largest: float, mean: float) -> None:
    """Raises CommandError where norms are too unequal for near hits by inner products.

    An inner product is bounded by the norm of the longest vector. If that is many times longer than
    others, the bound is so far above the products there are that nothing follows from it: at 8
    times, queries must have a cosine of 0.9997 for a result to be proven whose cosine is 0.2 above
    that of the last candidate, and the strain of all other hits is the same within its bins.

    Args:
        largest, mean: of the norms of an index's vectors; both 0 where it has none.
    """
    if largest > _LARGEST_NORM * mean:
        raise CommandError(
            "MINRECALL with METRIC IP needs vectors whose norms are bounded: the longest one is "
            f"{largest / mean if mean else inf:.0f} times as long as the average one, and at most "
            f"{_LARGEST_NORM:.0f} times is of use, as one query says nothing about another "
            "otherwise"
        )


# Times the mean.
_LARGEST_NORM = 8.0


def _listed(kinds: Iterable[IndexType]) -> str:
    *others, last = [kind.value for kind in IndexType if kind in set(kinds)]
    return f"{', '.join(others)} and {last}" if others else last
