"""What Redis 8.0.2 answers to `VSIM … FILTER`, recorded once, and what we answer.

Recorded by adding one element with the attributes below, and asking for it with each filter.
"""

from __future__ import annotations

import pytest

from pyrope.engine.attributes import parse_attributes
from pyrope.engine.columns import AttributeColumns
from pyrope.engine.filter import compile_filter
from pyrope.errors import CommandError

FILM = b"""{
    "year": 1984, "title": "Brazil", "genre": "sf", "rating": 7.9, "seen": true, "lent": false,
    "tags": ["dystopia", "office", 3, true, null], "owner": null, "note": "", "empty": [],
    "zero": 0, "neg": -2.5, "deep": {"year": 1}, "mixed": [1, {"a": 1}], "n-b": 2,
    "under_score": 3, "7": 7, "escaped": "a\\nb\\"c"
}"""

# Expression, whether Redis returns the film.
SAME_AS_REDIS = [
    (".year == 1984", True),
    (".year != 1984", False),
    (".year > 1984", False),
    (".year >= 1984", True),
    (".year < 1985", True),
    (".year <= 1983", False),
    ('.year >= 1980 and .genre in ["sf", "noir"] and not .lent', True),
    ('.year > 2000 or .genre == "sf"', True),
    (".year > 2000 || .genre == 'sf'", True),
    ('.year > 2000 && .genre == "sf"', False),
    (".title == 'Brazil'", True),
    ('.title == "brazil"', False),
    ('.title != "Brazil"', False),
    (".seen", True),
    (".lent", False),
    (".seen == 1", True),
    (".lent == 0", True),
    (".seen + .seen == 2", True),
    ("not .lent", True),
    ("!.lent", True),
    ("! .seen", False),
    (".zero", False),
    ("not .zero", True),
    (".note", False),
    ("not .note", True),
    ('.note == ""', True),
    (".owner", False),
    ("not .owner", True),
    (".tags", True),
    (".empty", True),
    ("not .empty", False),
    (".missing", False),
    ("not .missing", False),
    (".missing == 1", False),
    (".missing != 1", False),
    (".missing in [1]", False),
    (".year == 1984 or .missing == 1", False),
    (".year == 1984 or not .missing", False),
    (".seen or .missing", False),
    (".deep", False),
    (".mixed", False),
    ("not .deep", False),
    (".year == 1984 or .deep", False),
    ('"dystopia" in .tags', True),
    ('"office" in .tags', True),
    ('"prison" in .tags', False),
    ("3 in .tags", True),
    ("1 in .tags", True),
    ('not ("prison" in .tags)', True),
    ("1 in .empty", False),
    ("not (1 in .empty)", True),
    ('.genre in ["noir", "sf"]', True),
    ('.genre in ["noir"]', False),
    (".genre in ['sf',]", True),
    (".genre in []", False),
    ("not (.genre in [])", True),
    (".year in [1983, 1984]", True),
    (".year in [-1984]", False),
    ("1984 in [1984]", True),
    ('"sf" in ["sf"]', True),
    (".neg in [-2.5]", True),
    (".n-b == 2", True),
    (".under_score == 3", True),
    (".7 == 7", True),
    (".n -2", False),
    (".year -1984", False),
    (".year - 1984 == 0", True),
    (".year -1984 == 0", True),
    (".year*2 == 3968", True),
    (".year % 100 == 84", True),
    (".neg % 2 == -0.5", True),
    ("2 ** 3 == 8", True),
    ("2 ** 3 ** 2 == 512", True),
    ("(2 ** 3) ** 2 == 64", True),
    ("-2 ** 2 == 4", True),
    ("2 * 3 + 4 == 10", True),
    ("2 + 3 * 4 == 14", True),
    ("(2 + 3) * 4 == 20", True),
    ("10 - 4 - 3 == 3", True),
    ("100 / 10 / 5 == 2", True),
    ("2 * 3 ** 2 == 18", True),
    (".rating / 2 > 3.9", True),
    (".year / 0 > 1e300", True),
    (".year % 0 == .year % 0", False),
    ("0 / 0", True),
    ("not (0 / 0)", False),
    ("0 / 0 == 0 / 0", False),
    ("-1 ** 0.5", True),
    (".year > 1980 == 1", True),
    ("1 == .year > 1980", False),
    ("1 < 2 < 2", True),
    ("3 > 2 > 1", False),
    ("not .year > 1980", False),
    ("not .lent == 1", True),
    ("not (.year > 1980)", False),
    ("1 or 0 and 0", True),
    ("(1 or 0) and 0", False),
    ("1 and not 0", True),
    ("2 ** !1 == 1", True),
    ("1 - -1 == 2", True),
    ("5 -3 == 2", True),
    ("(5)-3 == 2", True),
    ("1 == 1.0", True),
    ("1. == 1", True),
    ("1e3 == 1000", True),
    (".year==1984and.seen", True),
    (".year>=1980&&!.lent", True),
    ("(((.year)))", True),
    ("1", True),
    ("0", False),
    ('""', False),
    ('"x"', True),
    ("[]", True),
    ("[0]", True),
    ("1e5 > 99999", True),
    ('.year == 1984 and (.genre == "noir" or .rating > 7)', True),
    (".escaped == .escaped", True),
    (".title == .genre", False),
    (".year == .year", True),
    (".seen == .7 - 6", True),
    (".genre in .tags", False),
    (".seen in .tags", True),
    (".7 - 4 in .tags", True),
]

