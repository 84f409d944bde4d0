from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from pyrope.engine.attributes import JsonValue
from pyrope.engine.cells import LIST, MISSING, NULL, NUMBER, STRING
from pyrope.engine.columns import AttributeColumns
from pyrope.engine.filter import compile_filter
from pyrope.engine.interner import Interner, StringTable

scalars = st.one_of(
    st.none(), st.booleans(), st.integers(0, 5), st.sampled_from(["", "x", "y", "z" * 100])
)
values: st.SearchStrategy[JsonValue] = st.one_of(
    scalars, st.lists(scalars, max_size=3), st.just({"k": 1})
)
CHECKS: list[tuple[str, Callable[[JsonValue], bool]]] = [
    (".a == 1", lambda v: v in (1, True) and not isinstance(v, str)),
    ('.a == "x"', lambda v: v == "x"),
    (".a == null", lambda v: v is None),
    ('"x" in .a', lambda v: isinstance(v, list) and "x" in v),
    (f'"{"z" * 100}" in .a', lambda v: isinstance(v, list) and "z" * 100 in v),
    ("1 in .a", lambda v: isinstance(v, list) and (1 in v)),
    ("null in .a", lambda v: isinstance(v, list) and None in v),
]


class ColumnsAgainstADictionary(RuleBasedStateMachine):
    """Writes and removals in any order leave what a dictionary of the last writes says."""

    def __init__(self) -> None:
        super().__init__()
        self.columns = AttributeColumns()
        self.model: dict[int, dict[str, JsonValue]] = {}

    @rule(
        slot=st.one_of(st.integers(0, 40), st.integers(0, 5000)),
        attributes=st.dictionaries(st.sampled_from(["a", "b", "c", "não", "a b"]), values),
    )
    def set(self, slot: int, attributes: dict[str, JsonValue]) -> None:
        self.columns.set(slot, attributes)
        self.model[slot] = attributes

    @rule(first=st.integers(0, 100), count=st.integers(1, 90), value=values)
    def set_many(self, first: int, count: int, value: JsonValue) -> None:
        for slot in range(first, first + count):
            self.set(slot, {"a": value})

    @rule(first=st.integers(0, 100), count=st.integers(1, 90))
    def clear_many(self, first: int, count: int) -> None:
        for slot in range(first, first + count):
            self.columns.clear(slot)
            self.model.pop(slot, None)

    @invariant()
    def masks_agree(self) -> None:
        slots = max(self.model, default=0) + 1
        for expression, expected in CHECKS:
            mask = compile_filter(expression).mask(self.columns, slots)
            assert np.flatnonzero(mask).tolist() == sorted(
                slot for slot, held in self.model.items() if "a" in held and expected(held["a"])
            )
        assert np.flatnonzero(self.columns.presence(slots)).tolist() == sorted(self.model)

    @invariant()
    def only_strings_in_use_are_held(self) -> None:
        held = {""}
        for attributes in self.model.values():
            for name in ("a", "b", "c"):
                value = attributes.get(name)
                held.update(
                    item
                    for item in (value if isinstance(value, list) else [value])
                    if isinstance(item, str)
                )
        assert self.columns.string_count == len(held)

    def teardown(self) -> None:
        for slot in list(self.model):
            self.columns.clear(slot)
        assert (self.columns.field_count, self.columns.string_count) == (0, 1)


TestColumnsAgainstADictionary = ColumnsAgainstADictionary.TestCase
TestColumnsAgainstADictionary.settings = settings(
    max_examples=40, stateful_step_count=15, deadline=None
)


def test_a_field_is_a_column_of_kinds_numbers_and_string_codes() -> None:
    columns = AttributeColumns()
    some: list[JsonValue] = [1984, True, "sf", None, ["a"], {"k": 1}, [{"k": 1}], "sf"]
    for slot, value in enumerate(some):
        columns.set(slot, {"f": value})
    view = columns.field("f", 9)
    assert view is not None
    kinds = [NUMBER, NUMBER, STRING, NULL, LIST, MISSING, MISSING, STRING, MISSING]
    assert view.cells.kinds.tolist() == kinds
    assert view.cells.numbers is not None
    assert view.cells.numbers.dtype == np.float64
    assert view.cells.numbers[:2].tolist() == [1984.0, 1.0]
    assert view.cells.codes is not None
    assert view.cells.codes.dtype == np.int32
    assert view.cells.codes[[2, 7]].tolist() == [columns.string_code("sf")] * 2


def test_each_change_gives_a_new_version_and_nothing_else_does() -> None:
    columns = AttributeColumns()
    versions = [columns.version]
    columns.set(3, {"a": 1})
    versions.append(columns.version)
    columns.set(3, {})
    versions.append(columns.version)
    columns.clear(3)
    versions.append(columns.version)
    assert versions == sorted(set(versions))
    columns.clear(3)
    columns.clear(99)
    columns.clear(-1)
    compile_filter(".a").mask(columns, 4)
    assert columns.version == versions[-1]


