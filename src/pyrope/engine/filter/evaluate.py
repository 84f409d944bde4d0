"""A postfix program over columns: every operator once, for all slots at a time.

Two rules make the evaluation simple:

- ``and`` and ``or`` evaluate both sides, and a field that is missing or of a type that its
  operator does not take excludes the element, whatever the rest of the expression says (for
  missing fields Redis does exactly this). So there is no third truth value to carry through the
  operators: one mask, `_Evaluation.eligible`, gathers the exclusions, and values of
  excluded slots may be anything.
- A selector stays a name until an operator takes it, for only the operator knows which type
  it wants. Fields that wait on the stack hold no memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from pyrope.engine.cells import LIST, MISSING, NULL, NUMBER, STRING, CellsView
from pyrope.engine.columns import AttributeColumns
from pyrope.engine.field_column import FieldView
from pyrope.engine.filter.ast import Literal, Operator, Program, Selector
from pyrope.engine.interner import StringTable
from pyrope.engine.list_items import ItemsView
from pyrope.types import Mask

Truth: TypeAlias = "NDArray[np.bool_] | np.bool_"
Number: TypeAlias = "NDArray[np.float64] | np.float64"
Operand: TypeAlias = "Truth | Number | str | tuple[float | str, ...] | Selector | None"
"""Results and literals are arrays of shape (slots,), or scalars where no field is involved."""

_NUMERIC: Final[dict[Operator, Callable[..., Any]]] = {
    Operator.POWER: np.power,
    Operator.MULTIPLY: np.multiply,
    Operator.DIVIDE: np.divide,
    Operator.MODULO: np.fmod,
    Operator.ADD: np.add,
    Operator.SUBTRACT: np.subtract,
    Operator.GREATER: np.greater,
    Operator.GREATER_EQUAL: np.greater_equal,
    Operator.LESS: np.less,
    Operator.LESS_EQUAL: np.less_equal,
}

_FALSE: Final = np.bool_(0)
_TRUE: Final = np.bool_(1)

_COMPARE_UP_TO: Final = 12
"""Items of a tuple that are compared one after another; for more, a look-up is faster."""


def evaluate(program: Program, columns: AttributeColumns, slots: int) -> Mask:
    """Which slots match, a new array of shape (slots,)."""
    return _Evaluation(columns, slots).run(program)


class _Evaluation:
    def __init__(self, columns: AttributeColumns, slots: int) -> None:
        self.columns = columns
        self.slots = slots
        self.eligible = columns.presence(slots)

    def run(self, program: Program) -> Mask:
        stack: list[Operand] = []
        # Division by zero and overflow give infinities and NaN, as in C.
        with np.errstate(all="ignore"):
            for instruction in program:
                if isinstance(instruction, Selector):
                    stack.append(instruction)
                elif isinstance(instruction, Literal):
                    value = instruction.value
                    stack.append(np.float64(value) if isinstance(value, float) else value)
                elif instruction is Operator.NOT:
                    stack.append(np.logical_not(self.truth(stack.pop())))
                else:
                    right = stack.pop()
                    stack.append(self.apply(instruction, stack.pop(), right))
            self.eligible &= self.truth(stack.pop())
        return self.eligible

    def apply(self, operator: Operator, left: Operand, right: Operand) -> Truth | Number:
        if operator is Operator.AND:
            return self.truth(left) & self.truth(right)
        if operator is Operator.OR:
            return self.truth(left) | self.truth(right)
        if operator is Operator.EQUAL:
            return self.equal(left, right)
        if operator is Operator.NOT_EQUAL:
            return np.logical_not(self.equal(left, right))
        if operator is Operator.IN:
            return self.contained(left, right)
        function: Callable[..., Truth | Number] = _NUMERIC[operator]
        return function(self.number(left), self.number(right))

    # -- which slots can match at all -------------------------------------------------------------

    def exclude_all(self) -> None:
        self.eligible[:] = False

    def require(self, kinds: NDArray[np.uint8], *accepted: int) -> None:
        """Exclude the slots whose field is of none of these kinds."""
        allowed = kinds == accepted[0]
        for kind in accepted[1:]:
            allowed |= kinds == kind
        self.eligible &= allowed

    # -- an operand as what its operator wants ----------------------------------------------------

    def view(self, selector: Selector) -> FieldView:
        view = self.columns.field(selector.name, self.slots)
        if view is None:
            return FieldView(CellsView(np.full(self.slots, MISSING, np.uint8), None, None), None)
        return view

    def cells(self, selector: Selector) -> CellsView:
        return self.view(selector).cells

    def truth(self, operand: Operand) -> Truth:
        """Zero, the empty string and null are false; all else, NaN too, is true."""
        if isinstance(operand, Selector):
            cells = self.cells(operand)
            self.eligible &= cells.kinds != MISSING
            truth: NDArray[np.bool_] = cells.kinds == LIST
            if cells.numbers is not None:
                truth |= (cells.kinds == NUMBER) & (cells.numbers != 0)
            if cells.codes is not None:
                truth |= (cells.kinds == STRING) & (cells.codes != StringTable.EMPTY)
            return truth
        if operand is None or isinstance(operand, str):
            return np.bool_(operand)
        if isinstance(operand, tuple):
            return _TRUE
        if operand.dtype == np.bool_:
            return operand.astype(np.bool_, copy=False)
        nonzero: Truth = np.not_equal(operand, 0)
        return nonzero

    def number(self, operand: Operand) -> Number:
        if isinstance(operand, Selector):
            cells = self.cells(operand)
            self.require(cells.kinds, NUMBER)
            return np.float64(0) if cells.numbers is None else cells.numbers
        if operand is None or isinstance(operand, str | tuple):
            self.exclude_all()
            return np.float64(0)
        number: Number = operand.astype(np.float64, copy=False)
        return number

    # -- == ---------------------------------------------------------------------------------------

    def equal(self, left: Operand, right: Operand) -> Truth:
        """Numbers with numbers, strings with strings, and null with anything."""
        if isinstance(left, Selector):
            if isinstance(right, Selector):
                return self.fields_equal(self.cells(left), self.cells(right))
            return self.field_equals(self.cells(left), right)
        if isinstance(right, Selector):
            return self.field_equals(self.cells(right), left)
        if left is None or right is None:
            return np.bool_(left is right)
        if isinstance(left, str) and isinstance(right, str):
            return np.bool_(left == right)
        equal: Truth = np.equal(self.number(left), self.number(right))
        return equal

    def field_equals(self, cells: CellsView, other: Operand) -> Truth:
        if other is None:
            self.eligible &= cells.kinds != MISSING
            null: Truth = cells.kinds == NULL
            return null
        if isinstance(other, tuple):
            self.require(cells.kinds, NULL)
            return _FALSE
        if isinstance(other, str):
            self.require(cells.kinds, STRING, NULL)
            return self.holds_string(cells, [other])
        self.require(cells.kinds, NUMBER, NULL)
        if cells.numbers is None:
            return _FALSE
        equal: Truth = (cells.kinds == NUMBER) & (cells.numbers == self.number(other))
        return equal

    def fields_equal(self, left: CellsView, right: CellsView) -> Truth:
        same = left.kinds == right.kinds
        null = (left.kinds == NULL) | (right.kinds == NULL)
        present = (left.kinds != MISSING) & (right.kinds != MISSING)
        equal: NDArray[np.bool_] = same & null
        comparable = present & null
        for kind, one, other in (
            (NUMBER, left.numbers, right.numbers),
            (STRING, left.codes, right.codes),
        ):
            both = same & (left.kinds == kind)
            comparable |= both
            if one is not None and other is not None:
                equal |= both & (one == other)
        self.eligible &= comparable
        return equal

    def holds_string(self, cells: CellsView, wanted: list[str]) -> Truth:
        """Where the field is one of these strings."""
        codes = [code for text in wanted if (code := self.columns.string_code(text)) >= 0]
        if cells.codes is None or not codes:
            return _FALSE
        if len(codes) <= _COMPARE_UP_TO:
            among: NDArray[np.bool_] = cells.codes == codes[0]
            for code in codes[1:]:
                among |= cells.codes == code
        else:
            table = np.zeros(self.columns.code_limit, np.bool_)
            table[codes] = True
            # Where the kind is not STRING, a code is no index into the table.
            among = table.take(cells.codes, mode="clip")
        among &= cells.kinds == STRING
        return among

    # -- in ---------------------------------------------------------------------------------------

    def contained(self, left: Operand, right: Operand) -> Truth:
        if isinstance(right, tuple):
            numbers = [item for item in right if isinstance(item, float)]
            strings = [item for item in right if isinstance(item, str)]
            if isinstance(left, Selector):
                return self.field_in_tuple(self.cells(left), numbers, strings)
            return self.value_in_tuple(left, numbers, strings)
        if not isinstance(right, Selector):
            self.exclude_all()
            return _FALSE
        view = self.view(right)
        self.require(view.cells.kinds, LIST)
        if isinstance(left, Selector):
            left_cells = self.cells(left)
            self.require(left_cells.kinds, NUMBER, STRING, NULL)
            return _FALSE if view.items is None else self.field_in(left_cells, view.items)
        return _FALSE if view.items is None else self.value_in(left, view.items)

    def field_in_tuple(self, cells: CellsView, numbers: list[float], strings: list[str]) -> Truth:
        """Excludes fields of a type of which the tuple has no item; null is comparable with all."""
        if not numbers and not strings:
            self.eligible &= cells.kinds != MISSING
            return _FALSE
        among: Truth = _FALSE
        accepted = [NULL]
        if numbers:
            accepted.append(NUMBER)
            if cells.numbers is not None:
                among = (cells.kinds == NUMBER) & _is_among(cells.numbers, numbers)
        if strings:
            accepted.append(STRING)
            among = among | self.holds_string(cells, strings)
        self.require(cells.kinds, *accepted)
        return among

    def value_in_tuple(self, value: Operand, numbers: list[float], strings: list[str]) -> Truth:
        if value is None or not (numbers or strings):
            return _FALSE
        if isinstance(value, str) and strings:
            return np.bool_(value in strings)
        if isinstance(value, str) or not numbers:
            self.exclude_all()
            return _FALSE
        return _is_among(self.number(value), numbers)

    def value_in(self, value: Operand, items: ItemsView) -> Truth:
        """Where the slot's list holds a value that does not come from a field by itself."""
        if isinstance(value, tuple):
            return _FALSE
        if value is None:
            return self.owners(items.owners[items.kinds == NULL])
        if isinstance(value, str):
            hits = items.codes == self.columns.string_code(value)
            return self.owners(items.owners[hits & (items.kinds == STRING)])
        number = np.broadcast_to(self.number(value), (self.slots,))
        known = (items.kinds == NUMBER) & (items.owners >= 0) & (items.owners < self.slots)
        owners = items.owners[known]
        return self.owners(owners[items.numbers[known] == number[owners]])

    def field_in(self, cells: CellsView, items: ItemsView) -> Truth:
        """Where the slot's list holds the slot's value of another field."""
        known = np.flatnonzero((items.owners >= 0) & (items.owners < self.slots))
        owners = items.owners[known]
        kinds = cells.kinds[owners]
        same = kinds == items.kinds[known]
        hits = same & (kinds == NULL)
        if cells.numbers is not None:
            hits |= same & (kinds == NUMBER) & (cells.numbers[owners] == items.numbers[known])
        if cells.codes is not None:
            hits |= same & (kinds == STRING) & (cells.codes[owners] == items.codes[known])
        return self.owners(owners[hits])

    def owners(self, slots: NDArray[np.int32]) -> Mask:
        mask = np.zeros(self.slots, np.bool_)
        mask[slots[(slots >= 0) & (slots < self.slots)]] = True
        return mask


def _is_among(values: Number, wanted: list[float]) -> Truth:
    if len(wanted) <= _COMPARE_UP_TO:
        among: Truth = np.equal(values, wanted[0])
        for number in wanted[1:]:
            among = among | np.equal(values, number)
        return among
    table = np.unique(np.array(wanted))
    where = np.minimum(np.searchsorted(table, values), len(table) - 1)
    found: Truth = np.equal(table[where], values)
    return found