# Expression, what Redis answers, what we answer: Redis reads the string, null or list as a number.
OTHER_THAN_REDIS = [
    (".genre == 0", True, False),
    (".genre != 5", True, False),
    (".genre != .year", True, False),
    (".title < 5", True, False),
    (".title <= 0", True, False),
    (".title + 1 == 1", True, False),
    ('.year == "1984"', True, False),
    ('.year >= "1980"', True, False),
    ('"1984" == 1984', True, False),
    ('.zero in ["sf"]', True, False),
    ('not (.year in ["sf"])', True, False),
    (".owner < 1", True, False),
    (".owner + 1 == 1", True, False),
    (".tags == 0", True, False),
    (".tags == .empty", True, False),
    ("not (.year in .genre)", True, False),
    ('"3" in .tags', True, False),
    ('.title >= "A"', True, False),
    ('.escaped == "a\nb\\"c"', False, True),
    (".zero in .tags", True, False),
]

# Expression, whether we return the film. Redis calls all of these syntax errors.
BEYOND_REDIS = [
    (".owner == null", True),
    (".owner != null", False),
    (".year == null", False),
    (".year != null", True),
    (".missing == null", False),
    ("null in .tags", True),
    ("null in .empty", False),
    ("null in [1]", False),
    (".owner in [1]", False),
    ("(null)==null", True),
    ("not not .seen", True),
    ("!!!.seen", False),
    (".rating > 1e-5", True),
    (".rating < 1E+2", True),
]

# Expression that Redis refuses too, and what our error shows as the rest.
REFUSED = [
    ("", ""),
    (" ", " "),
    (".year >", ".year >"),
    ("> 5", "> 5"),
    (".year = 1984", "= 1984"),
    (".year 5", ".year 5"),
    ("5 .year", "5 .year"),
    ("(.year > 5", "(.year > 5"),
    (".year > 5)", ".year > 5)"),
    ("()", "()"),
    (".year > (", ".year > ("),
    (".deep.year == 1", ".deep.year == 1"),
    (".tags[0] == 3", ".tags[0] == 3"),
    ("..year", "..year"),
    ("foo == 1", "foo == 1"),
    (".year AND 5", "AND 5"),
    ("true", "true"),
    (".year == true", "true"),
    ('"open', '"open'),
    ("'open", "'open"),
    ('.x == "a\\"', '"a\\"'),
    ("[1, 2", "[1, 2"),
    ("[1 2]", "2]"),
    ("[,1]", ",1]"),
    ("[null]", "null]"),
    ("[[1]]", "[1]]"),
    ("[.year]", ".year]"),
    (".x in (1, 2)", ", 2)"),
    ("1.2.3", "1.2.3"),
    ("1e", "1e"),
    ("1e+", "1e+"),
    ("- 5", "- 5"),
    ("-.5", "-.5"),
    ("-.year", "-.year"),
    ("+5", "+5"),
    (".year & 1", "& 1"),
    (".year | 1", "| 1"),
    ("@", "@"),
    (".été == 1", ".été == 1"),
    ("not", "not"),
    ("! ", "! "),
    (".year in", ".year in"),
    ("5 % % 5", "5 % % 5"),
    (".year => 5", "=> 5"),
    (".year <> 5", ".year <> 5"),
]

# Redis takes these, because its parser only counts operands: we do not.
REFUSED_BY_US_ALONE = [
    ".",
    ".year not",
    "1 2 +",
    "1 (+ 2)",
    "()1",
    ".year andnot .lent",
    "null .seen",
]


def film_matches(expression: str) -> bool:
    columns = AttributeColumns()
    columns.set(0, parse_attributes(FILM))
    return bool(compile_filter(expression).mask(columns, 1)[0])


@pytest.mark.parametrize(("expression", "expected"), SAME_AS_REDIS)
def test_an_expression_matches_where_redis_says_so(expression: str, *, expected: bool) -> None:
    assert film_matches(expression) is expected


@pytest.mark.parametrize(("expression", "redis", "expected"), OTHER_THAN_REDIS)
def test_values_are_never_converted_as_redis_does(
    expression: str, *, redis: bool, expected: bool
) -> None:
    assert film_matches(expression) is expected is not redis


@pytest.mark.parametrize(("expression", "expected"), BEYOND_REDIS)
def test_null_repeated_not_and_signed_exponents_work(expression: str, *, expected: bool) -> None:
    assert film_matches(expression) is expected


@pytest.mark.parametrize(("expression", "rest"), REFUSED)
def test_a_bad_expression_is_refused_with_what_follows_the_fault(
    expression: str, rest: str
) -> None:
    with pytest.raises(CommandError) as caught:
        compile_filter(expression)
    assert caught.value.message == f"syntax error in FILTER expression near: {rest}"


@pytest.mark.parametrize("expression", REFUSED_BY_US_ALONE)
def test_an_operand_must_stand_where_one_is_due(expression: str) -> None:
    with pytest.raises(CommandError, match="syntax error in FILTER expression near: "):
        compile_filter(expression)