def test_a_refused_change_changes_nothing() -> None:
    columns = AttributeColumns()
    columns.set(0, {"a": "x"})
    before = columns.version, columns.nbytes
    with pytest.raises(ValueError, match="slot -1 is negative"):
        columns.set(-1, {"a": 1})
    with pytest.raises(TypeError, match="bytes is not a JSON value"):
        columns.set(0, {"a": 1, "b": b"x"})  # type: ignore[dict-item]
    with pytest.raises(TypeError, match="set is not a JSON value"):
        columns.set(0, {"a": 1, "b": [set()]})  # type: ignore[list-item]
    assert (columns.version, columns.nbytes) == before
    assert compile_filter('.a == "x"').mask(columns, 1).tolist() == [True]


def test_an_integer_beyond_a_double_is_infinite() -> None:
    columns = AttributeColumns()
    columns.set(0, {"a": 10**400})
    columns.set(1, {"a": -(10**400)})
    assert compile_filter(".a > 1e308").mask(columns, 2).tolist() == [True, False]


def test_fields_that_no_selector_can_name_are_not_kept() -> None:
    columns = AttributeColumns()
    columns.set(0, {"a b": 1, "é": 1, "": 1, "a\n": 1, "ok-1_": 1})
    assert columns.field_count == 1


def test_many_fields_of_one_slot_each_do_not_cost_a_column_of_all_slots_each() -> None:
    columns = AttributeColumns()
    for slot in range(0, 100_000, 5):
        columns.set(slot, {f"field{slot}": 1})
    assert columns.field_count == 20_000
    assert columns.nbytes < 20_000 * 2000 + 1_000_000  # all slots of all: 18 GB


def test_a_dense_field_turns_sparse_when_a_far_slot_has_it_too() -> None:
    columns = AttributeColumns()
    for slot in range(100):
        columns.set(slot, {"a": slot})
    before = columns.nbytes
    columns.set(10_000_000, {"a": 5})
    assert columns.nbytes - before < 60_000_000  # the shapes, 4 bytes a slot; 90 MB more if dense
    mask = compile_filter(".a == 5").mask(columns, 10_000_001)
    assert np.flatnonzero(mask).tolist() == [5, 10_000_000]


def test_a_dense_field_gives_its_memory_back_when_few_slots_are_left_with_it() -> None:
    columns = AttributeColumns()
    for slot in range(50_000):
        columns.set(slot, {"a": slot, "b": 1})
    full = columns.nbytes
    for slot in range(50_000):
        if slot != 49_999:
            columns.set(slot, {"b": 1})
    assert full - columns.nbytes > 9 * 49_000
    assert np.flatnonzero(compile_filter(".a").mask(columns, 50_000)).tolist() == [49_999]


def test_shapes_that_no_slot_has_any_more_are_forgotten() -> None:
    columns = AttributeColumns()
    columns.set(0, {"a": 1})
    before = columns.nbytes
    for number in range(1000):
        columns.set(0, {"a": 1, f"b{number}": 1})
    columns.set(0, {"a": 1})
    assert columns.nbytes == before


def test_churn_of_strings_and_lists_leaves_no_memory_behind() -> None:
    columns = AttributeColumns()
    rng = random.Random(7)

    def write(slot: int) -> None:
        tags: list[JsonValue] = [f"t{rng.random()}" for _ in range(3)]
        columns.set(slot, {"s": f"s{rng.random()}", "tags": tags, "n": rng.random()})

    for slot in range(100):
        write(slot)
    full, strings = columns.nbytes, columns.string_count
    for _ in range(5000):
        write(rng.randrange(100))
    assert columns.string_count == strings == 401
    assert columns.code_limit < 500
    assert columns.nbytes < 2 * full
    for slot in range(100):
        columns.clear(slot)
    assert (columns.field_count, columns.string_count) == (0, 1)
    assert columns.nbytes < 2000


def test_the_estimate_of_memory_grows_with_what_is_held() -> None:
    columns = AttributeColumns()
    sizes = [columns.nbytes]
    for slot in range(2000):
        columns.set(slot, {"n": slot, "s": f"string {slot}", "l": [slot, slot]})
        if slot % 500 == 499:
            sizes.append(columns.nbytes)
    assert sizes == sorted(sizes)
    assert 2000 * 200 < columns.nbytes < 2000 * 600


def test_a_code_is_given_back_by_its_last_holder_and_used_again() -> None:
    table: Interner[str] = Interner()
    a, b = table.acquire("a"), table.acquire("b")
    assert table.acquire("a") == a
    table.release(a)
    assert table.find("a") == a
    assert table.key(a) == "a"
    table.release(a)
    assert table.find("a") == -1
    with pytest.raises(KeyError):
        table.key(a)
    assert table.acquire("c") == a
    assert table.find("b") == b
    assert (len(table), table.code_limit) == (2, 2)


def test_a_long_string_costs_no_more_than_a_short_one() -> None:
    table = StringTable()
    empty = table.nbytes
    code = table.acquire("x" * 1_000_000)
    assert table.find("x" * 1_000_000) == code
    assert table.find("x" * 999_999) == -1
    assert table.nbytes - empty < 300
