"""Metering: what a tenant has used in a month.

Money is counted in whole micro-units (10⁻⁶ cost units), and every charge is rounded to them once,
when it is made. Integers add up exactly, whatever the order and however often they were written
down and read again, which floats do not; and they have no limit in Python.
"""

from __future__ import annotations

import re
from operator import attrgetter
from typing import Self

from pyrope.metrics import ANSWERS
from pyrope.types import CacheLevel

MICRO = 1_000_000
"""Micro-units in a cost unit."""

MAX_UNITS = 1e12
"""More than that no single charge can be: it would be a slip of the cost model."""

HIT_LEVELS = tuple(level.lower() for level in CacheLevel)

_COUNTS = (
    "requests",
    "compute_micro",
    "llm_tokens_in",
    "llm_tokens_out",
    "llm_micro",
    "embeddings",
    "refused_quota",
    "refused_budget",
    "most_vectors",
    "most_bytes",
    "most_cache_bytes",
)
_counts = attrgetter(*_COUNTS)
# The last of them are no sums.
_HIGHEST = 3
# What remembered responses have done. Version 2 has these at its end, and is written where one of
# them is not 0.
_REMEMBERED = ("recalls", "recalled", "saved_tokens", "saved_micro")
_remembered = attrgetter(*_REMEMBERED)
_PLAIN, _WITH_REMEMBERED = 1, 2
_NUMBERS = len(_COUNTS) + len(ANSWERS)
# 40 digits: nothing reaches them, and Python refuses to parse thousands.
_NUMBER = rb"(?: (?:0|[1-9][0-9]{0,39}))"
_FORMAT = re.compile(
    rb"%d%b{%d}|%d%b{%d}(?! 0 0 0 0\Z)%b{%d}"
    % (_PLAIN, _NUMBER, _NUMBERS, _WITH_REMEMBERED, _NUMBER, _NUMBERS, _NUMBER, len(_REMEMBERED))
)
_NEWER = re.compile(rb"([1-9][0-9]{0,8}) .*", re.DOTALL)


class UsageFormatError(Exception):
    """A record of usage is damaged, or a newer Pyrope wrote it."""


class Usage:
    """Totals of one tenant in one month. Those who count add to the attributes.

    Attributes:
        requests: that were let in.
        answers: queries answered, by where the answer came from: one of `pyrope.metrics.ANSWERS`.
        compute_micro: micro-units charged for searches, writes and embeddings.
        llm_tokens_in, llm_tokens_out: as the provider counts them.
        llm_micro: micro-units charged for them.
        embeddings: texts embedded.
        refused_quota, refused_budget: requests that were not let in.
        most_vectors, most_bytes, most_cache_bytes: the highest that was seen of what the tenant
            keeps (see `observe`); of a month that is over, that is what can still be told.
        recalls: prompts that were looked up among remembered responses.
        recalled: of these, those that were answered.
        saved_tokens, saved_micro: tokens and micro-units that these have saved, about.
    """

    __slots__ = ("answers", *_COUNTS, *_REMEMBERED)

    def __init__(self) -> None:
        self.requests = 0
        self.answers = dict.fromkeys(ANSWERS, 0)
        self.compute_micro = 0
        self.llm_tokens_in = 0
        self.llm_tokens_out = 0
        self.llm_micro = 0
        self.embeddings = 0
        self.refused_quota = 0
        self.refused_budget = 0
        self.most_vectors = 0
        self.most_bytes = 0
        self.most_cache_bytes = 0
        self.recalls = 0
        self.recalled = 0
        self.saved_tokens = 0
        self.saved_micro = 0

    @property
    def used_micro(self) -> int:
        """Micro-units that count against the budget."""
        return self.compute_micro + self.llm_micro

    @property
    def used(self) -> float:
        """Cost units that count against the budget."""
        return self.used_micro / MICRO

    @property
    def compute_units(self) -> float:
        return self.compute_micro / MICRO

    @property
    def llm_cost(self) -> float:
        """In cost units."""
        return self.llm_micro / MICRO

    @property
    def hits(self) -> int:
        """Queries that a cache answered."""
        return sum(self.answers[level] for level in HIT_LEVELS)

    @property
    def misses(self) -> int:
        return self.answers["miss"]

    def add(self, other: Usage, times: int = 1) -> None:
        """Have this one hold the sum; of what is the highest that was seen, nothing."""
        for name in (*_COUNTS[:-_HIGHEST], *_REMEMBERED):
            setattr(self, name, getattr(self, name) + times * getattr(other, name))
        for level, count in other.answers.items():
            self.answers[level] += times * count

    def encode(self) -> bytes:
        """Version and all numbers in decimal, a space before each.

        Text, as most of the numbers are 0 or small, and none has a width that it may outgrow.
        """
        remembered = _remembered(self)
        numbers: tuple[int, ...]
        if any(remembered):
            numbers = (_WITH_REMEMBERED, *_counts(self), *self.answers.values(), *remembered)
        else:
            numbers = (_PLAIN, *_counts(self), *self.answers.values())
        return " ".join(map(str, numbers)).encode()

    @classmethod
    def decode(cls, stored: bytes) -> Self:
        """What `encode` made. Raises UsageFormatError."""
        check_usage(stored)
        usage = cls()
        numbers = list(map(int, stored.split(b" ")[1:]))
        for name, number in zip(_COUNTS, numbers, strict=False):
            setattr(usage, name, number)
        usage.answers = dict(zip(ANSWERS, numbers[len(_COUNTS) : _NUMBERS], strict=True))
        for name, number in zip(_REMEMBERED, numbers[_NUMBERS:], strict=False):
            setattr(usage, name, number)
        return usage


def check_usage(stored: bytes) -> None:
    """Raises UsageFormatError where `Usage.decode` would."""
    if _FORMAT.fullmatch(stored):
        return
    version = _NEWER.fullmatch(stored)
    if version and int(version[1]) > _WITH_REMEMBERED:
        raise UsageFormatError(
            f"usage was recorded in format {int(version[1])} and this Pyrope knows formats up to "
            f"{_WITH_REMEMBERED}: start the newer Pyrope that wrote it"
        )
    raise UsageFormatError("a record of usage is damaged: restore the data directory from a backup")


def llm_part(stored: bytes) -> tuple[int, int, int]:
    """Tokens in, tokens out and micro-units of language models, of what `Usage.encode` made.

    In a tenth of the time that all of it takes, for those who add up many.
    """
    # Version, then as in `_COUNTS`.
    tokens_in, tokens_out, micro = stored.split(b" ", 6)[3:6]
    return int(tokens_in), int(tokens_out), int(micro)


def used_part(stored: bytes) -> int:
    """Micro-units that count against the budget, of what `Usage.encode` made; as quickly."""
    _, _, compute, _, _, llm, _ = stored.split(b" ", 6)
    return int(compute) + int(llm)


def micro_of(units: float) -> int:
    """Cost units in whole micro-units, to the nearest.

    Raises:
        ValueError: they are below 0, above `MAX_UNITS`, or no number.
    """
    if not 0.0 <= units <= MAX_UNITS:
        raise ValueError(f"nothing costs {units} units")
    return int(units * MICRO + 0.5)
