from __future__ import annotations

import json
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pyrope.errors import CommandError
from pyrope.tenants.limit_fields import (
    DEFAULT_LIMITS,
    LIMIT_FIELDS,
    NumberField,
    Value,
    change_limits,
    changed_fields,
    describe_limits,
    pack_fields,
    pack_limits,
    parse_fields,
    unpack_limits,
)
from pyrope.tenants.limits import OnBudget, Priority, TenantLimits

NUMBERS = [one for one in LIMIT_FIELDS.values() if isinstance(one, NumberField)]
QUOTAS = [b"QPS", b"CONCURRENCY", b"BUDGET", b"MAXVECTORS", b"MAXBYTES", b"CACHEBYTES"]
SOME = TenantLimits(
    qps=2.5, burst=7, budget=1e6, priority=Priority.LOW, ef_floor=20, ef_ceiling=20, soft_limit=1.5
)


@st.composite
def limits(draw: st.DrawFn) -> TenantLimits:
    values: dict[str, Value] = {}
    for field in LIMIT_FIELDS.values():
        if not draw(st.booleans()):
            continue
        if not isinstance(field, NumberField):
            choices: list[Value] = [one.value for one in field.kind]
            values[field.attribute] = draw(st.sampled_from(choices))
        elif field.whole:
            values[field.attribute] = draw(st.integers(int(field.low), int(field.high)))
        else:
            values[field.attribute] = draw(st.floats(field.low, field.high))
    try:
        return change_limits(DEFAULT_LIMITS, values)
    except CommandError:  # a floor above its ceiling, a burst without a rate
        return DEFAULT_LIMITS


def test_every_limit_has_a_word_that_sets_it() -> None:
    assert {one.attribute for one in LIMIT_FIELDS.values()} == {
        one.name for one in fields(TenantLimits)
    }


def test_words_and_values_in_turn_set_limits_and_the_key() -> None:
    parsed = parse_fields(
        [b"qps", b"2.5", b"PRIORITY", b"low", b"Key", b"s3cret", b"MAXVECTORS", b"0"]
    )
    assert parsed.key == b"s3cret"
    assert change_limits(DEFAULT_LIMITS, parsed.values) == TenantLimits(
        qps=2.5, priority=Priority.LOW, max_vectors=0
    )
    assert parse_fields([]) == ({}, None)


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        ([b"COLOUR", b"red"], "unknown field 'COLOUR'"),
        ([b"\xff" * 500, b"red"], "unknown field"),
        ([b"QPS", b"1", b"qps", b"2"], "QPS is given twice"),
        ([b"KEY", b"a", b"KEY", b"b"], "KEY is given twice"),
        ([b"QPS", b"1", b"BURST"], "BURST needs a value"),
        ([b"KEY"], "KEY needs a value"),
        ([b"KEY", b"none"], "there always is one"),
        ([b"KEY", b"-"], "there always is one"),
        ([b"KEY", b""], "1 to 512 bytes"),
        ([b"PRIORITY", b"URGENT"], "one of HIGH, NORMAL, LOW"),
        ([b"ONBUDGET", b"\xff"], "one of DEGRADE, REJECT"),
    ],
)
def test_words_that_make_no_sense_are_refused(args: list[bytes], sentence: str) -> None:
    with pytest.raises(CommandError, match=sentence):
        parse_fields(args)


ABSURD = [b"", b"-1", b"+1", b"nan", b"inf", b"-inf", b"1e999", b"1_0", b" 1", b"0x10", b"\xd9\xa3"]


@pytest.mark.parametrize("field", NUMBERS, ids=lambda field: field.word)
@pytest.mark.parametrize("raw", [*ABSURD, b"9007199254740994", b"1" * 400, b"9" * 40])
def test_negative_and_absurd_numbers_are_refused_by_every_field(
    field: NumberField, raw: bytes
) -> None:
    with pytest.raises(CommandError, match=f"invalid {field.word}: an? .* is expected, or NONE"):
        field.parse(raw)


@pytest.mark.parametrize("field", NUMBERS, ids=lambda field: field.word)
@pytest.mark.parametrize(
    "value", [float("nan"), float("inf"), -1, 2**53 + 2, True, "5", 10**400, []]
)
def test_values_of_json_are_checked_as_words_are(field: NumberField, value: object) -> None:
    with pytest.raises(CommandError, match=f"invalid {field.word}"):
        field.check(value)


@pytest.mark.parametrize("field", NUMBERS, ids=lambda field: field.word)
def test_the_ends_of_every_range_belong_to_it(field: NumberField) -> None:
    for end in (field.low, field.high):
        raw = b"%d" % end if field.whole else repr(float(end)).encode()
        parsed = field.parse(raw)
        assert parsed == end
        assert isinstance(parsed, int if field.whole else float)


