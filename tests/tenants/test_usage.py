from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.metrics import ANSWERS
from pyrope.tenants.usage import (
    HIT_LEVELS,
    MAX_UNITS,
    MICRO,
    Usage,
    UsageFormatError,
    check_usage,
    micro_of,
)
from pyrope.types import CacheLevel

NUMBERS = tuple(name for name in Usage.__slots__ if name != "answers")

counts = st.integers(0, 2**80) | st.integers(0, 3)


@st.composite
def usages(draw: st.DrawFn) -> Usage:
    usage = Usage()
    for name in NUMBERS:
        setattr(usage, name, draw(counts))
    for level in ANSWERS:
        usage.answers[level] = draw(counts)
    return usage


def as_dict(usage: Usage) -> dict[str, object]:
    return {name: getattr(usage, name) for name in Usage.__slots__}


@given(usages())
def test_usage_reads_back_from_its_bytes(usage: Usage) -> None:
    read = Usage.decode(usage.encode())
    assert as_dict(read) == as_dict(usage)
    assert (read.hits, read.used_micro) == (usage.hits, usage.used_micro)


def test_a_tenant_that_has_done_nothing_takes_few_bytes() -> None:
    assert len(Usage().encode()) < 50


def test_hits_are_what_caches_answered_and_nothing_else() -> None:
    usage = Usage()
    for number, level in enumerate(ANSWERS):
        usage.answers[level] = 10**number
    assert len(HIT_LEVELS) == len(CacheLevel)
    assert (usage.misses, usage.answers["off"], usage.hits) == (1, 10, 1_111_100)


def test_searches_and_models_count_against_the_same_budget() -> None:
    usage = Usage()
    usage.compute_micro, usage.llm_micro = 1_500_000, 250_000
    assert (usage.compute_units, usage.llm_cost, usage.used) == (1.5, 0.25, 1.75)


@given(usages(), st.data())
def test_a_damaged_record_is_told_or_is_still_a_record(usage: Usage, data: st.DataObject) -> None:
    stored = bytearray(usage.encode())
    position = data.draw(st.integers(0, len(stored) - 1))
    stored[position : position + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    try:
        check_usage(bytes(stored))
    except UsageFormatError:
        with pytest.raises(UsageFormatError, match=r"backup|newer Pyrope"):
            Usage.decode(bytes(stored))
    else:
        assert Usage.decode(bytes(stored)).encode() == stored


@pytest.mark.parametrize(
    "change",
    [
        lambda stored: b"",
        lambda stored: stored[:-2],
        lambda stored: stored + b" 0",
        lambda stored: stored + b"\n",
        lambda stored: stored.replace(b"0", b"-1", 1),
        lambda stored: stored.replace(b"0", b"1_0", 1),
        lambda stored: stored.replace(b"0", b"9" * 5000, 1),
        lambda stored: b"0" + stored[1:],
    ],
)
def test_what_is_no_record_is_refused(change: object) -> None:
    assert callable(change)
    with pytest.raises(UsageFormatError, match="restore the data directory"):
        check_usage(change(Usage().encode()))


def test_a_record_of_a_newer_pyrope_says_so() -> None:
    with pytest.raises(UsageFormatError, match=r"format 3 and this Pyrope .* up to 2"):
        Usage.decode(b"3 some other form")


@given(st.lists(st.floats(0, 1e6), max_size=50))
def test_charges_are_rounded_once_and_add_up_exactly(charges: list[float]) -> None:
    total = sum(map(micro_of, charges))
    exact = sum((Fraction(charge) for charge in charges), Fraction(0)) * MICRO
    assert abs(total - exact) <= Fraction(51, 100) * len(charges)
    assert total == sum(map(micro_of, reversed(charges)))


@given(st.integers(0, 10**15))
def test_a_whole_number_of_micro_units_stays_what_it_is(micro: int) -> None:
    assert micro_of(micro / MICRO) == micro


@pytest.mark.parametrize("units", [-1e-9, -1.0, 1.01 * MAX_UNITS, float("inf"), float("nan")])
def test_a_charge_that_cannot_be_is_refused(units: float) -> None:
    with pytest.raises(ValueError, match="nothing costs"):
        micro_of(units)