@pytest.mark.parametrize("raw", [b"1.5", b"1e3"])
def test_what_is_counted_takes_no_fractions(raw: bytes) -> None:
    with pytest.raises(CommandError, match="an integer"):
        LIMIT_FIELDS[b"CONCURRENCY"].parse(raw)
    with pytest.raises(CommandError, match="an integer"):
        LIMIT_FIELDS[b"CONCURRENCY"].check(1.5)


@pytest.mark.parametrize("word", QUOTAS)
def test_a_quota_of_zero_is_none_at_all_and_not_the_lack_of_a_quota(word: bytes) -> None:
    parsed = parse_fields([word, b"0"])
    changed = change_limits(DEFAULT_LIMITS, parsed.values)
    assert getattr(changed, LIMIT_FIELDS[word].attribute) == 0
    assert changed != DEFAULT_LIMITS


@pytest.mark.parametrize("unset", [b"NONE", b"none", b"-"])
def test_none_or_a_dash_unsets_every_field(unset: bytes) -> None:
    args = [part for word in LIMIT_FIELDS for part in (word, unset)]
    assert change_limits(SOME, parse_fields(args).values) == DEFAULT_LIMITS
    every = {one.attribute: None for one in LIMIT_FIELDS.values()}
    assert change_limits(SOME, every) == DEFAULT_LIMITS


def test_what_is_not_named_stays() -> None:
    changed = change_limits(SOME, {"budget": 5})
    assert changed == TenantLimits(
        **{one.name: getattr(SOME, one.name) for one in fields(SOME)} | {"budget": 5.0}
    )


@pytest.mark.parametrize("kind", ["ef", "nprobe", "max_scans"])
def test_a_floor_above_its_ceiling_is_refused_in_whatever_order_they_come(kind: str) -> None:
    ceiling = change_limits(DEFAULT_LIMITS, {f"{kind}_floor": 5, f"{kind}_ceiling": 5})
    with pytest.raises(CommandError, match=r"FLOOR 6 is above \w+CEILING 5"):
        change_limits(ceiling, {f"{kind}_floor": 6})
    with pytest.raises(CommandError, match=r"FLOOR 5 is above \w+CEILING 4"):
        change_limits(ceiling, {f"{kind}_ceiling": 4})
    assert change_limits(ceiling, {f"{kind}_floor": 6, f"{kind}_ceiling": 6}) != ceiling


def test_a_burst_goes_with_a_rate() -> None:
    with pytest.raises(CommandError, match="BURST means nothing without QPS"):
        change_limits(DEFAULT_LIMITS, {"burst": 5})
    both = change_limits(DEFAULT_LIMITS, {"burst": 5, "qps": 1})
    with pytest.raises(CommandError, match="BURST means nothing without QPS"):
        change_limits(both, {"qps": None})


def test_an_attribute_that_does_not_exist_is_refused() -> None:
    with pytest.raises(CommandError, match="unknown field 'colour'"):
        change_limits(DEFAULT_LIMITS, {"colour": 1})


def test_enumerations_come_as_members_or_as_json_has_them() -> None:
    for value in ("degrade", "DEGRADE", OnBudget.DEGRADE):
        changed = change_limits(DEFAULT_LIMITS, {"on_budget": value})
        assert changed.on_budget is OnBudget.DEGRADE
    with pytest.raises(CommandError, match="invalid ONBUDGET"):
        change_limits(DEFAULT_LIMITS, {"on_budget": Priority.LOW})
    with pytest.raises(CommandError, match="invalid PRIORITY"):
        change_limits(DEFAULT_LIMITS, {"priority": 3})


def test_limits_are_described_by_the_words_that_set_them() -> None:
    described = describe_limits(SOME)
    assert list(described) == [word.decode().lower() for word in LIMIT_FIELDS]
    assert described["qps"] == 2.5
    assert described["priority"] == "LOW"
    assert described["maxvectors"] is None
    json.dumps(described, allow_nan=False)


@given(limits())
def test_packed_limits_come_back_as_they_were(some: TenantLimits) -> None:
    packed = pack_limits(some)
    assert unpack_limits(packed) == some
    assert (packed == b"") == (some == DEFAULT_LIMITS)
    assert pack_fields(json.loads(json.dumps(changed_fields(some)))) == packed


def test_tenants_with_equal_limits_share_one_object() -> None:
    assert pack_limits(TenantLimits(qps=321.0)) is pack_fields({"qps": 321})
